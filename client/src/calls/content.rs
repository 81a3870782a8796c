use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use transcode_confidential::{
    audit::Receipt,
    ids::{KeyId, KeyVersion},
    message::EncryptionContext,
    protocol::api::{self, CONTENT_HEADER, CONTEXT_HEADER, KEY_HEADER, RECEIPT_HEADER, ReceiptText},
};

use super::{
    ATTEMPTS, Client, LogView, OCTETS, answer, key_path,
    source::{Activity, Source},
};
use crate::{
    error::{ClientError, ContentError},
    session::{Attested, Connection, RequestBody, SessionError},
};

/// Content to encrypt.
#[derive(Debug, Clone)]
pub struct EncryptRequest {
    /// Under the active version of this key.
    pub key: KeyId,
    /// Goes into the message: authenticated, not secret.
    pub context: EncryptionContext,
    /// Names the content on the record.
    pub content_id: Option<String>,
}

/// A message to decrypt; it names its key.
#[derive(Debug, Clone, Default)]
pub struct DecryptRequest {
    /// Refuse a message under any other key.
    pub expected_key: Option<KeyId>,
    /// Refuse a message without these pairs.
    pub expected_context: EncryptionContext,
    /// Names the content on the record.
    pub content_id: Option<String>,
}

/// What was done with some content, after all of it went through.
#[derive(Debug, Clone)]
pub struct ContentDone {
    /// The key.
    pub key: KeyId,
    /// Its version.
    pub version: KeyVersion,
    /// The context in the message.
    pub context: EncryptionContext,
    /// The verified receipt of the use.
    pub receipt: Receipt,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
}

/// Largest error that is read in answer to content.
const ERROR_LIMIT: usize = 64 * 1024;

impl Client {
    /// Encrypts `input` into one message. The first byte is written after the use of the key is proven to be on the
    /// record; what was written is a message only if this returns `Ok`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn encrypt(
        &self,
        request: &EncryptRequest,
        input: impl AsyncRead + Send + Unpin + 'static,
        output: &mut (impl AsyncWrite + Unpin),
    ) -> Result<ContentDone, ClientError> {
        let path = format!("{}/encrypt", key_path(&request.key));
        let headers = headers(&request.context, request.content_id.as_deref())?;
        let expected = Expected { key: Some(&request.key), context: &EncryptionContext::new() };
        self.stream(path, headers, &expected, input, output).await
    }

    /// Decrypts one message. Every byte that is written was authenticated, but that the content is complete is known only
    /// when this returns `Ok`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn decrypt(
        &self,
        request: &DecryptRequest,
        input: impl AsyncRead + Send + Unpin + 'static,
        output: &mut (impl AsyncWrite + Unpin),
    ) -> Result<ContentDone, ClientError> {
        let headers = headers(&request.expected_context, request.content_id.as_deref())?;
        self.stream(api::DECRYPT.into(), headers, &Expected::of(request), input, output).await
    }

    /// Turns one message into another with the same content and context under the active version of its key. The content
    /// is never outside of the enclave. What was written is a message only if this returns `Ok`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rewrap(
        &self,
        request: &DecryptRequest,
        input: impl AsyncRead + Send + Unpin + 'static,
        output: &mut (impl AsyncWrite + Unpin),
    ) -> Result<ContentDone, ClientError> {
        let headers = headers(&EncryptionContext::new(), request.content_id.as_deref())?;
        self.stream(api::REWRAP.into(), headers, &Expected::of(request), input, output).await
    }

    async fn stream(
        &self,
        path: String,
        headers: HeaderMap,
        expected: &Expected<'_>,
        input: impl AsyncRead + Send + Unpin + 'static,
        output: &mut (impl AsyncWrite + Unpin),
    ) -> Result<ContentDone, ClientError> {
        let (source, activity) = Source::new(input);
        let mut request = Request::post(path)
            .header(CONTENT_TYPE, HeaderValue::from_static(OCTETS))
            .body(source.boxed_unsync())
            .map_err(|error| SessionError::Protocol(error.to_string()))?;
        request.headers_mut().extend(headers);
        let (connection, view, response) = self.send_content(request, &activity).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let Used { key, version, context, receipt } = Used::read(response.headers(), expected)?;
        // Nothing is written before the use of the key is proven to be on the record.
        self.keep_receipt(&view, &receipt).await?;
        let bytes_out = self.write_out(response, &activity, output).await?;
        self.shared.session.give_back(connection);
        Ok(ContentDone { key, version, context, receipt, bytes_in: activity.bytes(), bytes_out })
    }

    /// Sends the request over a connection that takes it: an idle one may turn out to be closed before anything was sent.
    async fn send_content(
        &self,
        mut request: Request<RequestBody>,
        activity: &Activity,
    ) -> Result<(Connection<Attested>, std::sync::Arc<LogView>, Response<Incoming>), ClientError> {
        let idle = self.shared.session.settings().timeouts.idle;
        let mut attempts = 1;
        loop {
            let (mut connection, view) = self.connection().await?;
            let failed = match activity.unless_stalled(idle, connection.send(request)).await? {
                Ok(response) => return Ok((connection, view, response)),
                Err(failed) => failed,
            };
            match failed.request {
                Some(unsent) if attempts < ATTEMPTS => request = *unsent,
                _ => return Err(activity.input_failure().map_or(failed.error.into(), Into::into)),
            }
            attempts += 1;
        }
    }

    async fn refusal(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        let within = self.shared.session.settings().timeouts.response;
        match tokio::time::timeout(within, Limited::new(response.into_body(), ERROR_LIMIT).collect()).await {
            Ok(Ok(body)) => answer::error(status, &body.to_bytes()),
            _ => SessionError::Protocol(format!("status {status} without an error that can be read")).into(),
        }
    }

    /// Writes what comes, and returns only after the end mark.
    async fn write_out<W: AsyncWrite + Unpin>(
        &self,
        response: Response<Incoming>,
        activity: &Activity,
        output: &mut W,
    ) -> Result<u64, ContentError> {
        if !has_end_mark(response.headers()) {
            return Err(ContentError::Unbounded);
        }
        let idle = self.shared.session.settings().timeouts.idle;
        let mut body = response.into_body();
        let mut written = 0;
        while let Some(frame) = activity.unless_stalled(idle, body.frame()).await? {
            let frame = frame.map_err(|error| {
                activity.input_failure().unwrap_or_else(|| ContentError::EndedEarly(error.to_string()))
            })?;
            if let Ok(data) = frame.into_data() {
                output.write_all(&data).await.map_err(ContentError::Output)?;
                written += data.len() as u64;
            }
        }
        output.flush().await.map_err(ContentError::Output)?;
        // Without the whole input there is no whole output, whatever its end mark says.
        if activity.input_ended() {
            Ok(written)
        } else {
            Err(activity.input_failure().unwrap_or_else(|| ContentError::EndedEarly("not all input was taken".into())))
        }
    }
}

