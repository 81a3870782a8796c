use std::fmt;

use super::{body::EventBody, request_tag::RequestTag};
use crate::{
    ids::{Epoch, KeyVersion, LeafHash, Sequence},
    time::Timestamp,
};

/// What happened. The number is the code in the leaf and never changes its meaning.
///
/// ```
/// use transcode_confidential::audit::{AuditEventType, AuditSeverity};
///
/// assert_eq!(AuditEventType::KeyRevoked.to_string(), "KeyRevoked");
/// assert_eq!(AuditEventType::KeyRevoked.severity(), AuditSeverity::Warning);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum AuditEventType {
    /// An enclave booted and opened an epoch.
    EnclaveCreated = 1,
    /// An attestation document was accepted.
    AttestationVerified = 2,
    /// An attestation document was refused, or was required and absent.
    AttestationFailed = 3,
    /// The first version of a key was made.
    KeyGenerated = 4,
    /// A key got its next version.
    KeyRotated = 5,
    /// A key, or a version of it, was revoked, destroyed, suspended or resumed, or stopped decrypting; the body says which.
    KeyRevoked = 6,
    /// A use of a key began.
    KeyUsed = 7,
    /// A stream of content ended, or a transcoder reported work.
    ContentProcessed = 8,
    /// A limit was exceeded, or input was malformed or replayed.
    PolicyViolation = 9,
    /// A principal was refused.
    UnauthorizedAccess = 10,
    /// A signed policy was adopted.
    PolicyChanged = 11,
    /// The log itself was maintained: snapshot, prune, quarantine, restore, hold.
    LogMaintained = 12,
}

impl AuditEventType {
    /// Every type, in the order of the codes.
    pub const ALL: [Self; 12] = [
        Self::EnclaveCreated,
        Self::AttestationVerified,
        Self::AttestationFailed,
        Self::KeyGenerated,
        Self::KeyRotated,
        Self::KeyRevoked,
        Self::KeyUsed,
        Self::ContentProcessed,
        Self::PolicyViolation,
        Self::UnauthorizedAccess,
        Self::PolicyChanged,
        Self::LogMaintained,
    ];

    /// The severity that an event of this type has unless its maker says otherwise.
    pub const fn severity(self) -> AuditSeverity {
        match self {
            Self::EnclaveCreated
            | Self::AttestationVerified
            | Self::KeyGenerated
            | Self::KeyRotated
            | Self::KeyUsed
            | Self::ContentProcessed
            | Self::LogMaintained => AuditSeverity::Info,
            Self::KeyRevoked | Self::PolicyChanged => AuditSeverity::Warning,
            Self::AttestationFailed | Self::PolicyViolation | Self::UnauthorizedAccess => AuditSeverity::Critical,
        }
    }

    pub(super) const fn code(self) -> u64 {
        self as u64
    }

    pub(super) fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

impl fmt::Display for AuditEventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How much attention an event asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum AuditSeverity {
    /// The ordinary course of things.
    Info = 0,
    /// Worth a look: something was taken away or changed.
    Warning = 1,
    /// Somebody should act.
    Critical = 2,
}

impl AuditSeverity {
    pub(super) const fn from_code(code: u64) -> Option<Self> {
        match code {
            0 => Some(Self::Info),
            1 => Some(Self::Warning),
            2 => Some(Self::Critical),
            _ => None,
        }
    }
}

impl fmt::Display for AuditSeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One event of the log, with its place in the chain.
///
/// `hash` is `SHA-256(0x00 || leaf)` over the deterministic CBOR of everything else in here, `previous` included.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct AuditEvent {
    /// Position in the log, from 0.
    pub sequence: Sequence,
    /// The enclave boot that wrote it; 0 where no enclave did.
    pub epoch: Epoch,
    /// When, by the writer's clock. Never earlier than the event before.
    pub time: Timestamp,
    /// What happened.
    pub event_type: AuditEventType,
    /// How much attention it asks for.
    pub severity: AuditSeverity,
    /// The enclave that it happened in.
    pub enclave_id: Option<String>,
    /// The key that it concerns.
    pub key_id: Option<String>,
    /// The version of that key.
    pub key_version: Option<KeyVersion>,
    /// Who asked for it.
    pub principal: Option<String>,
    /// The content that it concerns.
    pub content_id: Option<String>,
    /// For people. Escape it before showing it: it may hold what a caller supplied.
    pub details: String,
    /// For programs: what this kind of event says beyond the common fields.
    pub body: Option<EventBody>,
    /// The request that it answers, where that came with an idempotency key.
    pub request: Option<RequestTag>,
    /// Leaf hash of the event before; [`LeafHash::ZERO`] for the first.
    pub previous: LeafHash,
    /// Leaf hash of this event.
    pub hash: LeafHash,
}

/// An event before it has a place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a draft is on no record until it is appended"]
pub struct EventDraft {
    /// What happened.
    pub event_type: AuditEventType,
    /// How much attention it asks for.
    pub severity: AuditSeverity,
    /// The enclave that it happened in.
    pub enclave_id: Option<String>,
    /// The key that it concerns.
    pub key_id: Option<String>,
    /// The version of that key.
    pub key_version: Option<KeyVersion>,
    /// Who asked for it.
    pub principal: Option<String>,
    /// The content that it concerns.
    pub content_id: Option<String>,
    /// For people.
    pub details: String,
    /// For programs.
    pub body: Option<EventBody>,
    /// The request that it answers, where that came with an idempotency key.
    pub request: Option<RequestTag>,
}

impl EventDraft {
    /// An event of the given type with that type's own severity.
    #[inline]
    pub fn new(event_type: AuditEventType, details: impl Into<String>) -> Self {
        Self {
            event_type,
            severity: event_type.severity(),
            enclave_id: None,
            key_id: None,
            key_version: None,
            principal: None,
            content_id: None,
            details: details.into(),
            body: None,
            request: None,
        }
    }

    /// Sets the severity.
    #[inline]
    pub const fn severity(mut self, severity: AuditSeverity) -> Self {
        self.severity = severity;
        self
    }

    /// Names the key and, where it is known, the version.
    #[inline]
    pub fn key(mut self, id: impl fmt::Display, version: Option<KeyVersion>) -> Self {
        self.key_id = Some(id.to_string());
        self.key_version = version;
        self
    }

    /// Names whoever asked.
    #[inline]
    pub fn principal(mut self, principal: impl fmt::Display) -> Self {
        self.principal = Some(principal.to_string());
        self
    }

    /// Names the content.
    #[inline]
    pub fn content(mut self, content_id: impl Into<String>) -> Self {
        self.content_id = Some(content_id.into());
        self
    }

    /// Sets the body.
    #[inline]
    pub fn body(mut self, body: EventBody) -> Self {
        self.body = Some(body);
        self
    }

    /// Names the request that this event answers.
    #[inline]
    pub const fn request(mut self, request: Option<RequestTag>) -> Self {
        self.request = request;
        self
    }

    /// Shortens every text to its limit, at a character boundary, and marks `details` where it was cut.
    pub(super) fn clipped(mut self) -> Self {
        let names = [&mut self.enclave_id, &mut self.key_id, &mut self.principal, &mut self.content_id];
        for name in names.into_iter().flatten() {
            name.truncate(name.floor_char_boundary(super::leaf::NAME_LIMIT));
        }
        if self.details.len() > super::leaf::DETAILS_LIMIT {
            let mark = format!("… [{} bytes cut]", self.details.len());
            self.details.truncate(self.details.floor_char_boundary(super::leaf::DETAILS_LIMIT - mark.len()));
            self.details.push_str(&mark);
        }
        self
    }
}
