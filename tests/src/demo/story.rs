use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinHandle};

use super::{
    media::{Media, sha256},
    stage::{IMAGE, Ran, Stage},
};
use crate::segments::{self, Segments};

/// Prints a line. Whoever closes the pipe wants to know no more.
macro_rules! say {
    ($($what:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($what)*);
    }};
}

const KEY: &str = "content-key-1";
const BUSY_KEY: &str = "content-busy";
const BUSY_USES: usize = 5;

/// Tells what happens and why it matters; keeps count.
struct Narrator {
    quiet: bool,
    steps: Vec<String>,
    began: Instant,
}

impl Narrator {
    fn step(&mut self, title: &str, why: &str) {
        self.steps.push(title.to_owned());
        if !self.quiet {
            say!("\n{:>2}. {title}\n    {why}", self.steps.len());
        }
    }

    fn see(&self, what: impl AsRef<str>) {
        if !self.quiet {
            what.as_ref().lines().for_each(|line| say!("      {line}"));
        }
    }
}

/// Plays the whole demo.
pub(super) fn tell(file: Option<PathBuf>, serve: bool, as_json: bool, keep: Option<PathBuf>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // The mock KMS runs on this runtime; everything else is in processes of its own.
    let mut stage = runtime.block_on(Stage::set(keep))?;
    let interrupt = clean_up_when_interrupted(&runtime, &stage);
    let mut narrator = Narrator { quiet: as_json, steps: Vec::new(), began: Instant::now() };
    let media = Media::prepare(file, stage.dir())?;
    let summary = play(&mut stage, &mut narrator, &media)?;
    if as_json {
        say!("{summary}");
    } else {
        say!("\nAll {} steps held, in {:.1} s.", narrator.steps.len(), narrator.began.elapsed().as_secs_f64());
    }
    interrupt.abort();
    if serve {
        explain(&stage);
        stage.write_shell_environment()?;
        runtime.block_on(tokio::signal::ctrl_c())?;
    }
    Ok(())
}

/// The children end by themselves when this process does; what is temporary would stay.
fn clean_up_when_interrupted(runtime: &Runtime, stage: &Stage) -> JoinHandle<()> {
    let temporary = stage.temporary().map(Path::to_owned);
    runtime.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            temporary.map(std::fs::remove_dir_all);
            std::process::exit(130);
        }
    })
}

