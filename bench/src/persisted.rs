//! Appends through the enclave's ledger, the host protocol and a proxy process to its disk.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use enclave_app::{
    host::HostLink,
    ledger::{Ledger, LedgerWriter, Patience, Store},
};
use testkit::segments;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    audit::{AuditEventType, Chain, CreationReason, EventBody, EventDraft, KeyOperation, segment::RecordKind},
    fold::Fold,
    ids::{Digest, Epoch, KeyVersion, LogId},
    secret::KeyMaterial,
    signature::SigningKey,
    time::SystemClock,
};
use transport::Endpoint;

use crate::{deployment::metric, process::Process};

const KEY: &str = "content-key-000001";
const PATIENCE: Duration = Duration::from_secs(120);

/// What one run did.
pub(crate) struct Run {
    pub(crate) events: usize,
    pub(crate) time: Duration,
    /// Of every event, sorted.
    pub(crate) latencies: Vec<Duration>,
    /// The bytes of each batch, seal included, as they lie on disk.
    pub(crate) batches: Vec<Vec<u8>>,
    /// How many writes with one sync each the proxy made of them.
    pub(crate) syncs: usize,
}

/// A use of a key, of 256 bytes as a leaf.
fn draft() -> EventDraft {
    EventDraft::new(AuditEventType::KeyUsed, "data key unwrapped, segment 000123 of rendition 1080p")
        .key(KEY, Some(KeyVersion(1)))
        .principal("transcoder-eu-central-1a")
        .content("title-4711/season-1/episode-3")
        .body(EventBody::KeyUsed {
            operation: KeyOperation::UnwrapDataKey,
            uses: 0,
            context: Some(Digest::new([7; 32])),
            period: None,
        })
}

/// As many appenders at once, each appending the next event when the one before is durable.
pub(crate) async fn run(scratch: &Path, appenders: usize, events: usize) -> Run {
    let dir = tempfile::tempdir_in(scratch).unwrap();
    let at = |name: &str| dir.path().join(name);
    let config = format!(
        "enclave = \"unix:{0}/enclave\"\n[relay]\nlisten = [\"unix:{0}/relay\"]\n[host]\nlisten = \"unix:{0}/host\"\n\
         [store]\ndirectory = \"{0}/log\"\nreserve = 0\n[admin]\nlisten = \"unix:{0}/admin\"\n",
        dir.path().display()
    );
    std::fs::write(at("proxy.toml"), config).unwrap();
    let proxy = Process::proxy(&at("proxy.toml"));
    let (ledger, abandon, writer) = ledger(Endpoint::Unix(at("host"))).await;
    make_key(&ledger).await;
    // Everything warm.
    append(&ledger, appenders, appenders).await;
    let name = "transcode_proxy_store_sync_seconds_count";
    let warm = ledger.persisted().size;
    let syncs = metric(&at("admin"), name);
    let begin = Instant::now();
    let mut latencies = append(&ledger, appenders, events).await;
    let time = begin.elapsed();
    let syncs = (metric(&at("admin"), name) - syncs) as usize;
    ledger.close();
    writer.await.unwrap();
    drop(abandon);
    proxy.stop();
    latencies.sort_unstable();
    Run { events: latencies.len(), time, latencies, batches: batches(&at("log"), warm), syncs }
}

/// Makes the key that the drafts are about.
pub(crate) async fn make_key(ledger: &Ledger) {
    let body = EventBody::KeyCreated {
        record: None,
        max_age_secs: 86_400,
        max_uses: 1 << 20,
        require_attestation: false,
        reason: CreationReason::Initial,
    };
    let key = EventDraft::new(AuditEventType::KeyGenerated, "made").key(KEY, Some(KeyVersion(1))).body(body);
    ledger.record(key.into()).await.unwrap().persisted().await.unwrap();
}

async fn ledger(host: Endpoint) -> (Ledger, CancellationToken, tokio::task::JoinHandle<()>) {
    let (session, stop) = ([7; 16], CancellationToken::new());
    let begin = Instant::now();
    let link = loop {
        match HostLink::open(&host, session, PATIENCE, &stop).await {
            Ok((link, _)) => break Arc::new(link),
            Err(error) => assert!(begin.elapsed() < PATIENCE, "the proxy does not come up: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut chain = Chain::new();
    chain.open_epoch(Epoch(1));
    let patience = Patience { wait: PATIENCE, backlog: 8192 };
    let name = (LogId::new([9; 16]), "i-0123456789abcdef0-enc0123456789abcdef".to_owned());
    let ledger = Ledger::new(name, chain, Fold::new(), Arc::new(SystemClock), patience);
    let key = Arc::new(SigningKey::from_seed(&KeyMaterial::from_bytes([1; 32])).unwrap());
    let store = Store { endpoint: host, session, stop };
    let abandon = CancellationToken::new();
    let writer = LedgerWriter::new(ledger.clone(), key, store, watch::Sender::new(Some(link)));
    let writer = writer.run(abandon.clone());
    (ledger, abandon, tokio::spawn(async move { writer.await.unwrap() }))
}

/// Appends, each appender the next event when the one before is durable. Gives how long each took.
pub(crate) async fn append(ledger: &Ledger, appenders: usize, events: usize) -> Vec<Duration> {
    let tasks: Vec<_> = (0..appenders)
        .map(|_| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(events / appenders);
                for _ in 0..events / appenders {
                    let begin = Instant::now();
                    ledger.record(draft().into()).await.unwrap().persisted().await.unwrap();
                    latencies.push(begin.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut all = Vec::with_capacity(events);
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all
}

/// Appends batches of so many events, each when the one before is durable, until the log has `size`.
pub(crate) async fn append_batches(ledger: &Ledger, batch: usize, size: u64) {
    while let Some(left) = size.checked_sub(ledger.placed_size()).filter(|left| *left > 0) {
        let entries = (0..left.min(batch as u64)).map(|_| draft().into()).collect();
        ledger.place_together(entries).unwrap().persisted().await.unwrap();
    }
}

/// The batches on disk, without the first events of the log.
fn batches(log: &Path, skip: u64) -> Vec<Vec<u8>> {
    let (mut batches, mut batch, mut events) = (Vec::new(), Vec::new(), 0);
    for bytes in segments::read_dir(log).values() {
        for (_, record) in segments::records(bytes) {
            if record.kind == RecordKind::Footer {
                continue;
            }
            events += u64::from(record.kind == RecordKind::Entry);
            record.write_to(&mut batch);
            if record.kind == RecordKind::Seal {
                let whole = std::mem::take(&mut batch);
                if events > skip {
                    batches.push(whole);
                }
            }
        }
    }
    batches
}
