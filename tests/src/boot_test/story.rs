//! What is done with the machines, and what must hold after each step.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use transcode_confidential::{
    attestation::{PcrIndex, PcrValue},
    ids::LogId,
};

use super::{
    Tools, say,
    stage::{Image, ROOTLESS, Recipe, SHIPPED, Stage, TESTED},
};

/// What `docs/OPERATIONS.md` tells operators to give an enclave.
const MEMORY_MIB: u32 = 512;
/// The least that the service boots and works in.
const LEAST_MEMORY_MIB: u32 = 256;
const KEY: &str = "content-key-1";
/// One frame, so that little goes both ways at once: vhost-device-vsock can forget a connection that carries much.
const CONTENT: usize = 48 << 10;
/// Where it does all the same: relay or client end what stalls, the client refuses what came of
/// it, and its caller begins again, as callers do.
const ATTEMPTS: usize = 10;

/// Plays everything; what fails says why.
pub(super) fn play(tools: Tools, keep: Option<std::path::PathBuf>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let temporary = tempfile::Builder::new().prefix("boot-").tempdir()?;
    let (dir, temporary) = match keep {
        Some(dir) => {
            std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
            (dir.canonicalize()?, None)
        }
        None => (temporary.path().to_owned(), Some(temporary)),
    };
    let begin = Instant::now();
    let mut stage = runtime.block_on(Stage::set(dir, Arc::new(tools)))?;
    let told = tell(&mut stage);
    if told.is_err()
        && let Some(temporary) = temporary
    {
        say!("everything is kept in {}", temporary.keep().display());
    }
    told?;
    say!("boot test: everything held, in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

fn tell(stage: &mut Stage) -> anyhow::Result<()> {
    let limit = |connections: u32| format!("[limits]\nconnections = {connections}\n");
    let image = |program, more: String| Recipe { program, without: None, more };
    let tested = stage.build("1.0.0", image(TESTED, limit(4096)))?;
    let shipped = stage.build("shipped", image(SHIPPED, limit(4096)))?;
    let differences = stage.differences(&shipped, &tested)?;
    ensure!(differences == ["application ramdisk: init differs (PCR0, PCR2)"], "tested and shipped: {differences:?}");
    let successor = format!("[[predecessors]]\nlabel = \"1.0.0\"\n{}", predecessor(&tested)?);
    let upgraded = stage.build("1.1.0", image(TESTED, successor))?;
    let changed = stage.build("changed", image(TESTED, limit(4097)))?;
    ensure!(stage.differences(&tested, &changed)?.len() == 1, "one byte of configuration is one difference");
    ensure!(!stage.is_measured(&changed, &tested)?, "a changed image has the measurements of the one that it was");
    let size = std::fs::metadata(&shipped.path)?.len();
    say!(
        "image: {:.1} MiB; registers as cargo eif verify computes them; with the shipped program it differs in `init` alone",
        size as f64 / f64::from(1 << 20)
    );

    let registers = first_boot(stage, &tested)?;
    second_boot(stage, &tested, &registers)?;
    upgrade(stage, &tested, &upgraded, &changed)?;
    strangers(stage, &tested, &changed)?;
    let rootless = stage.build("rootless", image(ROOTLESS, limit(4096)))?;
    let driverless = Recipe { program: TESTED, without: Some("nsm"), more: limit(4096) };
    let driverless = stage.build("driverless", driverless)?;
    last_words(stage, &rootless, &driverless)?;
    nothing_secret(stage)
}

/// The main job; gives PCR16 and PCR17 of the first epoch.
fn first_boot(stage: &mut Stage, image: &Image) -> anyhow::Result<[String; 2]> {
    stage.let_in(&[image])?;
    stage.start_proxy("segments")?;
    let (mut machine, greeted) = stage.host.boot(&image.path, MEMORY_MIB, "first")?;
    let serving = machine.says("\"message\":\"serving\"")?;
    let status = stage.does("operator", image, &["status"])?;
    let first = machine.started.elapsed();
    say!("boot: {:.1} s to the launcher's greeting, {:.1} s to the first request served", secs(greeted), secs(first));
    say!("memory of {MEMORY_MIB} MiB when it serves: {}", memory(&serving));

    let attested = &status["attestation"];
    ensure!(attested["image"] == "expected", "the image is {attested}");
    for index in PcrIndex::OF_IMAGE {
        let expected =
            image.expected.images().first().and_then(|image| image.pcrs().get(index)).context("a register")?;
        let found = attested["pcrs"][index.get().to_string()].as_str();
        ensure!(found == Some(&expected.to_string()), "{index} is {found:?}, measured as {expected}");
    }
    ensure!(attested["epoch"] == 1, "the first epoch: {status}");
    let log_id: LogId = status["log"]["log_id"].as_str().context("the log's id")?.parse()?;
    let first_registers = own_registers(&status)?;
    ensure!(first_registers[0] == PcrValue::ZERO.extended(log_id.as_bytes()).to_string(), "PCR16 is not of the log");

    stage.does("operator", image, &["keys", "generate", KEY])?;
    let (plain, sealed, opened) = (stage.path("plain"), stage.path("sealed"), stage.path("opened"));
    let content: Vec<u8> = (0..CONTENT).map(|at| ((at * 31) >> 3) as u8).collect();
    std::fs::write(&plain, &content)?;
    moves(stage, image, &["encrypt", "--key", KEY, &plain, "-o", &sealed])?;
    moves(stage, image, &["decrypt", &sealed, "-o", &opened])?;
    ensure!(std::fs::read(&opened)? == content, "what was decrypted is not what was encrypted");

    let rotated = stage.does("operator", image, &["keys", "rotate", KEY])?;
    ensure!(rotated["key"]["active_version"] == 2, "rotated to {rotated}");
    moves(stage, image, &["decrypt", &sealed, "-o", &opened])?;
    stage.does("operator", image, &["keys", "generate", "content-key-2"])?;
    stage.does("operator", image, &["keys", "revoke", "content-key-2"])?;
    let denied =
        stage.confidential("transcoder", image, &["encrypt", "--key", "content-key-2", &plain, "-o", "/dev/null"])?;
    ensure!(denied.code == 5, "a revoked key: exit code {}: {}", denied.code, denied.json);
    let receipt = stage.path("receipt");
    stage.does("operator", image, &["keys", "rotate", KEY, "--receipt", &receipt])?;
    machine.kill();
    say!("attested, generated, encrypted, decrypted, rotated, revoked; the machine is killed");
    Ok(first_registers)
}

/// The log goes on after a failure of power, in as little memory as there may be, and ends well when it is told to.
fn second_boot(stage: &mut Stage, image: &Image, first_registers: &[String; 2]) -> anyhow::Result<()> {
    let (mut machine, _) = stage.host.boot(&image.path, LEAST_MEMORY_MIB, "second")?;
    let serving = machine.says("\"message\":\"serving\"")?;
    ensure!(serving.contains("\"epoch\":\"2\""), "the second epoch: {serving}");
    let registers = own_registers(&stage.does("operator", image, &["status"])?)?;
    ensure!(registers[0] == first_registers[0], "PCR16 is of another log");
    ensure!(registers[1] != first_registers[1], "PCR17 is of the first epoch");
    let (sealed, opened) = (stage.path("sealed"), stage.path("opened"));
    moves(stage, image, &["decrypt", &sealed, "-o", &opened])?;
    ensure!(std::fs::read(&opened)? == std::fs::read(stage.path("plain"))?, "another content after the restart");
    stage.proxy.as_ref().context("the proxy")?.signal("USR1")?;
    let stopped = machine.says("stopped; the log is sealed")?;
    say!("memory of {LEAST_MEMORY_MIB} MiB after work: {}", memory(&stopped));
    machine.ends()?;
    let receipt = stage.path("receipt");
    let report = stage.audit("segments", &[image], &["--receipt", &receipt])?;
    ensure!(report.code == 0 && report.json["verdict"] == "intact", "the verdict is {}", report.json);
    say!("continued in epoch 2, stopped when asked; offline: intact, {} events", report.json["events"]);
    Ok(())
}

/// A new image takes the log over where it names the old one, and not otherwise.
fn upgrade(stage: &mut Stage, old: &Image, new: &Image, stranger: &Image) -> anyhow::Result<()> {
    stage.let_in(&[old, new, stranger])?;
    let (machine, _) = stage.host.boot(&stranger.path, MEMORY_MIB, "no-predecessor")?;
    let console = machine.ends()?;
    ensure!(console.contains("boot failed: the log is"), "it gave up for another reason:\n{console}");
    let (mut machine, _) = stage.host.boot(&new.path, MEMORY_MIB, "upgraded")?;
    let serving = machine.says("\"message\":\"serving\"")?;
    ensure!(serving.contains("\"epoch\":\"3\""), "the third epoch: {serving}");
    let (sealed, opened) = (stage.path("sealed"), stage.path("opened"));
    moves(stage, new, &["decrypt", &sealed, "-o", &opened])?;
    stage.proxy.as_ref().context("the proxy")?.signal("USR1")?;
    machine.says("stopped; the log is sealed")?;
    machine.ends()?;
    let report = stage.audit("segments", &[old, new], &["--receipt", &stage.path("receipt")])?;
    ensure!(report.code == 0 && report.json["verdict"] == "intact", "the verdict is {}", report.json);
    ensure!(report.json["epochs"] == 3, "three epochs: {}", report.json);
    let report = stage.audit("segments", &[old], &[])?;
    ensure!(report.code != 0, "an auditor who does not know the new image finds nothing wrong: {}", report.json);
    say!("an image that names no predecessor is refused the log; the one that does continued it in epoch 3");
    Ok(())
}

/// One byte of configuration makes another image, for KMS and for clients.
fn strangers(stage: &mut Stage, image: &Image, changed: &Image) -> anyhow::Result<()> {
    stage.let_in(&[image])?;
    stage.start_proxy("other-segments")?;
    let (machine, _) = stage.host.boot(&changed.path, MEMORY_MIB, "changed")?;
    let console = machine.ends()?;
    let refused = console.contains("the log key cannot be had from KMS") && console.contains("PCR0");
    ensure!(refused, "it gave up for another reason:\n{console}");
    stage.let_in(&[changed])?;
    stage.memory = "other-state";
    let (mut machine, _) = stage.host.boot(&changed.path, MEMORY_MIB, "changed-let-in")?;
    machine.says("\"message\":\"serving\"")?;
    let refused = stage.confidential("operator", image, &["status"])?;
    ensure!(refused.code != 0 && refused.json.to_string().contains("PCR"), "the client: {}", refused.json);
    stage.does("operator", changed, &["status"])?;
    machine.kill();
    say!("an image changed by one byte of configuration is refused by KMS and by the client");
    Ok(())
}

/// What cannot go on says why, and takes the machine with it: a panic (the one that a root that cannot be read makes), and a machine
/// without an NSM.
fn last_words(stage: &Stage, rootless: &Image, driverless: &Image) -> anyhow::Result<()> {
    for (image, name, expected) in [
        (rootless, "rootless", "panic at transcode-confidential/src/attestation/root.rs:"),
        (driverless, "driverless", "/dev/nsm does not appear"),
    ] {
        let (machine, greeting) = stage.host.launch(&image.path, LEAST_MEMORY_MIB, name)?;
        let console = machine.ends()?;
        let said = console.lines().find(|line| line.contains(expected));
        say!("{name}: {}", said.with_context(|| format!("no {expected:?} on the console:\n{console}"))?.trim());
        ensure!(greeting.try_recv().is_err(), "{name}: it greeted its launcher");
    }
    Ok(())
}

/// The consoles of all machines hold no credential and no key that KMS gave out, in no usual form.
fn nothing_secret(stage: &Stage) -> anyhow::Result<()> {
    let (secrets, mut consoles, mut lines) = (stage.secrets(), 0, 0);
    ensure!(secrets.len() > 4, "KMS gave out keys, and credentials were issued");
    for entry in std::fs::read_dir(&stage.host.dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "console") {
            let console = std::fs::read(&path)?;
            let has = |bytes: &[u8]| console.windows(bytes.len()).any(|window| window == bytes);
            for secret in &secrets {
                let forms = [secret.clone(), hex::encode(secret).into_bytes(), STANDARD.encode(secret).into_bytes()];
                ensure!(!forms.iter().any(|form| has(form)), "{} holds a secret", path.display());
            }
            consoles += 1;
            lines += console.split(|byte| *byte == b'\n').count();
        }
    }
    say!("{consoles} consoles, {lines} lines: none of {} secrets is in them", secrets.len());
    Ok(())
}

/// PCR16 and PCR17 of a document.
fn own_registers(status: &Value) -> anyhow::Result<[String; 2]> {
    let register = |index: &str| status["attestation"]["pcrs"][index].as_str().map(str::to_owned).context("a register");
    Ok([register("16")?, register("17")?])
}

/// Moves content, again where the emulated vsock stalled.
fn moves(stage: &Stage, image: &Image, args: &[&str]) -> anyhow::Result<()> {
    let stalls = ["content-ended-early", "content-stalled", "connection-lost"];
    for attempt in 1.. {
        let ran = stage.confidential("transcoder", image, args)?;
        let stalled = stalls.iter().any(|reason| ran.json["error"]["reason"] == *reason);
        match ran.code {
            0 => break,
            _ if stalled && attempt < ATTEMPTS => say!("(the emulated vsock stalled: once more)"),
            code => bail!("confidential {} exited with {code}: {}", args.join(" "), ran.json),
        }
    }
    Ok(())
}

fn predecessor(image: &Image) -> anyhow::Result<String> {
    let pcrs = image.expected.images().first().context("an image")?.pcrs();
    let lines = PcrIndex::OF_IMAGE.map(|index| {
        let value = pcrs.get(index).map(ToString::to_string).unwrap_or_default();
        format!("pcr{} = \"{value}\"\n", index.get())
    });
    Ok(lines.concat())
}

/// What a line of the console says of memory.
fn memory(line: &str) -> &str {
    line.split("\"memory\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or(line)
}

fn secs(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
