//! Throughput of the message format against the bare cipher on the same bytes.
//!
//! `cargo bench -p transcode-confidential --bench message` first prints ratios, measured by alternating the bare cipher
//! and the format on one core and taking medians, then lets criterion measure each alone. A filter argument skips the
//! ratios, and `ratios` skips all else.
#![allow(missing_docs, reason = "criterion's macros generate the items")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark prints, and fails loudly"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use aws_lc_rs::aead;
use criterion::{BenchmarkId, Criterion, Throughput};
use transcode_confidential::{
    entropy::OsEntropy,
    ids::{KeyId, KeyVersion},
    message::{
        EncryptionContext, Encryptor, FrameLength, HeaderReader, WrappingKey,
        primitives::{Nonce, ReferenceKey},
    },
    secret::{KeyMaterial, on_a_clean_stack},
};

/// More than the caches hold, as content does.
const CONTENT: usize = 64 << 20;
/// What a pipe filter reads at once.
const READ: usize = 64 << 10;
const FRAMES: [u32; 9] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20];
const ROUNDS: usize = 15;

fn main() {
    let world = World::new();
    if std::env::args().skip(1).all(|argument| ["--bench", "ratios"].contains(&argument.as_str())) {
        world.print_ratios();
        world.print_wipe();
    }
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    world.measure(&mut criterion);
    criterion.final_summary();
}