/// What the reply must say of the key and the message.
pub(super) struct Expected<'a> {
    pub(super) key: Option<&'a KeyId>,
    pub(super) context: &'a EncryptionContext,
}

impl<'a> Expected<'a> {
    fn of(request: &'a DecryptRequest) -> Self {
        Self { key: request.expected_key.as_ref(), context: &request.expected_context }
    }
}

/// What the head of a reply says about the use of a key.
pub(super) struct Used {
    pub(super) key: KeyId,
    pub(super) version: KeyVersion,
    pub(super) context: EncryptionContext,
    pub(super) receipt: Receipt,
}

impl Used {
    pub(super) fn read(headers: &HeaderMap, expected: &Expected<'_>) -> Result<Self, ClientError> {
        let ReceiptText(receipt) = parse(headers, RECEIPT_HEADER, |text| text.parse().ok())?;
        let (key, version) = parse(headers, KEY_HEADER, |text| {
            let (key, version) = text.split_once('#')?;
            Some((key.parse::<KeyId>().ok()?, KeyVersion(version.parse().ok()?)))
        })?;
        if let Some(expected) = expected.key.filter(|expected| **expected != key) {
            return Err(ContentError::OtherKey { expected: expected.clone(), found: key }.into());
        }
        let context: EncryptionContext = match headers.contains_key(CONTEXT_HEADER) {
            false => EncryptionContext::new(),
            true => parse(headers, CONTEXT_HEADER, |text| serde_json::from_slice(&STANDARD.decode(text).ok()?).ok())?,
        };
        for (key, value) in expected.context.iter() {
            if context.value(key) != Some(value) {
                return Err(ContentError::OtherContext { key: key.into(), value: value.into() }.into());
            }
        }
        Ok(Self { key, version, context, receipt })
    }
}

fn parse<T>(headers: &HeaderMap, name: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, SessionError> {
    let value = headers.get(name).and_then(|value| value.to_str().ok()).and_then(read);
    value.ok_or_else(|| SessionError::Protocol(format!("header {name} is missing or wrong")))
}

fn headers(context: &EncryptionContext, content_id: Option<&str>) -> Result<HeaderMap, ClientError> {
    let unsuitable = |what: &str| ClientError::from(SessionError::Protocol(format!("{what} fits in no header")));
    let mut headers = HeaderMap::new();
    if !context.is_empty() {
        let json = serde_json::to_vec(context).map_err(|_| unsuitable("the context"))?;
        let value = HeaderValue::try_from(STANDARD.encode(json)).map_err(|_| unsuitable("the context"))?;
        headers.insert(CONTEXT_HEADER, value);
    }
    if let Some(content_id) = content_id {
        let value = HeaderValue::try_from(content_id).map_err(|_| unsuitable("the content id"))?;
        headers.insert(CONTENT_HEADER, value);
    }
    Ok(headers)
}

/// A body that ends when the connection does could be cut anywhere by whoever carries it.
pub(super) fn has_end_mark(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING)
}
