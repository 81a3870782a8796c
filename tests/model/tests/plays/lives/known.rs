//! What is known of a key, by what its callers were told.

use std::collections::BTreeMap;

use model::custody::CustodyError;
use transcode_confidential::{ids::KeyVersion, keys::KeyError, message::WrappedDataKey};

/// What is known of something that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Known {
    #[default]
    No,
    Maybe,
    Yes,
}

impl Known {
    /// It was asked for, and this came of it.
    pub(super) fn learn<T>(&mut self, result: &Result<T, CustodyError>) {
        match result {
            Ok(_) => *self = Self::Yes,
            Err(CustodyError::AuditUnavailable) if *self == Self::No => *self = Self::Maybe,
            Err(_) => {}
        }
    }
}

/// A key as its callers know it.
#[derive(Default)]
pub(super) struct Key {
    pub(super) made: Known,
    pub(super) revoked: Known,
    /// `None` where nobody can know.
    pub(super) suspended: Option<bool>,
    /// Decrypting was restricted, or a version destroyed.
    pub(super) restricted: Known,
    pub(super) limit: u64,
    /// Uses that somebody was told of, by version.
    pub(super) uses: BTreeMap<KeyVersion, u64>,
    pub(super) messages: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) data_keys: Vec<(WrappedDataKey, Vec<u8>)>,
    /// Media keys by period.
    pub(super) media: BTreeMap<u64, [u8; 16]>,
}

impl Key {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, suspended: Some(false), ..Self::default() }
    }

    /// A use was granted: whatever stands against one is not so.
    pub(super) fn used(&mut self, version: Option<KeyVersion>) {
        assert_ne!(self.made, Known::No, "a key that nobody asked for is used");
        assert_ne!(self.revoked, Known::Yes, "a key is used that was revoked");
        assert_ne!(self.suspended, Some(true), "a key is used that was suspended");
        self.made = Known::Yes;
        if let Some(version) = version {
            let uses = self.uses.entry(version).or_default();
            *uses += 1;
            assert!(*uses <= self.limit, "{uses} uses of version {version}, {} may be", self.limit);
        }
    }

    /// A refusal must not say what is not so.
    pub(super) fn refused(&self, what: &str, error: &CustodyError, kms_fails: bool) {
        let fine = match error {
            CustodyError::AuditUnavailable | CustodyError::InProgress => true,
            CustodyError::Kms(_) | CustodyError::OtherKey => kms_fails,
            CustodyError::Key(error) => match error {
                KeyError::Unknown => self.made != Known::Yes,
                KeyError::Exists => self.made != Known::No,
                KeyError::Revoked => self.revoked != Known::No || self.restricted != Known::No,
                KeyError::Suspended => self.suspended != Some(false),
                KeyError::NotSuspended => self.suspended != Some(true),
                KeyError::RotationDue => true,
                KeyError::BelowMinimum { .. } => self.restricted != Known::No,
                KeyError::Unchanged(_) | KeyError::ActiveVersion(_) | KeyError::NoSuchVersion(_) => {
                    what.contains("version")
                }
                _ => false,
            },
            _ => false,
        };
        assert!(
            fine,
            "{what}: {error:?}: made {:?}, revoked {:?}, suspended {:?}",
            self.made, self.revoked, self.suspended
        );
    }
}
