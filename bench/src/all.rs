//! `all`: every bench, one table, written to `RESULTS.md` in its long form.

use std::process::Command;

use crate::{Output, append, kill, soak, table::Table, verify};

/// Benches of single crates: package, bench, and what they measure. They set themselves beside their limits and print so.
const CRATES: [(&str, &str, &str); 4] = [
    ("transcode-confidential", "audit", "In-memory append beside bare SHA-256"),
    ("transcode-confidential", "attestation", "A document's verification beside its five signatures"),
    ("transcode-confidential", "message", "Content encryption beside bare AES-256-GCM"),
    ("parent-proxy", "relay", "The relay beside socat"),
];

pub(crate) fn run(output: &Output, minutes: f64, crates: bool) -> Table {
    let mut table = Table::new("# Results\n\nWritten by `cargo measure all`.");
    table.join(append::run(output));
    table.join(verify::run(output, &[]));
    table.join(kill::run(if output.short { 40 } else { 200 }));
    table.join(soak::run(if output.short { 0.2 } else { minutes }));
    for (package, bench, what) in CRATES.into_iter().filter(|_| crates) {
        let printed = of_crate(package, bench);
        let command = format!("cargo bench -p {package} --bench {bench} -- ratios");
        table.notes.push(format!("## {what}\n\n`{command}`\n\n```text\n{printed}```"));
    }
    if !output.short {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md"), table.text()).unwrap();
    }
    table
}

/// What a bench prints, without criterion's own lines.
fn of_crate(package: &str, bench: &str) -> String {
    let mut command = Command::new(env!("CARGO"));
    // Criterion has no bench of that name: what they print themselves is all there is.
    command.args(["bench", "--quiet", "--package", package, "--bench", bench, "--", "ratios"]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let criterion = ["Benchmarking", "Found", "Gnuplot", "WARNING", "time:", "thrpt:", "change:", "high ", "low "];
    let ours = |line: &&str| !line.trim().is_empty() && !criterion.iter().any(|word| line.contains(word));
    text.lines().filter(ours).map(|line| format!("{line}\n")).collect()
}
