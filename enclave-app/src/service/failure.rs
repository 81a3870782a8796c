use std::sync::Arc;

use axum::{
    Json,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::Instant;
use transcode_confidential::{
    entropy::Entropy,
    ids::Principal,
    keys::KeyError,
    message::MessageError,
    protocol::{
        api::{ApiError, ErrorCode, REQUEST_ID_HEADER},
        host::HostError,
        metrics::{CLOSED, Metric},
    },
};

use super::{Service, caller::Peer};
use crate::{
    callers::SealError,
    custody::CustodyError,
    grants::AdoptError,
    host::HostFailure,
    ledger::{LedgerError, Refusal},
    metrics::Metrics,
};

/// The id that names a request to its caller and in the log.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// A request that is not answered as it was hoped. [`finish`] gives it a body and, where somebody was refused, a record.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    code: ErrorCode,
    message: String,
}

impl Failure {
    /// A failure. The message goes to the caller.
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Not granted, or no such key: the same words for both.
    pub(super) fn denied() -> Self {
        Self::new(ErrorCode::Denied, "not granted, or no such key")
    }

    /// What programs and people are told.
    pub(super) fn into_parts(self) -> (ErrorCode, String) {
        (self.code, self.message)
    }

    /// Puts the refusal of `what` on the record, where it is somebody's doing.
    pub(super) fn record(&self, service: &Service, principal: Option<Principal>, what: &str) {
        if is_recorded(self.code) {
            let details = format!("{what}: {}", self.message);
            let refusal = Refusal { principal, code: self.code, details };
            service.refusals.refuse(&service.custody.ledger, refusal);
        }
    }

    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Malformed, message)
    }

    /// The HTTP status that it has.
    pub(super) const fn status(&self) -> u16 {
        self.code.status()
    }

    /// What the caller is told.
    pub(super) fn body(&self, RequestId(request_id): &RequestId) -> ApiError {
        ApiError {
            code: self.code,
            message: self.message.clone(),
            retryable: self.code.retryable(),
            request_id: request_id.clone(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

pub(super) async fn no_such_route() -> Failure {
    Failure::new(ErrorCode::NoSuchRoute, "no such route")
}

/// Gives every response a request id, and every failure its body and its place on the record.
pub(super) async fn finish(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let mut request = request;
    let principal = request.extensions().get::<Peer>().and_then(|peer| peer.principal().cloned());
    let request_id = RequestId(request_id(&service));
    request.extensions_mut().insert(request_id.clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // The route as the router names it, never the path as the caller wrote it.
    let matched = request.extensions().get::<MatchedPath>().map(|path| format!("{method} {}", path.as_str()));
    let mut counted = Counted::new(&service.metrics, matched.unwrap_or_default());
    let (request, held) = service.memory.hold(request);
    let mut response = next.run(request).await;
    held.answered();
    counted.answered(response.extensions().get::<Failure>().map(|failure| failure.code));
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        tracing::info!(request_id = %request_id.0, %method, code = %failure.code, "request refused");
        let what = format!("request {}: {method} {} refused", request_id.0, shown(&path));
        failure.record(&service, principal, &what);
        let body = failure.body(&request_id);
        response = (response.status(), Json(body)).into_response();
    }
    if let Ok(value) = HeaderValue::from_str(&request_id.0) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    response
}

/// Counts one request, however it ends.
struct Counted<'a> {
    metrics: &'a Metrics,
    route: String,
    begun: Instant,
    code: String,
}

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics, route: String) -> Self {
        Self { metrics, route, begun: Instant::now(), code: CLOSED.to_owned() }
    }

    fn answered(&mut self, failed: Option<ErrorCode>) {
        self.code = failed.map_or_else(|| "OK".to_owned(), |code| code.to_string());
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.count(Metric::Requests, &[&self.route, &self.code]);
        self.metrics.observe(Metric::RequestSeconds, &[&self.route], self.begun.elapsed());
    }
}

