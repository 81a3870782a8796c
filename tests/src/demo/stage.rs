use std::{
    ffi::OsStr,
    fs::{File, Permissions},
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use client::kms_policy::PolicyRequest;
use serde_json::Value;
use tempfile::TempDir;
use transcode_confidential::time::SystemClock;

use super::actors::{CONFIDENTIAL, ENCLAVE, PROXY, SERVING};
use crate::{
    kms::{MockKms, MockKmsOptions},
    nsm::{MockHypervisor, MockImage},
};

/// The image that is ours.
pub(super) const IMAGE: &str = "enclave";
const ROLE: &str = "enclave-host";
const REGION: &str = "eu-west-1";
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the demo plays: a directory, a KMS, and the processes.
pub(super) struct Stage {
    dir: PathBuf,
    temporary: Option<TempDir>,
    kms: MockKms,
    proxy: Option<Process>,
    enclave: Option<Process>,
}

/// A child process that serves.
struct Process {
    child: Child,
    /// What it said when it served.
    said: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a run of `confidential` came to.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) json: Value,
}

impl Stage {
    /// Makes everything that exists before the first process starts: people, policy, images, KMS key.
    pub(super) async fn set(keep: Option<PathBuf>) -> anyhow::Result<Self> {
        let (dir, temporary) = match keep {
            Some(dir) => {
                std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
                (dir.canonicalize()?, None)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("confidential-demo-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let socket = dir.join("run").join("enclave.sock");
        // sun_path of unix(7), with its final zero.
        ensure!(socket.as_os_str().len() < 108, "{} is too long for a socket: give a shorter --keep", socket.display());
        for name in ["run", "policies", "segments", "log", "state"] {
            std::fs::create_dir(dir.join(name))?;
        }
        let hypervisor = MockHypervisor::new(Arc::new(SystemClock));
        hypervisor.pki().save(&dir);
        std::fs::write(dir.join("nsm-root.pem"), hypervisor.root_pem())?;
        let measurements = MockImage::named(IMAGE).measurements("demo image");
        std::fs::write(dir.join("measurements.json"), measurements.to_json())?;

        let mut options = MockKmsOptions::new(hypervisor.trust_root());
        options.region = REGION.to_owned();
        let kms = MockKms::start(options).await;
        std::fs::write(dir.join("kms-ca.pem"), kms.authority_pem())?;
        let role = kms.role_arn(ROLE);
        let admin = kms.role_arn("kms-admin");
        // The key exists before its policy can name it.
        let key = kms.create_key(serde_json::json!({ "Version": "2012-10-17", "Statement": [] }));
        let request = PolicyRequest::new(&measurements, key.as_str(), &role, &[admin])?;
        kms.put_key_policy(&key, request.key_policy()?);
        kms.put_role_policy(ROLE, request.role_policy()?);

        let stage = Self { dir, temporary, kms, proxy: None, enclave: None };
        let pki = stage.path("pki");
        stage.must(&["pki", "init", "--dir", &pki])?;
        for name in ["operator", "transcoder", "gateway", "intern"] {
            stage.must(&["pki", "client", name, "--dir", &pki])?;
        }
        let authority = stage.must(&["policy", "init", "--dir", &stage.path("authority"), "--deployment", "demo"])?;
        std::fs::write(stage.path("authority/policy.toml"), POLICY)?;
        let (policy, key_file, signed) = (
            stage.path("authority/policy.toml"),
            stage.path("authority/authority.key"),
            stage.path("policies/policy.cose"),
        );
        stage.must(&["policy", "sign", &policy, "--key", &key_file, "-o", &signed])?;

        let ca = std::fs::read_to_string(stage.path("pki/ca.pem"))?;
        let public = authority["policy_authority"].as_str().context("the authority's public key")?;
        let run = stage.path("run");
        std::fs::write(
            stage.path("enclave.toml"),
            format!(
                "deployment = \"demo\"\nkms_key_arn = \"{}\"\npolicy_authority = \"{public}\"\nclient_ca = \"\"\"\n{ca}\"\"\"\n\n\
                 [parent]\nhost = \"unix:{run}/host.sock\"\negress = \"unix:{run}/egress.sock\"\nlisten = \"unix:{run}/enclave.sock\"\n\n\
                 [limits]\npolicy_poll_secs = 1\nsweep_secs = 1\n",
                key.as_str()
            ),
        )?;
        let credentials = stage.kms.issue_credentials(ROLE, Duration::from_secs(12 * 3600));
        let kms_address = stage.kms.address();
        std::fs::write(
            stage.path("proxy.toml"),
            format!(
                "enclave = \"unix:{run}/enclave.sock\"\n\n[relay]\nlisten = [\"unix:{run}/relay.sock\"]\n\n\
                 [egress]\nlisten = \"unix:{run}/egress.sock\"\nallow = [\"kms.{REGION}.amazonaws.com:443\"]\n\n\
                 [egress.resolve]\n\"kms.{REGION}.amazonaws.com:443\" = \"tcp:{kms_address}\"\n\n\
                 [host]\nlisten = \"unix:{run}/host.sock\"\n\n[store]\ndirectory = \"{}\"\n\n\
                 [credentials]\nsource = \"static\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"\nsession_token = \"{}\"\n\n\
                 [policy]\npath = \"{}\"\n\n[admin]\nlisten = \"unix:{run}/admin.sock\"\n",
                stage.path("segments"),
                credentials.access_key_id,
                credentials.secret_access_key,
                credentials.session_token,
                stage.path("policies"),
            ),
        )?;
        Ok(stage)
    }

    /// A path inside the directory.
    pub(super) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// The directory, where it goes away with the demo.
    pub(super) fn temporary(&self) -> Option<&Path> {
        self.temporary.as_ref().map(TempDir::path)
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts the proxy.
    pub(super) fn start_proxy(&mut self) -> anyhow::Result<()> {
        let config = self.path("proxy.toml");
        self.proxy = Some(self.spawn(PROXY, "parent-proxy", &[&config])?);
        Ok(())
    }

    /// Starts the enclave; gives log id and epoch.
    pub(super) fn start_enclave(&mut self) -> anyhow::Result<(String, String)> {
        let dir = self.path("");
        let enclave = self.spawn(ENCLAVE, "enclave", &[&dir, IMAGE])?;
        let mut words = enclave.said.split_whitespace().map(str::to_owned);
        let said = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        self.enclave = Some(enclave);
        Ok(said)
    }

    /// Tries to start an enclave of another image; gives what it said when it gave up.
    pub(super) fn start_other_enclave(&self, image: &str) -> anyhow::Result<String> {
        let dir = self.path("");
        match self.spawn(ENCLAVE, "other-enclave", &[&dir, image]) {
            Ok(_) => bail!("an enclave of image {image:?} serves"),
            Err(gave_up) => Ok(gave_up.to_string()),
        }
    }

    /// Ends the enclave with SIGKILL.
    pub(super) fn kill_enclave(&mut self) {
        self.enclave = None;
    }

    /// Runs `confidential` as somebody.
    pub(super) fn confidential(&self, who: &str, args: &[&str]) -> anyhow::Result<Ran> {
        let mut all: Vec<String> = self.options(who);
        all.extend(args.iter().map(ToString::to_string));
        self.run(&all)
    }

    /// The options with which `who` reaches the enclave.
    pub(super) fn options(&self, who: &str) -> Vec<String> {
        let server = format!("unix:{}", self.path("run/relay.sock"));
        let identity = self.path(&format!("pki/{who}.pem"));
        let (measurements, root) = (self.path("measurements.json"), self.path("nsm-root.pem"));
        let state = self.path(&format!("state/{who}"));
        [
            "--server",
            &server,
            "--identity",
            &identity,
            "--measurements",
            &measurements,
            "--root",
            &root,
            "--state",
            &state,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Writes what a shell reads to have `confidential` as a command, for this system, as the transcoder.
    pub(super) fn write_shell_environment(&self) -> anyhow::Result<()> {
        // Names that we made, and a directory that somebody chose: quoted.
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let program = std::env::current_exe()?;
        let text = format!(
            "export CONFIDENTIAL_SERVER={}\nexport CONFIDENTIAL_MEASUREMENTS={}\nexport CONFIDENTIAL_IDENTITY={}\n\
             export PATH={}:\"$PATH\"\nOPERATOR={}\nGATEWAY={}\n",
            quoted(&format!("unix:{}", self.path("run/relay.sock"))),
            quoted(&self.path("measurements.json")),
            quoted(&self.path("pki/transcoder.pem")),
            quoted(&self.path("bin")),
            quoted(&self.path("pki/operator.pem")),
            quoted(&self.path("pki/gateway.pem")),
        );
        // A program of its own, so that a signal to it reaches it.
        let script = format!(
            "#!/bin/sh\nexec {} {CONFIDENTIAL} --root {} --state {} \"$@\"\n",
            quoted(&program.to_string_lossy()),
            quoted(&self.path("nsm-root.pem")),
            quoted(&self.path("state/shell")),
        );
        std::fs::create_dir(self.path("bin"))?;
        std::fs::write(self.path("bin/confidential"), script)?;
        std::fs::set_permissions(self.path("bin/confidential"), Permissions::from_mode(0o755))?;
        // Whoever waits for it finds it whole.
        std::fs::write(self.path("env.new"), text)?;
        Ok(std::fs::rename(self.path("env.new"), self.path("env"))?)
    }

    /// Runs `confidential audit verify` as an auditor, who has nothing but files.
    pub(super) fn audit(&self, segments: &str, evidence: &[&str]) -> anyhow::Result<Ran> {
        let (measurements, root) = (self.path("measurements.json"), self.path("nsm-root.pem"));
        let mut args = vec!["--measurements", &measurements, "--root", &root, "audit", "verify", segments];
        args.extend(evidence);
        self.run(&args)
    }

    fn must(&self, args: &[&str]) -> anyhow::Result<Value> {
        let ran = self.run(args)?;
        ensure!(ran.code == 0, "confidential {} exited with {}: {}", args.join(" "), ran.code, ran.json);
        Ok(ran.json)
    }

    fn run(&self, args: &[impl AsRef<OsStr>]) -> anyhow::Result<Ran> {
        let Output { status, stdout, .. } =
            Command::new(std::env::current_exe()?).arg(CONFIDENTIAL).arg("--json").args(args).output()?;
        let json = serde_json::from_slice(&stdout).context("confidential --json printed no JSON")?;
        Ok(Ran { code: status.code().unwrap_or(-1), json })
    }

    fn spawn(&self, role: &str, name: &str, args: &[&str]) -> anyhow::Result<Process> {
        let log = File::options().create(true).append(true).open(self.dir.join("log").join(name))?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let stdout = child.stdout.take().context("a pipe")?;
        let (told, said) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let line =
                BufReader::new(stdout).lines().find_map(|line| line.ok()?.strip_prefix(SERVING).map(str::to_owned));
            let _ = told.send(line);
        });
        match said.recv_timeout(PATIENCE) {
            Ok(Some(said)) => Ok(Process { child, said }),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                let log = std::fs::read_to_string(self.dir.join("log").join(name)).unwrap_or_default();
                bail!(
                    "{name} does not serve; its last words:\n{}",
                    log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
                )
            }
        }
    }
}

const POLICY: &str = r#"deployment = "demo"
version = 1

[[grants]]
principal = "operator"
keys = ""
operations = ["generate", "rotate", "revoke", "encrypt", "decrypt", "read-audit", "admin"]

[[grants]]
principal = "transcoder"
keys = "content-"
operations = ["encrypt", "decrypt"]

[[grants]]
principal = "gateway"
keys = "content-"
operations = ["encrypt", "decrypt", "issue-data-key", "export-media-key", "report"]
"#;
