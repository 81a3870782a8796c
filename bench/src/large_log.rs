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
use transcode_confidential::{audit::segment::RecordKind, keys::KeyRotationPolicy};

use crate::{
    deployment::{Deployment, IMAGE},
    machine::processor_time,
    persisted, process,
};

const APPENDERS: usize = 2048;
/// Events behind the snapshot.
const BEHIND: usize = 1_000;

pub(crate) struct LargeLog {
    system: Deployment,
    pub(crate) events: u64,
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
    /// Appends until there are so many events, a snapshot near the end.
    pub(crate) async fn grow(events: u64) -> Self {
        let mut system = Deployment::prepared(KeyRotationPolicy::default()).await;
        system.start_proxy();
        let mut parts = process::enclave_parts(system.world.dir());
        (parts.config.limits.audit_wait_ms, parts.config.limits.audit_backlog) = (60_000, 8192);
        let (stop, abandon) = (CancellationToken::new(), CancellationToken::new());
        let Booted { custody, writer, .. } = boot::boot(&parts, &stop, &abandon).await.unwrap();
        let ledger = custody.ledger.clone();
        persisted::make_key(&ledger).await;
        let begin = Instant::now();
        while ledger.placed_size() < events.saturating_sub(2 * BEHIND as u64) {
            let left = usize::try_from(events - ledger.placed_size()).unwrap() - BEHIND;
            let round = left.min(1_000_000);
            persisted::append(&ledger, APPENDERS.min(round), round).await;
        }
        ledger.take_snapshot(|draft| draft).unwrap().persisted().await.unwrap();
        let last = usize::try_from(events.saturating_sub(ledger.placed_size())).unwrap();
        persisted::append(&ledger, 1, last).await;
        let grown_in = begin.elapsed();
        ledger.close();
        writer.await.unwrap().unwrap();
        system.stop_proxy();
        let events = ledger.persisted().size;
        let mut log = Self { system, events, bytes: 0, grown_in };
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
