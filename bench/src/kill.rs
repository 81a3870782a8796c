//! `measure kill`: proxy and enclave are killed under load; nothing that was acknowledged may be missing, ever.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use testkit::world::Caller;
use transcode_confidential::keys::KeyRotationPolicy;

use crate::{
    deployment::Deployment,
    table::{Row, Table},
};

const WORKERS: usize = 8;
const KEY: &str = "content-1";

/// Verifies the log against every receipt after each kill.
///
/// # Panics
/// Where anything that was acknowledged is missing, or the log is not intact.
pub(crate) fn run(cycles: u32) -> Table {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (acknowledged, events, time) = runtime.block_on(killed_again_and_again(cycles));
    let mut table = Table::new("kill -9 under load");
    table.add(Row::figure(
        "proxy, enclave, or both killed in turn",
        format!(
            "{cycles} kills in {:.0} s, {acknowledged} acknowledged events, {events} on the record; none lost, verified \
             after each kill",
            time.as_secs_f64()
        ),
    ));
    table
}

async fn killed_again_and_again(cycles: u32) -> (usize, usize, Duration) {
    let begin = Instant::now();
    let mut system = Deployment::prepared(KeyRotationPolicy { max_uses: 200, ..KeyRotationPolicy::default() }).await;
    system.start_proxy();
    system.start_enclave();
    system.serving().await;
    system.operator().generate(KEY).await.expect("a key");
    let mut idle = 0;
    for cycle in 0..cycles {
        let caller = system.operator();
        let done = AtomicU64::new(0);
        let load = async {
            tokio::join!(work(&caller, &done), work(&caller, &done), work(&caller, &done), work(&caller, &done))
        };
        let moment = Duration::from_micros(5_000 + u64::from(cycle) * 7_919 % 150_000);
        let kill = async {
            // The first answers first: before them nothing is under way.
            while done.load(Ordering::Relaxed) < WORKERS as u64 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(moment).await;
            match cycle % 3 {
                0 => system.kill_proxy(),
                1 => system.kill_enclave(),
                _ => {
                    system.kill_enclave();
                    system.kill_proxy();
                }
            }
        };
        // Dropping the load ends what waits for an answer that will never come.
        tokio::select! {
            _ = load => panic!("the load ended before the kill"),
            () = kill => {}
        }
        idle += u32::from(done.load(Ordering::Relaxed) == 0);
        let checked = system.world.check().intact();
        assert!(checked.events.len() >= system.world.acknowledged.receipts().len(), "cycle {cycle}");
        match cycle % 3 {
            0 => system.start_proxy(),
            1 => system.start_enclave(),
            _ => {
                system.start_proxy();
                system.start_enclave();
            }
        }
        system.serving().await;
        assert!(!system.has_lost_a_process(), "cycle {cycle}: a process ended by itself");
    }
    assert_eq!(idle, 0, "kills without load prove nothing");
    system.stop_enclave();
    system.stop_proxy();
    let checked = system.world.check().intact();
    (system.world.acknowledged.receipts().len(), checked.events.len(), begin.elapsed())
}

/// Encrypts and decrypts, again and again, until it is dropped.
async fn work(caller: &Caller, done: &AtomicU64) {
    loop {
        let Ok(message) = caller.encrypt(KEY, b"frame").await else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        done.fetch_add(1, Ordering::Relaxed);
        if let Ok(content) = caller.decrypt(&message).await {
            assert_eq!(content, b"frame");
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}
