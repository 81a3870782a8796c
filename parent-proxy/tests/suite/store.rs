//! The store on a disk that works.

use std::{sync::Arc, time::Duration};

use parent_proxy::{
    config::StoreConfig,
    metrics::Metrics,
    store::{Batch, Store, StoreError, disk::SystemDisk},
};
use transcode_confidential::{
    audit::{
        segment::{Record, RecordKind, SegmentName},
        tree::{verify_consistency, verify_inclusion},
    },
    ids::{Epoch, LeafHash, LogId, RootHash, Sequence},
    protocol::host::{Append, Durable, HostError},
    time::SystemClock,
};

use crate::{
    enclave::{LOG, Ledger, edit, records},
    oracle,
};

fn settings(directory: &std::path::Path) -> StoreConfig {
    StoreConfig {
        directory: directory.to_owned(),
        segment_size: 64 * 1024,
        segment_age: Duration::from_secs(3600),
        reserve: 100_000,
        offer_snapshots: true,
        pack_after: None,
        archive: None,
        archive_after: None,
    }
}

fn open(directory: &std::path::Path) -> Result<Store, StoreError> {
    open_with(settings(directory))
}

fn open_with(settings: StoreConfig) -> Result<Store, StoreError> {
    Store::open(Arc::new(SystemDisk), settings, Arc::new(SystemClock), Arc::new(Metrics::default()))
}

fn append(store: &mut Store, append: &Append) -> Result<Durable, HostError> {
    let mut results = Vec::new();
    store.append(&[Batch::new(append.clone())?], |result| results.push(result));
    assert_eq!(results.len(), 1);
    results.remove(0)
}

#[test]
fn what_was_acknowledged_is_there_after_reopening_in_segments_by_size_and_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    for round in 0..4 {
        let mut store = open(dir.path()).unwrap();
        let expected = (round > 0).then(|| (LOG, Durable { size: ledger.chain.size(), last: ledger.chain.last() }));
        assert_eq!(store.durable().unwrap(), expected);
        if round == 2 {
            ledger.next_epoch();
        }
        for _ in 0..20 {
            let batch = ledger.batch_of(10, 500);
            assert_eq!(append(&mut store, &batch), Ok(batch.after));
        }
    }
    let verdict = oracle::check(&oracle::read(dir.path()), &ledger.public_key());
    assert_eq!(verdict.durable.size, 800);
    assert!(verdict.tail.is_none());
    // 800 events of 0.6 KB: by size alone a segment each 64 KiB, and one more at the epoch.
    assert!((7..10).contains(&verdict.segments), "{}", verdict.segments);
}

#[test]
fn a_batch_that_does_not_follow_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    let mut store = open(dir.path()).unwrap();
    let first = ledger.batch(3);
    let second = ledger.batch(3);
    let third = ledger.batch(3);
    assert_eq!(append(&mut store, &second), Err(HostError::OutOfOrder), "a log starts at its start");
    append(&mut store, &first).unwrap();
    append(&mut store, &second).unwrap();
    let before = oracle::read(dir.path());
    let mut foreign = Ledger::of(LogId::new([9; 16]));
    let (_, foreign_next) = (foreign.batch(6), foreign.batch(1));
    let mut other_past = third.clone();
    other_past.previous = LeafHash::new([1; 32]);
    let mut gap = Ledger::new();
    gap.batch(7);
    let gap = gap.batch(2);
    for (name, bad) in [("skipped", &gap), ("old", &first), ("foreign", &foreign_next), ("other past", &other_past)] {
        assert_eq!(append(&mut store, bad), Err(HostError::OutOfOrder), "{name}");
    }
    let mut earlier_epoch = Ledger::new();
    earlier_epoch.batch(6);
    drop(store);
    assert_eq!(oracle::read(dir.path()), before);
    assert_eq!(append(&mut open(dir.path()).unwrap(), &third), Ok(third.after));
}

#[test]
fn an_epoch_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    let mut store = open(dir.path()).unwrap();
    ledger.next_epoch();
    append(&mut store, &ledger.batch(1)).unwrap();
    let in_epoch = |epoch| ledger.sealed_by_hand(Epoch(epoch), b"not even an event");
    assert_eq!(append(&mut store, &in_epoch(1)), Err(HostError::OutOfOrder));
    assert!(append(&mut store, &in_epoch(2)).is_ok());
}

