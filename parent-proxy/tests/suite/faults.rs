//! The fault table: every operation of the store on its disk, times everything that can happen to it.
//!
//! An enclave writes a log of twelve batches over three segments. In each case one operation fails, or the machine dies
//! after one operation, or both; then the machine comes back with what was not synced lost, kept or torn, or only the
//! process had died. What must hold in every case: what was acknowledged is there; what is there follows on itself; the log
//! can be written to its end.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use parent_proxy::{
    config::StoreConfig,
    metrics::Metrics,
    store::{Batch, Store},
};
use transcode_confidential::{
    protocol::host::{Append, Durable, HostError},
    signature::PublicKey,
    time::SystemClock,
};

use crate::{
    disk::{Fault, FaultyDisk, Reboot},
    enclave::Ledger,
    oracle,
};

pub(crate) const DIRECTORY: &str = "/log";
pub(crate) const REBOOTS: [Reboot; 8] = [
    Reboot::Lost,
    Reboot::Kept,
    Reboot::Killed,
    Reboot::Torn(1),
    Reboot::Torn(2),
    Reboot::Torn(3),
    Reboot::Torn(4),
    Reboot::Torn(5),
];

/// The log that is to be written.
pub(crate) struct Script {
    batches: Vec<Append>,
    pub(crate) key: PublicKey,
    events: Vec<String>,
}

impl Script {
    pub(crate) fn new() -> Self {
        let mut ledger = Ledger::new();
        let mut batches = Vec::new();
        for number in 0..12 {
            if number == 7 {
                ledger.next_epoch();
            }
            // Some smaller than a sector, some over several.
            batches.push(ledger.batch_of(1 + number % 3, [20, 700, 1500][number % 3]));
        }
        let mut events = Vec::new();
        for number in 0..ledger.chain.size() {
            events.push(number.to_string());
        }
        Self { batches, key: ledger.public_key(), events }
    }

    fn open(&self, disk: &FaultyDisk) -> Option<Store> {
        self.open_with(disk, Self::settings())
    }

    pub(crate) fn open_with(&self, disk: &FaultyDisk, settings: StoreConfig) -> Option<Store> {
        Store::open(Arc::new(disk.clone()), settings, Arc::new(SystemClock), Arc::new(Metrics::default())).ok()
    }

    pub(crate) fn settings() -> StoreConfig {
        StoreConfig {
            directory: DIRECTORY.into(),
            segment_size: 6000,
            segment_age: Duration::from_secs(3600),
            reserve: 2000,
            offer_snapshots: true,
            pack_after: None,
            archive: None,
            archive_after: None,
        }
    }

    /// Writes on from where the store is, two batches under way at a time, as a living enclave does. Gives how far it was
    /// acknowledged when it ended or gave up.
    pub(crate) fn write(&self, store: &mut Store, mut acknowledged: Durable) -> Durable {
        for _attempt in 0..4 {
            // The session's greeting: opens the store anew where the disk had failed.
            let Ok(durable) = store.durable() else { continue };
            let durable = durable.map_or(Self::nothing(), |(_, durable)| durable);
            assert!(durable.size >= acknowledged.size, "{durable:?} is behind {acknowledged:?}");
            // What is there although the acknowledgement was lost is as good as acknowledged.
            acknowledged = durable;
            let rest: Vec<&Append> = self.batches.iter().filter(|batch| batch.after.size > durable.size).collect();
            let mut failed = false;
            for pair in rest.chunks(2) {
                let batches: Vec<Batch> =
                    pair.iter().map(|append| Batch::new(Append::clone(append)).unwrap()).collect();
                for _again in 0..3 {
                    let mut full = false;
                    store.append(&batches, |result| match result {
                        Ok(durable) => acknowledged = durable,
                        Err(HostError::StorageFull) => full = true,
                        Err(HostError::StorageFailed) => failed = true,
                        // Sent again after the first of two had been stored before the second found no room.
                        Err(HostError::OutOfOrder) if acknowledged.size >= batches_end(pair[0]) => {}
                        Err(other) => panic!("{other:?}"),
                    });
                    if !full {
                        break;
                    }
                }
                if failed {
                    break;
                }
            }
            if !failed && self.is_whole(acknowledged) {
                break;
            }
        }
        acknowledged
    }

    pub(crate) fn is_whole(&self, durable: Durable) -> bool {
        durable == self.batches.last().unwrap().after
    }

