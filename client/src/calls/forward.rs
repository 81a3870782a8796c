//! Requests of others, passed on as they are. What comes back is held against the record before anybody gets it.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    Request, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use serde_json::Value;
use tokio::time::timeout;
use transcode_confidential::protocol::api::{RECEIPT_HEADER, ReceiptText};

use super::{Client, LogView, REPLY_LIMIT, content::has_end_mark};
use crate::{
    error::{ClientError, ContentError},
    session::{Attested, Connection, RequestBody, SendError, Session, SessionError},
};

/// Deepest nesting of a JSON answer that is searched for receipts; the API has less.
const DEPTH: usize = 8;

/// A request that is not answered, and the request itself where it was certainly not sent.
#[derive(Debug)]
pub struct NotForwarded {
    /// Why.
    pub error: ClientError,
    /// The request, where it may be sent again.
    pub request: Option<Request<RequestBody>>,
}

/// The body of an answer, as it comes. One that ends early is an error, never an end.
pub struct AnswerBody {
    incoming: Incoming,
    /// Goes back to the session when the body was read to its end.
    connection: Option<(Session, Connection<Attested>)>,
}

impl Client {
    /// Passes a request on and gives the answer, whatever its status. Every receipt in it, in its headers or in its JSON, is
    /// verified and remembered first; where `receipt_needed`, a success without one is refused.
    ///
    /// # Errors
    /// [`NotForwarded`].
    pub async fn forward(
        &self,
        request: Request<RequestBody>,
        receipt_needed: bool,
    ) -> Result<Response<AnswerBody>, NotForwarded> {
        let (mut connection, view) = match self.connection().await {
            Ok(ready) => ready,
            Err(error) => return Err(NotForwarded { error, request: Some(request) }),
        };
        let within = self.shared.session.settings().timeouts.idle;
        let response = match timeout(within, connection.send(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(SendError { error, request })) => {
                return Err(NotForwarded { error: error.into(), request: request.map(|request| *request) });
            }
            Err(_) => return Err(SessionError::TimedOut { what: "response", within }.into()),
        };
        Ok(self.checked(response, connection, &view, receipt_needed).await?)
    }

    async fn checked(
        &self,
        response: Response<Incoming>,
        connection: Connection<Attested>,
        view: &LogView,
        receipt_needed: bool,
    ) -> Result<Response<AnswerBody>, ClientError> {
        if !has_end_mark(response.headers()) {
            return Err(ContentError::Unbounded.into());
        }
        let succeeded = response.status().is_success();
        let header = response.headers().get(RECEIPT_HEADER);
        if let Some(value) = header {
            let text = value.to_str().ok().and_then(|text| text.parse::<ReceiptText>().ok());
            let receipt = text.ok_or_else(|| SessionError::Protocol("a receipt that cannot be read".into()))?;
            self.keep_receipt(view, &receipt.0).await?;
        } else if succeeded && receipt_needed {
            return Err(SessionError::Protocol("a success without a receipt".into()).into());
        }
        let session = self.shared.session.clone();
        Ok(response.map(|incoming| AnswerBody { incoming, connection: Some((session, connection)) }))
    }

    /// As [`Client::forward`] for answers in JSON, read whole: the receipts inside are verified, too.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn verified_whole(&self, response: Response<AnswerBody>) -> Result<Response<Bytes>, ClientError> {
        let within = self.shared.session.settings().timeouts.response;
        let (mut head, body) = response.into_parts();
        let whole = match timeout(within, Limited::new(body, REPLY_LIMIT).collect()).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) => return Err(SessionError::Lost(error.to_string()).into()),
            Err(_) => return Err(SessionError::TimedOut { what: "complete response", within }.into()),
        };
        let json = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        if json && head.status.is_success() {
            let value: Value = super::answer::json(&whole)?;
            let mut receipts = Vec::new();
            find_receipts(&value, DEPTH, &mut receipts)?;
            if !receipts.is_empty() {
                let view = self.log().await?;
                for receipt in receipts {
                    self.keep_receipt(&view, &receipt.0).await?;
                }
            }
        }
        head.headers.insert(CONTENT_LENGTH, whole.len().into());
        Ok(Response::from_parts(head, whole))
    }
}

/// Every member of the name `receipt`, wherever it is.
fn find_receipts(value: &Value, depth: usize, found: &mut Vec<ReceiptText>) -> Result<(), SessionError> {
    let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| find_receipts(item, depth, found)),
        Value::Object(members) => members.iter().try_for_each(|(name, member)| match member {
            Value::String(text) if name == "receipt" => {
                let receipt = text.parse().map_err(|_| SessionError::Protocol("a receipt that cannot be read".into()));
                receipt.map(|receipt| found.push(receipt))
            }
            other => find_receipts(other, depth, found),
        }),
        _ => Ok(()),
    }
}

impl From<ClientError> for NotForwarded {
    fn from(error: ClientError) -> Self {
        Self { error, request: None }
    }
}

impl From<SessionError> for NotForwarded {
    fn from(error: SessionError) -> Self {
        Self { error: error.into(), request: None }
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").field("incoming", &self.incoming).finish_non_exhaustive()
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if let Poll::Ready(end @ (None | Some(Err(_)))) = &polled
            && let Some((session, connection)) = self.connection.take()
            && end.is_none()
        {
            session.give_back(connection);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
