//! Strangers who stay, and strangers who ask: whoever is known is served all the same.

use std::time::{Duration, Instant};

use testkit::world::World;
use tokio::io::AsyncWriteExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_stay_make_room_for_those_who_come() {
    let mut plan = testkit::world::Plan::default();
    plan.limits.connections = 64;
    let world = World::with(plan).await;
    world.operator().generate("content-key-1").await.unwrap();
    let nobody = world.raw_tls(None);
    let mut strangers = Vec::new();
    // Eight may stay; each of them would do so for half a minute.
    for _ in 0..40 {
        strangers.push(nobody.connect(&world.server()).await.unwrap());
    }
    let begun = Instant::now();
    let message = world.caller("operator").encrypt("content-key-1", b"frame").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(world.operator().decrypt(&message).await.unwrap(), b"frame");
    drop(strangers);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_use_up_the_attestations_of_those_who_are_known() {
    let mut plan = testkit::world::Plan::default();
    plan.limits.attestations_per_second = 1;
    let world = World::with(plan).await;
    let ask = async |identity| {
        use tokio::io::AsyncReadExt as _;
        let mut stream = world.raw_tls(identity).connect(&world.server()).await.unwrap();
        let request =
            format!("GET /v1/attestation?nonce={} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "0".repeat(64));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer[9..12]).into_owned()
    };
    let mut refused = false;
    for _ in 0..50 {
        refused |= ask(None).await == "429";
        if refused {
            break;
        }
    }
    assert!(refused, "strangers get one a second");
    assert_eq!(ask(Some("transcoder")).await, "200");
}
