//! Everything on the host: people, KMS, images, the proxy.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use enclave_app::kms::KeyArn;
use serde_json::{Value, json};
use transcode_confidential::attestation::Measurements;

use super::{
    Tools,
    machine::{Host, PATIENCE, Process},
    say, trust,
};
use crate::{
    kms::{MockKms, MockKmsOptions},
    nsm::{DocumentSigner, MockPki},
};

const ROLE: &str = "enclave-host";
const REGION: &str = "eu-west-1";
/// The parent's CID as QEMU has it; on EC2 it is 3.
const PARENT: u32 = 2;
/// In the order in which they load.
const MODULES: [&str; 5] =
    ["vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport", "nsm", "virtio_mmio"];

/// What an image is made of, besides what all have in common.
pub(super) struct Recipe {
    /// One of the programs below.
    pub(super) program: &'static str,
    /// A module that is left out.
    pub(super) without: Option<&'static str>,
    /// The end of its configuration.
    pub(super) more: String,
}

/// The program that ships, with the test's roots in the places of AWS's.
pub(super) const TESTED: &str = "program-tested";
/// The program that ships.
pub(super) const SHIPPED: &str = "program-shipped";
/// The program that ships, with nothing in the place of AWS's root.
pub(super) const ROOTLESS: &str = "program-rootless";

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
    /// Secret parts of all credentials that a proxy was given.
    credentials: Vec<Vec<u8>>,
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
        let pki = MockPki::generate_of_length(trust::nsm_root_length());
        std::fs::write(dir.join("nsm-root.pem"), pki.root_pem())?;
        let mut options = MockKmsOptions::new(pki.trust_root());
        options.region = REGION.to_owned();
        let kms = MockKms::start(options).await;
        programs(&dir, &tools.program, pki.trust_root().der(), &kms.authority_pem())?;
        let key = kms.create_key(json!({ "Version": "2012-10-17", "Statement": [] }));
        let host = Host { dir, tools, signer: Arc::new(DocumentSigner::new(pki)) };
        host.serve_signatures()?;
        let (ca, authority, credentials) = (String::new(), String::new(), Vec::new());
        let mut stage = Self { host, kms, key, ca, authority, credentials, proxy: None, memory: "state" };
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

    /// Builds an image with `cargo eif` as anybody does; has `cargo eif verify` confirm what it measures.
    pub(super) fn build(&self, name: &str, recipe: Recipe) -> anyhow::Result<Image> {
        let Tools { eif, kernel, .. } = &*self.host.tools;
        let Recipe { program, without, more } = recipe;
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
        let modules = MODULES.iter().filter(|module| Some(**module) != without);
        let mut command = Command::new(eif);
        command
            .args(["build", "--label", name, "--config"])
            .arg(&config)
            .arg("--program")
            .arg(self.host.dir.join(program));
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

    /// What `cargo eif diff` finds between two images.
    pub(super) fn differences(&self, one: &Image, other: &Image) -> anyhow::Result<Vec<String>> {
        let output = Command::new(&self.host.tools.eif).arg("diff").args([&one.path, &other.path]).output()?;
        ensure!(output.status.code() == Some(1), "cargo eif diff: {}", output.status);
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }

    /// Whether `cargo eif verify` finds one image in the measurements of another.
    pub(super) fn is_measured(&self, image: &Image, by: &Image) -> anyhow::Result<bool> {
        let mut verify = Command::new(&self.host.tools.eif);
        let status = verify.arg("verify").arg(&image.path).arg("--measurements").arg(&by.measurements).output()?.status;
        match status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => bail!("cargo eif verify: {status}"),
        }
    }

    /// Has KMS give keys to these images and to nobody else, by the policy that the client generates from their
    /// measurements.json and accepts when it is asked to look for ways around.
    pub(super) fn let_in(&self, images: &[&Image]) -> anyhow::Result<()> {
        let (role, admin) = (self.kms.role_arn(ROLE), self.kms.role_arn("kms-admin"));
        let measurements: Vec<_> = images.iter().map(|image| image.measurements.to_string_lossy()).collect();
        let mut args: Vec<&str> = measurements.iter().flat_map(|file| ["--measurements", file]).collect();
        args.extend(["policy", "kms", "generate", "--key-arn", self.key.as_str(), "--role", &role, "--admin", &admin]);
        let made = self.must(&args)?;
        let file = self.path("key-policy.json");
        std::fs::write(&file, made["key_policy"].to_string())?;
        self.must(&["policy", "kms", "lint", &file])?;
        self.kms.put_key_policy(&self.key, made["key_policy"].clone());
        self.kms.put_role_policy(ROLE, made["role_policy"].clone());
        Ok(())
    }

    /// What nobody may read on a console: the parent's credentials, and every key that KMS gave out.
    pub(super) fn secrets(&self) -> Vec<Vec<u8>> {
        let mut secrets = self.kms.given_out();
        secrets.extend(self.credentials.iter().cloned());
        secrets
    }

    /// Starts the real proxy over an empty or an older log.
    pub(super) fn start_proxy(&mut self, segments: &str) -> anyhow::Result<()> {
        self.proxy = None;
        let _ = std::fs::create_dir(self.path(segments));
        let credentials = self.kms.issue_credentials(ROLE, Duration::from_secs(12 * 3600));
        self.credentials
            .extend([&credentials.secret_access_key, &credentials.session_token].map(|text| text.clone().into_bytes()));
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

/// Lays the three programs out, and says in how much they differ.
fn programs(dir: &Path, shipped: &Path, nsm_root: &[u8], kms_root: &str) -> anyhow::Result<()> {
    let shipped = std::fs::read(shipped).with_context(|| format!("reading {}", shipped.display()))?;
    let tested = trust::with_roots(&shipped, nsm_root, kms_root)?;
    say!(
        "program: {} bytes; tested as it ships but for {} bytes of two roots of trust",
        shipped.len(),
        trust::difference(&shipped, &tested)
    );
    for (name, program) in [(ROOTLESS, &trust::without_root(&shipped)?), (TESTED, &tested), (SHIPPED, &shipped)] {
        std::fs::write(dir.join(name), program)?;
    }
    Ok(())
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
