//! A process that has finished with a key holds it no more: looked for in all of its memory, from outside.
//!
//! A child draws keys from a generator that this process can follow, uses them for a message, drops them, and waits; then every
//! readable page of it is searched. Two controls show that the search finds what is there: keys that are held, and one byte
//! copy that nobody erased.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that fails should fail loudly"
)]

use std::{
    hint::black_box,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use aws_lc_rs::hkdf;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use testkit::{
    capture::{MemoryImage, search_memory},
    world::{Plan, World},
};
use transcode_confidential::{
    entropy::{Entropy, EntropyError},
    ids::{KeyId, KeyVersion},
    message::{EncryptionContext, Encryptor, FrameLength, HeaderReader, WrappingKey},
    protocol::api::IssueDataKeys,
    secret::KeyMaterial,
};

const MODE: &str = "MEMORY_IMAGE_MODE";
const CONTENT: usize = 40_000;

/// Draw number `n` of a generator that both processes can follow: bytes that stand in no program and no other memory.
fn byte(draw: u64, index: usize) -> u8 {
    let mixed =
        (draw + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(index as u32 * 7) ^ (index as u64 * 0x51_7c_c1);
    (mixed ^ (mixed >> 23) ^ (mixed >> 47)) as u8
}

/// Writes each draw in place, so that no copy of it is anywhere else.
#[derive(Default)]
struct Followed(AtomicU64);

impl Entropy for Followed {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
        let draw = self.0.fetch_add(1, Ordering::Relaxed);
        out.iter_mut().enumerate().for_each(|(index, to)| *to = byte(draw, index));
        Ok(())
    }
}

fn begin<'a>(key_id: &'a KeyId, material: &'a KeyMaterial) -> WrappingKey<'a> {
    WrappingKey { key_id, version: KeyVersion(1), material }
}

/// Encrypts a message under `material`, decrypts it again, and gives the message.
fn use_key(material: &KeyMaterial, entropy: &dyn Entropy) -> Vec<u8> {
    let key_id: KeyId = "film-7".parse().unwrap();
    let wrap = begin(&key_id, material);
    let mut message = Vec::new();
    let length = FrameLength::new(4096).unwrap();
    let mut encryptor = Encryptor::begin(&wrap, &EncryptionContext::new(), length, entropy, &mut message).unwrap();
    encryptor.push(&[7; CONTENT], &mut message).unwrap();
    encryptor.finish(&mut message).unwrap();
    let (mut reader, mut rest) = (HeaderReader::new(), &message[..]);
    let mut decryptor = reader.push(&mut rest).unwrap().unwrap().unwrap(&wrap).unwrap();
    let mut content = Vec::new();
    decryptor.push(rest, &mut content).unwrap();
    decryptor.finish().unwrap();
    assert_eq!(content, [7; CONTENT]);
    message
}

/// What must not be there afterwards, by name.
fn secrets() -> Vec<(String, Vec<u8>)> {
    let drawn = |draw| (0..32).map(|index| byte(draw, index)).collect::<Vec<u8>>();
    let entropy = Followed::default();
    let material = KeyMaterial::generate(&entropy).unwrap();
    let message = use_key(&material, &entropy);
    let draws = entropy.0.load(Ordering::Relaxed);
    let public = |bytes: &[u8]| message.windows(12).any(|window| window == &bytes[..12]);
    let (id, hidden): (Vec<u64>, Vec<u64>) = (1..draws).partition(|draw| public(&drawn(*draw)));
    assert_eq!(hidden.len(), 1, "of what was drawn after the content key, only the data key is not in the message");
    let data_key = drawn(hidden[0]);
    // AWS Encryption SDK message format 2.0, suite 0x0478: HKDF-SHA-512 over the data key, salted by the message id.
    let id = id.iter().map(|draw| drawn(*draw)).find(|id| message.windows(32).any(|window| window == &id[..])).unwrap();
    let mut frame_key = vec![0; 32];
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA512, &id).extract(&data_key);
    let info = [&[0x04, 0x78][..], b"DERIVEKEY"];
    extracted.expand(&info, hkdf::HKDF_SHA256).unwrap().fill(&mut frame_key).unwrap();
    [("content key", drawn(0)), ("data key", data_key), ("frame key", frame_key)]
        .map(|(name, secret)| (name.to_owned(), secret))
        .into()
}

