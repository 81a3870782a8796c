//! The binary that ships has no mock in it, and no way to name another world than AWS's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// What only mocks say. [`testkit::MARKER`] is there for this test; the others are what the mocks are made of.
const TRACES: [&str; 4] = [testkit::MARKER, "mock-kms/1", "mock-region-1", "Mock KMS Root"];

fn cargo(arguments: &[&str]) -> Output {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(workspace).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn traces_in(binary: &Path) -> BTreeSet<&'static str> {
    let bytes = std::fs::read(binary).unwrap();
    let found = |trace: &&str| bytes.windows(trace.len()).any(|window| window == trace.as_bytes());
    TRACES.into_iter().filter(found).collect()
}

#[test]
fn the_enclave_s_binary_has_no_trace_of_a_mock_and_the_demo_s_has_all() {
    let demo = traces_in(Path::new(env!("CARGO_BIN_EXE_demo")));
    assert_eq!(demo, TRACES.into(), "the search finds what is there");
    let output = cargo(&["build", "--package", "enclave-app", "--locked", "--message-format", "json"]);
    let messages = String::from_utf8(output.stdout).unwrap();
    let built: Vec<PathBuf> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect();
    let [binary] = &built[..] else { panic!("one binary: {built:?}") };
    assert_eq!(traces_in(binary), BTreeSet::new());
    let bytes = std::fs::read(binary).unwrap();
    assert!(bytes.windows(8).any(|window| window == b"/dev/nsm"), "it is the enclave's");
}

#[test]
fn the_enclave_depends_on_no_mock_and_no_test_tool() {
    let tree = cargo(&["tree", "--package", "enclave-app", "--edges", "normal", "--prefix", "none", "--locked"]);
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(crates.contains("transcode-confidential") && crates.contains("aws-nitro-enclaves-nsm-api"));
    for foreign in ["testkit", "parent-proxy", "client", "proptest", "tempfile", "clap"] {
        assert!(!crates.contains(foreign), "{foreign} is in the enclave");
    }
}

#[test]
fn the_enclave_s_main_names_one_world_and_reads_nothing_but_the_image() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (file, reals) in
        [("main.rs", ["TrustRoot::aws()", "roots::amazon()"]), ("program.rs", ["NsmDevice::open", "KernelBoottime"])]
    {
        let text = std::fs::read_to_string(root.join("enclave-app/src").join(file)).unwrap();
        for real in reals {
            assert!(text.contains(real), "{file}: {real}");
        }
        for other in ["env::args", "env::var", "clap", "cfg(", "feature"] {
            assert!(!text.contains(other), "{file}: {other}");
        }
    }
    for manifest in ["enclave-app", "transcode-confidential", "transport"] {
        let manifest = std::fs::read_to_string(root.join(manifest).join("Cargo.toml")).unwrap();
        assert!(!manifest.contains("[features]"), "no feature could put a mock in");
    }
}
