use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    audit::{
        AuditEvent, Chain, ChainError, EpochStatement, EventBody, LeafError, LogState, Seal, decode_leaf,
        segment::{RecordBuffer, RecordError, RecordKind},
        tree::Frontier,
    },
    ids::{Epoch, LeafHash, LogId},
    signature::{PublicKey, SignatureError},
    time::Timestamp,
};

/// Follows a log from some place on, by its entries and seals alone, page by page.
///
/// For whoever knows the log key and is told the events by somebody who is not believed: the chain, the tree and every seal
/// are checked. What a page then shows is the log's if its seal is signed under an epoch key that is known ([`Page::signed`]),
/// or if a consistency proof leads from [`Page::state`] to a checkpoint. Memory is that of one page.
#[derive(Debug, Clone)]
pub struct LogFollower {
    log_id: LogId,
    log_key: PublicKey,
    epoch_keys: BTreeMap<Epoch, PublicKey>,
    chain: Chain,
}

/// Some events that follow on what was followed so far. Nothing vouches for them yet but [`Page::signed`].
#[derive(Debug)]
pub struct Page {
    /// The events, oldest first, each with its leaf.
    pub events: Vec<(AuditEvent, Vec<u8>)>,
    /// The seal at the page's end.
    pub seal: Seal,
    /// Whether that seal is signed under an epoch key that is known.
    pub signed: bool,
    chain: Chain,
    epoch_keys: BTreeMap<Epoch, PublicKey>,
}

impl Page {
    /// State of the log behind the page.
    pub const fn state(&self) -> &LogState {
        &self.seal.state
    }
}

/// Why a page is not what an enclave wrote.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FollowError {
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A record is neither an entry nor a seal.
    #[error("a record that does not belong here")]
    Kind,
    /// An entry is no event.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// An event does not follow on the one before.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A seal is of another log or another state of it.
    #[error("a seal over another state of the log")]
    Seal,
    /// A seal is not by the key of its epoch.
    #[error("a seal that the epoch's key did not sign: {0}")]
    Signature(SignatureError),
    /// An epoch was not opened by the log key.
    #[error("an epoch that the log key did not open")]
    Epoch,
    /// The page does not end with a seal.
    #[error("events without a seal")]
    Unsealed,
}

impl LogFollower {
    /// From the first event on.
    pub const fn from_start(log_id: LogId, log_key: PublicKey) -> Self {
        Self { log_id, log_key, epoch_keys: BTreeMap::new(), chain: Chain::new() }
    }

    /// From behind the event with hash `last`, the last of `tree`. Whoever calls this has proven the root of that tree.
    pub const fn behind(log_id: LogId, log_key: PublicKey, last: LeafHash, tree: Frontier) -> Self {
        // Time and epoch of that event are not known, so the next may have any.
        let chain = Chain::from_parts(Epoch(0), last, Timestamp(0), tree);
        Self { log_id, log_key, epoch_keys: BTreeMap::new(), chain }
    }

    /// What the first event of a page says is the hash of the event before it.
    ///
    /// # Errors
    /// [`FollowError`] where the page does not start with an event.
    pub fn previous_of(page: &[u8]) -> Result<LeafHash, FollowError> {
        let mut records = RecordBuffer::default();
        records.push(page);
        match records.next_record()? {
            Some(record) if record.kind == RecordKind::Entry => Ok(decode_leaf(&record.payload)?.previous),
            _ => Err(FollowError::Kind),
        }
    }

    /// Makes the key of an epoch known, on whatever grounds the caller has: an attested connection, say.
    pub fn know(&mut self, epoch: Epoch, key: PublicKey) {
        self.epoch_keys.insert(epoch, key);
    }

    /// State of the log behind all that was followed.
    pub fn state(&self) -> LogState {
        self.chain.state()
    }

    /// Number of events that were followed, with those that lie before the start.
    pub const fn size(&self) -> u64 {
        self.chain.size()
    }

