//! Packing and moving old segments: the fault table of it, and on a disk that works.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use packed::Unpack;
use parent_proxy::{
    config::StoreConfig,
    metrics::Metrics,
    store::{Batch, Store, StoreError, disk::SystemDisk},
};
use transcode_confidential::{
    protocol::host::{Durable, READ_LIMIT},
    time::SystemClock,
};

use crate::{
    disk::{Fault, FaultyDisk, Reboot},
    enclave::Ledger,
    faults::{DIRECTORY, REBOOTS, Script, case},
    oracle,
};

const ARCHIVE: &str = "/archive";

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    let length = packed::length(*bytes.last_chunk().unwrap());
    Unpack::new(bytes, length).unwrap().read_to_end(&mut segment).unwrap();
    segment
}

/// Every segment of some directories as it was written; where it is there twice, both must be the same.
fn segments<'f>(files: impl IntoIterator<Item = (&'f String, &'f Vec<u8>)>) -> BTreeMap<String, Vec<u8>> {
    let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (name, bytes) in files {
        let (name, bytes) = match name.strip_suffix(".gz") {
            Some(name) => (name.to_owned(), unpacked(bytes)),
            None => (name.clone(), bytes.clone()),
        };
        if name.ends_with(".seg") {
            assert!(found.get(&name).is_none_or(|other| *other == bytes), "{name} is there twice and differs");
            found.insert(name, bytes);
        }
    }
    found
}

fn everywhere(disk: &FaultyDisk) -> BTreeMap<String, Vec<u8>> {
    let (here, there) = (disk.files(Path::new(DIRECTORY)), disk.files(Path::new(ARCHIVE)));
    segments(here.iter().chain(&there))
}

/// Ticks until nothing more is due.
fn age(store: &mut Store) {
    let start = Instant::now();
    let mut idle = 0;
    while idle < 2 {
        store.tick();
        idle = if store.is_moving() { 0 } else { idle + 1 };
        std::thread::sleep(Duration::from_micros(100));
        assert!(start.elapsed() < Duration::from_secs(120), "it never ends");
    }
}

/// The bytes of every segment, as the enclave gets them.
fn read(store: &Store) -> BTreeMap<String, Vec<u8>> {
    let infos = store.segments(None).unwrap();
    let bytes = |name, length: u64| {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            let part = store.read(name, bytes.len() as u64, READ_LIMIT.min(1000)).unwrap();
            assert!(!part.is_empty());
            bytes.extend(part);
        }
        bytes
    };
    infos.iter().map(|info| (info.name.to_string(), bytes(info.name, info.length))).collect()
}

fn packing() -> StoreConfig {
    StoreConfig { pack_after: Some(Duration::ZERO), ..Script::settings() }
}

fn moving() -> StoreConfig {
    StoreConfig { archive: Some(ARCHIVE.into()), archive_after: Some(Duration::ZERO), ..Script::settings() }
}

fn both() -> StoreConfig {
    StoreConfig { pack_after: Some(Duration::ZERO), ..moving() }
}

/// The settings of one start after the other.
const LIVES: [fn() -> [StoreConfig; 2]; 3] = [|| [packing(), both()], || [moving(), both()], || [both(), both()]];

/// A disk with the whole log, and what the log is.
fn written(script: &Script) -> (FaultyDisk, BTreeMap<String, Vec<u8>>) {
    let disk = FaultyDisk::default();
    let mut store = script.open_with(&disk, Script::settings()).unwrap();
    assert!(script.is_whole(script.write(&mut store, Script::nothing())));
    drop(store);
    let log = everywhere(&disk);
    assert!(log.len() >= 3);
    (disk, log)
}

/// Two starts, each until everything that is due is done or the machine is dead.
fn live(script: &Script, disk: &FaultyDisk, lives: [StoreConfig; 2]) {
    for settings in lives {
        if let Some(mut store) = script.open_with(disk, settings) {
            age(&mut store);
        }
    }
}

