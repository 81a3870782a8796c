//! Leaves, notes, receipts, proofs and segments.

use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use transcode_confidential::{
    audit::{
        Receipt, Seal,
        checkpoint::{Checkpoint, SignedNote, VerifierKey},
        decode_leaf, leaf_hash,
        segment::{Footer, Record, RecordBuffer, RecordError, RecordKind, SegmentHeader, SegmentName, is_torn},
        tree::{Node, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion},
        verify::Evidence,
    },
    ids::{LeafHash, RootHash},
};

use super::{
    edits::{Cursor, edited},
    material::{epoch_key, log_key, vector, vector_checkpoint, vector_line},
};

/// What is accepted is the one encoding, under the hash of its bytes.
pub(super) fn leaf(input: &[u8]) {
    if let Ok(event) = decode_leaf(input) {
        assert_eq!(event.to_leaf().as_deref(), Ok(input));
        assert_eq!(event.hash, leaf_hash(input));
    }
}

/// Even first byte: a text. Odd: edits of a signed checkpoint; no other text may carry its signature.
pub(super) fn note(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let genuine = vector_checkpoint();
    let bytes = if mode % 2 == 0 { rest.to_vec() } else { edited(genuine.as_bytes(), rest) };
    let Ok(text) = String::from_utf8(bytes) else { return };
    if let Ok(checkpoint) = Checkpoint::from_text(&text) {
        assert_eq!(checkpoint.text(), text);
    }
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(name) = text.parse::<SegmentName>() {
        assert_eq!(name.to_string(), text);
    }
    let _ = Evidence::checkpoint(&text);
    if let Ok(note) = text.parse::<SignedNote>() {
        assert_eq!(note.to_string(), text);
        let verifier = VerifierKey::from_str(&vector_line("log verifier key")).unwrap();
        let original: SignedNote = genuine.parse().unwrap();
        assert!(text != genuine || note.verify(&verifier).is_ok(), "the genuine checkpoint is refused");
        assert!(note.verify(&verifier).is_err() || note.text() == original.text(), "a forged checkpoint verifies");
    }
}

/// Even first byte: a receipt or a seal. Odd: edits of a genuine receipt, none of which may verify.
pub(super) fn receipt(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let genuine = vector("receipt of event 3");
    let bytes = if mode % 2 == 0 { rest.to_vec() } else { edited(&genuine, rest) };
    if let Some(seal) = Seal::from_bytes(&bytes) {
        assert_eq!(seal.to_bytes(), bytes);
        assert!(seal.verify(&log_key()).is_err(), "a seal by the log key");
    }
    let _ = Evidence::receipt(&bytes);
    if let Ok(receipt) = Receipt::from_bytes(&bytes) {
        assert_eq!(receipt.to_bytes(), bytes);
        assert_eq!(
            receipt.verify(&epoch_key()).is_ok(),
            bytes == genuine,
            "the genuine receipt verifies, and no other"
        );
    }
}

/// MTH of RFC 6962 section 2.1, as it stands there.
fn root_by_definition(leaves: &[LeafHash]) -> Node {
    match leaves {
        [] => Sha256::digest([]).into(),
        [one] => *one.as_bytes(),
        _ => {
            let mut split = 1;
            while 2 * split < leaves.len() {
                split *= 2;
            }
            let (left, right) = (root_by_definition(&leaves[..split]), root_by_definition(&leaves[split..]));
            Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
        }
    }
}

