//! The formats of `docs/PROTOCOL.md`, pinned byte for byte: `vectors/protocol.txt` is what a second implementation is written
//! against. Set `UPDATE_VECTORS` to write the file anew; a change of it is a change of the formats.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails should fail loudly")]

use std::fmt::Write as _;

use transcode_confidential::{
    attestation::UserData,
    audit::{
        AuditEventType, Chain, CreationReason, EpochOpened, EpochStatement, EventBody, EventDraft, HoldChange,
        KeyChange, KeyOperation, Maintenance, Outcome, Receipt, ReportOf, Reported, RequestTag, Seal,
        checkpoint::{Checkpoint, log_verifier_key},
        cose_receipt::CoseReceipt,
        decode_leaf, leaf_hash,
        segment::{Footer, Record, RecordKind, SegmentHeader},
        tree::{consistency_proof, inclusion_proof},
    },
    fold::{Fold, Snapshot},
    ids::{Digest, Epoch, KeyVersion, LeafHash, LogId, Period, Sequence},
    keys::MediaKey,
    protocol::{
        frame::FrameHead,
        host::{Request, VERSION},
        policy::{Grant, Operation, Policy, SignedPolicy},
        restore::{Restore, SignedRestore},
    },
    secret::KeyMaterial,
    signature::{Signature, SigningKey},
    time::Timestamp,
};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&KeyMaterial::from_bytes([seed; 32])).unwrap()
}

fn drafts(log_id: LogId) -> Vec<EventDraft> {
    let (log_key, epoch_key) = (key(1), key(2));
    let mut opened = EpochOpened {
        log_id,
        epoch_key: epoch_key.public_key(),
        log_key: log_key.public_key(),
        document: Digest::of(b"attestation document"),
        log_key_record: Digest::of(b"wrapped log key"),
        statement: Signature::new([0; 64]),
    };
    opened.statement = EpochStatement::of(&opened, Epoch(1), Sequence(0), LeafHash::ZERO).sign(&log_key);
    let created = |reason| EventBody::KeyCreated {
        record: Some(Digest::of(b"wrapped key")),
        max_age_secs: 3600,
        max_uses: 10_000,
        require_attestation: true,
        reason,
    };
    let film = |event_type, version| EventDraft::new(event_type, "vector").key("film-1", version);
    vec![
        EventDraft::new(AuditEventType::EnclaveCreated, "epoch 1 opened")
            .body(EventBody::EpochOpened(Box::new(opened))),
        EventDraft::new(AuditEventType::PolicyChanged, "policy version 1 adopted")
            .body(EventBody::PolicyAdopted { version: 1, document: Digest::of(b"policy") }),
        film(AuditEventType::KeyGenerated, Some(KeyVersion(1))).principal("ops").body(created(CreationReason::Initial)),
        film(AuditEventType::KeyUsed, Some(KeyVersion(1))).principal("transcoder-1").content("reel-7").body(
            EventBody::KeyUsed {
                operation: KeyOperation::Encrypt,
                uses: 1,
                context: Some(Digest::of(b"serialized context")),
                period: None,
            },
        ),
        film(AuditEventType::ContentProcessed, Some(KeyVersion(1))).principal("transcoder-1").content("reel-7").body(
            EventBody::Processed {
                began: Some(Sequence(3)),
                outcome: Outcome::Complete,
                bytes_in: 1_000_000,
                bytes_out: 1_000_500,
                digest: Some(Digest::of(b"released bytes")),
            },
        ),
        film(AuditEventType::KeyRotated, Some(KeyVersion(2))).body(created(CreationReason::Uses)),
        film(AuditEventType::KeyRevoked, None)
            .principal("ops")
            .body(EventBody::KeyChanged { change: KeyChange::Revoked }),
        EventDraft::new(AuditEventType::UnauthorizedAccess, "GET /v1/keys/x refused — \u{1b}[31m")
            .principal("intern")
            .body(EventBody::Refused { code: "DENIED".into(), count: 3 }),
        EventDraft::new(AuditEventType::LogMaintained, "unsealed records set aside").body(EventBody::Maintained {
            action: Maintenance::Quarantined,
            records: 2,
            bytes: 400,
        }),
    ]
}