/// The machine is back: the log is all there, and is where it belongs in the end.
fn check(script: &Script, disk: &FaultyDisk, log: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(everywhere(disk), *log, "after the crash");
    let mut store = script.open_with(disk, both()).expect("a good disk");
    assert_eq!(read(&store), *log, "as the store reads it");
    age(&mut store);
    assert_eq!(read(&store), *log, "when all is done");
    drop(store);
    assert_eq!(everywhere(disk), *log);
    let here: Vec<_> = disk.files(Path::new(DIRECTORY)).into_keys().collect();
    let there: Vec<_> = disk.files(Path::new(ARCHIVE)).into_keys().collect();
    let last = log.keys().last().unwrap().clone();
    assert_eq!(here, [last.as_str(), "archived", "hashes", "reserve"]);
    let old = log.keys().take(log.len() - 1).map(|name| format!("{name}.gz"));
    assert_eq!(there, old.chain(["archive".to_owned()]).collect::<Vec<_>>());
    assert!(script.is_whole(oracle::check(&everywhere(disk), &script.key).durable));
}

#[test]
fn a_crash_at_any_step_of_packing_and_moving_loses_nothing() {
    let script = Script::new();
    let mut cases = 0;
    for (number, lives) in LIVES.into_iter().enumerate() {
        let (disk, log) = written(&script);
        let start = disk.operations();
        live(&script, &disk, lives());
        let last = disk.operations() - start;
        check(&script, &disk, &log);
        assert!(last >= 14, "too little happens: {:#?}", &disk.history()[start..]);
        for operation in 0..=last {
            for how in REBOOTS.into_iter().take(4) {
                let (disk, log) = written(&script);
                disk.crash_after(disk.operations() + operation);
                case(&format!("life {number}, crash after operation {operation}, then {how:?}"), &disk, || {
                    live(&script, &disk, lives());
                    disk.reboot(how);
                    check(&script, &disk, &log);
                });
                cases += 1;
            }
        }
    }
    println!("{cases} cases: a crash after each operation of packing and moving, times four reboots");
}

#[test]
fn any_step_of_packing_and_moving_may_fail_and_the_log_stands() {
    let script = Script::new();
    let mut cases = 0;
    for (number, lives) in LIVES.into_iter().enumerate() {
        let (disk, _) = written(&script);
        let start = disk.operations();
        live(&script, &disk, lives());
        for operation in 1..=disk.operations() - start {
            for fault in [Fault::Short, Fault::Full, Fault::Failed] {
                let (disk, log) = written(&script);
                disk.fail(disk.operations() + operation, fault);
                case(&format!("life {number}, {fault:?} at operation {operation}"), &disk, || {
                    live(&script, &disk, lives());
                    assert_eq!(everywhere(&disk), log, "before the crash");
                    disk.reboot(Reboot::Lost);
                    check(&script, &disk, &log);
                });
                cases += 1;
            }
        }
    }
    println!("{cases} cases: each operation of packing and moving cut short, out of room or failing");
}

/// Some closed segments and one that is open, in a real directory; the second of the closed ones is named.
struct Real {
    dir: tempfile::TempDir,
    ledger: Ledger,
    metrics: Arc<Metrics>,
}

impl Real {
    fn new() -> Self {
        let real = Self { dir: tempfile::tempdir().unwrap(), ledger: Ledger::new(), metrics: Arc::default() };
        let mut real = real;
        let mut store = real.open(false).unwrap();
        for epoch in 0..4 {
            if epoch > 0 {
                real.ledger.next_epoch();
            }
            for _ in 0..3 {
                let append = real.ledger.batch_of(3, 2000);
                store.append(&[Batch::new(append).unwrap()], |result| assert!(result.is_ok()));
            }
        }
        real
    }

    fn open(&self, ages: bool) -> Result<Store, StoreError> {
        let settings = StoreConfig {
            directory: self.dir.path().join("log"),
            segment_size: 64 * 1024,
            archive: ages.then(|| self.dir.path().join("archive")),
            ..if ages { both() } else { Script::settings() }
        };
        Store::open(Arc::new(SystemDisk), settings, Arc::new(SystemClock), Arc::clone(&self.metrics))
    }

    fn aged(&self) -> Store {
        let mut store = self.open(true).unwrap();
        age(&mut store);
        store
    }

    fn archived(&self) -> Vec<std::path::PathBuf> {
        let files = std::fs::read_dir(self.dir.path().join("archive")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "gz")).collect();
        files.sort();
        files
    }
}

