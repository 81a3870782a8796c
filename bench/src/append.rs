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
                let portions = portions(&run);
                let bare = rivals::bare(&output.dir, &portions);
                Round { run, bare, laid_out: rivals::laid_out(&output.dir, &portions) }
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

/// The appends, and then what a loop makes of the same bytes.
struct Round {
    run: persisted::Run,
    bare: Duration,
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
    let limit = middle(&|round| round.run.events as f64 / round.bare.as_secs_f64());
    let laid_out = middle(&|round| round.run.events as f64 / round.laid_out.as_secs_f64());
    let latency = |share| middle(&|round| quantile(&round.run.latencies, share).as_secs_f64() * 1e3);
    let batch = middle(&|round| round.run.events as f64 / round.run.batches.len() as f64);
    let write = middle(&|round| round.run.events as f64 / round.run.syncs as f64);
    let figures = format!(
        "{rate:.0} events/s (bare {limit:.0}; into a file laid out ahead {laid_out:.0}), p50 {:.2} ms, p99 {:.2} ms, {batch:.1} \
         events a batch, {write:.1} a write",
        latency(0.5),
        latency(0.99)
    );
    Row::ratio(format!("persisted append, {appenders} at once"), ratio, TARGET, figures)
}

fn speed(events: usize, time: Duration) -> String {
    format!("{:.0}", events as f64 / time.as_secs_f64())
}
