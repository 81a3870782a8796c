//! A log as long as wanted, written by an enclave's ledger through a proxy process, which then ends; kept for who reads it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use enclave_app::boot::{self, Booted};
use sha2::{Digest as _, Sha256};
use testkit::{nsm::MockImage, segments};
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    audit::{LogState, Seal, segment::RecordKind},
    ids::{Epoch, LeafHash, LogId, RootHash},
    keys::KeyRotationPolicy,
    secret::KeyMaterial,
    signature::SigningKey,
};

use crate::{
    deployment::{Deployment, IMAGE},
    machine::processor_time,
    persisted, process,
};

/// Events behind the snapshot.
const BEHIND: u64 = 1_000;

pub(crate) struct LargeLog {
    system: Deployment,
    pub(crate) events: u64,
    /// Events under one seal.
    pub(crate) batch: usize,
    pub(crate) bytes: u64,
    pub(crate) grown_in: Duration,
}

/// How a boot went.
pub(crate) struct Boot {
    /// From the start of the proxy's process until its store answers.
    pub(crate) parent: Duration,
    /// From the start of the enclave's process until it answers.
    pub(crate) enclave: Duration,
    /// Most resident memory of the enclave, KiB.
    pub(crate) peak: u64,
}

impl LargeLog {
    /// Appends, so many under one seal, until there are so many events, a snapshot near the end.
    pub(crate) async fn grow(events: u64, batch: usize) -> Self {
        let mut system = Deployment::prepared(KeyRotationPolicy::default()).await;
        system.start_proxy();
        let mut parts = process::enclave_parts(system.world.dir());
        (parts.config.limits.audit_wait_ms, parts.config.limits.audit_backlog) = (60_000, 8192);
        let (stop, abandon) = (CancellationToken::new(), CancellationToken::new());
        let Booted { custody, writer, .. } = boot::boot(&parts, &stop, &abandon).await.unwrap();
        let ledger = custody.ledger.clone();
        persisted::make_key(&ledger).await;
        let begin = Instant::now();
        persisted::append_batches(&ledger, batch, events.saturating_sub(BEHIND)).await;
        ledger.take_snapshot(|draft| draft).unwrap().persisted().await.unwrap();
        persisted::append_batches(&ledger, batch, events).await;
        let grown_in = begin.elapsed();
        ledger.close();
        writer.await.unwrap().unwrap();
        system.stop_proxy();
        let events = ledger.persisted().size;
        let mut log = Self { system, events, batch, bytes: 0, grown_in };
        log.bytes = log.segments().iter().map(|path| path.metadata().unwrap().len()).sum();
        log
    }

    /// Time from start to verdict, and peak resident memory in KiB.
    pub(crate) fn verify(&self) -> (Duration, u64) {
        let world = &self.system.world;
        let (root, measurements) = (world.dir().join("root.pem"), world.dir().join("measurements.json"));
        std::fs::write(&root, world.hypervisor.root_pem()).unwrap();
        std::fs::write(&measurements, MockImage::named(IMAGE).measurements(IMAGE).to_json()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["process", "client", "--", "audit", "verify"]).arg(world.segments_dir());
        command.arg("--root").arg(root).arg("--measurements").arg(measurements);
        let begin = Instant::now();
        let output = command.stdin(Stdio::null()).output().unwrap();
        let time = begin.elapsed();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.starts_with(&format!("INTACT: {} events", self.events)),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let peak = text.lines().find_map(|line| line.strip_prefix("peak KiB ")?.parse().ok()).unwrap();
        (time, peak)
    }

    /// Seconds that one core takes for the hashing alone; of the first segment, scaled to the log.
    pub(crate) fn hashing(&self) -> f64 {
        let bytes = std::fs::read(&self.segments()[0]).unwrap();
        let leaves: Vec<Vec<u8>> = segments::records(&bytes)
            .into_iter()
            .filter(|(_, record)| record.kind == RecordKind::Entry)
            .map(|(_, record)| [&[0], &record.payload[..]].concat())
            .collect();
        let begin = processor_time();
        std::hint::black_box(Sha256::digest(&bytes));
        for leaf in &leaves {
            std::hint::black_box(Sha256::digest(leaf));
            std::hint::black_box(Sha256::digest(std::hint::black_box([1; 65])));
        }
        (processor_time() - begin) * self.events as f64 / leaves.len() as f64
    }

    /// Seconds that one core takes for verifying one signature a seal; of a hundred, scaled to the log.
    pub(crate) fn signatures(&self) -> f64 {
        let key = SigningKey::from_seed(&KeyMaterial::from_bytes([1; 32])).unwrap();
        let state = LogState { epoch: Epoch(1), size: 1, root: RootHash::new([2; 32]), last: LeafHash::new([3; 32]) };
        let seal = Seal::sign(&key, LogId::new([9; 16]), state);
        let begin = processor_time();
        for _ in 0..100 {
            std::hint::black_box(&seal).verify(&key.public_key()).unwrap();
        }
        (processor_time() - begin) / 100.0 * self.events.div_ceil(self.batch as u64) as f64
    }

    /// Proxy and enclave as processes, until requests are answered; then both end, with a few more events on the log.
    pub(crate) async fn boot(&mut self, from: Beginning) -> Boot {
        let (begin, system) = (Instant::now(), &mut self.system);
        system.offer_snapshots(from == Beginning::Snapshot);
        system.start_proxy();
        system.listening().await;
        let parent = begin.elapsed();
        let begin = Instant::now();
        system.start_enclave();
        system.serving().await;
        let enclave = begin.elapsed();
        let peak = system.peak_of_enclave();
        system.stop_enclave();
        system.stop_proxy();
        Boot { parent, enclave, peak }
    }

    fn segments(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.system.world.segments_dir()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut segments: Vec<_> = paths.filter(|path| path.extension().is_some_and(|name| name == "seg")).collect();
        segments.sort();
        segments
    }
}

/// Where a boot begins to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    Snapshot,
    FirstEvent,
}