/// Proofs of a small tree verify, and not once they are edited; a proof from nowhere verifies nothing by accident.
pub(super) fn proofs(input: &[u8]) {
    let mut cursor = Cursor(input);
    let (size, pick) = (1 + usize::from(cursor.byte()), cursor.byte());
    let (claimed, claimed_size) = (cursor.long(), cursor.long());
    let leaves: Vec<_> = (0..size).map(|index| leaf_hash(&index.to_be_bytes())).collect();
    let root = RootHash::new(root_by_definition(&leaves));
    let rest = cursor.0;
    let nodes = |bytes: &[u8]| -> Vec<Node> { bytes.as_chunks::<32>().0.to_vec() };

    let index = usize::from(pick) % size;
    let path = inclusion_proof(&leaves[..], index as u64, size as u64).unwrap();
    assert_eq!(verify_inclusion(leaves[index], index as u64, size as u64, &path, root), Ok(()));
    let other = nodes(&edited(&path.concat(), rest));
    let accepted = verify_inclusion(leaves[index], index as u64, size as u64, &other, root).is_ok();
    assert_eq!(accepted, other == path, "an edited path");
    let elsewhere = verify_inclusion(leaves[index], claimed, size as u64, &path, root).is_ok();
    assert_eq!(elsewhere, claimed == index as u64, "another place");

    let old = usize::from(pick) % (size + 1);
    let old_root = RootHash::new(root_by_definition(&leaves[..old]));
    let proof = consistency_proof(&leaves[..], old as u64, size as u64).unwrap();
    assert_eq!(verify_consistency(old as u64, old_root, size as u64, root, &proof), Ok(()));
    let other = nodes(&edited(&proof.concat(), rest));
    let accepted = verify_consistency(old as u64, old_root, size as u64, root, &other).is_ok();
    assert_eq!(accepted, other == proof, "an edited proof");

    let path = nodes(rest);
    let stranger = RootHash::new([0; 32]);
    assert!(verify_inclusion(leaves[0], claimed, claimed_size, &path, stranger).is_err());
    let consistent = verify_consistency(claimed, stranger, claimed_size, RootHash::new([1; 32]), &path);
    assert!(consistent.is_err() || claimed == 0, "{claimed} {claimed_size}");
}

fn records(bytes: &[u8], step: usize) -> (Vec<Record>, Result<(), RecordError>, u64) {
    let mut buffer = RecordBuffer::at(0);
    let mut records = Vec::new();
    for chunk in bytes.chunks(step) {
        buffer.push(chunk);
        loop {
            match buffer.next_record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(error) => return (records, Err(error), buffer.offset()),
            }
        }
    }
    (records, Ok(()), buffer.offset())
}

/// A header, then records: framed by the target with an odd first byte, as they are with an even one. However the bytes are
/// cut they are the same records, which are written as they were read.
pub(super) fn segment(input: &[u8]) {
    if let Some((header, _)) = input.split_first_chunk::<{ SegmentHeader::LEN }>()
        && let Ok(read) = SegmentHeader::from_bytes(header)
    {
        assert_eq!(read.to_bytes(), *header);
    }
    if let Some(footer) = Footer::from_bytes(input) {
        assert_eq!(footer.to_bytes(), input);
    }
    let mut cursor = Cursor(input);
    let (mode, step) = (cursor.byte(), 1 + usize::from(cursor.byte()));
    let mut bytes = cursor.0.to_vec();
    if mode % 2 == 1 {
        bytes.clear();
        let (at, flip) = (cursor.short(), cursor.byte());
        while !cursor.is_empty() {
            let kind = RecordKind::from_code(1 + cursor.byte() % 8).unwrap();
            let length = cursor.short() % 600;
            Record::new(kind, cursor.take(length)).write_to(&mut bytes);
        }
        let intact = records(&bytes, bytes.len().max(1));
        assert_eq!(intact.2, bytes.len() as u64);
        if flip != 0 && !bytes.is_empty() {
            let at = at % bytes.len();
            bytes[at] ^= flip;
            let (left, error, offset) = records(&bytes, step);
            assert!(error.is_err() && offset <= at as u64, "a changed byte goes unnoticed");
            assert!(intact.0.starts_with(&left));
            let rest = &bytes[usize::try_from(offset).unwrap()..];
            // What was written full of zeros, or ends in them right behind a sector, may look like a sector that was not.
            let zeros = rest.windows(4).any(|bytes| bytes == [0; 4]) || rest.last() == Some(&0);
            assert!(zeros || !is_torn(rest, offset), "a changed byte looks like an interrupted write");
        }
    }
    let whole = records(&bytes, bytes.len().max(1));
    assert_eq!(whole, records(&bytes, step), "cut into pieces of {step}");
    let mut written = Vec::new();
    whole.0.iter().for_each(|record| record.write_to(&mut written));
    assert!(bytes.starts_with(&written) && written.len() as u64 == whole.2);
    let _ = is_torn(&bytes[written.len()..], whole.2);
}
