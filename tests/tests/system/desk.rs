//! The command line as somebody uses it on a machine that reaches a world's enclave.

use std::{ffi::OsString, path::PathBuf};

use serde_json::Value;
use testkit::world::World;
use transport::Endpoint;

/// Where somebody works.
pub(crate) struct Desk {
    dir: tempfile::TempDir,
    server: Endpoint,
}

impl Desk {
    /// With everything that `name` needs to call the world's enclave.
    pub(crate) fn of(world: &World, name: &str) -> Self {
        let desk = Self { dir: tempfile::tempdir().unwrap(), server: world.server() };
        std::fs::write(desk.path("root.pem"), world.hypervisor.root_pem()).unwrap();
        std::fs::write(desk.path("m.json"), world.image().measurements("test").to_json()).unwrap();
        std::fs::write(desk.path("me.pem"), world.ca.identity_pem(name)).unwrap();
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Runs a command whose exit code must be `exit`, and gives the object that it prints.
    pub(crate) async fn run(&self, exit: u8, args: &[&str]) -> Value {
        let args: Vec<_> = ["--json"].iter().chain(args).copied().collect();
        let (code, out, err) = self.say(&args).await;
        assert_eq!(code, exit, "{:?}\n{out}{err}", args.last());
        serde_json::from_str(&out).unwrap_or(Value::Null)
    }

    /// Runs a command, and gives its exit code and what it prints on either stream.
    pub(crate) async fn say(&self, args: &[&str]) -> (u8, String, String) {
        let args = self.args(args);
        let run = move || {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let exit = client::cli::run_with(args, &mut out, &mut err);
            (exit.code(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// The whole command line of a command; `@name` stands for a file here.
    pub(crate) fn args(&self, args: &[&str]) -> Vec<OsString> {
        let server = self.server.to_string();
        let base = ["confidential", "--server", &server, "--root", "@root.pem", "--measurements", "@m.json"];
        let rest = ["--identity", "@me.pem", "--state", "@state"];
        let place = |arg: &&str| match arg.strip_prefix('@') {
            Some(name) => self.path(name).into_os_string(),
            None => (*arg).into(),
        };
        base.iter().chain(&rest).chain(args).map(place).collect()
    }
}
