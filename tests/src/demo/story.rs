use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use transcode_confidential::{
    audit::segment::{RECORD_HEAD, RecordKind, SegmentHeader},
    ids::Digest,
};

use super::{
    sample,
    stage::{Ran, Stage},
};

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
            println!("\n{:>2}. {title}\n    {why}", self.steps.len());
        }
    }

    fn see(&self, what: impl AsRef<str>) {
        if !self.quiet {
            what.as_ref().lines().for_each(|line| println!("      {line}"));
        }
    }
}

/// Plays the whole demo.
pub(super) fn tell(file: &Option<PathBuf>, serve: bool, as_json: bool, keep: Option<PathBuf>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // The mock KMS runs on this runtime; everything else is in processes of its own.
    let mut stage = runtime.block_on(Stage::set(keep))?;
    let mut narrator = Narrator { quiet: as_json, steps: Vec::new(), began: Instant::now() };
    let media = match file {
        Some(file) => std::fs::read(file).with_context(|| format!("reading {}", file.display()))?,
        None => sample::wav(),
    };
    let summary = play(&mut stage, &mut narrator, &media)?;
    if as_json {
        println!("{summary}");
    } else {
        println!("\nAll {} steps held, in {:.1} s.", narrator.steps.len(), narrator.began.elapsed().as_secs_f64());
    }
    if serve {
        explain(&stage);
        runtime.block_on(tokio::signal::ctrl_c())?;
    }
    Ok(())
}

