//! `measure audit`.

use std::time::Duration;

use crate::{
    Output, persisted, process, rivals,
    statistics::{median, quantile},
    table::{Row, Table},
};

/// The share of a bare loop that a persisted append should reach.
const TARGET: f64 = 0.5;

/// How many append at once, unless told.
pub(crate) const APPENDERS: [usize; 3] = [1, 32, 1024];

pub(crate) fn run(output: &Output, appenders: &[usize]) -> Table {
    let mut table =
        Table::new("Persisted append: enclave's ledger, unix socket, proxy process, fdatasync; events of 256 bytes");
    let rounds = if output.short { 3 } else { 7 };
    let runtime = process::runtime();
    for &appenders in appenders {
        let events = (appenders * 500).clamp(1_000, 256 * 1024) / if output.short { 4 } else { 1 };
        let rounds: Vec<_> = (0..rounds)
            .map(|_| {
                let run = runtime.block_on(persisted::run(&output.dir, appenders, events));
                let bare = rivals::bare(&output.dir, &run.batches);
                let portions = portions(&run);
                let joined = rivals::bare(&output.dir, &portions);
                Round { run, bare, joined, laid_out: rivals::laid_out(&output.dir, &portions) }
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
        "Ratio: time of a loop that writes the same bytes in the batches that formed, each with one write and one fdatasync, by \
         the time of the appends; medians of {} rounds, the two alternating. The proxy joins batches that wait: the second loop \
         makes as many writes as it did, the third makes those into a file laid out ahead. Enclave and proxy have half of the \
         cores each as threads for their tasks: a Nitro host shares its cores out between the two.",
        rounds
    ));
    table
}

/// The appends, and then what a loop makes of the same bytes.
struct Round {
    run: persisted::Run,
    /// One write and one sync a batch.
    bare: Duration,
    /// As many as the proxy made.
    joined: Duration,
    /// The same into a file laid out ahead.
    laid_out: Duration,
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

fn row(appenders: usize, rounds: &[Round]) -> Row {
    let middle = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    let ratio = middle(&|round| round.bare.as_secs_f64() / round.run.time.as_secs_f64());
    let rate = middle(&|round| round.run.events as f64 / round.run.time.as_secs_f64());
    let limit =
        |time: &dyn Fn(&Round) -> Duration| middle(&|round| round.run.events as f64 / time(round).as_secs_f64());
    let (bare, joined, laid_out) =
        (limit(&|round| round.bare), limit(&|round| round.joined), limit(&|round| round.laid_out));
    let latency = |share| middle(&|round| quantile(&round.run.latencies, share).as_secs_f64() * 1e3);
    let batch = middle(&|round| round.run.events as f64 / round.run.batches.len() as f64);
    let write = middle(&|round| round.run.events as f64 / round.run.syncs as f64);
    let figures = format!(
        "{rate:.0} events/s (loop {bare:.0}; joined {joined:.0}, {:.2} of it; into a file laid out ahead {laid_out:.0}), p50 \
         {:.2} ms, p99 {:.2} ms, {batch:.1} events a batch, {write:.1} a write",
        rate / joined,
        latency(0.5),
        latency(0.99)
    );
    Row::ratio(format!("persisted append, {appenders} at once"), ratio, TARGET, figures)
}

fn speed(events: usize, time: Duration) -> String {
    format!("{:.0}", events as f64 / time.as_secs_f64())
}