    pub(crate) fn nothing() -> Durable {
        Durable { size: 0, last: transcode_confidential::ids::LeafHash::ZERO }
    }

    /// What must be true of a disk, given what was acknowledged.
    fn check(&self, disk: &FaultyDisk, acknowledged: Durable) -> oracle::Verdict {
        let verdict = oracle::check(&segments(disk), &self.key);
        assert!(
            verdict.durable.size >= acknowledged.size,
            "{:?} was acknowledged, {:?} is there",
            acknowledged,
            verdict.durable
        );
        let there = verdict.events.iter().map(|event| event.trim().to_owned());
        assert_eq!(there.collect::<Vec<_>>(), self.events[..verdict.durable.size as usize]);
        verdict
    }

    /// The machine comes back: an enclave reads the log, sets the tail aside if the one that wrote it is gone, and writes on.
    fn recover(&self, disk: &FaultyDisk, how: Reboot, acknowledged: Durable) {
        disk.reboot(how);
        let verdict = self.check(disk, acknowledged);
        let mut store = self.open(disk).expect("a good disk");
        if let Some((name, offset, tail)) = verdict.tail.filter(|_| how != Reboot::Killed) {
            // The footer is the store's own affair: it may have completed that.
            if store.segments(None).unwrap().last().unwrap().length == offset + tail.len() as u64 {
                store.quarantine(name, offset).unwrap();
            }
        }
        let acknowledged = self.write(&mut store, acknowledged);
        assert!(self.is_whole(acknowledged), "stopped at {acknowledged:?}");
        drop(store);
        disk.reboot(Reboot::Lost);
        let verdict = self.check(disk, acknowledged);
        assert!(verdict.tail.is_none() && self.is_whole(verdict.durable));
        assert!(verdict.segments >= 3);
    }
}

fn batches_end(append: &Append) -> u64 {
    append.after.size
}

fn segments(disk: &FaultyDisk) -> BTreeMap<String, Vec<u8>> {
    disk.files(Path::new(DIRECTORY))
}

/// Runs a case; where it fails, says which it was.
pub(crate) fn case(name: &str, disk: &FaultyDisk, run: impl FnOnce()) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    if let Err(panic) = outcome {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
        panic!("{name}: {}\nafter: {:#?}", text.unwrap_or_default(), disk.history());
    }
}

/// How many operations the script takes when nothing goes wrong.
fn operations(script: &Script) -> usize {
    let disk = FaultyDisk::default();
    let mut store = script.open(&disk).unwrap();
    assert!(script.is_whole(script.write(&mut store, Script::nothing())));
    disk.operations()
}

#[test]
fn a_crash_after_any_operation_loses_nothing_that_was_acknowledged() {
    let script = Script::new();
    let last = operations(&script);
    let mut cases = 0;
    for operation in 0..=last {
        for how in REBOOTS {
            let disk = FaultyDisk::default();
            disk.crash_after(operation);
            case(&format!("crash after operation {operation}, then {how:?}"), &disk, || {
                let acknowledged = script
                    .open(&disk)
                    .map_or(Script::nothing(), |mut store| script.write(&mut store, Script::nothing()));
                script.recover(&disk, how, acknowledged);
            });
            cases += 1;
        }
    }
    println!("{cases} cases: a crash after each of {last} operations, times {} reboots", REBOOTS.len());
    assert!(last > 40, "the script is too short: {last}");
}

#[test]
fn any_operation_may_fail_and_the_log_goes_on_and_a_later_crash_loses_nothing() {
    let script = Script::new();
    let last = operations(&script);
    let mut cases = 0;
    for operation in 1..=last {
        for fault in [Fault::Short, Fault::Full, Fault::Failed] {
            // A crash some operations later, or none.
            for later in [1, 2, 3, 5, 8, 1000] {
                for how in [Reboot::Lost, Reboot::Kept, Reboot::Killed, Reboot::Torn(9)] {
                    let disk = FaultyDisk::default();
                    disk.fail(operation, fault);
                    disk.crash_after(operation + later);
                    case(
                        &format!("{fault:?} at operation {operation}, crash {later} later, then {how:?}"),
                        &disk,
                        || {
                            let acknowledged = script
                                .open(&disk)
                                .map_or(Script::nothing(), |mut store| script.write(&mut store, Script::nothing()));
                            let opened = disk.operations() > operation;
                            assert!(later < 1000 || !opened || script.is_whole(acknowledged), "{acknowledged:?}");
                            script.recover(&disk, how, acknowledged);
                        },
                    );
                    cases += 1;
                }
            }
        }
    }
    println!("{cases} cases: each of {last} operations cut short, out of room or failing, times crashes and reboots");
}