fn play(stage: &mut Stage, narrator: &mut Narrator, media: &Media) -> anyhow::Result<Value> {
    narrator.step(
        "The parent proxy starts, and an enclave of another image asks KMS for a key",
        "KMS compares the PCRs in the attestation document with the key's policy: whoever changed the image gets nothing.",
    );
    stage.start_proxy()?;
    let gave_up = stage.start_other_enclave("somebody else's")?;
    ensure!(gave_up.contains("attestation") && gave_up.contains("PCR0"), "it gave up for another reason: {gave_up}");
    let words = gave_up.lines().find_map(|line| line.split_once("from KMS: ")).map_or("refused", |(_, cause)| cause);
    narrator.see(format!("{}, ...)", words.split(',').next().unwrap_or(words)));

    narrator.step(
        "Our enclave boots",
        "It measures itself, gets the log key from KMS against an attestation document, and opens epoch 1 of a new log.",
    );
    let (log_id, epoch) = stage.start_enclave()?;
    ensure!(epoch == "1", "the first epoch is {epoch}");
    narrator.see(format!("log {log_id}, epoch {epoch}"));

    narrator.step(
        "A client attests the enclave before it shows who it is",
        "The document must be of the expected image, answer a fresh nonce, and name the key of this very TLS connection.",
    );
    let status = succeed(stage.confidential("operator", &["status"])?, "status")?;
    let attested = &status["attestation"];
    ensure!(text(attested, "image") == "expected", "the image is {attested}");
    narrator.see(format!("enclave {}, image \"{}\"", text(attested, "module_id"), text(attested, "label")));
    narrator.see(format!("PCR0 {}", text(&attested["pcrs"], "0")));

    narrator
        .step("The operator makes a key", "KMS seals it to the enclave; the reply waits until the event is on disk.");
    let made = succeed(stage.confidential("operator", &["keys", "generate", KEY])?, "generate")?;
    narrator.see(format!("{KEY} version {}, event {}", made["key"]["active_version"], made["sequence"]));

    narrator.step(
        "The transcoder encrypts a media file through the enclave, and decrypts it again",
        "The use of the key is durably on the record before the first byte comes out.",
    );
    let (sealed, opened) = (stage.path("media.tce"), stage.path("media.opened"));
    let encrypt = ["encrypt", "--key", KEY, "--context", "title=demo", media.path(), "-o", &sealed];
    let encrypted = succeed(stage.confidential("transcoder", &encrypt)?, "encrypt")?;
    ensure!(!media.shows_through(&sealed)?, "the content shows through the ciphertext");
    succeed(stage.confidential("transcoder", &["decrypt", &sealed, "-o", &opened])?, "decrypt")?;
    ensure!(sha256(&opened)? == media.digest, "what was decrypted is not what was encrypted");
    narrator.see(format!(
        "{} bytes -> {} bytes -> the same {} bytes, SHA-256 {}",
        media.length, encrypted["bytes_out"], media.length, media.digest
    ));

    narrator.step(
        "A key rotates by use",
        "It may be used five times a version; at four the next version is on its way. Old messages stay readable.",
    );
    let uses = BUSY_USES.to_string();
    succeed(stage.confidential("operator", &["keys", "generate", BUSY_KEY, "--max-uses", &uses])?, "generate")?;
    let first = stage.path("first.tce");
    let mut versions = Vec::new();
    for round in 0..2 * BUSY_USES {
        let output = if round == 0 { first.clone() } else { stage.path("busy.tce") };
        let done = encrypt_patiently(stage, media.clip(), &output)?;
        versions.push(done["version"].as_u64().context("a version")?);
    }
    ensure!(versions.first() == Some(&1) && versions.last() > Some(&1), "the key did not rotate: {versions:?}");
    let clip = stage.path("clip.opened");
    succeed(stage.confidential("transcoder", &["decrypt", &first, "-o", &clip])?, "decrypt an old version")?;
    ensure!(sha256(&clip)? == sha256(media.clip())?, "the message of version 1 came out differently");
    narrator.see(format!("versions used: {versions:?}; the message of version 1 decrypts"));

    narrator.step(
        "Somebody without a grant is refused",
        "The answer does not tell whether the key exists; the attempt is on the record.",
    );
    let answers = [KEY, "content-never-made"].map(|key| stage.confidential("intern", &["keys", "show", key]));
    for answer in answers {
        let answer = answer?;
        ensure!(answer.code == 5, "the intern got exit code {}", answer.code);
        narrator.see(text(&answer.json["error"], "message"));
    }

    narrator.step(
        "The enclave is killed (SIGKILL) and boots again",
        "It verifies its whole log, opens epoch 2, and unwraps keys by attestation when they are needed.",
    );
    stage.kill_enclave();
    let (again, epoch) = stage.start_enclave()?;
    ensure!((again.as_str(), epoch.as_str()) == (log_id.as_str(), "2"), "epoch {epoch} of log {again}");
    succeed(stage.confidential("transcoder", &["decrypt", &sealed, "-o", &opened])?, "decrypt after the restart")?;
    ensure!(sha256(&opened)? == media.digest, "what was decrypted after the restart is not what was encrypted");
    narrator.see(format!("log {again}, epoch {epoch}; the message of epoch 1 decrypts"));

    narrator
        .step("The key is revoked", "From this moment no version of it is usable, and its name is never used again.");
    succeed(stage.confidential("operator", &["keys", "revoke", KEY])?, "revoke")?;
    let denied = stage.confidential("transcoder", &["decrypt", &sealed, "-o", &stage.path("never")])?;
    ensure!(denied.code == 5, "decryption with a revoked key got exit code {}", denied.code);
    ensure!(!stage.dir().join("never").exists(), "a refused decryption left a file");
    narrator.see(text(&denied.json["error"], "message"));

    let intact = audit(stage, narrator)?;
    Ok(json!({
        "steps": narrator.steps,
        "held": narrator.steps.len(),
        "seconds": narrator.began.elapsed().as_secs_f64(),
        "image": IMAGE,
        "log_id": log_id,
        "events": intact["events"],
        "epochs": intact["epochs"],
        "media_bytes": media.length,
    }))
}

