//! `measure soak`: everything at once for a long time, with restarts; memory and open files must stay flat.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use client::{DecryptRequest, EncryptRequest};
use testkit::world::{Acknowledged, Caller, key_id};
use transcode_confidential::{keys::KeyRotationPolicy, message::EncryptionContext};

use crate::{
    deployment::Deployment,
    table::{Row, Table},
};

const WORKERS: usize = 8;
const KEYS: usize = 16;
const CONTENT: usize = 64 * 1024;
/// Every so many receipts one is kept and held against the log at the end.
const KEPT: u64 = 50;

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

/// # Panics
/// Where content comes back changed, a process ends by itself, or the log is not intact at the end.
pub(crate) fn run(minutes: f64) -> Table {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(soaked(Duration::from_secs_f64(60.0 * minutes)))
}

async fn soaked(length: Duration) -> Table {
    let mut system = Deployment::prepared(KeyRotationPolicy { max_uses: 5_000, ..KeyRotationPolicy::default() }).await;
    system.start_proxy();
    system.start_enclave();
    system.serving().await;
    for key in 0..KEYS {
        system.operator().generate(&name(key)).await.expect("a key");
    }
    let counts = Arc::new(Counts::default());
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            tokio::spawn(work(system.operator(), system.world.acknowledged.clone(), Arc::clone(&counts), worker))
        })
        .collect();
    let mut table = Table::new(format!(
        "Soak: {:.1} minutes of encrypting, decrypting, rotating, restarts",
        length.as_secs_f64() / 60.0
    ));
    println!("  minute   done/s  refused | proxy MiB files | enclave MiB files");
    let (begin, samples) = (Instant::now(), 20);
    let mut before = 0;
    let mut series = Vec::new();
    for sample in 1..=samples {
        tokio::time::sleep(length / samples).await;
        assert!(!system.has_lost_a_process(), "a process ended by itself");
        let done = counts.done.load(Ordering::Relaxed);
        let rate = (done - before) as f64 / (length / samples).as_secs_f64();
        before = done;
        let [proxy, enclave] = system.sizes();
        println!(
            "  {:6.2} {rate:8.0} {:8} | {:9.1} {:5} | {:11.1} {:5}",
            begin.elapsed().as_secs_f64() / 60.0,
            counts.refused.load(Ordering::Relaxed),
            proxy.0 as f64 / 1024.0,
            proxy.1,
            enclave.0 as f64 / 1024.0,
            enclave.1
        );
        series.push([proxy, enclave]);
        // Restarts early on, so that the second half shows processes that grow or do not.
        match sample {
            2 => restart(&mut system, true, false).await,
            4 => restart(&mut system, false, true).await,
            6 => restart(&mut system, true, true).await,
            _ => {}
        }
    }
    counts.stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.expect("no worker panics");
    }
    system.stop_enclave();
    system.stop_proxy();
    let checked = system.world.check().intact();
    for (index, name) in ["proxy", "enclave"].into_iter().enumerate() {
        let at = |sample: usize| series[sample][index];
        let ((early, early_files), (late, late_files)) = (at(9), at(19));
        table.add(Row::figure(
            format!("{name}: resident memory and open files at half time and at the end"),
            format!(
                "{:.1} -> {:.1} MiB, {early_files} -> {late_files} files",
                early as f64 / 1024.0,
                late as f64 / 1024.0
            ),
        ));
    }
    table.add(Row::figure(
        "requests",
        format!(
            "{} done, {} refused or interrupted (restarts), {} events, log intact and held against {} receipts",
            counts.done.load(Ordering::Relaxed),
            counts.refused.load(Ordering::Relaxed),
            checked.events.len(),
            system.world.acknowledged.receipts().len()
        ),
    ));
    table
}

/// Proxy, enclave, or both, as an operator restarts them.
async fn restart(system: &mut Deployment, proxy: bool, enclave: bool) {
    if enclave {
        system.stop_enclave();
    }
    if proxy {
        system.stop_proxy();
        system.start_proxy();
    }
    if enclave {
        system.start_enclave();
    }
    system.serving().await;
}

fn name(key: usize) -> String {
    format!("content-{key}")
}

async fn work(caller: Caller, acknowledged: Acknowledged, counts: Arc<Counts>, worker: usize) {
    let content: Vec<u8> = (0..CONTENT).map(|at| (at * 31 + worker) as u8).collect();
    for round in 0.. {
        if counts.stop.load(Ordering::Relaxed) {
            return;
        }
        let key = key_id(&name((worker + round) % KEYS));
        let result = async {
            if round % 500 == 499 {
                caller.client.rotate_key(&key, None).await?;
            }
            let request = EncryptRequest { key: key.clone(), context: EncryptionContext::new(), content_id: None };
            let mut message = Vec::new();
            let done = caller.client.encrypt(&request, std::io::Cursor::new(content.clone()), &mut message).await?;
            let mut back = Vec::new();
            let request = DecryptRequest::default();
            let read = caller.client.decrypt(&request, std::io::Cursor::new(message), &mut back).await?;
            assert!(back == content, "content came back changed");
            if (round as u64).is_multiple_of(KEPT) {
                acknowledged.keep(done.receipt);
                acknowledged.keep(read.receipt);
            }
            Ok::<_, client::ClientError>(())
        };
        match result.await {
            Ok(()) => {
                counts.done.fetch_add(2, Ordering::Relaxed);
            }
            Err(_) => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
