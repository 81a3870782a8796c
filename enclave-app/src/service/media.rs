//! Media keys for packagers that encrypt by themselves.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use transcode_confidential::{
    ids::{MediaContent, Period},
    protocol::{
        api::{ErrorCode, KEY_HEADER, RECEIPT_HEADER, ReceiptText, SEALED_HEADER},
        policy::Operation,
    },
};
use zeroize::Zeroizing;

use super::{
    Caller, Failure, Service,
    evidence::OCTETS,
    keys::{authorize, key_id},
};

pub(super) async fn derive(
    State(service): State<Arc<Service>>,
    Caller(principal): Caller,
    Path((id, content, period)): Path<(String, String, String)>,
) -> Result<Response, Failure> {
    let id = key_id(&id)?;
    let permit = authorize(&service, &principal, Operation::ExportMediaKey, &id)?;
    let content: MediaContent =
        content.parse().map_err(|error| Failure::malformed(format!("not a name of content: {error}")))?;
    let period = period_of(&period)?;
    let granted = service.custody.media_key(&permit, &content, period).await?;
    let headers = [
        (header::CONTENT_TYPE, OCTETS.to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (HeaderName::from_static(KEY_HEADER), format!("{id}#{}", granted.version)),
        (HeaderName::from_static(RECEIPT_HEADER), ReceiptText(granted.receipt).to_string()),
    ];
    let mut sealed_to = HeaderMap::new();
    let body = match permit.recipient() {
        // Wiped once it is sent.
        None => Bytes::from_owner(Zeroizing::new(granted.key.expose().to_vec())),
        Some(caller) => {
            let document = HeaderValue::try_from(caller.document().to_string());
            let document = document.map_err(|_| Failure::new(ErrorCode::Internal, "a digest fits in no header"))?;
            sealed_to.insert(SEALED_HEADER, document);
            caller.seal(granted.key.expose())?.into()
        }
    };
    Ok((headers, sealed_to, Body::from(body)).into_response())
}

/// A number has one form, so that a key has one address.
fn period_of(text: &str) -> Result<Period, Failure> {
    let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    number
        .map(Period)
        .ok_or_else(|| Failure::malformed("not a period: a number from 0 to 18446744073709551615 is needed"))
}
