use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use shuttle::rand::{Rng as _, thread_rng};
use testkit::{parent::MemoryLog, segments::Segments};
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    ids::{LeafHash, LogId},
    protocol::host::{Append, Durable, HostError, Reply, Request, VERSION, Welcome},
};

use super::HostFailure;
use crate::runtime::time;

thread_local! {
    static PARENT: RefCell<Option<Parent>> = const { RefCell::new(None) };
}

/// A parent with its disk: it outlives every enclave.
#[derive(Clone, Default)]
pub struct Parent(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    log: MemoryLog,
    weather: Weather,
    /// The session that is alive, and what ends its connection.
    live: Option<([u8; 16], CancellationToken)>,
    /// Every batch that was ever sent, by its epoch and first event.
    sent: BTreeMap<(u64, u64), Append>,
    policy: Option<Vec<u8>>,
}

/// What kind of day it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// There is no parent.
    pub gone: bool,
    /// So many of 100 requests end their connection: half of them before they have an effect, half of them after.
    pub cuts: u32,
    /// The disk is full.
    pub full: bool,
    /// So many of 100 requests take from a second to a minute.
    pub slow: u32,
    /// It says that it keeps what it does not keep.
    pub forgetful: bool,
}

/// A connection that is alive.
pub(super) struct Connection {
    parent: Parent,
    session: [u8; 16],
    pub(super) end: CancellationToken,
}

/// What becomes of a request.
pub(super) enum Fate {
    /// It is answered.
    Answered(Reply),
    /// The connection ends.
    Cut,
}

impl Parent {
    /// The parent of this play; a new one in every play.
    pub fn of_this_play() -> Self {
        PARENT.with_borrow_mut(|parent| parent.get_or_insert_default().clone())
    }

    pub(crate) fn begin() {
        let old = PARENT.with_borrow_mut(Option::take);
        drop(old);
    }

    /// The weather from now on. Where the parent is gone its connections end.
    pub fn weather(&self, weather: Weather) {
        let mut kept = self.kept();
        kept.weather = weather;
        let end = kept.live.as_ref().filter(|_| weather.gone).map(|(_, end)| end.clone());
        drop(kept);
        if let Some(end) = end {
            end.cancel();
        }
    }

    /// The weather.
    pub fn today(&self) -> Weather {
        self.kept().weather
    }

    /// Ends the connection there is.
    pub fn disconnect(&self) {
        let end = self.kept().live.as_ref().map(|(_, end)| end.clone());
        if let Some(end) = end {
            end.cancel();
        }
    }

    /// Offers a policy document.
    pub fn offer_policy(&self, document: Vec<u8>) {
        self.kept().policy = Some(document);
    }

    /// What is durable.
    pub fn durable(&self) -> Option<(LogId, Durable)> {
        self.kept().log.durable()
    }

    /// The hashes of the events that are durable, as far as they were not given up.
    pub fn leaves(&self) -> Vec<LeafHash> {
        self.kept().log.leaves().to_vec()
    }

    /// The log as it lies on disk.
    pub fn segments(&self) -> Segments {
        self.kept().log.segments().clone()
    }

    /// Changes the log behind everybody's back.
    pub fn edit(&self, change: impl FnOnce(&mut Segments)) {
        self.kept().log.edit(change);
    }

    pub(super) fn greet(&self, session: [u8; 16]) -> Result<(Connection, Welcome), HostFailure> {
        let mut kept = self.kept();
        if kept.weather.gone {
            return Err(HostFailure::Ended);
        }
        match &kept.live {
            Some((other, _)) if *other != session => return Err(HostError::Fenced.into()),
            Some((_, old)) => old.cancel(),
            None => {}
        }
        let end = CancellationToken::new();
        kept.live = Some((session, end.clone()));
        let welcome = Welcome { version: VERSION, parent: "played".into(), durable: kept.log.durable() };
        drop(kept);
        Ok((Connection { parent: self.clone(), session, end }, welcome))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }
}

impl Connection {
    /// Takes its time, where the weather is like that.
    pub(super) async fn dawdle(&self) {
        if chance(self.parent.today().slow) {
            time::sleep(Duration::from_millis(thread_rng().gen_range(1000..60_000))).await;
        }
    }

    pub(super) fn take_in(&self, request: Request, staged: &mut Vec<u8>) -> Fate {
        let weather = self.parent.today();
        if self.end.is_cancelled() || chance(weather.cuts / 2) {
            return Fate::Cut;
        }
        let mut kept = self.parent.kept();
        let reply = match request {
            Request::Stage(records) => {
                staged.extend_from_slice(&records);
                Reply::Done
            }
            Request::Append(mut append) => {
                append.records.splice(0..0, staged.drain(..));
                kept.append(append)
            }
            other => kept.answer(&other),
        };
        drop(kept);
        if chance(weather.cuts / 2) { Fate::Cut } else { Fate::Answered(reply) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end.cancel();
        let mut kept = self.parent.kept();
        // A later connection of the same session has another token.
        if kept.live.as_ref().is_some_and(|(session, end)| *session == self.session && end.is_cancelled()) {
            kept.live = None;
        }
    }
}

impl Kept {
    fn append(&mut self, append: Append) -> Reply {
        let place = (append.epoch.0, append.first.0);
        let known = self.sent.entry(place).or_insert_with(|| append.clone());
        assert!(*known == append, "the batch at {place:?} was sealed before, and is another one now");
        if self.weather.forgetful {
            return Reply::Appended(append.after);
        }
        let is_new = self.log.durable().is_none_or(|(_, durable)| durable.size < append.after.size);
        if self.weather.full && is_new {
            return Reply::Failed(HostError::StorageFull);
        }
        self.log.append(&append).map_or_else(Reply::Failed, Reply::Appended)
    }

    fn answer(&mut self, request: &Request) -> Reply {
        let answer = match request {
            Request::Segments { after } => Ok(Reply::Segments(self.log.list(*after))),
            Request::Read { name, offset, length } => self.log.read(*name, *offset, *length).map(Reply::Bytes),
            Request::Quarantine { name, offset } => self.log.quarantine(*name, *offset).map(|()| Reply::Done),
            Request::Inclusion { index, size } => self.log.inclusion(*index, *size).map(Reply::Proof),
            Request::Consistency { old, new } => self.log.consistency(*old, *new).map(Reply::Proof),
            Request::Snapshot => Ok(Reply::Start(self.log.snapshot())),
            Request::Prune { below } => {
                self.log.prune(*below);
                Ok(Reply::Done)
            }
            Request::Policy { .. } => Ok(Reply::Policy(self.policy.clone())),
            Request::Restoration => Ok(Reply::Policy(None)),
            _ => Err(HostError::Refused),
        };
        answer.unwrap_or_else(Reply::Failed)
    }
}

fn chance(of_100: u32) -> bool {
    of_100 > 0 && thread_rng().gen_range(0..100) < of_100
}