#[test]
fn the_last_batch_is_acknowledged_again_only_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    let mut store = open(dir.path()).unwrap();
    append(&mut store, &ledger.batch(2)).unwrap();
    let mut last = ledger.batch(2);
    edit(&mut last, |records| records.insert(0, Record::new(RecordKind::WrappedKey, [1; 10])));
    append(&mut store, &last).unwrap();
    let before = oracle::read(dir.path());
    assert_eq!(append(&mut store, &last), Ok(last.after));
    // The same seal, with one record more, or with one that is another: the same end, other bytes.
    let mut longer = last.clone();
    edit(&mut longer, |records| records.insert(0, Record::new(RecordKind::WrappedKey, [1; 10])));
    let mut other = last.clone();
    edit(&mut other, |records| records[0].payload[9] = 2);
    for bad in [longer, other] {
        assert_eq!(append(&mut store, &bad), Err(HostError::OutOfOrder));
    }
    drop(store);
    let mut store = open(dir.path()).unwrap();
    assert_eq!(append(&mut store, &last), Ok(last.after), "after reopening as well");
    drop(store);
    assert_eq!(oracle::read(dir.path()), before);
}

#[test]
fn a_batch_that_no_reader_could_read_is_refused() {
    let mut ledger = Ledger::new();
    let good = ledger.batch(2);
    assert!(Batch::new(good.clone()).is_ok());
    let seal = records(&good).pop().unwrap();
    let change = |change: &dyn Fn(&mut Append)| {
        let mut bad = good.clone();
        change(&mut bad);
        Batch::new(bad)
    };
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Append));
    let changes: [Change<'_>; 16] = [
        ("no records", &|bad| bad.records.clear()),
        ("no seal", &|bad| edit(bad, |records| drop(records.pop()))),
        ("no entry", &|bad| edit(bad, |records| drop(records.drain(..2)))),
        ("an entry less", &|bad| edit(bad, |records| drop(records.remove(0)))),
        ("a seal inside", &|bad| edit(bad, |records| records.insert(1, seal.clone()))),
        ("a footer", &|bad| edit(bad, |records| records.insert(0, Record::new(RecordKind::Footer, [0; 80])))),
        ("a record beyond the limit", &|bad| {
            edit(bad, |records| records.insert(0, Record::new(RecordKind::Snapshot, [0; 256 * 1024 + 1])))
        }),
        ("another entry at the end", &|bad| edit(bad, |records| records[1].payload[0] ^= 1)),
        ("a byte that its check sum does not cover", &|bad| bad.records[20] ^= 1),
        ("something behind the seal", &|bad| bad.records.push(0)),
        ("an entry behind the seal", &|bad| edit(bad, |records| records.rotate_right(1))),
        ("half a record", &|bad| bad.records.truncate(bad.records.len() - 1)),
        ("another log", &|bad| bad.log_id = LogId::new([1; 16])),
        ("another epoch", &|bad| bad.epoch = Epoch(2)),
        ("another size", &|bad| bad.after.size += 1),
        ("another start", &|bad| bad.first = Sequence(u64::MAX)),
    ];
    for (name, bad) in changes {
        assert_eq!(change(bad).err(), Some(HostError::Refused), "{name}");
    }
}

#[test]
fn batches_that_wait_together_are_stored_together_and_answered_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    let mut store = open(dir.path()).unwrap();
    let appends: Vec<Append> = (0..10)
        .map(|number| {
            if number == 6 {
                ledger.next_epoch();
            }
            ledger.batch(3)
        })
        .collect();
    let mut batches: Vec<Batch> = appends.iter().map(|append| Batch::new(append.clone()).unwrap()).collect();
    // One that does not follow in the middle, and one twice at the end.
    batches.insert(4, Batch::new(appends[8].clone()).unwrap());
    batches.push(Batch::new(appends[9].clone()).unwrap());
    let mut answers = Vec::new();
    store.append(&batches, |result| answers.push(result));
    let mut expected: Vec<_> = appends.iter().map(|append| Ok(append.after)).collect();
    expected.insert(4, Err(HostError::OutOfOrder));
    expected.push(Ok(appends[9].after));
    assert_eq!(answers, expected);
    let verdict = oracle::check(&oracle::read(dir.path()), &ledger.public_key());
    assert_eq!((verdict.durable.size, verdict.segments), (30, 2));
}

