//! Everything on the host: people, KMS, images, the proxy.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use client::kms_policy::PolicyRequest;
use enclave_app::kms::KeyArn;
use serde_json::{Value, json};
use transcode_confidential::attestation::Measurements;

use super::{
    Tools,
    machine::{Host, PATIENCE, Process},
};
use crate::{
    kms::{MockKms, MockKmsOptions},
    nsm::{DocumentSigner, MockPki},
};

const ROLE: &str = "enclave-host";
const REGION: &str = "eu-west-1";
/// The parent's CID as QEMU has it; on EC2 it is 3.
const PARENT: u32 = 2;

/// An image, and what it measures.
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) measurements: PathBuf,
    pub(super) expected: Measurements,
}

/// What a run of `confidential` came to.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) json: Value,
}

/// Where the test plays.
pub(super) struct Stage {
    pub(super) host: Host,
    kms: MockKms,
    key: KeyArn,
    ca: String,
    authority: String,
    pub(super) proxy: Option<Process>,
    /// Where clients remember the log; another log needs another memory, or they refuse it.
    pub(super) memory: &'static str,
}

impl Stage {
    /// Makes all that exists before the first image: people, a policy, KMS and its key, which nobody may use yet.
    pub(super) async fn set(dir: PathBuf, tools: Arc<Tools>) -> anyhow::Result<Self> {
        for name in ["policies", "state", "other-state", "images"] {
            std::fs::create_dir(dir.join(name))?;
        }
        let pki = MockPki::load(&tools.roots);
        std::fs::write(dir.join("nsm-root.pem"), pki.root_pem())?;
        let mut options = MockKmsOptions::new(pki.trust_root());
        options.region = REGION.to_owned();
        options.state_file = Some(kms_state(&tools.roots));
        let kms = MockKms::start(options).await;
        let key = kms.create_key(json!({ "Version": "2012-10-17", "Statement": [] }));
        let host = Host { dir, tools, signer: Arc::new(DocumentSigner::new(pki)) };
        host.serve_signatures()?;
        let mut stage =
            Self { host, kms, key, ca: String::new(), authority: String::new(), proxy: None, memory: "state" };
        let pki = stage.path("pki");
        stage.must(&["pki", "init", "--dir", &pki])?;
        for name in ["operator", "transcoder"] {
            stage.must(&["pki", "client", name, "--dir", &pki])?;
        }
        stage.ca = std::fs::read_to_string(stage.path("pki/ca.pem"))?;
        let made = stage.must(&["policy", "init", "--dir", &stage.path("authority"), "--deployment", "boot-test"])?;
        stage.authority = made["policy_authority"].as_str().context("the authority's public key")?.to_owned();
        let policy = stage.path("authority/policy.toml");
        std::fs::write(&policy, POLICY)?;
        let (key, signed) = (stage.path("authority/authority.key"), stage.path("policies/policy.cose"));
        stage.must(&["policy", "sign", &policy, "--key", &key, "-o", &signed])?;
        Ok(stage)
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.host.dir.join(name).to_string_lossy().into_owned()
    }

    /// Builds an image of a configuration that differs from the others' by this text at its end, with `cargo eif` as anybody
    /// does; has `cargo eif verify` confirm what it measures.
    pub(super) fn build(&self, name: &str, more: &str) -> anyhow::Result<Image> {
        let Tools { eif, program, kernel, .. } = &*self.host.tools;
        let config = self.host.dir.join("images").join(format!("{name}.toml"));
        let text = format!(
            "deployment = \"boot-test\"\nkms_key_arn = \"{}\"\npolicy_authority = \"{}\"\nclient_ca = \"\"\"\n{}\"\"\"\n\n\
             [parent]\nhost = \"vsock:{PARENT}:5001\"\negress = \"vsock:{PARENT}:5002\"\nlisten = \"vsock:any:5000\"\n\n{more}",
            self.key.as_str(),
            self.authority,
            self.ca
        );
        std::fs::write(&config, text)?;
        let (path, measurements) = (config.with_extension("eif"), config.with_extension("json"));
        let modules =
            ["vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport", "nsm", "virtio_mmio"];
        let mut command = Command::new(eif);
        command.args(["build", "--label", name, "--config"]).arg(&config).arg("--program").arg(program);
        command.arg("--kernel").arg(kernel.join("vmlinuz")).arg("--modules");
        command.args(modules.map(|module| kernel.join("modules").join(format!("{module}.ko"))));
        command.arg("--measurements").arg(&measurements).arg("-o").arg(&path);
        succeed(command.output()?, "cargo eif build")?;
        let mut verify = Command::new(eif);
        succeed(
            verify.arg("verify").arg(&path).arg("--measurements").arg(&measurements).output()?,
            "cargo eif verify",
        )?;
        let expected = Measurements::from_json(std::fs::read(&measurements)?)?;
        Ok(Image { path, measurements, expected })
    }