fn play(stage: &mut Stage, narrator: &mut Narrator, media: &[u8]) -> anyhow::Result<Value> {
    let path = |stage: &Stage, name: &str| stage.path(name);
    std::fs::write(path(stage, "media"), media)?;

    narrator.step(
        "The parent proxy starts, and the enclave boots",
        "It measures itself, gets the log key from KMS against an attestation document, and opens epoch 1 of a new log.",
    );
    stage.start_proxy()?;
    let (log_id, epoch) = stage.start_enclave()?;
    ensure!(epoch == "1", "the first epoch is {epoch}");
    narrator.see(format!("log {log_id}, epoch {epoch}"));

    narrator.step(
        "A client attests the enclave before it shows who it is",
        "The document must be of the expected image, answer a fresh nonce, and name the key of this very TLS connection.",
    );
    let status = succeed(stage.confidential("operator", &["status"])?, "status")?;
    let attested = &status["attestation"];
    narrator.see(format!(
        "enclave {}, image \"{}\": {}",
        text(attested, "module_id"),
        text(attested, "label"),
        text(attested, "image")
    ));
    narrator.see(format!("PCR0 {}", text(&attested["pcrs"], "0")));

    narrator
        .step("The operator makes a key", "KMS seals it to the enclave; the reply waits until the event is on disk.");
    let receipt = path(stage, "generate.receipt");
    let made = succeed(stage.confidential("operator", &["keys", "generate", KEY, "--receipt", &receipt])?, "generate")?;
    narrator.see(format!("{KEY} version {}, event {}", made["key"]["active_version"], made["sequence"]));

    narrator.step(
        "The transcoder encrypts a media file through the enclave, and decrypts it again",
        "The use of the key is durably on the record before the first byte comes out.",
    );
    let (plain, sealed, opened) = (path(stage, "media"), path(stage, "media.tce"), path(stage, "media.opened"));
    let encrypt = ["encrypt", "--key", KEY, "--context", "title=demo", &plain, "-o", &sealed];
    let encrypted = succeed(stage.confidential("transcoder", &encrypt)?, "encrypt")?;
    let ciphertext = std::fs::read(&sealed)?;
    let probe = media.get(media.len() / 2..).unwrap_or_default();
    let probe = probe.get(..64.min(probe.len())).unwrap_or_default();
    let visible = probe.len() >= 16 && probe.iter().any(|byte| *byte != 0) && find(&ciphertext, probe);
    ensure!(!visible, "the content shows through the ciphertext");
    succeed(stage.confidential("transcoder", &["decrypt", &sealed, "-o", &opened])?, "decrypt")?;
    ensure!(std::fs::read(&opened)? == media, "what was decrypted is not what was encrypted");
    narrator.see(format!(
        "{} bytes -> {} bytes -> the same {} bytes, SHA-256 {}",
        media.len(),
        encrypted["bytes_out"],
        media.len(),
        Digest::of(media)
    ));

    narrator.step(
        "A key rotates by use",
        "It may be used five times a version; at four the next version is on its way. Old messages stay readable.",
    );
    let uses = BUSY_USES.to_string();
    succeed(stage.confidential("operator", &["keys", "generate", BUSY_KEY, "--max-uses", &uses])?, "generate")?;
    let first = path(stage, "first.tce");
    let mut versions = Vec::new();
    for round in 0..2 * BUSY_USES {
        let output = if round == 0 { first.clone() } else { path(stage, "busy.tce") };
        let done = encrypt_patiently(stage, &plain, &output)?;
        versions.push(done["version"].as_u64().context("a version")?);
    }
    ensure!(versions.first() == Some(&1) && versions.last() > Some(&1), "the key did not rotate: {versions:?}");
    succeed(stage.confidential("transcoder", &["decrypt", &first, "-o", &opened])?, "decrypt an old version")?;
    narrator.see(format!("versions used: {versions:?}"));

    narrator.step(
        "Somebody without a grant is refused",
        "The answer does not tell whether the key exists; the attempt is on the record.",
    );
    let refused = stage.confidential("intern", &["keys", "show", KEY])?;
    ensure!(refused.code == 5, "the intern got exit code {}", refused.code);
    narrator.see(format!("{}: {}", text(&refused.json["error"], "code"), text(&refused.json["error"], "message")));

    narrator.step(
        "The enclave is killed and boots again",
        "It verifies its whole log, opens epoch 2, and unwraps keys by attestation when they are needed.",
    );
    stage.kill_enclave();
    let (again, epoch) = stage.start_enclave()?;
    ensure!((again.as_str(), epoch.as_str()) == (log_id.as_str(), "2"), "epoch {epoch} of log {again}");
    succeed(stage.confidential("transcoder", &["decrypt", &sealed, "-o", &opened])?, "decrypt after the restart")?;
    ensure!(std::fs::read(&opened)? == media, "what was decrypted after the restart is not what was encrypted");
    narrator.see(format!("log {again}, epoch {epoch}; the message of epoch 1 decrypts"));

    narrator
        .step("The key is revoked", "From this moment no version of it is usable, and its name is never used again.");
    succeed(stage.confidential("operator", &["keys", "revoke", KEY])?, "revoke")?;
    let denied = stage.confidential("transcoder", &["decrypt", &sealed, "-o", &path(stage, "never")])?;
    ensure!(denied.code == 5, "decryption with a revoked key got exit code {}", denied.code);
    ensure!(!stage.dir().join("never").exists(), "a refused decryption left a file");
    narrator.see(format!("{}: {}", text(&denied.json["error"], "code"), text(&denied.json["error"], "message")));

    narrator.step(
        "The last event's receipt and a checkpoint are kept",
        "Whoever holds one can show later whether the log still holds all that it held now.",
    );
    let last = path(stage, "last.receipt");
    let rotate = ["keys", "rotate", BUSY_KEY, "--receipt", &last];
    let rotated = succeed(stage.confidential("operator", &rotate)?, "rotate")?;
    let checkpoint = path(stage, "checkpoint.note");
    succeed(stage.confidential("operator", &["audit", "checkpoint", "-o", &checkpoint])?, "checkpoint")?;
    narrator.see(format!("receipt of event {}", rotated["sequence"]));

    narrator.step(
        "An auditor verifies the log offline",
        "With nothing but the files, the root of trust, the measurements and the checkpoint.",
    );
    let segments = path(stage, "segments");
    let evidence = ["--checkpoint", &checkpoint, "--receipt", &last];
    let intact = stage.audit(&segments, &evidence)?;
    ensure!(intact.code == 0 && intact.json["verdict"] == "intact", "the verdict is {}", intact.json);
    narrator.see(format!("intact: {} events in {} epochs", intact.json["events"], intact.json["epochs"]));

    narrator.step(
        "One byte of the log is flipped",
        "The disk may have done it, or somebody: what was there is gone, and it shows.",
    );
    let flipped = copy_of(stage, "flipped")?;
    let (file, mut bytes) = largest(&flipped)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes)?;
    let damaged = stage.audit(&flipped, &evidence)?;
    ensure!(damaged.code == 4 && damaged.json["verdict"] == "damaged", "the verdict is {}", damaged.json);
    narrator.see(format!("{}: {}", text(&damaged.json, "verdict"), text(&damaged.json["first_bad"], "what")));

    narrator.step(
        "The end of the log is cut off, cleanly, between two seals",
        "Nothing inside the files can show that. The receipt does.",
    );
    let cut = copy_of(stage, "cut")?;
    cut_last_batches(&cut)?;
    let unaware = stage.audit(&cut, &[])?;
    ensure!(unaware.json["verdict"] == "intact", "without evidence the verdict is {}", unaware.json);
    let truncated = stage.audit(&cut, &["--receipt", &last])?;
    ensure!(truncated.code == 4 && truncated.json["verdict"] == "truncated", "the verdict is {}", truncated.json);
    narrator.see(format!("without the receipt: intact, \"unanchored\"; with it: {}", text(&truncated.json, "verdict")));
    narrator.see(text(&truncated.json["first_bad"], "what"));

    Ok(json!({
        "steps": narrator.steps,
        "held": narrator.steps.len(),
        "seconds": narrator.began.elapsed().as_secs_f64(),
        "log_id": log_id,
        "events": intact.json["events"],
        "media_bytes": media.len(),
    }))
}