#[test]
fn an_unsealed_tail_stays_until_it_is_set_aside_and_nothing_sealed_ever_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    let mut store = open(dir.path()).unwrap();
    append(&mut store, &ledger.batch(2)).unwrap();
    drop(store);
    let name: SegmentName = "00000000000000000000-0000000001.seg".parse().unwrap();
    let path = dir.path().join(name.to_string());
    let sealed = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&sealed[..], b"not a record"].concat()).unwrap();

    let mut store = open(dir.path()).unwrap();
    let next = ledger.batch(2);
    assert_eq!(append(&mut store, &next), Err(HostError::Refused), "the tail lies in the way");
    assert_eq!(store.segments(None).unwrap()[0].length, sealed.len() as u64 + 12);
    assert_eq!(store.read(name, sealed.len() as u64, 100).unwrap(), b"not a record");
    let end = sealed.len() as u64;
    for wrong in [0, 96, end - 1, end + 1, end + 12] {
        assert_eq!(store.quarantine(name, wrong), Err(HostError::Refused), "{wrong}");
    }
    let other: SegmentName = "00000000000000000001-0000000001.seg".parse().unwrap();
    assert_eq!(store.quarantine(other, end), Err(HostError::NotFound));
    store.quarantine(name, end).unwrap();
    store.quarantine(name, end).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), sealed);
    let aside: Vec<_> = std::fs::read_dir(dir.path().join("quarantine")).unwrap().map(Result::unwrap).collect();
    assert_eq!(aside.len(), 1);
    assert!(aside[0].file_name().to_str().unwrap().starts_with(&format!("{name}.{end}.")));
    assert_eq!(std::fs::read(aside[0].path()).unwrap(), b"not a record");
    assert_eq!(append(&mut store, &next), Ok(next.after));
    oracle::check(&oracle::read(dir.path()), &ledger.public_key());
}

#[test]
fn a_tail_that_is_the_start_of_the_batch_is_that_batch_half_written() {
    let mut ledger = Ledger::new();
    let (first, second) = (ledger.batch(2), ledger.batch(3));
    let bytes = second.records.clone();
    for end in [1, 15, 16, 17, 100, bytes.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        append(&mut open(dir.path()).unwrap(), &first).unwrap();
        let path = dir.path().join("00000000000000000000-0000000001.seg");
        let torn = [&std::fs::read(&path).unwrap(), &bytes[..end]].concat();
        std::fs::write(&path, torn).unwrap();
        let mut store = open(dir.path()).unwrap();
        assert_eq!(store.durable().unwrap(), Some((LOG, first.after)));
        assert_eq!(append(&mut store, &second), Ok(second.after), "{end}");
        let verdict = oracle::check(&oracle::read(dir.path()), &ledger.public_key());
        assert_eq!(verdict.durable, second.after);
    }
}

