//! `verify`: large logs, read back by who has to: the auditor offline, beside bare hashing; and the next boot, from the newest
//! snapshot and, for comparison, from the first event.

use std::time::Duration;

use crate::{
    Output,
    large_log::{Beginning, Boot, LargeLog},
    statistics::median,
    table::{Row, Table},
};

/// The share of the hash limit that verifying should reach.
const TARGET: f64 = 0.6;
/// Events under one seal in the logs that are large.
const LARGE_BATCH: usize = 1_024;

pub(crate) fn run(output: &Output, sizes: &[u64]) -> Table {
    let mut table = Table::new("Large logs: verified offline, and read by a boot; events of 256 bytes");
    let logs: Vec<(u64, usize)> = match sizes {
        [] if output.short => vec![(2_000, 1), (8_000, 32), (40_000, LARGE_BATCH)],
        [] => vec![(30_000, 1), (300_000, 32), (1_000_000, LARGE_BATCH), (10_000_000, LARGE_BATCH)],
        sizes => sizes.iter().map(|size| (*size, LARGE_BATCH)).collect(),
    };
    let rounds = if output.short { 1 } else { 3 };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (events, batch) in logs {
        let mut log = runtime.block_on(LargeLog::grow(events, batch));
        table.add(grown(&log));
        table.add(verified(&log, rounds));
        if batch < LARGE_BATCH {
            continue;
        }
        let from = runtime.block_on(log.boot(Beginning::Snapshot));
        table.add(booted(events, "from the newest snapshot", &from));
        let all = runtime.block_on(log.boot(Beginning::FirstEvent));
        table.add(booted(events, "told of no snapshot: a full replay", &all));
    }
    table.notes.push(
        "Offline verification is `confidential audit verify` as a process. Ratio of the hash limit: processor time of bare \
         SHA-256 over the same messages (each file once for its footer, each leaf, one node a leaf) shared by all cores, by the \
         time from start to verdict; medians of alternating rounds; beside it the same with the verification of every seal's \
         Ed25519 signature in the limit. A boot is that of the enclave's process: from its start to \
         the first answer, KMS and attestation included. The parent reads its store through before, whatever the enclave will \
         ask for."
            .to_owned(),
    );
    table
}

fn grown(log: &LargeLog) -> Row {
    let (events, time) = (log.events, log.grown_in.as_secs_f64());
    let figures = format!("{:.0} events/s over {time:.0} s, {:.0} MB", events as f64 / time, log.bytes as f64 / 1e6);
    let name = format!("a log of {events} events written, enclave to disk, {} at once, one seal each time", log.batch);
    Row::figure(name, figures)
}

fn verified(log: &LargeLog, rounds: usize) -> Row {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rounds: Vec<(Duration, u64, f64, f64)> = (0..rounds)
        .map(|_| {
            let (time, peak) = log.verify();
            (time, peak, log.hashing(), log.signatures())
        })
        .collect();
    let time = median(rounds.iter().map(|(time, ..)| time.as_secs_f64()).collect());
    let peak = rounds.iter().map(|(_, peak, ..)| *peak).max().unwrap();
    let of = |limit: &dyn Fn(f64, f64) -> f64| {
        median(rounds.iter().map(|(time, _, h, s)| limit(*h, *s) / cores as f64 / time.as_secs_f64()).collect())
    };
    let figures = format!(
        "{:.0} k events/s, {:.0} MB/s, {time:.2} s, {:.2} of hashes and seals' signatures, peak memory {:.0} MiB, {cores} cores",
        log.events as f64 / time / 1e3,
        log.bytes as f64 / time / 1e6,
        of(&|hashing, signatures| hashing + signatures),
        peak as f64 / 1024.0
    );
    let name = format!("offline verify, {} events, {} under a seal", log.events, log.batch);
    Row::ratio(name, of(&|hashing, _| hashing), TARGET, figures)
}

fn booted(events: u64, how: &str, boot: &Boot) -> Row {
    let figures = format!(
        "{:.0} ms, peak memory {:.0} MiB; the parent's store opened in {:.0} ms",
        boot.enclave.as_secs_f64() * 1e3,
        boot.peak as f64 / 1024.0,
        boot.parent.as_secs_f64() * 1e3
    );
    Row::figure(format!("boot with {events} events, {how}"), figures)
}