struct World {
    key_id: KeyId,
    material: KeyMaterial,
    bulk: aead::LessSafeKey,
    reference: ReferenceKey,
    content: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let material = KeyMaterial::from_bytes([0x5a; 32]);
        Self {
            key_id: "bench".parse().unwrap(),
            bulk: aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, material.expose()).unwrap()),
            reference: ReferenceKey::new(&material),
            material,
            content: (0..CONTENT).map(|at| ((at * 31) >> 7) as u8).collect(),
        }
    }

    fn wrap(&self) -> WrappingKey<'_> {
        WrappingKey { key_id: &self.key_id, version: KeyVersion(1), material: &self.material }
    }

    /// The cipher that the format uses, from the content to a buffer of one frame: what nobody can do without.
    fn bare(&self, frame: u32, scratch: &mut Vec<u8>) {
        for (index, chunk) in self.content.chunks(frame as usize).enumerate() {
            scratch.resize(chunk.len(), 0);
            let nonce = aead::Nonce::assume_unique_for_key(nonce(index).0);
            let aad = aead::Aad::from([0; 72]);
            self.bulk.seal_out_of_place_scatter(nonce, aad, chunk, scratch, &[], &mut [0; 16]).unwrap();
            black_box(&*scratch);
        }
    }

    /// The same by the `aes-gcm` crate, in place on a copy.
    fn bare_reference(&self, frame: u32, scratch: &mut Vec<u8>) {
        for (index, chunk) in self.content.chunks(frame as usize).enumerate() {
            scratch.clear();
            scratch.extend_from_slice(chunk);
            black_box(self.reference.seal(nonce(index), &[0; 72], scratch).unwrap());
        }
    }

    /// Pushes what a filter reads at once; the output is discarded.
    fn encrypt(&self, frame: u32, out: &mut Vec<u8>) {
        out.clear();
        let length = FrameLength::new(frame).unwrap();
        let mut encryptor = Encryptor::begin(&self.wrap(), &EncryptionContext::new(), length, &OsEntropy, out).unwrap();
        for chunk in self.content.chunks(READ) {
            encryptor.push(chunk, out).unwrap();
            black_box(&*out);
            out.clear();
        }
        encryptor.finish(out).unwrap();
    }

    fn decrypt(&self, message: &[u8], out: &mut Vec<u8>) {
        let mut rest = message;
        let header = HeaderReader::new().push(&mut rest).unwrap().unwrap();
        let mut decryptor = header.unwrap(&self.wrap()).unwrap();
        for chunk in rest.chunks(READ) {
            out.clear();
            decryptor.push(chunk, out).unwrap();
            black_box(&*out);
        }
        decryptor.finish().unwrap();
    }

    fn message(&self, frame: u32) -> Vec<u8> {
        let mut message = Vec::new();
        let length = FrameLength::new(frame).unwrap();
        let mut encryptor =
            Encryptor::begin(&self.wrap(), &EncryptionContext::new(), length, &OsEntropy, &mut message).unwrap();
        encryptor.push(&self.content, &mut message).unwrap();
        encryptor.finish(&mut message).unwrap();
        message
    }

    fn print_ratios(&self) {
        println!(
            "one core, {} MiB read {} KiB at a time, median of {ROUNDS} alternating rounds",
            CONTENT >> 20,
            READ >> 10
        );
        println!(
            "frame KiB | bare aes-gcm | bare aws-lc-rs | encrypt (ratio) | decrypt (ratio)   [MB/s; ratio to aws-lc-rs]"
        );
        for frame in FRAMES {
            let message = self.message(frame);
            let mut out = Vec::new();
            let mut times: [Vec<Duration>; 4] = Default::default();
            for _ in 0..ROUNDS {
                times[0].push(time(|| self.bare_reference(frame, &mut out)));
                times[1].push(time(|| self.bare(frame, &mut out)));
                times[2].push(time(|| self.encrypt(frame, &mut out)));
                times[3].push(time(|| self.decrypt(&message, &mut out)));
            }
            let [reference, bare, encrypt, decrypt] = times.map(rate);
            println!(
                "{:9} | {reference:12.0} | {bare:14.0} | {encrypt:8.0} ({:.2}) | {decrypt:8.0} ({:.2})",
                frame >> 10,
                encrypt / bare,
                decrypt / bare,
            );
        }
    }

    /// What it costs to wipe the stack behind key schedules and derivations, beside the smallest message there is.
    fn print_wipe(&self) {
        const COUNT: u32 = 2_000;
        let mut out = Vec::new();
        let (mut wipes, mut messages) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            wipes.push(time(|| (0..COUNT).for_each(|_| on_a_clean_stack(|| black_box(())))) / COUNT);
            messages.push(time(|| (0..COUNT).for_each(|_| self.encrypt_little(&mut out))) / COUNT);
        }
        let [wipe, message] = [wipes, messages].map(middle);
        let share = 2.0 * wipe.as_secs_f64() / message.as_secs_f64();
        println!(
            "64 KiB of stack wiped: {:.2} us, twice in a message; a message of 16 bytes encrypted: {:.1} us ({:.0} % of it wiping)",
            wipe.as_secs_f64() * 1e6,
            message.as_secs_f64() * 1e6,
            100.0 * share
        );
    }

    fn encrypt_little(&self, out: &mut Vec<u8>) {
        out.clear();
        let length = FrameLength::new(FRAMES[0]).unwrap();
        let mut encryptor = Encryptor::begin(&self.wrap(), &EncryptionContext::new(), length, &OsEntropy, out).unwrap();
        encryptor.push(&self.content[..16], out).unwrap();
        encryptor.finish(out).unwrap();
        black_box(&*out);
    }

    fn measure(&self, criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("message");
        group.throughput(Throughput::Bytes(CONTENT as u64));
        for frame in FRAMES {
            let message = self.message(frame);
            let mut out = Vec::new();
            group.bench_function(BenchmarkId::new("bare", frame), |b| b.iter(|| self.bare(frame, &mut out)));
            group.bench_function(BenchmarkId::new("encrypt", frame), |b| b.iter(|| self.encrypt(frame, &mut out)));
            group.bench_function(BenchmarkId::new("decrypt", frame), |b| b.iter(|| self.decrypt(&message, &mut out)));
        }
        group.finish();
    }
}

fn nonce(index: usize) -> Nonce {
    Nonce((index as u128).to_le_bytes()[..12].try_into().unwrap())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Megabytes a second at the median.
fn rate(times: Vec<Duration>) -> f64 {
    CONTENT as f64 / 1e6 / middle(times).as_secs_f64()
}
