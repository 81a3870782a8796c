use std::{error::Error, io, time::Duration};

use rustls::{AlertDescription, CertificateError};
use thiserror::Error;
use transcode_confidential::attestation::Refusal;
use transport::ConnectError;

use super::tls::PinMismatch;

/// Why there is no attested connection, or no longer one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Nobody listens there.
    #[error("{0}")]
    Unreachable(#[from] ConnectError),
    /// The peer took too long.
    #[error("no {what} within {} s", within.as_secs())]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        within: Duration,
    },
    /// The connection was lost; whether a request on it was carried out is unknown.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The connection had been closed before the request was sent.
    #[error("the connection was closed before the request was sent")]
    NotSent,
    /// The peer does not speak TLS as the enclave does, or cannot prove that it holds its key.
    #[error("no TLS session with an enclave: {0}")]
    Tls(rustls::Error),
    /// The enclave does not take this client's certificate.
    #[error(
        "the enclave does not accept this identity's certificate ({alert}): is it signed by the client CA in the enclave's image, and still valid?"
    )]
    IdentityRefused {
        /// What the enclave said.
        alert: String,
    },
    /// The server gives no attestation document now.
    #[error("the server gives no attestation document: {0}")]
    NoAttestation(String),
    /// This caller, an enclave itself, has no document, or the enclave refuses it.
    #[error("this caller is not attested: {0}")]
    CallerNotAttested(String),
    /// What should be encrypted to this attested caller, and to nobody else, is not.
    #[error("what the enclave released is not sealed to this caller: {0}")]
    NotSealed(&'static str),
    /// The attestation document is refused.
    #[error("the server's attestation is refused: {0}")]
    Attestation(#[from] Refusal),
    /// The document attests another key than that of the connection: somebody stands between this client and an enclave.
    #[error(
        "the attestation document is for another key than this connection's: somebody stands between client and enclave"
    )]
    KeyNotAttested,
    /// The server changed its key, and did so again right after it was attested anew.
    #[error("the server's key is not the attested one, even after attesting it anew")]
    KeyChanged,
    /// The reply is not what the API says.
    #[error("the server's reply is not understood: {0}")]
    Protocol(String),
    /// No randomness for a nonce.
    #[error("no nonce could be drawn: {0}")]
    Entropy(#[from] transcode_confidential::entropy::EntropyError),
}

impl SessionError {
    /// The reason's stable name; for a refused document, that of the refusal.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut { .. } => "timed-out",
            Self::Lost(_) | Self::NotSent => "connection-lost",
            Self::Tls(_) => "tls",
            Self::IdentityRefused { .. } => "identity-refused",
            Self::NoAttestation(_) => "no-attestation",
            Self::CallerNotAttested(_) => "caller-not-attested",
            Self::NotSealed(_) => "not-sealed",
            Self::Attestation(refusal) => refusal.reason(),
            Self::KeyNotAttested => "key-not-attested",
            Self::KeyChanged => "key-changed",
            Self::Protocol(_) => "protocol",
            Self::Entropy(_) => "no-entropy",
        }
    }

    /// What went wrong in a handshake or on an established connection.
    pub(super) fn from_transport(error: &(dyn Error + 'static)) -> Self {
        match tls_error(error) {
            Some(rustls::Error::AlertReceived(alert)) if is_about_certificate(*alert) => {
                Self::IdentityRefused { alert: format!("{alert:?}") }
            }
            Some(error) => Self::Tls(error.clone()),
            None => Self::Lost(describe(error)),
        }
    }

    /// Whether the server has another key than the pinned one.
    pub(super) fn is_pin_mismatch(&self) -> bool {
        let Self::Tls(rustls::Error::InvalidCertificate(CertificateError::Other(other))) = self else { return false };
        other.0.is::<PinMismatch>()
    }
}

/// The TLS error within an I/O or HTTP error. An `io::Error` hides what it wraps from `source`.
fn tls_error<'a>(mut error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error = match inner {
            Some(inner) => inner,
            None => error.source()?,
        };
    }
}

/// Alerts of RFC 8446 section 6.2 with which a server answers a client's certificate.
const fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}
