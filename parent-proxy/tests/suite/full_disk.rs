//! A disk that is full, and the reserve.

use std::{path::Path, sync::Arc, time::Duration};

use parent_proxy::{
    config::StoreConfig,
    metrics::Metrics,
    store::{Batch, Store},
};
use transcode_confidential::{
    protocol::host::{Append, Durable, HostError},
    time::SystemClock,
};

use crate::{
    disk::{FaultyDisk, Reboot},
    enclave::Ledger,
    oracle,
};

const RESERVE: u64 = 20_000;

fn open(disk: &FaultyDisk, metrics: &Arc<Metrics>) -> Store {
    let settings = StoreConfig {
        directory: "/log".into(),
        segment_size: 1 << 20,
        segment_age: Duration::from_secs(3600),
        reserve: RESERVE,
        offer_snapshots: true,
        pack_after: None,
        archive: None,
        archive_after: None,
    };
    Store::open(Arc::new(disk.clone()), settings, Arc::new(SystemClock), Arc::clone(metrics)).unwrap()
}

fn append(store: &mut Store, append: &Append) -> Result<Durable, HostError> {
    let mut results = Vec::new();
    store.append(&[Batch::new(append.clone()).unwrap()], |result| results.push(result));
    results.remove(0)
}

#[test]
fn a_full_disk_is_said_once_and_then_the_reserve_takes_the_last_words() {
    let (disk, metrics) = (FaultyDisk::default(), Arc::new(Metrics::default()));
    let mut store = open(&disk, &metrics);
    let mut ledger = Ledger::new();
    append(&mut store, &ledger.batch_of(4, 1000)).unwrap();
    disk.hold(disk.used() + 10_000);

    // The disk fills up. The batch that finds no room is refused, and nothing of it stays.
    let refused = loop {
        let batch = ledger.batch_of(4, 1000);
        match append(&mut store, &batch) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, HostError::StorageFull);
                break batch;
            }
        }
    };
    assert_eq!(metrics.store_reserve_released.value(), 0);
    let verdict = oracle::check(&disk.files(Path::new("/log")), &ledger.public_key());
    assert!(verdict.tail.is_none());

    // Sent again it is stored, on what the reserve had kept, and so is what comes after it.
    assert_eq!(append(&mut store, &refused), Ok(refused.after));
    assert_eq!(metrics.store_reserve_released.value(), 1);
    let mut last_words = 0;
    let refused = loop {
        let batch = ledger.batch_of(1, 1000);
        match append(&mut store, &batch) {
            Ok(_) => last_words += 1,
            Err(error) => {
                assert_eq!(error, HostError::StorageFull);
                break batch;
            }
        }
    };
    assert!(last_words * 1200 + 5000 > RESERVE / 2, "{last_words}");
    for _ in 0..3 {
        assert_eq!(append(&mut store, &refused), Err(HostError::StorageFull), "nothing is left");
    }
    assert_eq!(store.durable().unwrap().unwrap().1.size, refused.first.0);

    // Somebody makes room: the log goes on where it was, and the reserve comes back when the store is opened.
    disk.hold(disk.used() + 100_000);
    assert_eq!(append(&mut store, &refused), Ok(refused.after));
    drop(store);
    disk.reboot(Reboot::Lost);
    let store = open(&disk, &metrics);
    assert_eq!(metrics.store_reserve_released.value(), 0);
    drop(store);
    let verdict = oracle::check(&disk.files(Path::new("/log")), &ledger.public_key());
    assert_eq!(verdict.durable, refused.after);
}

#[test]
fn a_disk_that_is_full_from_the_start_still_opens() {
    let (disk, metrics) = (FaultyDisk::default(), Arc::new(Metrics::default()));
    disk.hold(100);
    let mut store = open(&disk, &metrics);
    assert_eq!(metrics.store_reserve_released.value(), 1);
    let mut ledger = Ledger::new();
    let batch = ledger.batch(2);
    for _ in 0..3 {
        assert_eq!(append(&mut store, &batch), Err(HostError::StorageFull));
    }
    assert!(!disk.files(Path::new("/log")).contains_key("new"), "half a segment takes no room");
    disk.hold(100_000);
    assert_eq!(append(&mut store, &batch), Ok(batch.after));
}