/// What is somebody's doing goes on the record; what is a matter of the moment does not.
const fn is_recorded(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Denied
            | ErrorCode::Unauthenticated
            | ErrorCode::Malformed
            | ErrorCode::TooLarge
            | ErrorCode::Unverified
            | ErrorCode::IdempotencyKeyReused
            | ErrorCode::CallerRefused
            | ErrorCode::RateLimited
    )
}

/// A path as it may stand on the record: short, and nothing but what paths of ours are made of.
fn shown(path: &str) -> String {
    path.chars().take(160).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

fn request_id(service: &Service) -> String {
    let mut id = [0; 8];
    // An id of zeros names the request worse, and does no other harm.
    let _ = service.entropy.fill(&mut id);
    hex::encode(id)
}

impl From<CustodyError> for Failure {
    fn from(error: CustodyError) -> Self {
        let (code, message) = match &error {
            CustodyError::Key(error) => return error.clone().into(),
            CustodyError::InProgress => (ErrorCode::Conflict, "the key is being made or rotated right now"),
            CustodyError::AuditUnavailable => {
                (ErrorCode::AuditUnavailable, "the audit record cannot be kept now, so nothing is released")
            }
            CustodyError::Kms(_) => (ErrorCode::KmsUnavailable, "KMS did not give the key; the status says why"),
            CustodyError::OtherKey => (ErrorCode::KmsUnavailable, "KMS did not give the key; the log says why"),
            CustodyError::RecordMissing => (ErrorCode::KmsUnavailable, "the key's wrapped record is missing"),
            CustodyError::Attestation(_) => (ErrorCode::AttestationFailed, "a required attestation failed"),
            CustodyError::ClockDrifted => (ErrorCode::NotReady, "the clock has drifted and is being anchored"),
            CustodyError::Message(error) => return (*error).into(),
        };
        Self::new(code, message)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let code = match &error {
            KeyError::Unknown => return Self::denied(),
            KeyError::Exists
            | KeyError::VersionMismatch { .. }
            | KeyError::NotSuspended
            | KeyError::ActiveVersion(_)
            | KeyError::Unchanged(_) => ErrorCode::Conflict,
            KeyError::Revoked | KeyError::BelowMinimum { .. } => ErrorCode::Revoked,
            KeyError::Suspended => ErrorCode::Suspended,
            KeyError::RotationDue => ErrorCode::RotationDue,
            KeyError::TooManyPeriods => ErrorCode::TooLarge,
            KeyError::NoSuchVersion(_) => ErrorCode::Unverified,
            KeyError::Id(_) | KeyError::Policy(_) => ErrorCode::Malformed,
            KeyError::Audit(_) => ErrorCode::AuditUnavailable,
            KeyError::Attestation(_) => ErrorCode::AttestationFailed,
            _ => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        Self::new(ErrorCode::Internal, error.to_string())
    }
}

impl From<MessageError> for Failure {
    fn from(error: MessageError) -> Self {
        // Which check a message failed is told only as far as everybody can see it in the bytes.
        let code = if error.is_malformed() { ErrorCode::Malformed } else { ErrorCode::Unverified };
        Self::new(code, error.to_string())
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        CustodyError::from(error).into()
    }
}

impl From<HostFailure> for Failure {
    fn from(failure: HostFailure) -> Self {
        match failure {
            // Hashes of events that were pruned and then lost, say.
            HostFailure::Refused(HostError::NotFound) => {
                Self::new(ErrorCode::AuditUnavailable, "the parent no longer has what this takes of the log")
            }
            _ => CustodyError::AuditUnavailable.into(),
        }
    }
}

impl From<AdoptError> for Failure {
    fn from(error: AdoptError) -> Self {
        match error {
            AdoptError::Policy(error) => Self::new(ErrorCode::Unverified, error.to_string()),
            AdoptError::Ledger(error) => error.into(),
        }
    }
}
