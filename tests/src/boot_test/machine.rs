//! One emulated machine, and what stands around it on the host.

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::Tools;
use crate::nsm::DocumentSigner;

/// Where a launcher waits for the enclave, and what is said there.
const LAUNCHER_PORT: u32 = 9000;
const HEARTBEAT: u8 = 0xb7;
/// In bytes. More than any connection carries here: the device can forget to tell the guest that there is room again, and a guest
/// that never fills its buffer never waits for that.
const VSOCK_BUFFER: &str = "16777216";
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// An emulated machine on a busy host.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// A child process that ends with this value, and with the test however that ends.
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts a program; what it says goes to a file.
    pub(super) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut guarded = Command::new("setpriv");
        guarded.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            guarded.env(name, value.unwrap_or_default());
        }
        let child = guarded.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Self { child: child.with_context(|| format!("starting {:?}", command.get_program()))? })
    }

    /// Sends it a signal by name.
    pub(super) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status()?;
        ensure!(status.success(), "kill -{name}: {status}");
        Ok(())
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder that all machines of a run share, with short names: these are sockets.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) dir: PathBuf,
    pub(super) tools: Arc<Tools>,
    pub(super) signer: Arc<DocumentSigner>,
}

/// What a launcher hears, once it does.
pub(super) type Greeting = mpsc::Receiver<std::io::Result<u8>>;

/// A machine that runs, or has ended.
pub(super) struct Machine {
    qemu: Process,
    _vsock: Process,
    console: PathBuf,
    /// When it was started.
    pub(super) started: Instant,
}

impl Host {
    /// The socket of the machine's vsock, as endpoints of the proxy name it.
    pub(super) fn vsock(&self) -> PathBuf {
        self.dir.join("vm")
    }

    /// Serves the emulated NSM's wish for signatures, for ever.
    pub(super) fn serve_signatures(&self) -> anyhow::Result<()> {
        let listener = UnixListener::bind(self.dir.join("nsm"))?;
        let signer = Arc::clone(&self.signer);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A machine that was killed in the middle is no reason to stop.
                let _ = sign(&signer, stream);
            }
        });
        Ok(())
    }

    /// Boots an image with so much memory and waits until it has told its launcher that it runs; gives the machine and how long
    /// that took. Its console goes to a file of that name.
    pub(super) fn boot(&self, image: &Path, memory_mib: u32, name: &str) -> anyhow::Result<(Machine, Duration)> {
        let (mut machine, greeting) = self.launch(image, memory_mib, name)?;
        let said = wait("the greeting of the enclave", &mut machine, || greeting.try_recv().ok())?;
        ensure!(said.context("the launcher")? == HEARTBEAT, "it greeted with another byte");
        let took = machine.started.elapsed();
        Ok((machine, took))
    }

    /// The same without waiting; gives the machine and what its launcher hears.
    pub(super) fn launch(&self, image: &Path, memory_mib: u32, name: &str) -> anyhow::Result<(Machine, Greeting)> {
        let (socket, console) = (self.dir.join("dev"), self.dir.join(format!("{name}.console")));
        let launcher_path = self.dir.join(format!("vm_{LAUNCHER_PORT}"));
        for stale in [&socket, &self.vsock(), &launcher_path] {
            let _ = std::fs::remove_file(stale);
        }
        let launcher = UnixListener::bind(&launcher_path)?;
        let mut vsock = Process::start(
            Command::new(&self.tools.vhost)
                .args(["--guest-cid", "16", "--tx-buffer-size", VSOCK_BUFFER, "--socket"])
                .arg(&socket)
                .arg("--uds-path")
                .arg(self.vsock()),
            &self.dir.join(format!("{name}.vsock")),
        )?;
        wait("vhost-device-vsock's socket", &mut vsock, || socket.exists().then_some(()))?;
        let started = Instant::now();
        let qemu = Process::start(
            Command::new(&self.tools.qemu)
                .env("NSM_SIGNER", self.dir.join("nsm"))
                .args([
                    "-M",
                    "nitro-enclave,vsock=c,acpi=on,id=i-0b00770000000000f-enc0b00770000000000,\
                     parent-role=arn:aws:iam::111122223333:role/enclave-host,parent-id=i-0b00770000000000f",
                ])
                .args(["-accel", "tcg", "-cpu", "max", "-nodefaults", "-no-user-config", "-display", "none"])
                .args(["-no-reboot", "-L", "/usr/share/seabios", "-L", "/usr/share/qemu"])
                .args(["-m", &format!("{memory_mib}M"), "-serial", &format!("file:{}", console.display())])
                .args(["-append", &format!("tsc_early_khz={}", cpu_khz()?)])
                .args(["-chardev", &format!("socket,id=c,path={}", socket.display()), "-kernel"])
                .arg(image),
            &self.dir.join(format!("{name}.qemu")),
        )?;
        let machine = Machine { qemu, _vsock: vsock, console, started };
        let (heard, greeting) = mpsc::sync_channel(1);
        thread::spawn(move || heard.send(greet(&launcher)));
        Ok((machine, greeting))
    }
}

