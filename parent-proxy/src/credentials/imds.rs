//! The instance metadata service, version 2: a token by PUT, the role's name, the role's credentials.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use transport::{ConnectError, Endpoint};
use zeroize::Zeroizing;

use super::parse::{ParseError, Parsed, role_credentials};

const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const BODY_LIMIT: usize = 64 * 1024;
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// Why the metadata service gave no credentials.
#[derive(Debug, Error)]
pub(super) enum ImdsError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the exchange failed")]
    Http,
    #[error("{path} was answered with {status}")]
    Status { path: &'static str, status: StatusCode },
    #[error("the instance has no role")]
    NoRole,
    #[error(transparent)]
    Parse(#[from] ParseError),
}

/// Asks for the credentials of the instance's role.
pub(super) async fn fetch(endpoint: &Endpoint) -> Result<Parsed, ImdsError> {
    let mut service = Service::connect(endpoint).await?;
    let token =
        service.ask("/latest/api/token", "", &Method::PUT, "x-aws-ec2-metadata-token-ttl-seconds", "300").await?;
    let token = text(&token)?;
    let roles = service.ask(ROLES, "", &Method::GET, "x-aws-ec2-metadata-token", token).await?;
    let role = text(&roles)?.lines().next().map(str::trim).filter(|role| is_role(role)).ok_or(ImdsError::NoRole)?;
    let found = service.ask(ROLES, role, &Method::GET, "x-aws-ec2-metadata-token", token).await?;
    Ok(role_credentials(&found)?)
}

/// One connection to the service.
struct Service {
    requests: SendRequest<Empty<Bytes>>,
    host: String,
    _connection: tokio::task::JoinSet<()>,
}

impl Service {
    async fn connect(endpoint: &Endpoint) -> Result<Self, ImdsError> {
        let stream = endpoint.connect(CONNECT_PATIENCE).await?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (requests, connection) = handshake.map_err(|_| ImdsError::Http)?;
        let mut driver = tokio::task::JoinSet::new();
        driver.spawn(async move {
            // Its errors are those of the requests.
            let _ = connection.await;
        });
        let host = match endpoint {
            Endpoint::Tcp { host, port } => format!("{host}:{port}"),
            _ => "localhost".to_owned(),
        };
        Ok(Self { requests, host, _connection: driver })
    }

    async fn ask(
        &mut self,
        path: &'static str,
        name: &str,
        method: &Method,
        header: &'static str,
        value: &str,
    ) -> Result<Zeroizing<Vec<u8>>, ImdsError> {
        let mut value = HeaderValue::from_str(value).map_err(|_| ImdsError::Http)?;
        value.set_sensitive(true);
        let request = Request::builder().method(method).uri(format!("{path}{name}")).header("host", &self.host);
        let request = request.header(header, value).body(Empty::new()).map_err(|_| ImdsError::Http)?;
        self.requests.ready().await.map_err(|_| ImdsError::Http)?;
        let response = self.requests.send_request(request).await.map_err(|_| ImdsError::Http)?;
        if response.status() != StatusCode::OK {
            return Err(ImdsError::Status { path, status: response.status() });
        }
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await.map_err(|_| ImdsError::Http)?;
        Ok(Zeroizing::new(body.to_bytes().to_vec()))
    }
}

fn text(bytes: &[u8]) -> Result<&str, ImdsError> {
    str::from_utf8(bytes).map(str::trim).map_err(|_| ImdsError::Http)
}

/// The characters that IAM allows in the name of a role.
fn is_role(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte))
}
