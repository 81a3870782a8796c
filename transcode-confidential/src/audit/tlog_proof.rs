//! A proof in one file that an event is in a log: [c2sp.org/tlog-proof](https://c2sp.org/tlog-proof).
//!
//! It holds an audit path and the checkpoint that the path leads to. As extra data it carries the leaf itself, so whoever has
//! the file and the log's verifier key needs nothing else.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

use super::{
    AuditEvent, LeafError,
    checkpoint::{Checkpoint, NoteError, SignedNote, log_verifier_key},
    decode_leaf,
    tree::{Node, PROOF_LIMIT, ProofError, verify_inclusion},
};
use crate::signature::PublicKey;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
/// More than the longest leaf, path and note together.
const LENGTH_LIMIT: usize = 128 * 1024;

/// A proof as its file has it; nothing of it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// The leaf. The format calls this extra data and does not authenticate it; [`TlogProof::verify`] does.
    pub leaf: Option<Vec<u8>>,
    /// Position of the event in the log.
    pub index: u64,
    /// Audit path, bottom up.
    pub path: Vec<Node>,
    /// The checkpoint that the path leads to.
    pub checkpoint: SignedNote,
}

/// Why a file proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TlogProofError {
    /// Not such a file.
    #[error("not a tlog-proof file")]
    Malformed,
    /// It carries no leaf.
    #[error("the proof carries no leaf")]
    NoLeaf,
    /// What it carries is not a leaf of such a log.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// Its checkpoint is not one of such a log, or not signed by the key.
    #[error(transparent)]
    Checkpoint(#[from] NoteError),
    /// The path does not lead from the leaf to the checkpoint.
    #[error(transparent)]
    Path(#[from] ProofError),
    /// The leaf says that it is elsewhere.
    #[error("the leaf is of another position in the log")]
    Position,
}

impl TlogProof {
    /// Verifies everything: the checkpoint is the log key's, the path leads to it from the leaf, and the leaf is at that position.
    ///
    /// # Errors
    /// [`TlogProofError`], the first that applies.
    pub fn verify(&self, log_key: PublicKey) -> Result<(AuditEvent, Checkpoint), TlogProofError> {
        let checkpoint = Checkpoint::from_text(self.checkpoint.text())?;
        self.checkpoint.verify(&log_verifier_key(checkpoint.log_id, log_key))?;
        let event = decode_leaf(self.leaf.as_deref().ok_or(TlogProofError::NoLeaf)?)?;
        verify_inclusion(event.hash, self.index, checkpoint.size, &self.path, checkpoint.root)?;
        if event.sequence.0 != self.index {
            return Err(TlogProofError::Position);
        }
        Ok((event, checkpoint))
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(leaf) = &self.leaf {
            writeln!(f, "extra {}", STANDARD.encode(leaf))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.path.iter().try_for_each(|node| writeln!(f, "{}", STANDARD.encode(node)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Reads only what [`fmt::Display`] writes.
impl FromStr for TlogProof {
    type Err = TlogProofError;

    fn from_str(text: &str) -> Result<Self, TlogProofError> {
        let proof = (text.len() <= LENGTH_LIMIT).then(|| parse(text)).flatten();
        proof.filter(|proof| proof.to_string() == text).ok_or(TlogProofError::Malformed)
    }
}

fn parse(text: &str) -> Option<TlogProof> {
    let (head, checkpoint) = text.split_once("\n\n")?;
    let mut lines = head.split('\n');
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let mut line = lines.next()?;
    let leaf = match line.strip_prefix("extra ") {
        None => None,
        Some(leaf) => {
            line = lines.next()?;
            Some(STANDARD.decode(leaf).ok()?)
        }
    };
    let index = line.strip_prefix("index ")?.parse().ok()?;
    let path: Vec<Node> =
        lines.take(PROOF_LIMIT + 1).map(|node| STANDARD.decode(node).ok()?.try_into().ok()).collect::<Option<_>>()?;
    (path.len() <= PROOF_LIMIT).then_some(TlogProof { leaf, index, path, checkpoint: checkpoint.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{AuditEventType, Chain, EventDraft, checkpoint::log_key_name, tree::inclusion_proof},
        ids::LogId,
        secret::KeyMaterial,
        signature::SigningKey,
        time::Timestamp,
    };

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&KeyMaterial::from_bytes([seed; 32])).unwrap()
    }

    fn proof(index: u64) -> TlogProof {
        let mut chain = Chain::new();
        let draft = |i: u64| EventDraft::new(AuditEventType::KeyUsed, format!("use {i}"));
        let events: Vec<_> = (0..7).map(|i| chain.append(draft(i), Timestamp(i)).unwrap()).collect();
        let hashes: Vec<_> = events.iter().map(|(event, _)| event.hash).collect();
        let checkpoint = Checkpoint::of(LogId::new([1; 16]), &chain.state());
        let mut note = SignedNote::unsigned(checkpoint.text());
        note.sign(&log_key_name(checkpoint.log_id), &key(1));
        TlogProof {
            leaf: Some(events[index as usize].1.clone()),
            index,
            path: inclusion_proof(&hashes[..], index, 7).unwrap(),
            checkpoint: note,
        }
    }

    #[test]
    fn a_proof_survives_its_text_and_verifies_with_the_key_of_the_log_alone() {
        for index in 0..7 {
            let proof: TlogProof = proof(index).to_string().parse().unwrap();
            let (event, checkpoint) = proof.verify(key(1).public_key()).unwrap();
            assert_eq!((event.details, checkpoint.size), (format!("use {index}"), 7));
            assert!(proof.verify(key(2).public_key()).is_err());
        }
    }

    #[test]
    fn no_changed_byte_of_a_proof_goes_unnoticed() {
        let text = proof(4).to_string();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let parsed = String::from_utf8(changed).ok().and_then(|text| text.parse::<TlogProof>().ok());
            assert!(parsed.is_none_or(|proof| proof.verify(key(1).public_key()).is_err()), "byte {at}");
        }
    }

    #[test]
    fn a_proof_without_a_leaf_or_for_another_place_proves_nothing() {
        let mut without = proof(4);
        without.leaf = None;
        assert_eq!(without.to_string().parse(), Ok(without.clone()));
        assert_eq!(without.verify(key(1).public_key()), Err(TlogProofError::NoLeaf));
        let mut moved = proof(4);
        moved.index = 5;
        assert!(moved.verify(key(1).public_key()).is_err());
    }

    #[test]
    fn other_spellings_of_a_proof_are_refused() {
        let text = proof(0).to_string();
        for (from, to) in
            [("index 0", "index 00"), ("index 0", "index +0"), ("@v1", "@v2"), ("\n\n", "\n"), ("extra ", "extra  ")]
        {
            assert_eq!(text.replacen(from, to, 1).parse::<TlogProof>(), Err(TlogProofError::Malformed), "{to}");
        }
        assert!(format!("{text}\n").parse::<TlogProof>().is_err());
    }
}
