//! Encryption and decryption of content, and both in one, as streams of any length in constant memory.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use transcode_confidential::{
    audit::{KeyOperation, NAME_LIMIT},
    ids::KeyVersion,
    keys::{KeyError, KeyRequest},
    message::{EncryptionContext, Encryptor, FrameLength, HeaderReader, ParsedHeader, Reencryptor, WrappingKey},
    protocol::{
        api::{CONTENT_HEADER, CONTEXT_HEADER, ErrorCode, KEY_HEADER, RECEIPT_HEADER, ReceiptText},
        policy::Operation,
    },
};

use super::{
    Caller, Failure, Service,
    caller::Who,
    evidence::OCTETS,
    keys::{authorize, key_id},
    memory::Room,
    transfer::{Ciphering, Incoming, Transfer},
};
use crate::{
    custody::{Purpose, UseGrant},
    grants::Permit,
};

type App = State<Arc<Service>>;

pub(super) async fn encrypt(
    State(service): App,
    Caller(principal): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let id = key_id(&id)?;
    let permit = authorize(&service, &principal, Operation::Encrypt, &id)?;
    let room = service.memory.for_frames(2, FrameLength::DEFAULT).await?;
    let context = context_of(&headers)?.unwrap_or_default();
    let content_id = content_id_of(&headers)?;
    let purpose = Purpose {
        permit: &permit,
        operation: KeyOperation::Encrypt,
        context: &context,
        content_id: content_id.as_deref(),
    };
    let granted = service.custody.begin_use(&purpose).await?;
    let wrapping = WrappingKey { key_id: &id, version: granted.version, material: granted.key.material() };
    let mut head = Vec::new();
    let encryptor = Encryptor::begin(&wrapping, &context, FrameLength::DEFAULT, &*service.entropy, &mut head)?;
    let incoming = Incoming::new(body.into_data_stream());
    let ciphering = Ciphering::Encrypt(Box::new(encryptor));
    Ok(respond(&service, (granted, room), None, (incoming, ciphering, head)))
}

pub(super) async fn decrypt(
    State(service): App,
    Caller(principal): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let expected = context_of(&headers)?;
    let content_id = content_id_of(&headers)?;
    let mut incoming = Incoming::new(body.into_data_stream());
    let header = read_header(&mut incoming).await?;
    let (permit, version) = our_key(&service, &principal, Operation::Decrypt, &header)?;
    let room = service.memory.for_frames(2, header.frame_length()).await?;
    let id = permit.key().clone();
    if let Some(expected) = expected {
        header.require_context(&expected)?;
    }
    let context = header.context().clone();
    let custody = &service.custody;
    let request = KeyRequest::Use { operation: KeyOperation::Decrypt, version: Some(version), context: None };
    let _ = custody.ledger.with_keys(|keys, now| keys.decide(&id, &request, now))?;
    let key = custody.material(&id, version).await?;
    let decryptor = header.unwrap(&WrappingKey { key_id: &id, version, material: key.material() })?;
    let purpose = Purpose {
        permit: &permit,
        operation: KeyOperation::Decrypt,
        context: &context,
        content_id: content_id.as_deref(),
    };
    let pending = custody.reserve_use(Some(version), &purpose).await?;
    let granted = custody.confirm_use(pending, key).await?;
    let ciphering = Ciphering::Decrypt(Box::new(decryptor));
    Ok(respond(&service, (granted, room), Some(&context), (incoming, ciphering, Vec::new())))
}

/// A message in, the same content under the active version out. The caller sees none of the content.
pub(super) async fn rewrap(
    State(service): App,
    Caller(principal): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let content_id = content_id_of(&headers)?;
    let mut incoming = Incoming::new(body.into_data_stream());
    let header = read_header(&mut incoming).await?;
    let (permit, version) = our_key(&service, &principal, Operation::Encrypt, &header)?;
    let id = permit.key().clone();
    let (context, frame_length) = (header.context().clone(), header.frame_length());
    let room = service.memory.for_frames(4, frame_length).await?;
    let custody = &service.custody;
    let request = KeyRequest::Use { operation: KeyOperation::Rewrap, version: Some(version), context: None };
    custody.ledger.with_keys(|keys, now| keys.decide(&id, &request, now).map(drop)).or_else(|error| match error {
        // Begins the rotation that it waits for, below.
        KeyError::RotationDue => Ok(()),
        error => Err(error),
    })?;
    let old = custody.material(&id, version).await?;
    let reader = header.unwrap(&WrappingKey { key_id: &id, version, material: old.material() })?;
    let purpose = Purpose {
        permit: &permit,
        operation: KeyOperation::Rewrap,
        context: &context,
        content_id: content_id.as_deref(),
    };
    let pending = custody.reserve_use(Some(version), &purpose).await?;
    let key = custody.material(&id, pending.version).await?;
    let granted = custody.confirm_use(pending, key).await?;
    let wrapping = WrappingKey { key_id: &id, version: granted.version, material: granted.key.material() };
    let mut head = Vec::new();
    let writer = Encryptor::begin(&wrapping, &context, frame_length, &*service.entropy, &mut head)?;
    let ciphering = Ciphering::Reencrypt(Box::new(Reencryptor::new(reader, writer)), old);
    Ok(respond(&service, (granted, room), Some(&context), (incoming, ciphering, head)))
}