/// The second half: what the log proves. Gives the auditor's report on the log as it is.
fn audit(stage: &Stage, narrator: &mut Narrator) -> anyhow::Result<Value> {
    narrator.step(
        "The last event's receipt and a checkpoint are kept",
        "Whoever holds one can show later whether the log still holds all that it held now.",
    );
    let last = stage.path("last.receipt");
    let rotate = ["keys", "rotate", BUSY_KEY, "--receipt", &last];
    let rotated = succeed(stage.confidential("operator", &rotate)?, "rotate")?;
    let checkpoint = stage.path("checkpoint.note");
    succeed(stage.confidential("operator", &["audit", "checkpoint", "-o", &checkpoint])?, "checkpoint")?;
    narrator.see(format!("receipt of event {}", rotated["sequence"]));

    narrator.step(
        "An auditor verifies the log offline",
        "With nothing but the files, the root of trust, the measurements, the checkpoint and the receipt.",
    );
    let evidence = ["--checkpoint", &checkpoint, "--receipt", &last];
    let intact = stage.audit(&stage.path("segments"), &evidence)?;
    ensure!(intact.code == 0 && intact.json["verdict"] == "intact", "the verdict is {}", intact.json);
    narrator.see(format!("intact: {} events in {} epochs", intact.json["events"], intact.json["epochs"]));

    narrator.step(
        "One byte of the log is flipped",
        "The disk may have done it, or somebody: what was there is gone, and it shows.",
    );
    let flipped = changed(stage, "flipped", |log| {
        let (name, bytes) = log.iter().max_by_key(|(_, bytes)| bytes.len()).expect("a segment");
        let (name, middle) = (*name, bytes.len() / 2);
        segments::flip(log, name, middle);
    })?;
    let damaged = stage.audit(&flipped, &evidence)?;
    ensure!(damaged.code == 4 && damaged.json["verdict"] == "damaged", "the verdict is {}", damaged.json);
    narrator.see(format!("{}: {}", text(&damaged.json, "verdict"), text(&damaged.json["first_bad"], "what")));

    narrator.step(
        "The end of the log is cut off, cleanly, between two seals",
        "Nothing inside the files can show that. The receipt does.",
    );
    let cut = changed(stage, "cut", |log| segments::drop_batches(log, 1))?;
    let unaware = stage.audit(&cut, &[])?;
    ensure!(unaware.json["verdict"] == "intact", "without evidence the verdict is {}", unaware.json);
    let truncated = stage.audit(&cut, &["--receipt", &last])?;
    ensure!(truncated.code == 4 && truncated.json["verdict"] == "truncated", "the verdict is {}", truncated.json);
    narrator.see(format!("without the receipt: intact, \"unanchored\"; with it: {}", text(&truncated.json, "verdict")));
    narrator.see(text(&truncated.json["first_bad"], "what"));
    Ok(intact.json)
}

/// Encrypts with the busy key, waiting while its rotation is under way.
fn encrypt_patiently(stage: &Stage, plain: &str, output: &str) -> anyhow::Result<Value> {
    for _ in 0..50 {
        let ran = stage.confidential("transcoder", &["encrypt", "--key", BUSY_KEY, plain, "-o", output])?;
        if ran.json["error"]["code"] != "ROTATION_DUE" {
            return succeed(ran, "encrypt");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("the rotation did not come")
}

fn succeed(ran: Ran, what: &str) -> anyhow::Result<Value> {
    ensure!(ran.code == 0, "{what}: exit code {}: {}", ran.code, ran.json);
    Ok(ran.json)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("?")
}

/// A copy of the log to which somebody did harm.
fn changed(stage: &Stage, name: &str, harm: impl FnOnce(&mut Segments)) -> anyhow::Result<String> {
    let copy = stage.path(name);
    std::fs::create_dir(&copy)?;
    let mut log = segments::read_dir(Path::new(&stage.path("segments")));
    harm(&mut log);
    segments::write_dir(Path::new(&copy), &log);
    Ok(copy)
}

/// What to type in another terminal.
fn explain(stage: &Stage) {
    let command = |who: &str| format!("cargo run -q -p client --bin confidential -- {}", stage.options(who).join(" "));
    say!("\nThe system stays up. In another terminal, for example:\n");
    say!("  {} status", command("operator"));
    say!("  {} keys generate content-mine", command("operator"));
    say!("  echo hello | {} encrypt --key content-mine > hello.tce", command("transcoder"));
    say!("  {} decrypt hello.tce", command("transcoder"));
    say!(
        "  cargo run -q -p client --bin confidential -- --root {} --measurements {} audit verify {}",
        stage.path("nsm-root.pem"),
        stage.path("measurements.json"),
        stage.path("segments")
    );
    say!("\nOr have `confidential` as a command, as the transcoder:  . {}", stage.path("env"));
    say!("\nLogs of the processes: {}. Ctrl-C ends everything.", stage.path("log"));
}