/// A leaf of its own, so that those above stay what they are.
fn media_key_leaf() -> Vec<u8> {
    let body =
        EventBody::KeyUsed { operation: KeyOperation::DeriveMediaKey, uses: 1, context: None, period: Some(Period(3)) };
    let draft = EventDraft::new(AuditEventType::KeyUsed, "vector").key("film-1", Some(KeyVersion(2))).content("reel-7");
    let mut chain = Chain::new();
    chain.open_epoch(Epoch(1));
    let mut batch = chain.begin_batch();
    let event = chain.append_to(&mut batch, draft.body(body), Timestamp(1_767_225_600_000)).unwrap();
    let leaf = batch.leaves().last().unwrap().to_vec();
    assert_eq!(decode_leaf(&leaf).unwrap(), event);
    leaf
}

/// The bodies that keep a log, the snapshot that the first of them names, and an order to restore. Apart from the log above.
fn keeping(mut line: impl FnMut(&str, &[u8])) {
    let log_id = LogId::new(*b"0123456789abcdef");
    let (mut chain, mut fold) = (Chain::new(), Fold::new());
    chain.open_epoch(Epoch(1));
    let happen = |chain: &mut Chain, fold: &mut Fold, draft: EventDraft, records: Vec<Record>| {
        let now = Timestamp(1_767_225_600_000 + 1000 * chain.size());
        let (event, leaf) = chain.append(draft, now).unwrap();
        assert_eq!(decode_leaf(&leaf).unwrap(), event);
        fold.apply(&event, &records).unwrap();
        leaf
    };
    let beside: [&[&[u8]]; 4] = [&[b"attestation document", b"wrapped log key"], &[b"policy"], &[b"wrapped key"], &[]];
    for (draft, payloads) in drafts(log_id).into_iter().zip(beside) {
        let kind = match draft.event_type {
            AuditEventType::EnclaveCreated => [RecordKind::Attestation, RecordKind::WrappedKey],
            AuditEventType::PolicyChanged => [RecordKind::Policy; 2],
            _ => [RecordKind::WrappedKey; 2],
        };
        let records = kind.into_iter().zip(payloads).map(|(kind, payload)| Record::new(kind, payload.to_vec()));
        happen(&mut chain, &mut fold, draft, records.collect());
    }
    let maintained = |body| EventDraft::new(AuditEventType::LogMaintained, "vector").body(body);
    let hold = |change| maintained(EventBody::Hold { name: "case 7".into(), change }).principal("ops");
    line("leaf (hold placed)", &happen(&mut chain, &mut fold, hold(HoldChange::Placed), Vec::new()));
    let parts = Snapshot::encode(log_id, &chain, &fold).unwrap();
    assert_eq!(Snapshot::decode(&parts).unwrap(), Snapshot { log_id, chain: chain.clone(), fold: fold.clone() });
    for (n, part) in parts.iter().enumerate() {
        line(&format!("snapshot of these 5 events, part {n}"), part);
    }
    let body = EventBody::Snapshot { parts: parts.iter().map(|part| Digest::of(part)).collect() };
    let records = parts.into_iter().map(|part| Record::new(RecordKind::Snapshot, part)).collect();
    line("leaf (snapshot)", &happen(&mut chain, &mut fold, maintained(body), records));
    line("leaf (hold lifted)", &happen(&mut chain, &mut fold, hold(HoldChange::Lifted), Vec::new()));
    let pruned = EventBody::Pruned { below: Sequence(5), proven: 1 };
    line("leaf (pruned)", &happen(&mut chain, &mut fold, maintained(pruned).principal("ops"), Vec::new()));
    let restore = Restore {
        deployment: "studio".into(),
        log_id,
        size: chain.size(),
        root: chain.state().root,
        lost_epoch: Epoch(4),
        issued_at: Timestamp(1_767_225_600_000),
        reason: "the disk died".into(),
    };
    let order = SignedRestore::sign(restore.clone(), &key(3));
    assert_eq!(SignedRestore::verify(order.document(), &key(3).public_key()).unwrap().restore(), &restore);
    line("restore order", order.document());
    let body = EventBody::Restored {
        size: restore.size,
        root: restore.root,
        document: order.digest(),
        lost_epoch: restore.lost_epoch,
    };
    let record = Record::new(RecordKind::Restoration, order.document().to_vec());
    line("leaf (restored)", &happen(&mut chain, &mut fold, maintained(body), vec![record]));
}

