//! `measure all`: every bench, one table.

use std::process::Command;

use crate::{
    Output, append, kill, soak,
    table::{Row, Table},
    verify,
};

/// Benches of single crates: package, bench, and what they measure. They print tables of their own, which are kept as they are.
const CRATES: [(&str, &str, &str); 3] = [
    ("transcode-confidential", "audit", "in-memory append beside bare SHA-256"),
    ("transcode-confidential", "attestation", "a document's verification beside its five signatures"),
    ("transcode-confidential", "message", "content encryption beside bare AES-256-GCM"),
];

pub(crate) fn run(output: &Output) -> Table {
    let mut table = Table::new("# Results\n\n`cargo measure all` writes this file.");
    for (package, bench, what) in CRATES {
        table.notes.push(format!(
            "## {what}\n\n`cargo bench -p {package} --bench {bench}`\n\n```\n{}```",
            of_crate(package, bench)
        ));
    }
    table.join(append::run(output));
    table.join(verify::run(output, &[]));
    table.join(kill::run(output, if output.short { 10 } else { 100 }));
    if output.short {
        table.add(Row::figure("soak", "left out of the short form"));
    } else {
        table.join(soak::run(output, 2.0));
    }
    if !output.short {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md"), table.text()).unwrap();
    }
    table
}

/// What a bench prints on its ratio; criterion's own lines are left out.
fn of_crate(package: &str, bench: &str) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(["bench", "--quiet", "--package", package, "--bench", bench]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let criterion = |line: &&str| {
        let noise = ["Benchmarking", "time:", "thrpt:", "Found", "Gnuplot", "change:", "  "];
        !line.is_empty() && !noise.iter().any(|noise| line.starts_with(noise) && *noise != "  ")
    };
    text.lines().filter(criterion).map(|line| format!("{line}\n")).collect()
}