/// Not a test: what the child does.
#[test]
#[ignore = "it is the other process of the tests below"]
fn child() {
    let Some(mode) = std::env::var_os(MODE) else { return };
    let entropy = Followed::default();
    let material = KeyMaterial::generate(&entropy).unwrap();
    let wait = || {
        println!("ready");
        std::io::stdout().flush().unwrap();
        std::io::stdin().lines().next();
    };
    match mode.to_str().unwrap() {
        "finished" => {
            black_box(use_key(&material, &entropy));
            drop(material);
            wait();
        }
        "held" => {
            let key_id: KeyId = "film-7".parse().unwrap();
            let (wrap, mut message) = (begin(&key_id, &material), Vec::new());
            let length = FrameLength::new(4096).unwrap();
            let mut encryptor =
                Encryptor::begin(&wrap, &EncryptionContext::new(), length, &entropy, &mut message).unwrap();
            encryptor.push(&[7; CONTENT], &mut message).unwrap();
            wait();
            encryptor.finish(&mut message).unwrap();
        }
        "copied" => {
            black_box(use_key(&material, &entropy));
            let copy = black_box(material.expose().repeat(100));
            drop(material);
            drop(copy);
            wait();
        }
        other => panic!("{other}"),
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is in the memory of a child of this mode.
fn image_of(mode: &str) -> MemoryImage {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"]).env(MODE, mode);
    let mut child = Running(child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line.ends_with("ready")), "the child comes to its end");
    search_memory(child.0.id(), &secrets())
}

#[test]
fn a_process_that_has_finished_with_a_key_holds_it_no_more() {
    let image = image_of("finished");
    assert!(image.searched > 1 << 20, "{} bytes were searched", image.searched);
    assert!(image.found.is_empty(), "still in memory: {:?}", image.found);
}

#[test]
fn keys_that_are_held_and_copies_that_nobody_erased_are_found() {
    let held = image_of("held");
    assert!(held.names().contains(&"content key") && held.names().contains(&"frame key"), "{:?}", held.found);
    assert_eq!(image_of("copied").names(), ["content key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_holds_no_key_that_it_has_revoked_and_no_data_key_that_it_has_given_out() {
    let world = World::without_enclave(Plan::default()).await;
    let enclave = world.enclave_process(Path::new(env!("CARGO_BIN_EXE_demo")), 1 << 31);
    let operator = world.operator();
    let mut secrets = Vec::new();
    for id in ["revoked", "kept"] {
        operator.generate(id).await.unwrap();
        let message = operator.encrypt(id, &[7; 200_000]).await.unwrap();
        assert_eq!(operator.decrypt(&message).await.unwrap(), [7; 200_000]);
        let wanted = IssueDataKeys { count: Some(8), ..IssueDataKeys::default() };
        let issued = operator.client.issue_data_keys(&id.parse().unwrap(), &wanted).await.unwrap();
        for released in &issued {
            let item = (released.data_key.wrapped().clone(), EncryptionContext::new());
            operator.client.unwrap_data_keys(vec![item], None).await.unwrap().remove(0).unwrap();
            let data_key = released.data_key.data_key().material().expose().to_vec();
            secrets.push((format!("a data key of {id} in base64"), STANDARD.encode(&data_key).into_bytes()));
            secrets.push((format!("a data key of {id}"), data_key));
        }
        secrets.push((id.to_owned(), world.newest_key()));
    }
    operator.revoke("revoked").await.unwrap();
    // Answers are wiped when they are sent, and tasks end a moment after that.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let image = loop {
        let image = search_memory(enclave.id(), &secrets);
        if image.names() == ["kept"] || std::time::Instant::now() > deadline {
            break image;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    println!("{} bytes of an enclave's memory were searched", image.searched);
    assert_eq!(image.names(), ["kept"], "{:#?}", image.found);
}