fn vectors() -> String {
    let mut out = String::new();
    let mut line = |name: &str, bytes: &[u8]| writeln!(out, "{name} = {}", hex::encode(bytes)).unwrap();
    let log_id = LogId::new(*b"0123456789abcdef");
    let (log_key, epoch_key) = (key(1), key(2));
    line("log key seed", &[1; 32]);
    line("log key", log_key.public_key().as_bytes());
    line("epoch key seed", &[2; 32]);
    line("epoch key", epoch_key.public_key().as_bytes());
    line("log id", log_id.as_bytes());

    let mut chain = Chain::new();
    chain.open_epoch(Epoch(1));
    let mut batch = chain.begin_batch();
    for (n, draft) in drafts(log_id).into_iter().enumerate() {
        let event = chain.append_to(&mut batch, draft, Timestamp(1_767_225_600_000 + 1000 * n as u64)).unwrap();
        let leaf = batch.leaves().last().unwrap();
        assert_eq!(decode_leaf(leaf).unwrap(), event);
        assert_eq!(leaf_hash(leaf), event.hash);
        line(&format!("leaf {n} ({})", event.event_type), leaf);
        line(&format!("leaf hash {n}"), event.hash.as_bytes());
    }
    let state = chain.state();
    line("root", state.root.as_bytes());
    for index in [0, 4, 8] {
        let path = inclusion_proof(&batch.hashes[..], index, 9).unwrap();
        assert_eq!(batch.tree().path(index), Some(path.clone()));
        line(&format!("inclusion proof of {index} in 9"), &path.concat());
    }
    line("consistency proof of 3 and 9", &consistency_proof(&batch.hashes[..], 3, 9).unwrap().concat());

    // Apart from the log above: what an event says of the request that it answers.
    let tag = RequestTag::new(&"ops".parse().unwrap(), "retry-1", ("POST", "/v1/keys/film-1/minimum", b"{}"));
    let draft = EventDraft::new(AuditEventType::KeyRevoked, "vector")
        .key("film-1", Some(KeyVersion(2)))
        .principal("ops")
        .body(EventBody::KeyChanged { change: KeyChange::DecryptFrom })
        .request(Some(tag));
    let (event, leaf) = Chain::new().append(draft, Timestamp(1_767_225_600_000)).unwrap();
    assert_eq!(decode_leaf(&leaf).unwrap(), event);
    line("leaf of a request with the idempotency key retry-1", &leaf);

    let said = Reported {
        job: "job-42".into(),
        number: 17,
        complete: true,
        frames: 48,
        bytes_in: 1_000_000,
        bytes_out: 1_000_500,
        input: Some(Digest::of(b"segment")),
        output: Some(Digest::of(b"message")),
    };
    let reported = EventDraft::new(AuditEventType::ContentProcessed, "vector")
        .key("film-1", Some(KeyVersion(1)))
        .principal("transcoder-1")
        .content("reel-7")
        .body(EventBody::Reported(said.clone()));
    let (event, leaf) = Chain::new().append(reported, Timestamp(1_767_225_600_000)).unwrap();
    assert_eq!(decode_leaf(&leaf).unwrap(), event);
    line("leaf of reported work", &leaf);
    let of = ReportOf { principal: "transcoder-1", content: "reel-7", key: "film-1", version: Some(KeyVersion(1)) };
    let tag = said.tag(&of);
    line("tag of that report", &[tag.key.as_bytes().as_slice(), tag.request.as_bytes()].concat());

    let seal = Seal::sign(&epoch_key, log_id, state);
    line("seal", &seal.to_bytes());
    let receipt = Receipt { seal, sequence: Sequence(3), leaf: batch.hashes[3], path: batch.tree().path(3).unwrap() };
    receipt.verify(&epoch_key.public_key()).unwrap();
    line("receipt of event 3", &receipt.to_bytes());
    let tree = (seal.state.size, seal.state.root);
    let cose = CoseReceipt::sign(&log_key, log_id, tree, Sequence(3), receipt.path.clone());
    cose.verify(&log_key.public_key(), Sequence(3), receipt.leaf).unwrap();
    line("COSE receipt of event 3", &cose.to_bytes());

    let header = SegmentHeader { log_id, epoch: Epoch(1), first: Sequence(0), previous: LeafHash::ZERO };
    line("segment header", &header.to_bytes());
    let mut record = Vec::new();
    Record::new(RecordKind::Seal, seal.to_bytes()).write_to(&mut record);
    line("seal record", &record);
    let footer = Footer { first: Sequence(0), size: state.size, last: state.last, content: Digest::of(b"file so far") };
    line("footer", &footer.to_bytes());

    let hello = Request::Hello { version: VERSION, session: [5; 16] }.encode(1);
    line("frame of hello", &[&FrameHead::of(&hello).unwrap().to_bytes()[..], &hello].concat());

    for (name, data) in [
        ("kms", UserData::Kms { log_id: Some(log_id), request: UserData::request_hash("Decrypt", b"context") }),
        ("epoch", UserData::Epoch { log_id, epoch: Epoch(1), first: Sequence(0), previous: LeafHash::ZERO }),
        ("channel", UserData::Channel { log_id, epoch: Epoch(1) }),
        ("head", UserData::Head { log_id, epoch: Epoch(1), size: state.size, last: state.last }),
        ("caller", UserData::Caller { log_id }),
    ] {
        line(&format!("user_data {name}"), &data.encode());
    }

    let policy = Policy {
        deployment: "studio".into(),
        version: 1,
        issued_at: Timestamp(1_767_225_600_000),
        grants: vec![Grant {
            principal: "transcoder-1".parse().unwrap(),
            key_prefix: "film-".into(),
            operations: [Operation::Encrypt, Operation::Decrypt].into(),
            caller: None,
        }],
        denied: vec!["intern".parse().unwrap()],
    };
    line("version key", &[4; 32]);
    let version_key = KeyMaterial::from_bytes([4; 32]);
    let (film, reel) = ("film-1".parse().unwrap(), "reel-7".parse().unwrap());
    let media_key = MediaKey::derive(&version_key, &film, KeyVersion(2), &reel, Period(3));
    line("media key of film-1 version 2, reel-7 period 3", media_key.expose());
    line("leaf (media key)", &media_key_leaf());
    keeping(&mut line);
    line("policy authority seed", &[3; 32]);
    line("signed policy", SignedPolicy::sign(policy, &key(3)).document());

    let note = Checkpoint::of(log_id, &state).sign(&log_key, Epoch(1), &epoch_key);
    writeln!(out, "log verifier key = {}", log_verifier_key(log_id, log_key.public_key())).unwrap();
    writeln!(out, "checkpoint:\n{note}").unwrap();
    out
}

