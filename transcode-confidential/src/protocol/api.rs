//! The HTTP API of the enclave, inside attested TLS: routes, headers, JSON bodies, errors.
//!
//! Everything but the attestation route needs a client certificate. Content travels as `application/octet-stream`, everything
//! else as JSON. Integers are JSON numbers, times are milliseconds since the Unix epoch, receipts are base64 (RFC 4648
//! section 4) of [`crate::audit::Receipt`].

mod batch;
mod caller;
mod data_key;
mod error;
mod key;
mod log;
mod maintenance;
mod report;

pub use batch::{BATCH_LIMIT, Batch, BatchOperation, BatchReply, BatchResult, OneKey, OneVersion};
pub use caller::{CallerAttested, CallerChallenge};
pub use data_key::{
    DATA_KEY_BATCH, DATA_KEYS_LIMIT, DataKeysError, IssueDataKeys, IssuedDataKeyInfo, IssuedDataKeys, ItemError,
    KeyText, ReleasedKey, SealedText, SecretBuffer, UnwrapDataKeys, UnwrapItem, UnwrapOutcome, UnwrappedDataKeyInfo,
    UnwrappedDataKeys, WrappedText,
};
pub use error::{ApiError, ErrorCode};
pub use key::{ChangeKey, CreateKey, DecryptFrom, KeyChanged, KeyInfo, KeyList, RotateKey, VersionInfo};
pub use log::{CheckpointReply, ConsistencyReply, InclusionReply, KmsHealth, LogCursor, Restored, Status};
pub use maintenance::{HoldInfo, HoldList, HoldRequest, LogMaintained, PruneRequest};
pub use report::{ContentReported, JobError, ReportContent};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::audit::Receipt;

/// `GET`, query `nonce` = 64 hexadecimal digits, optional `shared=true`: an attestation document over the key of this TLS
/// connection. No client certificate needed. A shared one answers the nonces of all who ask at the same time, and says in
/// [`NONCE_PATH_HEADER`] how.
pub const ATTESTATION: &str = "/v1/attestation";
/// `GET`: the newest checkpoint, [`CheckpointReply`].
pub const CHECKPOINT: &str = "/v1/checkpoint";
/// `GET`, query `old` and `new`: a consistency proof, [`ConsistencyReply`].
pub const CONSISTENCY: &str = "/v1/consistency";
/// `GET`, query `event` and `size`: an inclusion proof, [`InclusionReply`].
pub const INCLUSION: &str = "/v1/inclusion";
/// `GET`, query `event`: a COSE receipt of the event in the tree of all durable events,
/// [`crate::audit::cose_receipt::CoseReceipt`].
pub const RECEIPT: &str = "/v1/receipt";
/// `GET`, query `from`, and `cursor` and `wait` where wanted: durable events from `from` on, as entries and seals in the form
/// that they have in a segment, the last record a seal. Headers [`CURSOR_HEADER`], [`FIRST_HEADER`], [`SIZE_HEADER`].
pub const LOG: &str = "/v1/log";
/// `POST` [`CreateKey`]: makes a key, `201` [`KeyChanged`]. `GET`: [`KeyList`]. Below it `/{id}` (`GET` [`KeyInfo`]),
/// `/{id}/rotate` (`POST` [`RotateKey`]), `/{id}/` `revoke`, `suspend`, `resume`, `destroy` and `versions/{version}/destroy` (`POST`
/// [`ChangeKey`]), `/{id}/decrypt-from` (`POST` [`DecryptFrom`]), `/{id}/encrypt` (`POST`, content), `/{id}/data-keys` (`POST`
/// [`IssueDataKeys`], `200` [`IssuedDataKeys`]), `/{id}/media-keys/{content}/{period}` (`GET` or `POST`, 16 bytes; with
/// [`SEALED_HEADER`] those bytes encrypted to the caller).
pub const KEYS: &str = "/v1/keys";
/// `POST`, content: decrypts a message, which names its key.
pub const DECRYPT: &str = "/v1/decrypt";
/// `POST`, content: a message in, the same content under the active version of its key out.
pub const REWRAP: &str = "/v1/rewrap";
/// `POST`: a challenge for callers that are enclaves themselves, [`CallerChallenge`].
pub const CALLER_CHALLENGE: &str = "/v1/caller/challenge";
/// `PUT`, an attestation document of purpose `caller` that answers the newest challenge of this connection: [`CallerAttested`].
pub const CALLER: &str = "/v1/caller";
/// `POST` [`Batch`]: several operations, [`BatchReply`].
pub const BATCH: &str = "/v1/batch";
/// `POST` [`UnwrapDataKeys`]: data keys that were issued, or lie in the headers of messages, [`UnwrappedDataKeys`].
pub const UNWRAP_DATA_KEYS: &str = "/v1/data-keys/unwrap";
/// Below it `/{content id}/report` (`POST` [`ReportContent`], `200` [`ContentReported`]): work that was done elsewhere.
pub const CONTENT: &str = "/v1/content";
/// `PUT`: a signed policy document, which speaks for itself.
pub const POLICY: &str = "/v1/policy";
/// `POST`: writes the whole state down, [`LogMaintained`].
pub const SNAPSHOT: &str = "/v1/log/snapshot";
/// `POST` [`PruneRequest`]: gives up events that a snapshot stands for, [`LogMaintained`].
pub const PRUNE: &str = "/v1/log/prune";
/// `GET`: [`HoldList`]. `POST` [`HoldRequest`]: places a legal hold, [`LogMaintained`].
pub const HOLDS: &str = "/v1/log/holds";
/// `POST` [`HoldRequest`]: lifts a legal hold, [`LogMaintained`].
pub const LIFT_HOLD: &str = "/v1/log/holds/lift";
/// `GET`: [`Status`].
pub const STATUS: &str = "/v1/status";