#[test]
fn a_checkpoint_behind_the_last_seal_is_settled_and_may_also_begin_the_batch_that_was_cut_off_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    let (first, mut second) = (ledger.batch(2), ledger.batch(2));
    append(&mut open(dir.path()).unwrap(), &first).unwrap();
    let name: SegmentName = "00000000000000000000-0000000001.seg".parse().unwrap();
    let path = dir.path().join(name.to_string());
    let seal_end = std::fs::metadata(&path).unwrap().len();
    let checkpoint = Record::new(RecordKind::Checkpoint, *b"a signed note");
    let mut with_checkpoint = std::fs::read(&path).unwrap();
    checkpoint.write_to(&mut with_checkpoint);
    let settled = with_checkpoint.len() as u64;

    // A tail behind the checkpoint is set aside there, and not before.
    std::fs::write(&path, [&with_checkpoint[..], b"torn"].concat()).unwrap();
    let mut store = open(dir.path()).unwrap();
    assert_eq!(store.quarantine(name, seal_end), Err(HostError::Refused));
    assert_eq!(store.quarantine(name, settled), Ok(()));
    drop(store);
    assert_eq!(std::fs::read(&path).unwrap(), with_checkpoint);

    // A batch without it goes behind it; one that begins with it is written over it, so that it is there once.
    for begins in [false, true] {
        std::fs::write(&path, &with_checkpoint).unwrap();
        let mut batch = second.clone();
        if begins {
            edit(&mut batch, |records| records.insert(0, checkpoint.clone()));
        }
        let length = second.records.len();
        let mut store = open(dir.path()).unwrap();
        assert_eq!(append(&mut store, &batch), Ok(batch.after));
        assert_eq!(append(&mut store, &batch), Ok(batch.after), "and once more");
        drop(store);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), settled + length as u64, "{begins}");
        assert_eq!(
            append(&mut open(dir.path()).unwrap(), &batch).is_ok(),
            begins,
            "a batch is known by where it starts"
        );
    }
    // The footer covers it.
    second = ledger.batch(1);
    append(&mut open(dir.path()).unwrap(), &second).unwrap();
    let mut whole = std::fs::read(&path).unwrap();
    checkpoint.write_to(&mut whole);
    std::fs::write(&path, whole).unwrap();
    ledger.next_epoch();
    append(&mut open(dir.path()).unwrap(), &ledger.batch(1)).unwrap();
    assert_eq!(oracle::check(&oracle::read(dir.path()), &ledger.public_key()).segments, 2);
}

#[test]
fn a_half_written_footer_is_completed_and_a_whole_one_ends_the_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    let mut store = open(dir.path()).unwrap();
    append(&mut store, &ledger.batch(2)).unwrap();
    ledger.next_epoch();
    append(&mut store, &ledger.batch(2)).unwrap();
    drop(store);
    let closed = dir.path().join("00000000000000000000-0000000001.seg");
    let whole = std::fs::read(&closed).unwrap();
    std::fs::remove_file(dir.path().join("00000000000000000002-0000000002.seg")).unwrap();
    for cut in [1, 16, 50, 95] {
        std::fs::write(&closed, &whole[..whole.len() - cut]).unwrap();
        drop(open(dir.path()).unwrap());
        assert_eq!(std::fs::read(&closed).unwrap(), whole, "{cut}");
    }
    // The footer missing altogether is no fault: the segment goes on, or is closed when the next begins.
    std::fs::write(&closed, &whole[..whole.len() - 96]).unwrap();
    drop(open(dir.path()).unwrap());
    assert_eq!(std::fs::read(&closed).unwrap().len(), whole.len() - 96);
}

#[test]
fn a_segment_that_is_old_is_closed_without_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    let mut store = open_with(StoreConfig { segment_age: Duration::from_millis(50), ..settings(dir.path()) }).unwrap();
    append(&mut store, &ledger.batch(2)).unwrap();
    std::thread::sleep(Duration::from_millis(60));
    store.tick();
    assert_eq!(oracle::check(&oracle::read(dir.path()), &ledger.public_key()).segments, 1);
    let next = ledger.batch(2);
    append(&mut store, &next).unwrap();
    assert_eq!(oracle::check(&oracle::read(dir.path()), &ledger.public_key()).segments, 2);
}

#[test]
fn damage_is_left_alone_and_nothing_is_written_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    let mut store = open(dir.path()).unwrap();
    let appends: Vec<Append> = (0..5).map(|_| ledger.batch(4)).collect();
    for batch in &appends {
        append(&mut store, batch).unwrap();
    }
    drop(store);
    let path = dir.path().join("00000000000000000000-0000000001.seg");
    let mut rotten = std::fs::read(&path).unwrap();
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    std::fs::write(&path, &rotten).unwrap();
    let mut store = open(dir.path()).unwrap();
    let (_, durable) = store.durable().unwrap().unwrap();
    assert!(durable.size < 20, "the parent counts only what it can read");
    let next = appends.iter().find(|batch| batch.first.0 == durable.size).unwrap();
    assert_eq!(append(&mut store, next), Err(HostError::Refused));
    drop(store);
    assert_eq!(std::fs::read(&path).unwrap(), rotten);
}