#[test]
fn every_format_has_the_bytes_that_the_protocol_document_pins() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/protocol.txt");
    let found = vectors();
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    let pinned = std::fs::read_to_string(path).unwrap();
    for (found, pinned) in found.lines().zip(pinned.lines()) {
        assert_eq!(found, pinned);
    }
    assert_eq!(found.len(), pinned.len());
}

/// A leaf has one encoding, of which the reader alone is the judge: nothing encodes what it read again to compare.
#[test]
fn a_changed_leaf_is_refused_or_is_the_one_leaf_of_what_it_says() {
    let vectors = vectors();
    let leaves = vectors.lines().filter_map(|line| line.split_once(" = "));
    let leaves: Vec<_> = leaves
        .filter(|(name, _)| name.starts_with("leaf ") && !name.contains("hash"))
        .map(|(_, leaf)| hex::decode(leaf).unwrap())
        .collect();
    assert!(leaves.len() > 15, "{}", leaves.len());
    let (mut read, mut refused) = (0, 0);
    let mut holds = |leaf: &[u8]| match decode_leaf(leaf) {
        Ok(event) => {
            assert_eq!(event.to_leaf().as_deref(), Ok(leaf));
            assert_eq!(event.hash, leaf_hash(leaf));
            read += 1;
        }
        Err(_) => refused += 1,
    };
    for leaf in &leaves {
        holds(leaf);
        for at in 0..leaf.len() {
            for other in 1..=255 {
                let mut changed = leaf.clone();
                changed[at] ^= other;
                holds(&changed);
            }
            holds(&leaf[..at]);
            holds(&[&leaf[..at], &leaf[at + 1..]].concat());
            holds(&[&leaf[..=at], &leaf[at..]].concat());
        }
    }
    assert!(read > 10_000 && refused > 10_000, "{read} and {refused}");
}
