//! Checkpoints: the state of a log as a C2SP signed note, for verifiers that know nothing of this project.
//!
//! Formats: [c2sp.org/signed-note](https://c2sp.org/signed-note) and [c2sp.org/tlog-checkpoint](https://c2sp.org/tlog-checkpoint).
//! The origin is `transcode-confidential/<log id>`; that is also the key name of the log key, and
//! `transcode-confidential/<log id>/epoch/<n>` that of an epoch key.

mod note;

pub use note::{NoteError, NoteSignature, SignedNote, VerifierKey};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::LogState;
use crate::{
    ids::{Epoch, LogId, RootHash},
    signature::{PublicKey, SigningKey},
};

/// Size and root of a log, as a checkpoint says them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log.
    pub log_id: LogId,
    /// Number of events.
    pub size: u64,
    /// RFC 6962 tree head over them.
    pub root: RootHash,
}

impl Checkpoint {
    /// The checkpoint of a state.
    pub const fn of(log_id: LogId, state: &LogState) -> Self {
        Self { log_id, size: state.size, root: state.root }
    }

    /// The note's text: origin, size, root.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", origin(self.log_id), self.size, STANDARD.encode(self.root.as_bytes()))
    }

    /// Signs by the log key and by the key of `epoch`.
    pub fn sign(&self, log_key: &SigningKey, epoch: Epoch, epoch_key: &SigningKey) -> SignedNote {
        let mut note = SignedNote::unsigned(self.text());
        note.sign(&log_key_name(self.log_id), log_key);
        note.sign(&epoch_key_name(self.log_id, epoch), epoch_key);
        note
    }

    /// Reads a note's text. Extension lines after the root are allowed by the format, but this log never writes one.
    ///
    /// # Errors
    /// [`NoteError::Checkpoint`] for anything but the one form that [`Checkpoint::text`] writes.
    pub fn from_text(text: &str) -> Result<Self, NoteError> {
        let parse = || {
            let mut lines = text.lines();
            let log_id = lines.next()?.strip_prefix(ORIGIN_PREFIX)?.parse().ok()?;
            let size = lines.next()?.parse().ok()?;
            let root = STANDARD.decode(lines.next()?).ok()?.as_slice().try_into().ok()?;
            Some(Self { log_id, size, root })
        };
        parse().filter(|checkpoint: &Self| checkpoint.text() == text).ok_or(NoteError::Checkpoint)
    }
}

const ORIGIN_PREFIX: &str = "transcode-confidential/";

/// First line of every checkpoint of a log.
pub fn origin(log_id: LogId) -> String {
    format!("{ORIGIN_PREFIX}{log_id}")
}

/// Name of the log key in signed notes.
pub fn log_key_name(log_id: LogId) -> String {
    origin(log_id)
}

/// Name of an epoch key in signed notes.
pub fn epoch_key_name(log_id: LogId, epoch: Epoch) -> String {
    format!("{}/epoch/{epoch}", origin(log_id))
}

/// The log key as C2SP verifiers enrol it.
pub fn log_verifier_key(log_id: LogId, log_key: PublicKey) -> VerifierKey {
    VerifierKey { name: log_key_name(log_id), key: log_key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::LeafHash, secret::KeyMaterial};

    #[test]
    fn a_checkpoint_survives_its_text_and_names_both_its_keys() {
        let keys = [1, 2].map(|seed| SigningKey::from_seed(&KeyMaterial::from_bytes([seed; 32])).unwrap());
        let log_id = LogId::new([0xab; 16]);
        let state = LogState { epoch: Epoch(3), size: 12, root: RootHash::new([5; 32]), last: LeafHash::ZERO };
        let checkpoint = Checkpoint::of(log_id, &state);
        let note = checkpoint.sign(&keys[0], Epoch(3), &keys[1]);
        let parsed: SignedNote = note.to_string().parse().unwrap();
        assert_eq!(parsed, note);
        assert_eq!(Checkpoint::from_text(parsed.text()), Ok(checkpoint));
        let log_key = log_verifier_key(log_id, keys[0].public_key());
        assert_eq!(parsed.verify(&log_key), Ok(()));
        assert_eq!(log_key.to_string().parse(), Ok(log_key.clone()));
        let epoch_key = VerifierKey { name: epoch_key_name(log_id, Epoch(3)), key: keys[1].public_key() };
        assert_eq!(parsed.verify(&epoch_key), Ok(()));
        let stranger = VerifierKey { name: epoch_key_name(log_id, Epoch(4)), key: keys[1].public_key() };
        assert_eq!(parsed.verify(&stranger), Err(NoteError::NoSignature));
    }

    #[test]
    fn no_changed_byte_of_a_checkpoint_goes_unnoticed() {
        let key = SigningKey::from_seed(&KeyMaterial::from_bytes([1; 32])).unwrap();
        let checkpoint = Checkpoint { log_id: LogId::new([1; 16]), size: 7, root: RootHash::new([2; 32]) };
        let mut note = SignedNote::unsigned(checkpoint.text());
        note.sign(&log_key_name(checkpoint.log_id), &key);
        let text = note.to_string();
        let verifier = log_verifier_key(checkpoint.log_id, key.public_key());
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let verdict =
                String::from_utf8(changed).map(|text| text.parse::<SignedNote>().map(|n| n.verify(&verifier)));
            assert!(!matches!(verdict, Ok(Ok(Ok(())))), "byte {at}");
        }
    }
}
