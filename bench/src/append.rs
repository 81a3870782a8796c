//! `measure audit`.

use std::time::Duration;

use crate::{
    Output, persisted, rivals,
    statistics::{median, quantile},
    table::{Row, Table},
};

/// The share of a bare loop that a persisted append should reach.
const TARGET: f64 = 0.5;

pub(crate) fn run(output: &Output) -> Table {
    let mut table =
        Table::new("Persisted append: enclave's ledger, unix socket, proxy process, fdatasync; events of 256 bytes");
    let rounds = if output.short { 3 } else { 7 };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (appenders, events) in [(1, 1_000), (32, 16_000), (1024, 256 * 1024)] {
        let events = if output.short { events / 4 } else { events };
        let rounds: Vec<_> = (0..rounds)
            .map(|_| {
                let run = runtime.block_on(persisted::run(&output.dir, appenders, events));
                let bare = rivals::bare(&output.dir, &portions(&run));
                (run, bare)
            })
            .collect();
        table.add(row(appenders, &rounds));
    }
    let events = if output.short { 200 } else { 1_000 };
    for (name, count, time) in [
        ("SQLite, WAL, synchronous=FULL, one event a transaction", events, rivals::sqlite(&output.dir, events, 1)),
        ("SQLite, the same, 100 events a transaction", events * 20, rivals::sqlite(&output.dir, events * 20, 100)),
        ("JSON Lines, one fdatasync a line", events, rivals::json_lines(&output.dir, events)),
    ] {
        table.add(Row::figure(name, format!("{} events/s", speed(count, time))));
    }
    table.notes.push(format!(
        "Ratio: time of a loop that writes the same bytes in as many writes as the proxy made, each with fdatasync, by the \
         time of the appends; medians of {} rounds, the two alternating.",
        rounds
    ));
    table
}

/// The batches, joined into as many writes as the proxy made of them.
fn portions(run: &persisted::Run) -> Vec<Vec<u8>> {
    let count = run.syncs.clamp(1, run.batches.len());
    let mut portions = vec![Vec::new(); count];
    for (index, batch) in run.batches.iter().enumerate() {
        portions[index * count / run.batches.len()].extend_from_slice(batch);
    }
    portions
}

fn row(appenders: usize, rounds: &[(persisted::Run, Duration)]) -> Row {
    let ratio = median(rounds.iter().map(|(run, bare)| bare.as_secs_f64() / run.time.as_secs_f64()).collect());
    let rate = median(rounds.iter().map(|(run, _)| run.events as f64 / run.time.as_secs_f64()).collect());
    let limit = median(rounds.iter().map(|(run, bare)| run.events as f64 / bare.as_secs_f64()).collect());
    let of =
        |share| median(rounds.iter().map(|(run, _)| quantile(&run.latencies, share).as_secs_f64() * 1e3).collect());
    let batch = median(rounds.iter().map(|(run, _)| run.events as f64 / run.batches.len() as f64).collect());
    let write = median(rounds.iter().map(|(run, _)| run.events as f64 / run.syncs as f64).collect());
    let figures = format!(
        "{rate:.0} events/s (bare {limit:.0}), p50 {:.2} ms, p99 {:.2} ms, {batch:.1} events a batch, {write:.1} a write",
        of(0.5),
        of(0.99)
    );
    Row::ratio(format!("persisted append, {appenders} at once"), ratio, TARGET, figures)
}

fn speed(events: usize, time: Duration) -> String {
    format!("{:.0}", events as f64 / time.as_secs_f64())
}
