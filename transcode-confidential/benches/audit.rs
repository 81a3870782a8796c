//! In-memory append (encode, chain, tree) against the bare SHA-256 cost of the bytes that it hashes, in the same run.
//!
//! Prints the ratio for batches of 1, 32 and 1,024 events of about 256 bytes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on should fail loudly"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sha2::{Digest as _, Sha256};
use transcode_confidential::{
    audit::{AuditEventType, Chain, EventBody, EventDraft, KeyOperation, Seal},
    ids::{Digest, Epoch, KeyVersion, LogId},
    secret::KeyMaterial,
    signature::SigningKey,
    time::Timestamp,
};

fn draft() -> EventDraft {
    EventDraft::new(AuditEventType::KeyUsed, "message encrypted, segment 000123 of rendition 1080p")
        .key("content-key-000001", Some(KeyVersion(7)))
        .principal("transcoder-eu-central-1a-07")
        .content("title-4711/season-1/episode-3")
        .body(EventBody::KeyUsed { operation: KeyOperation::Encrypt, uses: 1, context: Some(Digest::new([7; 32])) })
}

/// The hashing that no implementation can avoid: each leaf once, and one interior node for each leaf.
fn bare_hashing(leaf: &[u8]) {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(leaf);
    black_box(hasher.finalize());
    black_box(Sha256::digest([1; 65]));
}

fn append(batch: usize, key: Option<&SigningKey>, rounds: u64) -> Duration {
    let drafts: Vec<Vec<EventDraft>> = (0..rounds).map(|_| vec![draft(); batch]).collect();
    let mut chain = Chain::new();
    chain.open_epoch(Epoch(1));
    let begin = Instant::now();
    for drafts in drafts {
        let mut open = chain.begin_batch();
        for draft in drafts {
            black_box(chain.append_to(&mut open, draft, Timestamp(1_767_225_600_000)).unwrap());
        }
        black_box(chain.state());
        if let Some(key) = key {
            black_box(Seal::sign(key, LogId::new([1; 16]), chain.state()));
        }
        black_box(open);
    }
    begin.elapsed()
}

fn benches(criterion: &mut Criterion) {
    let leaf = Chain::new().append(draft(), Timestamp(1_767_225_600_000)).unwrap().1;
    println!("a leaf has {} bytes", leaf.len());
    let key = SigningKey::from_seed(&KeyMaterial::from_bytes([1; 32])).unwrap();
    let mut group = criterion.benchmark_group("append");
    for batch in [1, 32, 1024] {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("bare hashing of {batch}"), |b| {
            b.iter(|| (0..batch).for_each(|_| bare_hashing(black_box(&leaf))));
        });
        group.bench_function(format!("append {batch}"), |b| b.iter_custom(|rounds| append(batch, None, rounds)));
        group.bench_function(format!("append and seal {batch}"), |b| {
            b.iter_custom(|rounds| append(batch, Some(&key), rounds));
        });
    }
    group.finish();
    for batch in [1, 32, 1024] {
        let rounds = 200_000 / batch as u64;
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let bare = || {
            let begin = Instant::now();
            (0..rounds * batch as u64).for_each(|_| bare_hashing(black_box(&leaf)));
            begin.elapsed().as_secs_f64()
        };
        let pairs: Vec<(f64, f64)> = (0..9).map(|_| (bare(), append(batch, None, rounds).as_secs_f64())).collect();
        let (bare, append) = (median(pairs.iter().map(|p| p.0).collect()), median(pairs.iter().map(|p| p.1).collect()));
        println!(
            "batch {batch}: append {:.0} k/s, bare hashing {:.0} k/s, ratio {:.2}",
            rounds as f64 * batch as f64 / append / 1e3,
            rounds as f64 * batch as f64 / bare / 1e3,
            bare / append
        );
    }
}

criterion_group!(audit, benches);
criterion_main!(audit);
