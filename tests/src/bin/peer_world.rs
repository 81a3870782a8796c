//! A world for programs in other languages: an enclave with one key, and a gateway to it. Says on standard output, in one
//! line of JSON, where they are and what the key is, and ends when standard input does.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test's helper speaks to the test, and fails loudly")]

use std::io::Write as _;

use client::gateway::{Gateway, Settings, Token};
use serde_json::json;
use testkit::world::{OPERATOR, World};
use tokio_util::sync::CancellationToken;
use transcode_confidential::entropy::OsEntropy;
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
        "material": hex::encode(world.newest_key()),
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
