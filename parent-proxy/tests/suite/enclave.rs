//! As much of an enclave as the proxy can tell from a real one: it seals batches and speaks the host protocol.

use std::time::Duration;

use tokio::io::{ReadHalf, WriteHalf};
use transcode_confidential::{
    audit::{
        AuditEventType, Chain, EventDraft, LogState, Seal, leaf_hash,
        segment::{Record, RecordKind, RecordView, RecordViews},
    },
    ids::{Epoch, LogId, RootHash, Sequence},
    protocol::host::{Append, Durable, Reply, Request, VERSION},
    secret::KeyMaterial,
    signature::SigningKey,
    time::Timestamp,
};
use transport::{Endpoint, FrameReader, FrameWriter, Stream};

pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const LOG: LogId = LogId::new(*b"the log of tests");

/// Writes a log, batch by batch.
pub(crate) struct Ledger {
    pub(crate) chain: Chain,
    pub(crate) log_id: LogId,
    key: SigningKey,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self::of(LOG)
    }

    pub(crate) fn of(log_id: LogId) -> Self {
        let key = SigningKey::from_seed(&KeyMaterial::from_bytes([7; 32])).unwrap();
        let mut chain = Chain::new();
        chain.open_epoch(Epoch(1));
        Self { chain, log_id, key }
    }

    /// The next batch, of `events` events with `length` bytes of text each.
    pub(crate) fn batch_of(&mut self, events: usize, length: usize) -> Append {
        let mut batch = self.chain.begin_batch();
        let previous = self.chain.last();
        for _ in 0..events {
            let text = format!("{:>length$}", self.chain.size());
            let draft = EventDraft::new(AuditEventType::KeyUsed, text);
            self.chain.append_to(&mut batch, draft, Timestamp(1)).unwrap();
        }
        let state = self.chain.state();
        let seal = Seal::sign(&self.key, self.log_id, state);
        let mut records: Vec<Record> = batch.leaves().map(|leaf| Record::new(RecordKind::Entry, leaf)).collect();
        records.push(Record::new(RecordKind::Seal, seal.to_bytes()));
        let records = on_disk(&records);
        Append {
            log_id: self.log_id,
            epoch: state.epoch,
            first: batch.first,
            previous,
            after: Durable { size: state.size, last: state.last },
            records,
        }
    }

    pub(crate) fn batch(&mut self, events: usize) -> Append {
        self.batch_of(events, 20)
    }

    /// A batch of one entry in any epoch, after the newest, which stays the newest.
    pub(crate) fn sealed_by_hand(&self, epoch: Epoch, entry: &[u8]) -> Append {
        let (size, last) = (self.chain.size() + 1, leaf_hash(entry));
        let state = LogState { epoch, size, root: RootHash::new([0; 32]), last };
        let seal = Seal::sign(&self.key, self.log_id, state);
        Append {
            log_id: self.log_id,
            epoch,
            first: Sequence(self.chain.size()),
            previous: self.chain.last(),
            after: Durable { size, last },
            records: on_disk(&[Record::new(RecordKind::Entry, entry), Record::new(RecordKind::Seal, seal.to_bytes())]),
        }
    }

    pub(crate) fn next_epoch(&mut self) {
        self.chain.open_epoch(Epoch(self.chain.epoch().0 + 1));
    }

    pub(crate) fn public_key(&self) -> transcode_confidential::signature::PublicKey {
        self.key.public_key()
    }
}

/// Records as they lie on disk.
fn on_disk(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    records.iter().for_each(|record| record.write_to(&mut bytes));
    bytes
}

/// The records of a batch.
pub(crate) fn records(append: &Append) -> Vec<Record> {
    RecordViews::of(&append.records).map(RecordView::to_record).collect()
}

/// Changes the records of a batch.
pub(crate) fn edit(append: &mut Append, change: impl FnOnce(&mut Vec<Record>)) {
    let mut records = records(append);
    change(&mut records);
    append.records = on_disk(&records);
}

/// A connection of the host protocol.
pub(crate) struct Connection {
    reader: FrameReader<ReadHalf<Stream>>,
    writer: FrameWriter<WriteHalf<Stream>>,
    next: u64,
}

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> Self {
        let (reader, writer) = tokio::io::split(endpoint.connect(SOON).await.unwrap());
        Self { reader: FrameReader::new(reader, SOON), writer: FrameWriter::new(writer, SOON), next: 0 }
    }

    /// Connects and says hello.
    pub(crate) async fn hello(endpoint: &Endpoint, session: u8) -> (Self, Reply) {
        let mut connection = Self::open(endpoint).await;
        let reply = connection.call(&Request::Hello { version: VERSION, session: [session; 16] }).await;
        (connection, reply)
    }

    /// Sends a request and gives its id.
    pub(crate) async fn send(&mut self, request: &Request) -> u64 {
        self.next += 1;
        self.writer.send(&request.encode(self.next)).await.unwrap();
        self.next
    }

    /// Sends a request; false where the proxy is gone.
    pub(crate) async fn try_send(&mut self, request: &Request) -> bool {
        self.next += 1;
        self.writer.send(&request.encode(self.next)).await.is_ok()
    }

    pub(crate) async fn send_raw(&mut self, payload: &[u8]) {
        self.writer.send(payload).await.unwrap();
    }

    /// The next reply; `None` where the proxy has closed.
    pub(crate) async fn receive(&mut self) -> Option<(u64, Reply)> {
        let frame = tokio::time::timeout(SOON, self.reader.next()).await.expect("no answer");
        frame.ok().flatten().map(|frame| Reply::decode(&frame).unwrap())
    }

    pub(crate) async fn call(&mut self, request: &Request) -> Reply {
        let id = self.send(request).await;
        let (answered, reply) = self.receive().await.expect("closed");
        assert_eq!(id, answered);
        reply
    }
}
