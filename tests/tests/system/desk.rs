//! The command line as somebody uses it on a machine that reaches a world's enclave.

use std::path::PathBuf;

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

    /// Runs a command whose exit code must be `exit`; `@name` stands for a file here. Gives its object.
    pub(crate) async fn run(&self, exit: u8, args: &[&str]) -> Value {
        let server = self.server.to_string();
        let base = ["confidential", "--json", "--server", &server, "--root", "@root.pem", "--measurements", "@m.json"];
        let rest = ["--identity", "@me.pem", "--state", "@state"];
        let args: Vec<_> = (base.iter().chain(&rest).chain(args))
            .map(|arg| match arg.strip_prefix('@') {
                Some(name) => self.path(name).into_os_string(),
                None => (*arg).into(),
            })
            .collect();
        let shown = format!("{:?}", args.last());
        let run = move || {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let exit = client::cli::run_with(args, &mut out, &mut err);
            (exit.code(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
        };
        let (code, out, err) = tokio::task::spawn_blocking(run).await.unwrap();
        assert_eq!(code, exit, "{shown}\n{out}{err}");
        serde_json::from_str(&out).unwrap_or(Value::Null)
    }
}
