//! The seeds of the fuzz targets, replayed through the same code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that fails should fail loudly")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use testkit::fuzzing::{TARGETS, run};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

#[test]
fn every_seed_of_every_target_passes() {
    for target in TARGETS {
        let seeds = fs::read_dir(folder().join("seeds").join(target.name)).unwrap();
        let mut count = 0;
        for seed in seeds {
            let path = seed.unwrap().path();
            let input = fs::read(&path).unwrap();
            if std::panic::catch_unwind(|| (target.run)(&input)).is_err() {
                panic!("{}", path.display());
            }
            count += 1;
        }
        assert!(count > 0, "{} has no seeds", target.name);
    }
}

#[test]
fn every_target_has_a_binary_and_every_binary_and_folder_a_target() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let binaries = manifest.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let binaries: BTreeSet<_> = binaries.filter(|name| *name != "fuzz").map(str::to_owned).collect();
    assert_eq!(binaries, names);
    let folders = fs::read_dir(folder().join("seeds")).unwrap();
    let folders: BTreeSet<_> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, names);
}

#[test]
fn empty_and_tiny_inputs_pass_everywhere() {
    for target in TARGETS {
        run(target.name, &[]);
        (0..=255).for_each(|byte| run(target.name, &[byte]));
        (0..=255).for_each(|byte| run(target.name, &[byte, 0, 0xff, byte]));
    }
}

/// `FUZZ_ROUNDS` changed seeds for each target; the same ones in every run.
#[test]
#[allow(clippy::disallowed_methods, reason = "a test may be told by the environment")]
fn seeds_with_random_changes_pass() {
    let rounds: u64 = std::env::var("FUZZ_ROUNDS").map_or(100, |rounds| rounds.parse().unwrap());
    for target in TARGETS {
        let seeds = fs::read_dir(folder().join("seeds").join(target.name)).unwrap();
        let mut seeds: Vec<_> = seeds.map(|seed| seed.unwrap().path()).collect();
        seeds.sort();
        let seeds: Vec<_> = seeds.iter().map(|seed| fs::read(seed).unwrap()).collect();
        for round in 0..rounds {
            let input = changed(&seeds, &mut Random(round + 1));
            let passed = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(passed.is_ok(), "{}: {}", target.name, hex::encode(&input));
        }
    }
}

/// One of the seeds with one to four bytes flipped, overwritten, inserted or removed, or a part of another seed put in.
fn changed(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(5) {
            0 | 1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 if at < input.len() => drop(input.remove(at)),
            3 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let part = other[from..].iter().take(random.below(64)).copied();
                drop(input.splice(at..at, part.collect::<Vec<_>>()));
            }
            _ => (0..=random.below(8)).for_each(|_| input.insert(at, random.next() as u8)),
        }
    }
    input
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