    /// Reads a page: records as a segment has them, entries and seals only, the last one a seal. `None` for an empty one.
    /// Where the caller is convinced of it, [`LogFollower::accept`] goes on behind it.
    ///
    /// # Errors
    /// [`FollowError`], the first that applies.
    pub fn read(&self, bytes: &[u8]) -> Result<Option<Page>, FollowError> {
        let (mut chain, mut epoch_keys) = (self.chain.clone(), self.epoch_keys.clone());
        let mut records = RecordBuffer::default();
        records.push(bytes);
        let mut events: Vec<(AuditEvent, Vec<u8>)> = Vec::new();
        let mut end: Option<(Seal, bool)> = None;
        while let Some(record) = records.next_record()? {
            match record.kind {
                RecordKind::Entry => {
                    let event = decode_leaf(&record.payload)?;
                    chain.follow(&event)?;
                    if let Some(EventBody::EpochOpened(opened)) = &event.body {
                        let statement = EpochStatement::of(opened, event.epoch, event.sequence, event.previous);
                        if opened.log_id != self.log_id || opened.log_key != self.log_key {
                            return Err(FollowError::Epoch);
                        }
                        statement.verify(&self.log_key, &opened.statement).map_err(|_| FollowError::Epoch)?;
                        let known = *epoch_keys.entry(event.epoch).or_insert(opened.epoch_key);
                        if known != opened.epoch_key {
                            return Err(FollowError::Epoch);
                        }
                    }
                    events.push((event, record.payload));
                    end = None;
                }
                RecordKind::Seal => {
                    let seal = Seal::from_bytes(&record.payload).ok_or(FollowError::Seal)?;
                    if end.is_some() || events.is_empty() || seal.log_id != self.log_id || seal.state != chain.state() {
                        return Err(FollowError::Seal);
                    }
                    let key = epoch_keys.get(&seal.state.epoch);
                    key.map_or(Ok(()), |key| seal.verify(key)).map_err(FollowError::Signature)?;
                    end = Some((seal, key.is_some()));
                }
                _ => return Err(FollowError::Kind),
            }
        }
        match end {
            Some((seal, signed)) if records.rest().is_empty() => {
                Ok(Some(Page { events, seal, signed, chain, epoch_keys }))
            }
            None if events.is_empty() && records.rest().is_empty() => Ok(None),
            _ => Err(FollowError::Unsealed),
        }
    }

    /// Goes on behind a page that was read by this very state of the follower; gives its events.
    pub fn accept(&mut self, page: Page) -> Vec<(AuditEvent, Vec<u8>)> {
        self.chain = page.chain;
        self.epoch_keys = page.epoch_keys;
        page.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{
            AuditEventType, EpochOpened, EventDraft,
            segment::Record,
            tree::{consistency_proof, inclusion_proof, verify_consistency},
        },
        ids::{Digest, Sequence},
        secret::KeyMaterial,
        signature::{Signature, SigningKey},
    };

