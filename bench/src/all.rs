//! `all`: every bench, one table, written to `RESULTS.md` in its long form, and its ratios to the README.

use std::{
    path::Path,
    process::{Command, Output as Printed},
};

use crate::{
    Output, append, kill, readme, soak,
    table::{Row, Table},
    verify,
};

/// Benches of single crates: package, bench, and what they measure. They set themselves beside their limits and print so.
const CRATES: [(&str, &str, &str); 4] = [
    ("transcode-confidential", "audit", "In-memory append beside bare SHA-256"),
    ("transcode-confidential", "attestation", "A document's verification beside its five signatures"),
    ("transcode-confidential", "message", "Content encryption beside bare AES-256-GCM"),
    ("parent-proxy", "relay", "The relay beside socat"),
];
const HERE: &str = env!("CARGO_MANIFEST_DIR");

pub(crate) fn run(output: &Output, minutes: f64, crates: bool) -> Table {
    let mut table = Table::new("# Results\n\nWritten by `cargo measure all`.");
    table.join(append::run(output, &append::APPENDERS));
    table.join(verify::run(output, &[]));
    if crates {
        for (package, bench, what) in CRATES {
            let command = format!("cargo bench -p {package} --bench {bench} -- ratios");
            printed(&mut table, what, &command, &of_crate(package, bench));
        }
        let what = "Content beside the bare cipher, age, the Python SDK and a TLS echo; data keys";
        printed(&mut table, what, "content_bench", &content());
    }
    // Last: they measure no speed.
    table.join(kill::run(if output.short { 120 } else { 200 }));
    table.join(soak::run(if output.short { 0.2 } else { minutes }));
    if !output.short {
        let root = Path::new(HERE).parent().unwrap();
        std::fs::write(Path::new(HERE).join("RESULTS.md"), table.text()).unwrap();
        readme::include(&root.join("README.md"), &table);
    }
    table
}

/// Takes in what a bench printed. Its lines `WHAT: RATIO (target TARGET)` are rows of the table.
fn printed(table: &mut Table, what: &str, command: &str, text: &str) {
    for line in text.lines() {
        let judged = line.trim().strip_suffix(')').and_then(|line| line.rsplit_once(" (target "));
        let ratio = judged.and_then(|(name, target)| Some((name.rsplit_once(": ")?, target)));
        if let Some(((name, ratio), target)) = ratio {
            table.add(Row::ratio(name, ratio.parse().unwrap(), target.parse().unwrap(), format!("`{command}`, below")));
        }
    }
    table.notes.push(format!("## {what}\n\n`{command}`\n\n```text\n{text}```"));
}

/// What a bench prints, without criterion's own lines.
fn of_crate(package: &str, bench: &str) -> String {
    // Criterion has no bench of that name: what they print themselves is all there is.
    let text = output_of(cargo(&["bench", "--quiet", "--package", package, "--bench", bench, "--", "ratios"]));
    let criterion = ["Benchmarking", "Found", "Gnuplot", "WARNING", "time:", "thrpt:", "change:", "high ", "low "];
    let ours = |line: &&str| !line.trim().is_empty() && !criterion.iter().any(|word| line.contains(word));
    text.lines().filter(ours).map(|line| format!("{line}\n")).collect()
}

/// What the bench of content prints, beside the Python SDK where its environment can be had.
fn content() -> String {
    let programs = ["--package", "client", "--bin", "confidential", "--package", "testkit", "--bin", "content_bench"];
    output_of(cargo(&[&["build", "--quiet", "--release"][..], &programs].concat()));
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new(this.with_file_name("content_bench"));
    command.arg("--confidential").arg(this.with_file_name("confidential")).args(["--rounds", "3"]);
    let root = Path::new(HERE).parent().unwrap();
    let venv = Command::new(root.join("tests/peers/venv")).output();
    if let Some(venv) = venv.ok().filter(|venv| venv.status.success()) {
        let venv = root.join(String::from_utf8_lossy(&venv.stdout).trim());
        command.arg("--python").arg(venv.join("bin/python"));
    }
    output_of(command)
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(HERE);
    command
}

fn output_of(mut command: Command) -> String {
    let Printed { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}
