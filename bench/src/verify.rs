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

pub(crate) fn run(output: &Output, sizes: &[u64]) -> Table {
    let mut table = Table::new("Large logs: verified offline, and read by a boot; events of 256 bytes");
    let sizes: &[u64] = match sizes {
        [] if output.short => &[20_000],
        [] => &[1_000_000, 10_000_000],
        sizes => sizes,
    };
    let rounds = if output.short { 1 } else { 3 };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for &events in sizes {
        let mut log = runtime.block_on(LargeLog::grow(events));
        table.add(grown(&log));
        table.add(verified(&log, rounds));
        let from = runtime.block_on(log.boot(Beginning::Snapshot));
        table.add(booted(events, "from the newest snapshot", &from));
        let all = runtime.block_on(log.boot(Beginning::FirstEvent));
        table.add(booted(events, "told of no snapshot: a full replay", &all));
    }
    table.notes.push(
        "Offline verification is `confidential audit verify` as a process. Ratio of the hash limit: processor time of bare \
         SHA-256 over the same messages (each file once for its footer, each leaf, one node a leaf) shared by all cores, by the \
         time from start to verdict; medians of alternating rounds. A boot is that of the enclave's process: from its start to \
         the first answer, KMS and attestation included. The parent reads its store through before, whatever the enclave will \
         ask for."
            .to_owned(),
    );
    table
}

fn grown(log: &LargeLog) -> Row {
    let (events, time) = (log.events, log.grown_in.as_secs_f64());
    let figures = format!("{:.0} events/s over {time:.0} s, {:.0} MB", events as f64 / time, log.bytes as f64 / 1e6);
    Row::figure(format!("a log of {events} events written, enclave to disk, 2,048 at once"), figures)
}

fn verified(log: &LargeLog, rounds: usize) -> Row {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rounds: Vec<(Duration, u64, f64)> = (0..rounds)
        .map(|_| {
            let (time, peak) = log.verify();
            (time, peak, log.hashing())
        })
        .collect();
    let time = median(rounds.iter().map(|(time, ..)| time.as_secs_f64()).collect());
    let peak = rounds.iter().map(|(_, peak, _)| *peak).max().unwrap();
    let ratio = median(rounds.iter().map(|(time, _, hashing)| hashing / cores as f64 / time.as_secs_f64()).collect());
    let figures = format!(
        "{:.0} k events/s, {:.0} MB/s, {time:.2} s, peak memory {:.0} MiB, {cores} cores",
        log.events as f64 / time / 1e3,
        log.bytes as f64 / time / 1e6,
        peak as f64 / 1024.0
    );
    Row::ratio(format!("offline verify, {} events", log.events), ratio, TARGET, figures)
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
