//! A world for programs in other languages: an enclave with one key, and a gateway to it. Says on standard output, in one
//! line of JSON, where they are and what the key is, and ends when standard input does.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test's helper speaks to the test, and fails loudly")]

use std::io::Write as _;

use client::gateway::{Gateway, Settings, Token};
use serde_json::json;
use testkit::{
    segments,
    world::{OPERATOR, World},
};
use tokio_util::sync::CancellationToken;
use transcode_confidential::{audit::segment::RecordKind, cbor::Reader, entropy::OsEntropy};
use transport::Endpoint;

const KEY: &str = "content-key-1";

#[tokio::main]
async fn main() {
    let world = World::start().await;
    world.operator().generate(KEY).await.expect("a key");
    let caller = world.caller(OPERATOR);
    let socket = world.dir().join("gateway.sock");
    let listen = vec![Endpoint::Unix(socket.clone()), "tcp:127.0.0.1:0".parse().expect("an endpoint")];
    let stop = CancellationToken::new();
    let settings = Settings::new(listen, Token::generate(&OsEntropy).expect("randomness"));
    let gateway = Gateway::start(caller.client.clone(), settings, stop.clone()).await.expect("a gateway");
    let about = json!({
        "urls": gateway.urls(),
        "socket": socket,
        "key": KEY,
        "version": 1,
        "material": hex::encode(material(&world)),
        "log": world.segments_dir(),
    });
    println!("{about}");
    std::io::stdout().flush().expect("somebody listens");
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    ended.await.expect("no panic").expect("a readable standard input");
    stop.cancel();
    gateway.drained().await;
    world.check().intact();
}

/// What the mock KMS wrapped last: the content key.
fn material(world: &World) -> Vec<u8> {
    let segments = world.segments();
    let mut records = segments.values().flat_map(|bytes| segments::records(bytes));
    let wrapped = records.rfind(|(_, record)| record.kind == RecordKind::WrappedKey);
    let (_, record) = wrapped.expect("a wrapped key is on the record");
    // {0: 1, 1: ciphertext blob, ...}
    let mut reader = Reader::new(&record.payload);
    let mut map = reader.int_map(16).expect("a map");
    map.required(0).and_then(|reader| reader.uint()).expect("a version");
    let blob = map.required(1).and_then(|reader| reader.bytes(8192)).expect("a blob");
    world.kms.reveal(blob).expect("KMS wrapped it")
}
