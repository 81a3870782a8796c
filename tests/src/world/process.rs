use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use transport::Endpoint;

use super::World;

/// An enclave in a process of its own: the production code, with the world's mocks handed in.
pub struct EnclaveProcess(Child);

impl World {
    /// Starts an enclave of the world's image in a process of its own, which has so much address space for data, and waits until
    /// it serves. `program` is the one that plays the parts of the demo.
    ///
    /// # Panics
    /// Where it does not.
    pub fn enclave_process(&self, program: &Path, data_limit: u64) -> EnclaveProcess {
        let dir = self.dir();
        self.hypervisor.pki().save(dir);
        std::fs::write(dir.join("kms-ca.pem"), self.kms.authority_pem()).expect("a writable directory");
        std::fs::write(dir.join("enclave.toml"), self.enclave_toml()).expect("a writable directory");
        let log = std::fs::File::create(dir.join("enclave.log")).expect("a writable directory");
        // The shell sets the limit on itself, and becomes the enclave.
        let script = format!("ulimit -d {}; exec \"$0\" \"$@\"", data_limit / 1024);
        let mut child = Command::new("/bin/sh")
            .args(["-c", &script])
            .args([program.as_os_str(), "__enclave".as_ref(), dir.as_os_str(), "enclave".as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a shell");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let serves = lines.any(|line| line.is_ok_and(|line| line.starts_with("serving")));
        assert!(serves, "{}", std::fs::read_to_string(dir.join("enclave.log")).unwrap_or_default());
        EnclaveProcess(child)
    }

    fn enclave_toml(&self) -> String {
        let config = self.config();
        let limits = &config.limits;
        let unix = |endpoint: &Endpoint| endpoint.to_string();
        let (host, egress) = (unix(&config.parent.host), unix(&config.parent.egress));
        let listen = unix(&config.parent.listen);
        format!(
            "deployment = \"{}\"\nkms_key_arn = \"{}\"\npolicy_authority = \"{}\"\nclient_ca = \"\"\"\n{}\"\"\"\n\n\
             [parent]\nhost = \"{host}\"\negress = \"{egress}\"\nlisten = \"{listen}\"\n\n\
             [limits]\nconnections = {}\naudit_wait_ms = {}\n",
            config.deployment,
            config.kms_key_arn.as_str(),
            hex::encode(config.policy_authority.as_bytes()),
            config.client_ca,
            limits.connections,
            limits.audit_wait_ms,
        )
    }
}

impl EnclaveProcess {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it runs.
    pub fn lives(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Memory that is resident now, and the most that ever was, in bytes.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn resident(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let kib = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
        };
        (kib("VmRSS:"), kib("VmHWM:"))
    }
}

impl Drop for EnclaveProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
