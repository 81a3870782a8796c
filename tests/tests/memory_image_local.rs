//! The command line with `--local` has the data key of a message only while it works on it: looked for in all of its memory, from
//! outside, while it works and when it is done.
//!
//! A child runs `confidential` as a function, as its `main` does, and stays when that is done, so that its memory does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that fails should fail loudly, and its child is told what to do"
)]

use std::{
    alloc::System,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aws_lc_rs::hkdf;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use testkit::{
    capture::{MemoryImage, search_memory},
    world::World,
};
use transcode_confidential::message::{EncryptionContext, HeaderReader};
use zeroizing_alloc::ZeroAlloc;

/// As in `client/src/main.rs`.
#[global_allocator]
static MEMORY: ZeroAlloc<System> = ZeroAlloc(System);

const ARGUMENTS: &str = "MEMORY_IMAGE_ARGUMENTS";
const FILM: &str = "film-7";
/// Generous: the machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// Not a test: what the child does.
#[test]
#[ignore = "it is the other process of the tests below"]
fn child() {
    let Some(arguments) = std::env::var_os(ARGUMENTS) else { return };
    let arguments = arguments.into_string().unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = client::cli::run_with(arguments.split('\n').map(Into::into), &mut out, &mut err);
    assert_eq!(exit.code(), 0, "{}", String::from_utf8_lossy(&err));
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where somebody works with the command line.
struct Desk<'a> {
    world: &'a World,
    dir: tempfile::TempDir,
}

impl<'a> Desk<'a> {
    async fn of(world: &'a World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let put = |name, text: String| std::fs::write(dir.path().join(name), text).unwrap();
        put("root.pem", world.hypervisor.root_pem());
        put("m.json", world.image().measurements("test").to_json());
        put("me.pem", world.ca.identity_pem("operator"));
        std::fs::write(dir.path().join("film"), vec![7; 3_000_000]).unwrap();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        world.operator().generate(FILM).await.unwrap();
        Self { world, dir }
    }

    /// Starts a command of `confidential`.
    fn start(&self, command: &str) -> Running {
        let server = self.world.server();
        let arguments = format!(
            "confidential --json --server {server} --root root.pem --measurements m.json --identity me.pem --state state {command}"
        );
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"]);
        child.env(ARGUMENTS, arguments.replace(' ', "\n")).current_dir(self.dir.path());
        Running(child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Runs a command to its end; the process is still there.
    async fn run(&self, command: &str) -> Running {
        let mut child = self.start(command);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        let ready = tokio::task::spawn_blocking(move || lines.any(|line| line.ends_with("ready")));
        assert!(tokio::time::timeout(PATIENCE, ready).await.expect("in time").unwrap(), "it comes to its end");
        child
    }

    /// The only file in the directory of outputs, as far as it is there.
    fn output(&self) -> Option<Vec<u8>> {
        let mut files = std::fs::read_dir(self.dir.path().join("out")).unwrap();
        std::fs::read(files.next()?.ok()?.path()).ok()
    }

    /// The secrets of a message, or of its beginning, by name; `None` where it has no whole header.
    async fn secrets(&self, message: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
        let mut rest = message;
        let header = HeaderReader::new().push(&mut rest).unwrap()?;
        let wrapped = header.wrapped_data_keys().next().unwrap().clone();
        let items = vec![(wrapped, EncryptionContext::new())];
        let released = self.world.operator().client.unwrap_data_keys(items, None).await.unwrap().remove(0).unwrap();
        let data_key = released.data_key.material().expose().to_vec();
        // AWS Encryption SDK message format 2.0, suite 0x0478: version, suite, message id; HKDF-SHA-512 over the data key, salted by the id.
        let (mut frame_key, id) = (vec![0; 32], &message[3..35]);
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA512, id).extract(&data_key);
        let info = [&[0x04, 0x78][..], b"DERIVEKEY"];
        extracted.expand(&info, hkdf::HKDF_SHA256).unwrap().fill(&mut frame_key).unwrap();
        let text = STANDARD.encode(&data_key).into_bytes();
        let named = [("data key", data_key), ("data key in base64", text), ("frame key", frame_key)];
        Some(named.map(|(name, secret)| (name.to_owned(), secret)).into())
    }
}

fn image_of(child: &Running, secrets: &[(String, Vec<u8>)]) -> MemoryImage {
    search_memory(child.0.id(), secrets)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_that_has_encrypted_or_decrypted_locally_holds_no_data_key() {
    let main = include_str!("../../client/src/main.rs");
    assert!(main.contains("#[global_allocator]\nstatic MEMORY: ZeroAlloc<System> = ZeroAlloc(System);"));
    let world = World::start().await;
    let desk = Desk::of(&world).await;
    let encrypted = desk.run("encrypt --local --key film-7 film -o out/message").await;
    let message = desk.output().expect("a message");
    let secrets = desk.secrets(&message).await.expect("a whole message");
    let decrypted = desk.run("decrypt --local out/message -o again").await;
    assert!(std::fs::read(desk.dir.path().join("again")).unwrap() == [7; 3_000_000]);
    for (what, child) in [("encrypted", encrypted), ("decrypted", decrypted)] {
        let image = image_of(&child, &secrets);
        println!("{} bytes of a process that has {what} were searched", image.searched);
        assert!(image.searched > 1 << 20);
        assert!(image.found.is_empty(), "{what}, still in memory: {:#?}", image.found);
    }
    world.check().intact();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_message_that_is_not_at_its_end_is_found() {
    let world = World::start().await;
    let desk = Desk::of(&world).await;
    let mut child = desk.start("encrypt --local --key film-7 - -o out/message");
    // Less than a pipe holds, and a pipe that stays open.
    child.0.stdin.as_mut().unwrap().write_all(&[7; 50_000]).unwrap();
    let begun = Instant::now();
    let secrets = loop {
        if let Some(begin) = desk.output()
            && let Some(secrets) = desk.secrets(&begin).await
        {
            break secrets;
        }
        assert!(begun.elapsed() < PATIENCE, "it writes the header of a message");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let image = image_of(&child, &secrets);
    assert!(image.names().contains(&"frame key"), "{:?}", image.names());
}
