//! Plain HTTP on loopback before the HTTP API of an enclave in a whole system, for programs that cannot speak attested TLS:
//! `tests/peers/openapi/run` lets schemathesis at it. Every request goes through a session of the real client, as the
//! operator. Prints the URL and runs until its standard input ends.

use std::{
    convert::Infallible,
    io::{Read as _, Write as _},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use client::session::{Session, SessionError};
use http::{HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use testkit::world::{World, key_id};
use tokio::net::{TcpListener, TcpStream};
use transcode_confidential::{ids::KeyVersion, message::EncryptionContext};

/// What belongs to one connection, not to the request (RFC 9110 section 7.6.1), and what the session sets itself.
const OF_THE_CONNECTION: [HeaderName; 6] =
    [header::CONNECTION, header::HOST, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let world = World::start().await;
    make_something_to_find(&world).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut output = std::io::stdout();
    writeln!(output, "http://{}", listener.local_addr()?)?;
    output.flush()?;
    let operator = world.operator();
    let session = operator.client.session().clone();
    let input = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        _ = input => {}
        () = accept(listener, session) => {}
    }
    // What the enclave was asked for must have left an intact log.
    world.check().intact();
    Ok(())
}

/// Keys in every state, so that requests find more than what does not exist.
async fn make_something_to_find(world: &World) -> anyhow::Result<()> {
    let operator = world.operator();
    for id in ["film-1", "film-2", "film-3", "film-4"] {
        operator.generate(id).await?;
        operator.rotate(id).await?;
    }
    operator.encrypt_in("film-1", b"frame", EncryptionContext::new()).await?;
    operator.client.decrypt_from(&key_id("film-1"), KeyVersion(2), None).await?;
    operator.client.suspend_key(&key_id("film-2"), None).await?;
    operator.revoke("film-3").await?;
    operator.client.destroy_key(&key_id("film-4"), None).await?;
    Ok(())
}

async fn accept(listener: TcpListener, session: Session) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(serve(stream, session.clone()));
    }
}

async fn serve(stream: TcpStream, session: Session) {
    let session = Arc::new(session);
    let service = service_fn(move |request| {
        let session = Arc::clone(&session);
        async move { Ok::<_, Infallible>(forward(&session, request).await) }
    });
    // Requests that are no HTTP end with their connection.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A request through the attested channel. An answer of this front has the status 599, which no enclave gives.
async fn forward(session: &Session, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let broken = |error: String| {
        let status = StatusCode::from_u16(599).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut response = Response::new(Full::new(Bytes::from(error)));
        *response.status_mut() = status;
        response
    };
    let (mut head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return broken("the request ended early".into()) };
    let body = body.to_bytes();
    OF_THE_CONNECTION.iter().for_each(|name| drop(head.headers.remove(name)));
    for _ in 0..3 {
        let mut anew = Request::new(Full::new(body.clone()).map_err(|never| match never {}).boxed_unsync());
        (*anew.method_mut(), *anew.uri_mut(), *anew.headers_mut()) =
            (head.method.clone(), head.uri.clone(), head.headers.clone());
        match exchange(session, anew).await {
            Ok(response) => return response,
            Err(SessionError::NotSent) => {}
            Err(error) => return broken(error.to_string()),
        }
    }
    broken("no connection".into())
}

async fn exchange(
    session: &Session,
    request: Request<client::session::RequestBody>,
) -> Result<Response<Full<Bytes>>, SessionError> {
    let mut connection = session.connection().await?;
    let mut timeouts = session.settings().timeouts.clone();
    timeouts.response = Duration::from_secs(60);
    let response = connection.fetch(request, 16 << 20, &timeouts).await;
    let (mut head, body) = match response {
        Ok(response) => response.into_parts(),
        // Content that is refused part of the way: its body ends without its end mark, and so does ours.
        Err(error) => return Err(error),
    };
    session.give_back(connection);
    OF_THE_CONNECTION.iter().for_each(|name| drop(head.headers.remove(name)));
    Ok(Response::from_parts(head, Full::new(body)))
}