    /// Has KMS give keys to these images and to nobody else, by the policy that the client generates.
    pub(super) fn let_in(&self, images: &[&Image]) -> anyhow::Result<()> {
        let all = images.iter().map(|image| image.expected.clone()).reduce(Measurements::and).context("an image")?;
        let (role, admin) = (self.kms.role_arn(ROLE), self.kms.role_arn("kms-admin"));
        let request = PolicyRequest::new(&all, self.key.as_str(), &role, &[admin])?;
        self.kms.put_key_policy(&self.key, request.key_policy()?);
        self.kms.put_role_policy(ROLE, request.role_policy()?);
        Ok(())
    }

    /// Starts the real proxy over an empty or an older log.
    pub(super) fn start_proxy(&mut self, segments: &str) -> anyhow::Result<()> {
        self.proxy = None;
        let _ = std::fs::create_dir(self.path(segments));
        let credentials = self.kms.issue_credentials(ROLE, Duration::from_secs(12 * 3600));
        let vsock = self.host.vsock().display().to_string();
        let text = format!(
            "enclave = \"unix:{vsock}:5000\"\n\n[relay]\nlisten = [\"unix:{}\"]\n\n\
             [egress]\nlisten = \"unix:{vsock}:5002\"\nallow = [\"kms.{REGION}.amazonaws.com:443\"]\n\n\
             [egress.resolve]\n\"kms.{REGION}.amazonaws.com:443\" = \"tcp:{}\"\n\n\
             [host]\nlisten = \"unix:{vsock}:5001\"\nsession_timeout = \"15s\"\n\n[store]\ndirectory = \"{}\"\n\n\
             [credentials]\nsource = \"static\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"\nsession_token = \"{}\"\n\n\
             [policy]\npath = \"{}\"\n",
            self.path("relay"),
            self.kms.address(),
            self.path(segments),
            credentials.access_key_id,
            credentials.secret_access_key,
            credentials.session_token,
            self.path("policies"),
        );
        let config = self.path("proxy.toml");
        std::fs::write(&config, text)?;
        let log = self.host.dir.join("proxy.log");
        let mut command = Command::new(&self.host.tools.proxy);
        self.proxy =
            Some(Process::start(command.args(["--log", "parent_proxy=debug", "--config"]).arg(&config), &log)?);
        let begin = std::time::Instant::now();
        while !Path::new(&self.path("relay")).exists() {
            ensure!(begin.elapsed() < PATIENCE, "the proxy does not serve: {}", std::fs::read_to_string(&log)?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Runs `confidential` as somebody who expects an image.
    pub(super) fn confidential(&self, who: &str, image: &Image, args: &[&str]) -> anyhow::Result<Ran> {
        let (server, identity) = (format!("unix:{}", self.path("relay")), self.path(&format!("pki/{who}.pem")));
        let (root, state) = (self.path("nsm-root.pem"), self.path(&format!("{}/{who}", self.memory)));
        let measurements = image.measurements.to_string_lossy();
        let options = ["--server", &server, "--identity", &identity, "--measurements", &measurements, "--root", &root];
        self.run(&[&options[..], &["--state", &state], args].concat())
    }

    /// The same, which must succeed.
    pub(super) fn does(&self, who: &str, image: &Image, args: &[&str]) -> anyhow::Result<Value> {
        let ran = self.confidential(who, image, args)?;
        ensure!(ran.code == 0, "confidential {} exited with {}: {}", args.join(" "), ran.code, ran.json);
        Ok(ran.json)
    }

    /// Verifies the log offline, as an auditor who accepts these images and holds this evidence.
    pub(super) fn audit(&self, segments: &str, images: &[&Image], evidence: &[&str]) -> anyhow::Result<Ran> {
        let (segments, root) = (self.path(segments), self.path("nsm-root.pem"));
        let all = images.iter().map(|image| image.expected.clone()).reduce(Measurements::and).context("an image")?;
        let measurements = self.path("auditor.json");
        std::fs::write(&measurements, all.to_json())?;
        let args = ["--measurements", &measurements, "--root", &root, "audit", "verify", &segments];
        self.run(&[&args[..], evidence].concat())
    }

    fn must(&self, args: &[&str]) -> anyhow::Result<Value> {
        let ran = self.run(args)?;
        ensure!(ran.code == 0, "confidential {} exited with {}: {}", args.join(" "), ran.code, ran.json);
        Ok(ran.json)
    }

    fn run(&self, args: &[impl AsRef<OsStr>]) -> anyhow::Result<Ran> {
        let Output { status, stdout, stderr } =
            Command::new(&self.host.tools.confidential).arg("--json").args(args).output()?;
        let said = || format!("confidential --json printed no JSON: {}", String::from_utf8_lossy(&stderr));
        let json = serde_json::from_slice(&stdout).with_context(said)?;
        Ok(Ran { code: status.code().unwrap_or(-1), json })
    }
}

/// Where the mock KMS keeps its certificate authority from one run to the next.
pub(super) fn kms_state(roots: &Path) -> PathBuf {
    roots.join("kms-state.json")
}

fn succeed(output: Output, what: &str) -> anyhow::Result<()> {
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    }
    Ok(())
}

const POLICY: &str = r#"deployment = "boot-test"
version = 1

[[grants]]
principal = "operator"
keys = ""
operations = ["generate", "rotate", "revoke", "encrypt", "decrypt", "read-audit", "admin"]

[[grants]]
principal = "transcoder"
keys = "content-"
operations = ["encrypt", "decrypt"]
"#;