/// Encrypts with the busy key, waiting while its rotation is under way.
fn encrypt_patiently(stage: &Stage, plain: &str, output: &str) -> anyhow::Result<Value> {
    for _ in 0..50 {
        let ran = stage.confidential("transcoder", &["encrypt", "--key", BUSY_KEY, plain, "-o", output])?;
        if ran.json["error"]["code"] != "ROTATION_DUE" {
            return succeed(ran, "encrypt");
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    anyhow::bail!("the rotation did not come")
}

fn succeed(ran: Ran, what: &str) -> anyhow::Result<Value> {
    ensure!(ran.code == 0, "{what}: exit code {}: {}", ran.code, ran.json);
    Ok(ran.json)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("?")
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// A copy of the log to do harm to.
fn copy_of(stage: &Stage, name: &str) -> anyhow::Result<String> {
    let copy = stage.path(name);
    std::fs::create_dir(&copy)?;
    for file in segment_files(&stage.path("segments"))? {
        std::fs::copy(&file, PathBuf::from(&copy).join(file.file_name().context("a name")?))?;
    }
    Ok(copy)
}

fn segment_files(dir: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    let mut files: Vec<_> = entries.into_iter().filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    files.sort();
    Ok(files)
}

fn largest(dir: &str) -> anyhow::Result<(PathBuf, Vec<u8>)> {
    let files = segment_files(dir)?;
    let file =
        files.into_iter().max_by_key(|file| file.metadata().map_or(0, |meta| meta.len())).context("a segment")?;
    let bytes = std::fs::read(&file)?;
    Ok((file, bytes))
}

/// Cuts the last segment behind its first seal.
fn cut_last_batches(dir: &str) -> anyhow::Result<()> {
    let file = segment_files(dir)?.pop().context("a segment")?;
    let bytes = std::fs::read(&file)?;
    let mut at = SegmentHeader::LEN;
    loop {
        let head = bytes.get(at..at + RECORD_HEAD).context("a seal in the last segment")?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        at += RECORD_HEAD + length;
        if head[4] == RecordKind::Seal as u8 {
            return Ok(std::fs::write(file, &bytes[..at])?);
        }
    }
}

/// What to type in another terminal.
fn explain(stage: &Stage) {
    let quote = |args: Vec<String>| args.join(" ");
    let command = |who: &str| format!("cargo run -q -p client --bin confidential -- {}", quote(stage.options(who)));
    println!("\nThe system stays up. In another terminal, for example:\n");
    println!("  {} status", command("operator"));
    println!("  {} keys generate content-mine", command("operator"));
    println!("  echo hello | {} encrypt --key content-mine > hello.tce", command("transcoder"));
    println!("  {} decrypt hello.tce", command("transcoder"));
    println!(
        "  cargo run -q -p client --bin confidential -- --root {} --measurements {} audit verify {}",
        stage.path("nsm-root.pem"),
        stage.path("measurements.json"),
        stage.path("segments")
    );
    println!("\nLogs of the processes: {}. Ctrl-C ends everything.", stage.path("log"));
}
