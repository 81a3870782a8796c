//! Reads a log directory with nothing of the store's own code, and says how far it is whole.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
};

use transcode_confidential::{
    audit::{
        AuditEvent, Chain, Seal, decode_leaf,
        segment::{Footer, RecordBuffer, RecordKind, SegmentHeader, SegmentName, is_torn},
    },
    ids::Digest,
    protocol::host::Durable,
    signature::PublicKey,
};

/// What a directory holds.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// As of the last seal.
    pub(crate) durable: Durable,
    /// The text of every sealed event.
    pub(crate) events: Vec<String>,
    /// What follows the last seal in the last segment, and where it starts.
    pub(crate) tail: Option<(SegmentName, u64, Vec<u8>)>,
    pub(crate) segments: usize,
}

/// Checks everything: names, headers, framing, chain, seals, footers, and that each segment but the last is closed.
pub(crate) fn check(files: &BTreeMap<String, Vec<u8>>, key: &PublicKey) -> Verdict {
    let mut chain = Chain::new();
    let mut events = Vec::new();
    let mut tail = None;
    let segments: BTreeMap<SegmentName, &Vec<u8>> =
        files.iter().filter_map(|(name, bytes)| Some((name.parse().ok()?, bytes))).collect();
    for (number, (name, bytes)) in segments.iter().enumerate() {
        let is_last = number + 1 == segments.len();
        let header: &[u8; 96] = bytes.first_chunk().expect("a segment without a header");
        let header = SegmentHeader::from_bytes(header).expect("a header");
        assert_eq!(header.name(), *name);
        assert_eq!((header.first.0, header.previous), (chain.size(), chain.last()), "{name}");
        let mut buffer = RecordBuffer::at(96);
        buffer.push(&bytes[96..]);
        let (mut pending, mut ahead): (Vec<AuditEvent>, Chain) = (Vec::new(), chain.clone());
        let (mut sealed, mut closed) = (96, false);
        loop {
            let record = match buffer.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(error) => {
                    assert!(is_last, "{name}: {error}");
                    assert!(is_torn(buffer.rest(), buffer.offset()), "{name}: {error}, and that is no torn write");
                    break;
                }
            };
            assert!(!closed, "{name}: something follows the footer");
            match record.kind {
                RecordKind::Entry => {
                    let event = decode_leaf(&record.payload).unwrap();
                    ahead.follow(&event).unwrap();
                    pending.push(event);
                }
                RecordKind::Seal => {
                    let seal = Seal::from_bytes(&record.payload).unwrap();
                    verify(&seal, &record.payload, key);
                    assert_eq!((seal.state, seal.log_id), (ahead.state(), header.log_id));
                    assert_eq!(seal.state.epoch, header.epoch);
                    events.extend(pending.drain(..).map(|event| event.details));
                    chain = ahead.clone();
                    sealed = buffer.offset();
                }
                RecordKind::Footer => {
                    let footer = Footer::from_bytes(&record.payload).unwrap();
                    assert_eq!((footer.first, footer.size, footer.last), (header.first, chain.size(), chain.last()));
                    assert_eq!(footer.content, Digest::of(&bytes[..sealed as usize]));
                    closed = true;
                }
                RecordKind::Checkpoint if pending.is_empty() => sealed = buffer.offset(),
                RecordKind::Checkpoint => {}
                other => panic!("{name}: {other:?}"),
            }
        }
        assert!(is_last || closed, "{name} is neither the last nor closed");
        let rest = bytes[sealed as usize..].to_vec();
        if !closed && !rest.is_empty() {
            assert!(is_last, "{name} has a tail and is not the last");
            tail = Some((*name, sealed, rest));
        }
    }
    let durable = Durable { size: chain.size(), last: chain.last() };
    Verdict { durable, events, tail, segments: segments.len() }
}

thread_local! {
    /// Seals that were verified before: the fault table sees the same ones thousands of times.
    static VERIFIED: RefCell<HashSet<Vec<u8>>> = RefCell::default();
}

fn verify(seal: &Seal, bytes: &[u8], key: &PublicKey) {
    if VERIFIED.with_borrow_mut(|verified| verified.insert([bytes, key.as_bytes()].concat())) {
        seal.verify(key).unwrap();
    }
}

/// The files of a directory.
pub(crate) fn read(directory: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}