    const LOG: LogId = LogId::new([1; 16]);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&KeyMaterial::from_bytes([seed; 32])).unwrap()
    }

    /// Two epochs of batches of 1, 2, 3, ... events; for each batch its records and the state behind it.
    fn batches() -> (Vec<(Vec<Record>, LogState)>, Vec<LeafHash>) {
        let (mut chain, mut all, mut leaves) = (Chain::new(), Vec::new(), Vec::new());
        for epoch in 1..=2_u8 {
            let (epoch_key, log_key) = (key(100 + epoch), key(1));
            let number = Epoch(u64::from(epoch));
            let mut opened = EpochOpened {
                log_id: LOG,
                epoch_key: epoch_key.public_key(),
                log_key: log_key.public_key(),
                document: Digest::of(b"a document"),
                log_key_record: Digest::of(b"a record"),
                statement: Signature::new([0; 64]),
            };
            let statement = EpochStatement::of(&opened, number, Sequence(chain.size()), chain.last());
            opened.statement = statement.sign(&log_key);
            chain.open_epoch(number);
            let mut first = Some(
                EventDraft::new(AuditEventType::EnclaveCreated, "opened")
                    .body(EventBody::EpochOpened(Box::new(opened))),
            );
            for count in 1..=4_u64 {
                let mut records = Vec::new();
                for n in 0..count {
                    let draft = EventDraft::new(AuditEventType::KeyUsed, format!("use {n}"));
                    let (event, leaf) = chain.append(first.take().unwrap_or(draft), Timestamp(chain.size())).unwrap();
                    leaves.push(event.hash);
                    records.push(Record::new(RecordKind::Entry, leaf));
                }
                let seal = Seal::sign(&epoch_key, LOG, chain.state());
                records.push(Record::new(RecordKind::Seal, seal.to_bytes()));
                all.push((records, chain.state()));
            }
        }
        (all, leaves)
    }

    fn page(records: &[Record]) -> Vec<u8> {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.write_to(&mut bytes));
        bytes
    }

    fn follower() -> LogFollower {
        LogFollower::from_start(LOG, key(1).public_key())
    }

    #[test]
    fn a_log_is_followed_however_its_batches_are_paged_and_every_seal_counts() {
        let (batches, leaves) = batches();
        for size in 1..=batches.len() {
            let mut follower = follower();
            let mut seen = Vec::new();
            for chunk in batches.chunks(size) {
                let records: Vec<_> = chunk.iter().flat_map(|(records, _)| records.clone()).collect();
                let page = follower.read(&page(&records)).unwrap().unwrap();
                assert!(page.signed, "the log key names every epoch key");
                assert_eq!(*page.state(), chunk.last().unwrap().1);
                seen.extend(follower.accept(page).into_iter().map(|(event, _)| event.hash));
            }
            assert_eq!(seen, leaves);
            assert_eq!(follower.state(), batches.last().unwrap().1);
            assert!(follower.read(&[]).unwrap().is_none());
        }
    }

    #[test]
    fn it_may_be_followed_from_any_event_on_and_proven_to_be_a_beginning_of_the_whole() {
        let (batches, leaves) = batches();
        let (end, size) = (batches.last().unwrap().1, leaves.len() as u64);
        let entries: Vec<_> = batches.iter().flat_map(|(records, _)| records.clone()).collect();
        for from in 1..size {
            // From event `from` on; seals before it are left out.
            let (mut count, mut rest) = (0, Vec::new());
            for record in &entries {
                count += u64::from(record.kind == RecordKind::Entry);
                if count > from {
                    rest.push(record.clone());
                }
            }
            let bytes = page(&rest);
            let previous = LogFollower::previous_of(&bytes).unwrap();
            let path = inclusion_proof(&leaves[..], from - 1, from).unwrap();
            let tree = Frontier::from_last_path(from, previous, &path).unwrap();
            let proof = consistency_proof(&leaves[..], from, size).unwrap();
            verify_consistency(from, tree.root(), size, end.root, &proof).unwrap();
            let mut follower = LogFollower::behind(LOG, key(1).public_key(), previous, tree);
            let page = follower.read(&bytes).unwrap().unwrap();
            // Whether it began with the opening of an epoch decides whether that epoch's key is known.
            assert_eq!(page.signed, from <= 10, "{from}");
            assert_eq!(*page.state(), end);
            follower.know(Epoch(2), key(102).public_key());
            assert!(follower.read(&bytes).unwrap().unwrap().signed);
            assert_eq!(follower.accept(page).len() as u64, size - from);
        }
    }

    #[test]
    fn nothing_changed_left_out_doubled_or_swapped_is_vouched_for() {
        let (batches, _) = batches();
        let records: Vec<_> = batches.iter().flat_map(|(records, _)| records.clone()).collect();
        let vouched =
            |records: &[Record]| follower().read(&page(records)).ok().flatten().is_some_and(|page| page.signed);
        assert!(vouched(&records));
        let mut cases = 0;
        for at in 0..records.len() {
            for byte in 0..records[at].payload.len() {
                let mut changed = records.clone();
                changed[at].payload[byte] ^= 1 << (byte % 8);
                assert!(!vouched(&changed), "record {at}, byte {byte}");
                cases += 1;
            }
            let without = [&records[..at], &records[at + 1..]].concat();
            let is_seal = records[at].kind == RecordKind::Seal;
            // The next seal covers what a missing one did.
            assert_eq!(vouched(&without), is_seal && at + 1 < records.len(), "without {at}");
            let twice = [&records[..=at], &records[at..]].concat();
            assert!(!vouched(&twice), "twice {at}");
            if at + 1 < records.len() {
                let mut swapped = records.clone();
                swapped.swap(at, at + 1);
                assert!(!vouched(&swapped), "swapped {at}");
            }
            cases += 3;
        }
        assert!(cases > 2000, "{cases}");
    }

    #[test]
    fn other_records_other_logs_and_pages_without_a_seal_are_refused() {
        let (batches, _) = batches();
        let records = &batches[0].0;
        let with = |record: Record| [&[record][..], records].concat();
        let refused = |records: &[Record]| follower().read(&page(records)).map(|_| ()).unwrap_err();
        assert_eq!(refused(&with(Record::new(RecordKind::WrappedKey, *b"key"))), FollowError::Kind);
        assert_eq!(refused(&records[..1]), FollowError::Unsealed);
        let mut foreign = LogFollower::from_start(LogId::new([2; 16]), key(1).public_key());
        assert_eq!(foreign.read(&page(records)).map(|_| ()), Err(FollowError::Epoch));
        foreign = LogFollower::from_start(LOG, key(2).public_key());
        assert_eq!(foreign.read(&page(records)).map(|_| ()), Err(FollowError::Epoch));
        let mut other = follower();
        other.know(Epoch(1), key(9).public_key());
        assert_eq!(other.read(&page(records)).map(|_| ()), Err(FollowError::Epoch));
        let bytes = page(records);
        for end in 1..bytes.len() {
            assert!(follower().read(&bytes[..end]).is_err(), "{end}");
        }
    }
}