#[test]
fn a_segment_that_was_being_made_is_removed_and_a_headless_one_is_set_aside_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    let first = ledger.batch(2);
    append(&mut open(dir.path()).unwrap(), &first).unwrap();
    std::fs::write(dir.path().join("new"), b"half a segment").unwrap();
    let stray: SegmentName = "00000000000000000002-0000000001.seg".parse().unwrap();
    std::fs::write(dir.path().join(stray.to_string()), b"TCSEG").unwrap();
    let mut store = open(dir.path()).unwrap();
    assert!(!dir.path().join("new").exists());
    assert_eq!(store.durable().unwrap(), Some((LOG, first.after)));
    let next = ledger.batch(2);
    assert_eq!(append(&mut store, &next), Err(HostError::Refused));
    store.quarantine(stray, 0).unwrap();
    assert!(!dir.path().join(stray.to_string()).exists());
    assert_eq!(append(&mut store, &next), Ok(next.after));
    oracle::check(&oracle::read(dir.path()), &ledger.public_key());
}

#[test]
fn two_processes_never_open_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Locked(_))));
    drop(store);
    assert!(open(dir.path()).is_ok());
}

#[test]
fn segments_are_listed_and_read_in_bounded_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    let mut store = open(dir.path()).unwrap();
    for _ in 0..6 {
        append(&mut store, &ledger.batch_of(100, 1000)).unwrap();
    }
    let listed = store.segments(None).unwrap();
    assert!(listed.len() > 2);
    assert_eq!(store.segments(Some(listed[0].name)).unwrap(), listed[1..]);
    for segment in &listed {
        let file = std::fs::read(dir.path().join(segment.name.to_string())).unwrap();
        assert_eq!(segment.length, file.len() as u64);
        let mut read = Vec::new();
        while (read.len() as u64) < segment.length {
            let piece = store.read(segment.name, read.len() as u64, 40_000).unwrap();
            assert!(!piece.is_empty() && piece.len() <= 40_000);
            read.extend(piece);
        }
        assert_eq!(read, file);
        assert_eq!(store.read(segment.name, segment.length, 10).unwrap(), b"");
        assert_eq!(store.read(segment.name, u64::MAX, 10).unwrap(), b"");
    }
    let missing: SegmentName = "00000000000000000009-0000000009.seg".parse().unwrap();
    assert_eq!(store.read(missing, 0, 10), Err(HostError::NotFound));
}

#[test]
fn proofs_verify_for_every_size_and_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new();
    let mut states = vec![];
    let mut store = open(dir.path()).unwrap();
    for events in [1, 2, 255, 300, 7, 600] {
        append(&mut store, &ledger.batch(events)).unwrap();
        states.push(ledger.chain.state());
    }
    for _ in 0..2 {
        for old in &states {
            for new in states.iter().filter(|new| new.size >= old.size) {
                let proof = store.consistency(old.size, new.size).unwrap();
                verify_consistency(old.size, old.root, new.size, new.root, &proof).unwrap();
            }
            let proof = store.inclusion(old.size - 1, states[5].size).unwrap();
            verify_inclusion(old.last, old.size - 1, states[5].size, &proof, states[5].root).unwrap();
        }
        let wrong = RootHash::new([1; 32]);
        let proof = store.inclusion(0, states[5].size).unwrap();
        assert!(verify_inclusion(states[0].last, 0, states[5].size, &proof, wrong).is_err());
        assert_eq!(store.inclusion(0, states[5].size + 1), Err(HostError::NotFound));
        assert_eq!(store.inclusion(9, 9), Err(HostError::NotFound));
        assert_eq!(store.consistency(10, 9), Err(HostError::NotFound));
        drop(store);
        store = open(dir.path()).unwrap();
    }
}

#[test]
fn the_reserve_is_real_space() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let reserve = std::fs::metadata(dir.path().join("reserve")).unwrap();
    assert_eq!(reserve.len(), 100_000);
    assert!(std::os::unix::fs::MetadataExt::blocks(&reserve) * 512 >= 100_000);
    drop(store);
}