/// Reads the header of a message; what follows it stays in `incoming`.
async fn read_header(incoming: &mut Incoming) -> Result<ParsedHeader, Failure> {
    let mut reader = HeaderReader::new();
    loop {
        let Some(chunk) = incoming.next().await.map_err(|_| Failure::malformed("the body ended early"))? else {
            return Err(reader.finish().into());
        };
        let mut rest = &chunk[..];
        if let Some(header) = reader.push(&mut rest)? {
            let rest = chunk.slice_ref(rest);
            incoming.put_back(rest);
            return Ok(header);
        }
    }
}

/// The first of the message's data keys that is wrapped under a key with which the caller may do this.
fn our_key(
    service: &Service,
    principal: &Who,
    operation: Operation,
    header: &ParsedHeader,
) -> Result<(Permit, KeyVersion), Failure> {
    let mut granted = header.wrapped_data_keys().filter_map(|wrapped| {
        let exists = service.custody.ledger.with_keys(|keys, _| keys.key(wrapped.key_id()).is_some());
        let permit = authorize(service, principal, operation, wrapped.key_id()).ok();
        permit.filter(|_| exists).map(|permit| (permit, wrapped.version()))
    });
    granted.next().ok_or_else(Failure::denied)
}

fn respond(
    service: &Arc<Service>,
    (granted, room): (UseGrant, Room),
    context: Option<&EncryptionContext>,
    (incoming, ciphering, head): (Incoming, Ciphering, Vec<u8>),
) -> Response {
    let mut response = [
        (CONTENT_TYPE.as_str(), OCTETS.to_owned()),
        (KEY_HEADER, format!("{}#{}", granted.open.permit().key(), granted.version)),
        (RECEIPT_HEADER, ReceiptText(granted.receipt.clone()).to_string()),
    ]
    .into_response();
    if let Some(context) = context.and_then(|context| context_header(context).parse().ok()) {
        response.headers_mut().insert(CONTEXT_HEADER, context);
    }
    let transfer = Transfer::new(Arc::clone(service), (granted, room), incoming, ciphering, head);
    *response.body_mut() = Body::from_stream(transfer.into_stream().fuse());
    response
}

fn context_header(context: &EncryptionContext) -> String {
    let pairs: serde_json::Map<_, _> =
        context.iter().map(|(key, value)| (key.to_owned(), value.to_owned().into())).collect();
    STANDARD.encode(serde_json::Value::Object(pairs).to_string())
}

fn context_of(headers: &HeaderMap) -> Result<Option<EncryptionContext>, Failure> {
    let Some(value) = headers.get(CONTEXT_HEADER) else { return Ok(None) };
    let malformed = || Failure::malformed(format!("{CONTEXT_HEADER}: base64 of a JSON object of strings is needed"));
    let json = STANDARD.decode(value.as_bytes()).map_err(|_| malformed())?;
    let pairs: Vec<(String, String)> = serde_json::from_slice::<std::collections::BTreeMap<String, String>>(&json)
        .map_err(|_| malformed())?
        .into_iter()
        .collect();
    let context = EncryptionContext::from_pairs(pairs);
    context.map(Some).map_err(|error| Failure::malformed(format!("encryption context: {error}")))
}

fn content_id_of(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get(CONTENT_HEADER) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| !text.is_empty() && text.len() <= NAME_LIMIT);
    let malformed =
        || Failure::new(ErrorCode::Malformed, format!("{CONTENT_HEADER}: 1 to {NAME_LIMIT} ASCII characters"));
    text.map(|text| Some(text.to_owned())).ok_or_else(malformed)
}
