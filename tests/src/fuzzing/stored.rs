//! What the parent keeps for the enclave and hands back: snapshots, restore orders, packed segments.

use std::io::Read as _;

use packed::Unpack;
use transcode_confidential::{fold::Snapshot, protocol::restore::SignedRestore};

use super::{
    edits::{Cursor, edited},
    material::{policy_authority, repository, vector},
};

/// The parts of the snapshot of the vectors.
fn genuine() -> [Vec<u8>; 2] {
    ["0", "1"].map(|part| vector(&format!("snapshot of these 5 events, part {part}")))
}

/// First byte 0, 3, ...: parts, each behind its length in two bytes. 1, 4, ...: edits of the first part of a genuine one;
/// 2, 5, ...: of the second. What is accepted is the one encoding, and the head alone says the same place.
pub(super) fn snapshot(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let mut parts = genuine().to_vec();
    match mode % 3 {
        0 => {
            parts.clear();
            let mut cursor = Cursor(rest);
            while !cursor.is_empty() {
                let length = cursor.short();
                parts.push(cursor.take(length).to_vec());
            }
        }
        1 => parts[0] = edited(&parts[0], rest),
        _ => parts[1] = edited(&parts[1], rest),
    }
    let place = parts.first().map(|first| Snapshot::place(first));
    let Ok(read) = Snapshot::decode(&parts) else {
        assert!(parts != genuine(), "the genuine snapshot is refused");
        return;
    };
    assert_eq!(place, Some(Ok((read.log_id, read.chain.clone()))));
    assert_eq!(Snapshot::encode(read.log_id, &read.chain, &read.fold).as_ref(), Ok(&parts));
}

/// Even first byte: an order. Odd: edits of a genuine one, none of which may verify.
pub(super) fn restore_order(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let genuine = vector("restore order");
    let order = if mode % 2 == 0 { rest.to_vec() } else { edited(&genuine, rest) };
    let claimed = SignedRestore::claimed(&order);
    let verified = SignedRestore::verify(&order, &policy_authority());
    assert_eq!(verified.is_ok(), order == genuine, "the genuine order verifies, and no other");
    if let Ok(signed) = verified {
        assert_eq!(Some(signed.restore()), claimed.as_ref().ok());
    }
}

/// Even first byte: a packed file. Odd: edits of a genuine one. No more comes out than its end promises; of an edited one
/// nothing comes out whole but the segment itself.
pub(super) fn packed_segment(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let segment = repository("fuzz/material/0.seg");
    let mut genuine = Vec::new();
    packed::pack(&mut segment.as_slice(), &mut genuine).unwrap();
    let file = if mode % 2 == 0 { rest.to_vec() } else { edited(&genuine, rest) };
    let Some(trailer) = file.last_chunk() else { return };
    let length = packed::length(*trailer);
    let mut out = Vec::new();
    let read = Unpack::new(file.as_slice(), length).and_then(|mut unpack| unpack.read_to_end(&mut out));
    assert!(out.len() as u64 <= length);
    match read {
        Ok(_) => {
            assert_eq!(out.len() as u64, length);
            assert!(mode % 2 == 0 || out == segment, "another segment comes out");
        }
        Err(_) => assert!(file != genuine, "the genuine file is refused"),
    }
}
