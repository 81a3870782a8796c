//! Ours beside what others wrote for the same formats: proofs beside `tlog_tiles`, documents beside `coset` and `serde_cbor`.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use coset::CborSerializable as _;
use serde_cbor::Value;
use tlog_tiles::{Error, Hash, HashReader};
use transcode_confidential::{
    attestation::{ImagePolicy, PcrIndex, UnverifiedDocument},
    audit::{
        leaf_hash,
        tree::{Node, consistency_proof, inclusion_proof, root_of, verify_consistency, verify_inclusion},
    },
    ids::{LeafHash, RootHash},
};

use super::{
    document::NOW,
    edits::{Cursor, edited},
    material,
};
use crate::nsm::{DocumentDraft, MockImage};

/// Hashes of a small tree, where `tlog_tiles` stores them.
struct Stored(Vec<Hash>);

impl HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
    }
}

fn theirs(nodes: &[Node]) -> Vec<Hash> {
    nodes.iter().copied().map(Hash).collect()
}

/// Proofs between any two sizes of a small tree are theirs, byte by byte; and of any other path both say the same.
pub(super) fn tree_differential(input: &[u8]) {
    let mut cursor = Cursor(input);
    let size = 1 + u64::from(cursor.byte());
    let (index, old) = (u64::from(cursor.byte()) % size, 1 + u64::from(cursor.byte()) % size);
    let (claimed, claimed_size) = (u64::from(cursor.byte()), u64::from(cursor.byte()));
    let rest = cursor.0;
    let texts: Vec<_> = (0..size).map(u64::to_be_bytes).collect();
    let leaves: Vec<LeafHash> = texts.iter().map(|text| leaf_hash(text)).collect();
    let mut stored = Stored(Vec::new());
    for (number, text) in texts.iter().enumerate() {
        let more = tlog_tiles::stored_hashes(number as u64, text, &stored).unwrap();
        stored.0.extend(more);
    }
    let root = root_of(&leaves[..], 0, size).unwrap();
    assert_eq!(Hash(root), tlog_tiles::tree_hash(size, &stored).unwrap());
    let leaf = leaves[usize::try_from(index).unwrap()];

    let path = inclusion_proof(&leaves[..], index, size).unwrap();
    assert_eq!(theirs(&path), tlog_tiles::prove_record(size, index, &stored).unwrap());
    let changed: Vec<Node> = edited(&path.concat(), rest).as_chunks::<32>().0.to_vec();
    for (place, of) in [(index, size), (claimed, size), (index, claimed_size), (claimed, claimed_size)] {
        let ours = verify_inclusion(leaf, place, of, &changed, RootHash::new(root)).is_ok();
        let other = tlog_tiles::check_record(&theirs(&changed), of, Hash(root), place, Hash(*leaf.as_bytes()));
        assert_eq!(ours, other.is_ok(), "inclusion of {place} in {of}: {other:?}");
    }

    let old_root = root_of(&leaves[..], 0, old).unwrap();
    let proof = consistency_proof(&leaves[..], old, size).unwrap();
    assert_eq!(theirs(&proof), tlog_tiles::prove_tree(size, old, &stored).unwrap());
    let changed: Vec<Node> = edited(&proof.concat(), rest).as_chunks::<32>().0.to_vec();
    for (from, to) in [(old, size), (claimed, size), (old, claimed_size), (claimed, claimed_size)] {
        // With nothing every tree is consistent: RFC 9162 section 2.1.4 leaves it to the caller, they refuse to be asked.
        if from == 0 {
            continue;
        }
        let ours = verify_consistency(from, RootHash::new(old_root), to, RootHash::new(root), &changed).is_ok();
        let other = tlog_tiles::check_tree(&theirs(&changed), to, Hash(root), from, Hash(old_root));
        assert_eq!(ours, other.is_ok(), "consistency of {from} and {to}: {other:?}");
    }
}

/// Fields of a payload, as another decoder reads them.
type Fields = BTreeMap<String, Value>;

fn fields(payload: &[u8]) -> Option<Fields> {
    let Value::Map(fields) = serde_cbor::from_slice(payload).ok()? else { return None };
    fields.into_iter().map(|(name, value)| Some((as_text(&name)?.to_owned(), value))).collect()
}

fn as_text(value: &Value) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

fn as_bytes(value: Option<&Value>) -> Option<&[u8]> {
    if let Some(Value::Bytes(bytes)) = value { Some(bytes) } else { None }
}

/// A payload of a document, edited or given whole, and signed as the NSM signs. What ours accepts is a COSE_Sign1 for the
/// generic decoders too, whose signature verifies by their reading of what is signed, with the same fields. Ours may be the
/// stricter one.
pub(super) fn document_differential(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let chain = &*material::CHAIN;
    let mut draft = DocumentDraft::new("i-0-enc0", NOW, chain);
    draft.set_pcrs(&MockImage::named("1.0").pcrs());
    draft.public_key = Some(vec![3; 65]);
    draft.user_data = Some(b"user data".to_vec());
    draft.nonce = Some(vec![5; 32]);
    let received = match mode % 3 {
        0 => draft.sign_payload(rest, &chain.leaf_key),
        1 => draft.sign_payload(&edited(&draft.payload(), rest), &chain.leaf_key),
        _ => edited(&draft.sign(&chain.leaf_key), rest),
    };
    let policy = ImagePolicy::danger_any_image();
    let verified = UnverifiedDocument::parse(&received)
        .and_then(|document| document.verify_archived(&material::CHAIN_ROOT, &policy));
    assert!(*mode % 3 == 0 || !rest.is_empty() || verified.is_ok(), "the genuine one: {:?}", verified.err());
    let Ok(ours) = verified else { return };

    let untagged = received.strip_prefix(&[0xd2]).unwrap_or(&received);
    let sign1 = coset::CoseSign1::from_slice(untagged).expect("what ours accepts is a COSE_Sign1");
    let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, chain.leaf_key.point());
    key.verify(&sign1.tbs_data(&[]), &sign1.signature).expect("the signature verifies by their reading");
    let theirs = sign1.payload.as_deref().and_then(fields).expect("what ours accepts is a map with names");
    assert_eq!(theirs.get("module_id").and_then(as_text), Some(ours.module_id()));
    assert_eq!(theirs.get("digest").and_then(as_text), Some("SHA384"));
    assert_eq!(theirs.get("timestamp"), Some(&Value::Integer(i128::from(ours.timestamp().0))));
    assert_eq!(as_bytes(theirs.get("certificate")), Some(ours.claims().certificate()));
    assert_eq!(as_bytes(theirs.get("public_key")), ours.public_key());
    assert_eq!(as_bytes(theirs.get("user_data")), ours.user_data());
    assert_eq!(as_bytes(theirs.get("nonce")), ours.nonce());
    let Some(Value::Array(bundle)) = theirs.get("cabundle") else { panic!("no bundle") };
    let bundle: Vec<_> = bundle.iter().map(|one| as_bytes(Some(one))).collect();
    assert_eq!(bundle, ours.claims().bundle().iter().map(|one| Some(one.as_slice())).collect::<Vec<_>>());
    let Some(Value::Map(registers)) = theirs.get("pcrs") else { panic!("no registers") };
    for (number, value) in registers {
        let Value::Integer(number) = number else { panic!("{number:?}") };
        let ours = ours.pcrs().get(u8::try_from(*number).ok().and_then(PcrIndex::new).expect("a register"));
        assert_eq!(ours.map(|value| value.as_bytes().to_vec()), as_bytes(Some(value)).map(<[u8]>::to_vec));
    }
}
