//! In-memory append (encode, chain, tree) against the bare SHA-256 of the bytes that it hashes, in the same run.
//!
//! What is hashed: each leaf with its tag, the interior nodes that it completes, and the nodes of the root that ends a batch.
//! The bare loop hashes exactly as many messages of exactly those lengths, ready in memory, with `Sha256::digest`, and does
//! nothing else. The signature of the seal is no hashing; appending is shown with it as well. Runs alternate; ratios are
//! medians of the ratios of neighbours.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on should fail loudly"
)]

use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest as _, Sha256};
use transcode_confidential::{
    audit::{AuditEventType, Chain, EventBody, EventDraft, KeyOperation, Seal},
    ids::{Digest, Epoch, KeyVersion, LogId},
    secret::KeyMaterial,
    signature::SigningKey,
    time::Timestamp,
};

/// A run: so many groups of so many events, each made right before it is appended, as an enclave does.
const GROUPS: usize = 64;
const GROUP: usize = 1024;
const EVENTS: usize = GROUPS * GROUP;
const RUNS: usize = 25;
const NOW: Timestamp = Timestamp(1_767_225_600_000);

fn main() {
    let leaf = Chain::new().append(draft(), NOW).unwrap().1;
    let key = SigningKey::from_seed(&KeyMaterial::from_bytes([1; 32])).unwrap();
    println!("in-memory append of {EVENTS} events, leaves of {} bytes; medians of {RUNS} alternating runs", leaf.len());
    println!(
        "{:>6} {:>12} {:>12} {:>7} {:>16} {:>7}",
        "batch", "bare, k/s", "append, k/s", "ratio", "and seal, k/s", "ratio"
    );
    for batch in [1, 32, 1024] {
        let runs: Vec<[f64; 3]> =
            (0..RUNS).map(|_| [bare(&leaf, batch), append(batch, None), append(batch, Some(&key))]).collect();
        let of = |pick: fn(&[f64; 3]) -> f64| median(runs.iter().map(pick).collect());
        let speed = |time: f64| EVENTS as f64 / time / 1e3;
        println!(
            "{batch:>6} {:>12.0} {:>12.0} {:>7.2} {:>16.0} {:>7.2}",
            speed(of(|run| run[0])),
            speed(of(|run| run[1])),
            of(|run| run[0] / run[1]),
            speed(of(|run| run[2])),
            of(|run| run[0] / run[2]),
        );
        println!("  in-memory append, batches of {batch}: {:.2} (target 0.6)", of(|run| run[0] / run[1]));
    }
}

fn draft() -> EventDraft {
    EventDraft::new(AuditEventType::KeyUsed, "message encrypted, segment 000123 of rendition 1080p at 4800k, pass 1,")
        .key("content-key-000001", Some(KeyVersion(7)))
        .principal("transcoder-eu-central-1a-07")
        .content("title-4711/season-1/episode-3")
        .body(EventBody::KeyUsed {
            operation: KeyOperation::Encrypt,
            uses: 1,
            context: Some(Digest::new([7; 32])),
            period: None,
        })
}

/// The hashing that `append` cannot avoid, and nothing else.
fn bare(leaf: &[u8], batch: usize) -> f64 {
    let tagged = [&[0], leaf].concat();
    let node = [1; 65];
    let begin = processor_time();
    for size in 1..=EVENTS {
        black_box(Sha256::digest(black_box(&tagged)));
        let completed = size.trailing_zeros();
        let joined = if size % batch == 0 { size.count_ones() - 1 } else { 0 };
        for _ in 0..completed + joined {
            black_box(Sha256::digest(black_box(&node)));
        }
    }
    processor_time() - begin
}

fn append(size: usize, key: Option<&SigningKey>) -> f64 {
    let mut chain = Chain::new();
    chain.open_epoch(Epoch(1));
    let mut batch = chain.begin_batch();
    let mut time = 0.0;
    for _ in 0..GROUPS {
        let mut drafts = vec![draft(); GROUP].into_iter();
        let begin = processor_time();
        for _ in 0..GROUP / size {
            chain.begin_batch_in(&mut batch);
            for draft in drafts.by_ref().take(size) {
                black_box(chain.append_to(&mut batch, draft, NOW).unwrap());
            }
            let state = chain.state();
            if let Some(key) = key {
                black_box(Seal::sign(key, LogId::new([1; 16]), state));
            }
            black_box((&batch, state));
        }
        time += processor_time() - begin;
    }
    time
}

/// Seconds of processor time that this thread has had: others on the machine hardly change it.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
