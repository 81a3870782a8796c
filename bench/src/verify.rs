//! `measure verify`: the client's own `audit verify` on large logs, as a process, beside bare hashing.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use testkit::{
    log_maker::LogMaker,
    nsm::{MockHypervisor, MockImage},
    segments,
};
use transcode_confidential::{
    audit::segment::{RECORD_HEAD, RecordKind},
    time::SystemClock,
};

use crate::{
    Output, persisted,
    statistics::median,
    table::{Row, Table},
};

const TARGET: f64 = 0.6;
const BATCH: u64 = 256;
/// Events of a segment: about 70 MB.
const SEGMENT: u64 = 250_000;

pub(crate) fn run(output: &Output, sizes: &[u64]) -> Table {
    let mut table = Table::new("Offline verification: `confidential audit verify`, events of 256 bytes");
    let sizes: &[u64] = match sizes {
        [] if output.short => &[200_000],
        [] => &[1_000_000, 10_000_000],
        sizes => sizes,
    };
    let rounds = if output.short { 3 } else { 5 };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for &events in sizes {
        let dir = tempfile::tempdir_in(&output.dir).unwrap();
        let log = Log::make(dir.path(), events);
        let rounds: Vec<_> = (0..rounds)
            .map(|_| {
                let (time, peak) = log.verify();
                (time, peak, log.bare())
            })
            .collect();
        let time = median(rounds.iter().map(|(time, ..)| time.as_secs_f64()).collect());
        let peak = rounds.iter().map(|(_, peak, _)| *peak).max().unwrap();
        let ratio = median(rounds.iter().map(|(time, _, bare)| bare / cores as f64 / time.as_secs_f64()).collect());
        table.add(Row::ratio(
            format!("offline verify, {events} events"),
            ratio,
            TARGET,
            format!(
                "{:.0} k events/s, {:.0} MB/s, {time:.2} s, peak memory {:.0} MiB, {cores} cores",
                events as f64 / time / 1e3,
                log.bytes as f64 / time / 1e6,
                peak as f64 / 1024.0
            ),
        ));
    }
    table.notes.push(
        "Ratio of the hash limit: processor time of bare SHA-256 over the same messages (each file once for its footer, each \
         leaf, one node a leaf) shared by all cores, by the time from start to verdict."
            .to_owned(),
    );
    table
}

struct Log {
    dir: PathBuf,
    segments: Vec<PathBuf>,
    events: u64,
    bytes: u64,
}

impl Log {
    fn make(dir: &Path, events: u64) -> Self {
        let hypervisor = MockHypervisor::new(std::sync::Arc::new(SystemClock));
        let image = MockImage::named("enclave");
        std::fs::write(dir.join("root.pem"), hypervisor.root_pem()).unwrap();
        std::fs::write(dir.join("measurements.json"), image.measurements("enclave").to_json()).unwrap();
        let mut maker = LogMaker::new(&hypervisor, 1);
        maker.open_epoch(&image);
        let (mut segments, mut bytes) = (Vec::new(), 0);
        let mut store = |maker: &mut LogMaker| {
            maker.close_segment();
            for (name, content) in maker.take_segments() {
                let path = dir.join(name.to_string());
                bytes += content.len() as u64;
                std::fs::write(&path, content).unwrap();
                segments.push(path);
            }
        };
        let mut in_segment = 0;
        while maker.chain().size() < events {
            maker.batch((0..BATCH).map(|_| persisted::draft()).collect());
            maker.receipts.clear();
            in_segment += BATCH;
            if in_segment >= SEGMENT && maker.chain().size() < events {
                store(&mut maker);
                maker.begin_segment();
                in_segment = 0;
            }
        }
        store(&mut maker);
        Self { dir: dir.to_owned(), segments, events: maker.chain().size(), bytes }
    }

    /// Time from start to verdict, and peak resident memory in KiB.
    fn verify(&self) -> (Duration, u64) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["process", "client", "--", "audit", "verify"]).arg(&self.dir);
        command.arg("--root").arg(self.dir.join("root.pem"));
        command.arg("--measurements").arg(self.dir.join("measurements.json"));
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
    fn bare(&self) -> f64 {
        let bytes = std::fs::read(&self.segments[0]).unwrap();
        let leaves: Vec<Vec<u8>> = segments::records(&bytes)
            .into_iter()
            .filter(|(_, record)| record.kind == RecordKind::Entry)
            .map(|(_, record)| [&[0], &record.payload[..]].concat())
            .collect();
        debug_assert!(leaves.len() * RECORD_HEAD < bytes.len());
        let begin = crate::machine::processor_time();
        std::hint::black_box(Sha256::digest(&bytes));
        for leaf in &leaves {
            std::hint::black_box(Sha256::digest(leaf));
            std::hint::black_box(Sha256::digest(std::hint::black_box([1; 65])));
        }
        (crate::machine::processor_time() - begin) * self.events as f64 / leaves.len() as f64
    }
}
