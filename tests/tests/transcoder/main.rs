//! What transcoders use: the gateway, HLS with unmodified ffmpeg, pipes, and directories of segments.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that fails should fail loudly"
)]

mod ffmpeg;
mod gateway;
mod hls;
mod pipes;
mod watch;

use std::process::{Command, Stdio};

use testkit::world::{OPERATOR, World, people::grant};
use transcode_confidential::protocol::policy::Operation;

/// The identity of a gateway: it may use keys, and make or end none.
pub(crate) const GATEWAY: &str = "gateway";
pub(crate) const KEY: &str = "content-film";

/// A world with a key, and a principal for the gateway.
pub(crate) async fn world() -> World {
    let mut world = World::start().await;
    world
        .change_policy(|policy| {
            let operations = [Operation::Encrypt, Operation::Decrypt, Operation::ExportMediaKey];
            policy.grants.push(grant(GATEWAY, "content-", &operations));
        })
        .await;
    world
}

/// The command `confidential` of the operator, with options and environment as on a machine of its own.
pub(crate) fn confidential(world: &World, arguments: &[&str]) -> Command {
    let file = |name: &str| world.dir().join(name);
    if !file("operator.pem").exists() {
        std::fs::write(file("operator.pem"), world.ca.identity_pem(OPERATOR)).unwrap();
        std::fs::write(file("root.pem"), world.hypervisor.root_pem()).unwrap();
        std::fs::write(file("measurements.json"), world.image().measurements("test image").to_json()).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg("__confidential").args(["--server", &world.server().to_string()]);
    for (option, path) in [
        ("--identity", file("operator.pem")),
        ("--root", file("root.pem")),
        ("--measurements", file("measurements.json")),
        ("--state", file("state")),
    ] {
        command.arg(option).arg(path);
    }
    for name in ["SERVER", "IDENTITY", "MEASUREMENTS", "CONFIG"] {
        command.env_remove(format!("CONFIDENTIAL_{name}"));
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