#[test]
fn what_was_packed_and_moved_is_read_proven_written_on_and_dropped_as_before() {
    let mut real = Real::new();
    let plain = real.open(false).unwrap();
    let (log, durable) = (read(&plain), plain.segments(None).unwrap());
    let proofs = |store: &Store| {
        let size = real.ledger.chain.size();
        let inclusion: Vec<_> = (0..size).map(|index| store.inclusion(index, size).unwrap()).collect();
        (inclusion, store.consistency(5, size).unwrap())
    };
    let before = proofs(&plain);
    drop(plain);
    let store = real.aged();
    assert_eq!(real.archived().len(), 3);
    let metrics = &real.metrics;
    let told = [&metrics.store_segments, &metrics.store_segments_packed, &metrics.store_segments_archived];
    assert_eq!(told.map(parent_proxy::metrics::Gauge::value), [log.len() as u64, 3, 3]);
    assert_eq!(metrics.store_aging_failing.value(), 0);
    assert_eq!(
        (read(&store), store.segments(None).unwrap(), proofs(&store)),
        (log.clone(), durable.clone(), before.clone())
    );
    drop(store);
    let mut store = real.open(true).unwrap();
    assert_eq!((read(&store), proofs(&store)), (log.clone(), before));
    // Backwards as well, and from the middle.
    let (name, length) = (durable[1].name, durable[1].length);
    for offset in [length - 100, 7, 5000, 4999, 0] {
        let whole = &log[&name.to_string()][offset as usize..];
        assert_eq!(store.read(name, offset, 100).unwrap(), whole[..100.min(whole.len())]);
    }
    let append = real.ledger.batch(2);
    let after = Durable { size: real.ledger.chain.size(), last: real.ledger.chain.last() };
    store.append(&[Batch::new(append).unwrap()], |result| assert_eq!(result, Ok(after)));
    store.prune(durable[2].name.first).unwrap();
    assert_eq!(real.archived().len(), 1);
    drop(store);
    let store = real.open(true).unwrap();
    assert_eq!(store.segments(None).unwrap().len(), 2);
    assert!(store.inclusion(0, after.size).is_ok(), "the hashes are kept");
}

#[test]
fn an_archive_that_is_not_there_is_no_log_whose_beginning_was_dropped() {
    let real = Real::new();
    drop(real.aged());
    assert!(real.open(false).is_err(), "no archive is named");
    let archive = real.dir.path().join("archive");
    std::fs::rename(&archive, real.dir.path().join("elsewhere")).unwrap();
    std::fs::create_dir(&archive).unwrap();
    assert!(real.open(true).is_err(), "an empty mount point");
    std::fs::remove_dir(&archive).unwrap();
    std::fs::rename(real.dir.path().join("elsewhere"), &archive).unwrap();
    assert_eq!(real.open(true).unwrap().segments(None).unwrap().len(), 4);
}

#[test]
fn a_packed_segment_that_is_rotten_ends_early_and_the_others_are_whole() {
    let real = Real::new();
    let log = read(&real.open(false).unwrap());
    drop(real.aged());
    let path = real.archived()[1].clone();
    let good = std::fs::read(&path).unwrap();
    let bomb = {
        let mut bytes = Vec::new();
        packed::pack(&mut std::io::repeat(0).take(5 << 20), &mut bytes).unwrap();
        bytes
    };
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        bytes
    };
    let places = [0, 9, 10, 30, good.len() / 2, good.len() - 12, good.len() - 8, good.len() - 1];
    let rotten = places.into_iter().map(flipped).chain([Vec::new(), good[..good.len() - 1].to_vec(), bomb]);
    for (number, bytes) in rotten.enumerate() {
        std::fs::write(&path, bytes).unwrap();
        let store = real.open(true).unwrap();
        let found = read(&store);
        for (place, (name, bytes)) in log.iter().enumerate() {
            assert_eq!(found[name] == *bytes, place != 1, "case {number}, {name}");
        }
        assert!(found[log.keys().nth(1).unwrap()].len() <= 5 << 20);
        drop(store);
    }
    std::fs::write(&path, good).unwrap();
    assert_eq!(read(&real.open(true).unwrap()), log);
}

#[test]
fn a_segment_that_is_there_twice_and_differs_stays_twice() {
    let real = Real::new();
    let plain = read(&real.open(false).unwrap());
    drop(real.aged());
    let name = plain.keys().next().unwrap();
    let mut other = plain[name].clone();
    other[3000] ^= 1;
    let path = real.dir.path().join("log").join(name);
    std::fs::write(&path, &other).unwrap();
    drop(real.aged());
    assert_eq!(std::fs::read(&path).unwrap(), other);
    assert_eq!(real.archived().len(), 3);
    std::fs::write(&path, &plain[name]).unwrap();
    drop(real.aged());
    assert!(!path.exists() && real.archived().len() == 3);
    assert_eq!(read(&real.open(true).unwrap())[name], plain[name]);
}