/// The launcher's part: hear one byte, echo it.
fn greet(launcher: &UnixListener) -> std::io::Result<u8> {
    let (mut stream, _) = launcher.accept()?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)?;
    Ok(byte[0])
}

/// Length and document in, length and signed document out.
fn sign(signer: &DocumentSigner, mut stream: UnixStream) -> std::io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut unsigned = vec![0; u32::from_be_bytes(length).min(16 * 1024) as usize];
    stream.read_exact(&mut unsigned)?;
    let signed = signer.sign(&unsigned).unwrap_or_default();
    stream.write_all(&u32::try_from(signed.len()).unwrap_or_default().to_be_bytes())?;
    stream.write_all(&signed)
}

/// Something that can end while it is waited for.
trait Mortal {
    fn ended(&mut self) -> Option<String>;
}

impl Mortal for Process {
    fn ended(&mut self) -> Option<String> {
        self.has_ended().then(|| "it ended".to_owned())
    }
}

impl Mortal for Machine {
    fn ended(&mut self) -> Option<String> {
        self.qemu.has_ended().then(|| format!("the machine ended:\n{}", self.last_words()))
    }
}

fn wait<T>(what: &str, who: &mut impl Mortal, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return Ok(found);
        }
        if let Some(last_words) = who.ended() {
            // It may have come just before the end.
            return look().with_context(|| format!("waiting for {what}: {last_words}"));
        }
        thread::sleep(LOOK_EVERY);
    }
    bail!("{what} does not come")
}

impl Machine {
    /// All that was said on the console so far.
    pub(super) fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Waits for a line on the console and gives it.
    pub(super) fn says(&mut self, words: &str) -> anyhow::Result<String> {
        let console = self.console.clone();
        let look = || {
            let said = String::from_utf8_lossy(&std::fs::read(&console).ok()?).into_owned();
            // A line that is not at its end yet may be cut.
            let (whole, _) = said.rsplit_once('\n')?;
            whole.lines().find(|line| line.contains(words)).map(|line| line.trim().to_owned())
        };
        wait(&format!("{words:?} on the console"), self, look)
    }

    /// Waits until the machine has ended by itself; gives its whole console.
    pub(super) fn ends(mut self) -> anyhow::Result<String> {
        let begin = Instant::now();
        while !self.qemu.has_ended() {
            ensure!(begin.elapsed() < PATIENCE, "the machine does not end:\n{}", self.last_words());
            thread::sleep(LOOK_EVERY);
        }
        Ok(self.console())
    }

    /// Ends it as a failure of power does.
    pub(super) fn kill(self) {
        drop(self);
    }

    fn last_words(&self) -> String {
        let console = self.console();
        let lines: Vec<_> = console.lines().rev().take(12).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// The clock rate that the guest would otherwise measure, and get wrong on a busy host.
fn cpu_khz() -> anyhow::Result<u64> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let mhz = cpus.lines().find_map(|line| line.strip_prefix("cpu MHz")?.split_once(':')?.1.trim().parse::<f64>().ok());
    Ok((mhz.context("/proc/cpuinfo tells no clock rate")? * 1000.0) as u64)
}
