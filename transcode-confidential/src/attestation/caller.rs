//! Callers that are enclaves themselves: what their document must answer.

use sha2::{Digest as _, Sha256};

use super::Nonce;

/// Label of the TLS exporter (RFC 8446 section 7.5, RFC 5705) that binds a caller's document to its connection; used
/// without a context, 32 bytes.
pub const CALLER_EXPORTER: &[u8] = b"EXPORTER-transcode-confidential-caller-v1";

/// The nonce of a caller's document: `SHA-256("transcode-confidential/caller-nonce/v1" || 0x00 || exporter || challenge)`. Only the
/// two ends of one TLS session know the exporter, so a document that was made for another session answers nothing here.
pub fn caller_nonce(exporter: &[u8; 32], challenge: &[u8; 32]) -> Nonce {
    let hash = Sha256::new()
        .chain_update(b"transcode-confidential/caller-nonce/v1\0")
        .chain_update(exporter)
        .chain_update(challenge);
    Nonce::derived(hash.finalize().into())
}