#[test]
fn a_sync_that_failed_is_not_made_good_by_one_that_succeeds() {
    let script = Script::new();
    let disk = FaultyDisk::default();
    let mut store = script.open(&disk).unwrap();
    let append = |store: &mut Store, number: usize| {
        let mut results = Vec::new();
        store.append(&[Batch::new(script.batches[number].clone()).unwrap()], |result| results.push(result));
        results.remove(0)
    };
    append(&mut store, 0).unwrap();
    append(&mut store, 1).unwrap();
    disk.fail(disk.operations() + 2, Fault::Failed);
    assert_eq!(append(&mut store, 2), Err(HostError::StorageFailed));
    assert!(disk.history().last().unwrap().starts_with("sync"));
    assert_eq!(append(&mut store, 2), Err(HostError::StorageFailed), "until it is opened anew");
    // The bytes of the third batch are in the cache only. Opening anew may count it only if it makes it durable.
    let (_, durable) = store.durable().unwrap().unwrap();
    drop(store);
    disk.reboot(Reboot::Lost);
    assert_eq!(script.check(&disk, durable).durable, durable);
}

#[test]
fn a_failed_store_stays_failed_as_long_as_the_disk_does() {
    let script = Script::new();
    let disk = FaultyDisk::default();
    let mut store = script.open(&disk).unwrap();
    disk.crash_after(disk.operations());
    let acknowledged = script.write(&mut store, Script::nothing());
    assert_eq!(acknowledged, Script::nothing());
    assert_eq!(store.durable(), Err(HostError::StorageFailed));
    assert_eq!(store.segments(None), Err(HostError::StorageFailed));
    assert_eq!(store.inclusion(0, 1), Err(HostError::StorageFailed));
    disk.reboot(Reboot::Kept);
    assert_eq!(store.durable(), Ok(None));
    assert!(script.is_whole(script.write(&mut store, acknowledged)));
}

#[test]
fn setting_a_tail_aside_can_be_interrupted_anywhere() {
    let script = Script::new();
    let mut cases = 0;
    let torn = || {
        let disk = FaultyDisk::default();
        let mut store = script.open(&disk).unwrap();
        store.append(&[Batch::new(script.batches[0].clone()).unwrap()], |result| assert!(result.is_ok()));
        drop(store);
        disk.fail(disk.operations() + 10, Fault::Failed);
        let mut store = script.open(&disk).unwrap();
        let start = disk.operations();
        disk.reboot(Reboot::Kept);
        // Dies in the middle of a write: half of the second batch lies behind the first.
        disk.fail(start + 1, Fault::Failed);
        disk.crash_after(start + 1);
        store.append(&[Batch::new(script.batches[1].clone()).unwrap()], |result| assert!(result.is_err()));
        drop(store);
        disk.reboot(Reboot::Kept);
        disk
    };
    let verdict = oracle::check(&segments(&torn()), &script.key);
    let (name, offset, tail) = verdict.tail.expect("a tail");
    for operation in 0..12 {
        for how in REBOOTS {
            let disk = torn();
            let mut store = script.open(&disk).unwrap();
            disk.crash_after(disk.operations() + operation);
            case(&format!("crash after {operation} operations of the quarantine, then {how:?}"), &disk, || {
                let done = store.quarantine(name, offset);
                drop(store);
                disk.reboot(how);
                let verdict = oracle::check(&segments(&disk), &script.key);
                assert_eq!(verdict.durable, script.batches[0].after);
                let aside = disk.files(&Path::new(DIRECTORY).join("quarantine"));
                // Either the tail is where it was, or a whole copy is in the quarantine.
                match &verdict.tail {
                    Some((_, _, left)) => assert!(done.is_err() && *left == tail),
                    None => assert!(aside.values().any(|copy| *copy == tail)),
                }
                let mut store = script.open(&disk).unwrap();
                store.quarantine(name, offset).unwrap();
                assert!(script.is_whole(script.write(&mut store, Script::nothing())));
            });
            cases += 1;
        }
    }
    println!("{cases} cases: a crash after each operation of a quarantine");
}