/// Request and response header of content routes: the encryption context as base64 of a JSON object of strings.
pub const CONTEXT_HEADER: &str = "confidential-context";
/// Request header of content routes: a name for the content, for the record.
pub const CONTENT_HEADER: &str = "confidential-content-id";
/// Response header of content routes: the receipt of the `KeyUsed` event, base64.
pub const RECEIPT_HEADER: &str = "confidential-receipt";
/// Response header of content routes: `<key id>#<version>`.
pub const KEY_HEADER: &str = "confidential-key";
/// In the answer to an attested caller: the body is encrypted to the public key in its document, whose SHA-256 this is, in
/// hexadecimal.
pub const SEALED_HEADER: &str = "confidential-sealed-to";
/// Response header of [`LOG`]: a [`LogCursor`], which spares the next request the search for its place.
pub const CURSOR_HEADER: &str = "confidential-cursor";
/// Response header of [`LOG`]: the first event that is still stored. A page from before it is empty.
pub const FIRST_HEADER: &str = "confidential-first";
/// Response header of [`LOG`]: number of durable events.
pub const SIZE_HEADER: &str = "confidential-size";
/// Response header of every route: the id that the error body and the enclave's log name.
pub const REQUEST_ID_HEADER: &str = "confidential-request-id";

/// Response header of a shared attestation document: [`crate::attestation::NoncePath`].
pub const NONCE_PATH_HEADER: &str = "confidential-nonce-path";
/// Request header of routes that change something: names the request, so that it may be sent again. The answer is repeated
/// then, and nothing is done twice.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// Response header: `true` where the answer is that of an earlier request.
pub const REPLAYED_HEADER: &str = "idempotency-replayed";
/// Greatest length of an idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_LIMIT: usize = 128;

/// Greatest length of a page of [`LOG`], in bytes.
pub const LOG_PAGE_LIMIT: usize = 2 * 1024 * 1024;
/// Longest `wait` of [`LOG`], in seconds.
pub const LOG_WAIT_LIMIT: u64 = 5;
/// Greatest length of a JSON request body, in bytes.
pub const JSON_LIMIT: usize = 64 * 1024;

/// A receipt as it travels in JSON and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptText(pub Receipt);

impl std::fmt::Display for ReceiptText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&STANDARD.encode(self.0.to_bytes()))
    }
}

impl std::str::FromStr for ReceiptText {
    type Err = crate::audit::ReceiptError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = STANDARD.decode(text).map_err(|_| crate::cbor::CborError::Type)?;
        Receipt::from_bytes(&bytes).map(Self)
    }
}

impl serde::Serialize for ReceiptText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ReceiptText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
