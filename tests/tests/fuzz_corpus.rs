//! The seeds of the fuzz targets, replayed through the same code.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should fail loudly")]

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
