//! The machine: a parent with its stores, enclaves, and what clients were told.

use std::collections::BTreeSet;

use model::{
    boot::{next_epoch, store_agrees},
    explorer::Machine,
    ledger::resume,
};
use transcode_confidential::{
    audit::leaf_hash,
    ids::{Epoch, LeafHash, LogId},
    protocol::host::Durable,
};

use super::auditor::{self, Verdict};

/// How far the walk goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) boots: u8,
    pub(super) uses: u8,
    pub(super) lies: u8,
}

/// What may be taken away to see what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Defences {
    /// A caller is told when his event is durable, not when it is sealed.
    pub(super) tells_when_durable: bool,
    /// A parent that is met again must have what it acknowledged, and nothing else.
    pub(super) checks_on_resumption: bool,
    /// What was sealed is sent again, the same.
    pub(super) sends_again: bool,
    /// Each boot opens another epoch.
    pub(super) opens_epochs: bool,
    /// Boot verifies the whole log.
    pub(super) verifies_at_boot: bool,
    /// The parent admits one session at a time.
    pub(super) fences: bool,
    /// An auditor holds the log against receipts.
    pub(super) holds_receipts: bool,
    /// An auditor compares roots, not only sizes.
    pub(super) compares_roots: bool,
}

impl Defences {
    pub(super) const ALL: Self = Self {
        tells_when_durable: true,
        checks_on_resumption: true,
        sends_again: true,
        opens_epochs: true,
        verifies_at_boot: true,
        fences: true,
        holds_receipts: true,
        compares_roots: true,
    };
}

/// An event, sealed alone. It names the one before, as a leaf does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Event {
    /// The boot of the enclave that placed it.
    pub(super) boot: u8,
    pub(super) what: What,
    /// First bytes of the hash of the event before.
    previous: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum What {
    /// This epoch was opened.
    Opened(u8),
    /// A key was used; each use is another one.
    Used(u8),
}

pub(super) type Log = Vec<Event>;

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} by boot {}", self.what, self.boot)
    }
}

impl Event {
    fn behind(log: &[Self], boot: u8, what: What) -> Self {
        Self { boot, what, previous: log.last().map_or(0, |last| short(last.hash())) }
    }

    /// Stands for everything before as well.
    fn hash(&self) -> LeafHash {
        let (kind, number) = match self.what {
            What::Opened(epoch) => (0, epoch),
            What::Used(number) => (1, number),
        };
        leaf_hash(&[&[kind, number, self.boot][..], &self.previous.to_be_bytes()].concat())
    }
}

fn short(hash: LeafHash) -> u64 {
    u64::from_be_bytes(*hash.as_bytes().first_chunk().unwrap())
}

/// An enclave that runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Enclave {
    boot: u8,
    store: usize,
    /// Everything that it placed or began with.
    log: Log,
    /// So much of it is acknowledged.
    acknowledged: usize,
    /// So much of it is sealed and sent.
    sealed: usize,
    connected: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct State {
    /// The stores that the parent keeps: an honest one keeps one.
    pub(super) stores: Vec<Log>,
    pub(super) enclaves: Vec<Enclave>,
    /// What clients hold: each receipt vouches for a log up to an event.
    pub(super) receipts: BTreeSet<Log>,
    boots: u8,
    uses: u8,
    lies: u8,
    /// An enclave went on over a store that it was told had lost what it acknowledged.
    believed: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// Launch an enclave on a store.
    Boot(usize),
    /// Launch one on a copy of a store without its last events: a lie.
    BootOnCopy { store: usize, without: usize },
    /// The enclave grants a use.
    Use(usize),
    /// The oldest batch under way is written and acknowledged.
    Persist(usize),
    /// It is written, and the connection breaks.
    PersistAndBreak(usize),
    /// The connection breaks.
    Break(usize),
    /// It is acknowledged and not written: a lie.
    Forget(usize),
    /// The batch behind it is written in its place: a lie.
    Swap(usize),
    /// It is written twice: a lie.
    Repeat(usize),
    /// The connection comes back; the parent says what it has.
    Return(usize),
    /// The connection comes back; the parent says that it has so much of the enclave's log: a lie.
    ReturnWith { enclave: usize, size: usize },
    /// A store loses its last event: a lie.
    Lose(usize),
    /// The enclave is killed.
    Kill(usize),
}

/// Batches that may be under way.
const WINDOW: usize = 2;
const LOG_ID: LogId = LogId::new([7; 16]);

#[derive(Debug, Clone, Copy)]
pub(super) struct System {
    pub(super) bounds: Bounds,
    pub(super) defences: Defences,
}

impl Machine for System {
    type State = State;
    type Action = Action;

    fn start(&self) -> State {
        State { stores: vec![Log::new()], ..State::default() }
    }

    fn actions(&self, state: &State) -> Vec<Action> {
        let may_lie = state.lies < self.bounds.lies;
        let mut actions = Vec::new();
        if state.boots < self.bounds.boots {
            for store in 0..state.stores.len() {
                if !self.defences.fences || !state.enclaves.iter().any(|enclave| enclave.store == store) {
                    actions.push(Action::Boot(store));
                }
                if may_lie && state.stores.len() < 2 {
                    let most = state.stores[store].len();
                    actions.extend((0..=most).map(|without| Action::BootOnCopy { store, without }));
                }
            }
        }
        if may_lie {
            let stores = (0..state.stores.len()).filter(|store| !state.stores[*store].is_empty());
            actions.extend(stores.map(Action::Lose));
        }
        for (at, enclave) in state.enclaves.iter().enumerate() {
            actions.push(Action::Kill(at));
            let under_way = enclave.sealed - enclave.acknowledged;
            if !enclave.connected {
                actions.push(Action::Return(at));
                if may_lie {
                    actions.extend((0..=enclave.log.len()).map(|size| Action::ReturnWith { enclave: at, size }));
                }
                continue;
            }
            // The ledger takes no event before the first of its epoch is durable, nor beyond the window.
            if state.uses < self.bounds.uses && enclave.has_opened() && under_way < WINDOW {
                actions.push(Action::Use(at));
            }
            actions.push(Action::Break(at));
            if under_way > 0 {
                actions.extend([Action::Persist(at), Action::PersistAndBreak(at)]);
                if may_lie {
                    actions.extend([Action::Forget(at), Action::Repeat(at)]);
                    if under_way > 1 {
                        actions.push(Action::Swap(at));
                    }
                }
            }
        }
        actions
    }

    fn next(&self, state: &State, action: &Action) -> State {
        let mut next = state.clone();
        match *action {
            Action::Boot(store) => self.boot(&mut next, store),
            Action::BootOnCopy { store, without } => {
                next.lies += 1;
                let copy = next.stores[store][..next.stores[store].len() - without].to_vec();
                next.stores.push(copy);
                let store = next.stores.len() - 1;
                self.boot(&mut next, store);
            }
            Action::Use(at) => {
                next.uses += 1;
                let enclave = &mut next.enclaves[at];
                enclave.log.push(Event::behind(&enclave.log, enclave.boot, What::Used(next.uses)));
                self.seal(&mut next, at);
            }
            Action::Persist(at) => self.persist(&mut next, at, true),
            Action::PersistAndBreak(at) => self.persist(&mut next, at, false),
            Action::Break(at) => next.enclaves[at].connected = false,
            Action::Forget(at) => {
                next.lies += 1;
                self.acknowledge(&mut next, at);
            }
            Action::Swap(at) => {
                next.lies += 1;
                let enclave = &mut next.enclaves[at];
                // What the parent says is durable is not what the oldest batch comes to: `LedgerWriter::acknowledge`.
                enclave.connected = false;
                let (store, event) = (enclave.store, enclave.log[enclave.acknowledged + 1]);
                next.stores[store].push(event);
            }
            Action::Repeat(at) => {
                next.lies += 1;
                let enclave = &next.enclaves[at];
                let (store, event) = (enclave.store, enclave.log[enclave.acknowledged]);
                next.stores[store].push(event);
                self.persist(&mut next, at, true);
            }
            Action::Return(at) => {
                let said = durable(&next.stores[next.enclaves[at].store]);
                self.resume(&mut next, at, said);
            }
            Action::ReturnWith { enclave, size } => {
                next.lies += 1;
                let said = durable(&next.enclaves[enclave].log[..size]);
                self.resume(&mut next, enclave, said);
            }
            Action::Lose(store) => {
                next.lies += 1;
                next.stores[store].pop();
            }
            Action::Kill(at) => drop(next.enclaves.remove(at)),
        }
        next.enclaves.sort();
        next
    }

    fn check(&self, state: &State) -> Result<(), String> {
        let held: Vec<Log> =
            if self.defences.holds_receipts { state.receipts.iter().cloned().collect() } else { Vec::new() };
        let told_of = |store: &Log| state.receipts.iter().all(|told| store.starts_with(told));
        for store in &state.stores {
            let intact = auditor::verdict(store, &held, self.defences.compares_roots) == Verdict::Intact;
            if intact && !told_of(store) {
                return Err(format!("an auditor finds {store:?} intact, and somebody was told otherwise"));
            }
            if state.lies == 0 && !(intact && told_of(store)) {
                return Err(format!("nobody lied, and {store:?} is not what somebody was told"));
            }
            if self.defences.verifies_at_boot && intact && !rises(store) {
                return Err(format!("the epochs of {store:?} do not rise"));
            }
        }
        // Two enclaves from one head: no log holds what both told.
        let forked = state
            .receipts
            .iter()
            .any(|one| state.receipts.iter().any(|other| !one.starts_with(other) && !other.starts_with(one)));
        if forked
            && state
                .stores
                .iter()
                .any(|store| auditor::verdict(store, &held, self.defences.compares_roots) == Verdict::Intact)
        {
            return Err("two were told of two histories, and one log passes for both".to_owned());
        }
        if forked && state.lies == 0 {
            return Err("nobody lied, and there are two histories".to_owned());
        }
        if let Some(told) = state.receipts.iter().find(|told| !genuine(told)) {
            return Err(format!("somebody was told of {told:?}, which is no log"));
        }
        if state.believed {
            return Err("an enclave goes on over a store that lost what it acknowledged".to_owned());
        }
        self.goes_on(state)
    }
}

impl System {
    /// Boot: read the whole log, verify it, open the next epoch.
    fn boot(&self, state: &mut State, store: usize) {
        state.boots += 1;
        let log = state.stores[store].clone();
        let found = durable(&log).map(|durable| (LOG_ID, durable));
        if self.defences.verifies_at_boot && (!genuine(&log) || !store_agrees(found, found, false)) {
            return;
        }
        let last = Epoch(u64::from(epochs(&log).last().unwrap_or(0)));
        let epoch = if self.defences.opens_epochs { next_epoch(last, Epoch(0)) } else { last.max(Epoch(1)) };
        let size = log.len();
        let mut enclave = Enclave { boot: state.boots, store, log, acknowledged: size, sealed: size, connected: true };
        let opened = What::Opened(u8::try_from(epoch.0).unwrap());
        enclave.log.push(Event::behind(&enclave.log, enclave.boot, opened));
        state.enclaves.push(enclave);
        self.seal(state, state.enclaves.len() - 1);
    }

    /// A batch is sealed and sent. It is never withdrawn.
    fn seal(&self, state: &mut State, at: usize) {
        let enclave = &mut state.enclaves[at];
        enclave.sealed = enclave.log.len();
        if !self.defences.tells_when_durable {
            state.receipts.insert(enclave.log.clone());
        }
    }

    /// The parent writes the oldest batch, where it follows on what is stored or is stored already.
    fn persist(&self, state: &mut State, at: usize, answered: bool) {
        let enclave = &state.enclaves[at];
        let (before, event) = enclave.log.split_at(enclave.acknowledged);
        let store = &mut state.stores[enclave.store];
        let known = store.starts_with(&enclave.log[..=enclave.acknowledged]);
        if !known && store != before {
            // Out of order: the connection ends, and the enclave comes back.
            state.enclaves[at].connected = false;
            return;
        }
        if !known {
            store.push(event[0]);
        }
        if answered {
            self.acknowledge(state, at);
        } else {
            state.enclaves[at].connected = false;
        }
    }

    /// The oldest batch under way is acknowledged: whoever waits is told.
    fn acknowledge(&self, state: &mut State, at: usize) {
        let enclave = &mut state.enclaves[at];
        enclave.acknowledged += 1;
        state.receipts.insert(enclave.log[..enclave.acknowledged].to_vec());
    }

    /// The parent is met again.
    fn resume(&self, state: &mut State, at: usize, said: Option<Durable>) {
        let enclave = &mut state.enclaves[at];
        if !self.defences.sends_again {
            enclave.log.truncate(enclave.acknowledged);
            enclave.sealed = enclave.acknowledged;
        }
        let acknowledged = durable(&enclave.log[..enclave.acknowledged]).unwrap_or(NOTHING);
        let in_flight = (enclave.acknowledged + 1..=enclave.sealed).filter_map(|size| durable(&enclave.log[..size]));
        let decided = resume(LOG_ID, acknowledged, in_flight, said.map(|said| (LOG_ID, said)));
        let believed = decided.is_err() && !self.defences.checks_on_resumption;
        match decided {
            Ok(durable) => {
                enclave.connected = true;
                (0..durable).for_each(|_| self.acknowledge(state, at));
            }
            Err(_) if believed => {
                enclave.connected = true;
                state.believed = true;
            }
            // It ends; only a boot can help.
            Err(_) => drop(state.enclaves.remove(at)),
        }
    }

    /// With a parent that behaves from now on, some enclave records a use, or says that it cannot: it never just stands.
    fn goes_on(&self, state: &State) -> Result<(), String> {
        let mut state = state.clone();
        let mut steps = 0;
        while let Some(at) = state.enclaves.len().checked_sub(1) {
            steps += 1;
            if steps > 20 {
                return Err("a parent that behaves is met again and again, and nothing goes on".to_owned());
            }
            if !state.enclaves[at].connected {
                let said = durable(&state.stores[state.enclaves[at].store]);
                let enclaves = state.enclaves.len();
                self.resume(&mut state, at, said);
                if state.enclaves.len() < enclaves {
                    if state.lies == 0 {
                        return Err("nobody lied, and an enclave gives up".to_owned());
                    }
                    continue;
                }
            }
            let enclave = &state.enclaves[at];
            if enclave.acknowledged < enclave.sealed {
                self.persist(&mut state, at, true);
                continue;
            }
            return Ok(());
        }
        let booted = (0..state.stores.len()).any(|store| {
            self.boot(&mut state, store);
            !state.enclaves.is_empty()
        });
        if booted || state.lies > 0 { Ok(()) } else { Err("nobody lied, and no enclave boots".to_owned()) }
    }
}

impl Enclave {
    /// Whether its epoch is on the record.
    fn has_opened(&self) -> bool {
        self.log[..self.acknowledged].iter().any(|event| event.boot == self.boot)
    }
}

const NOTHING: Durable = Durable { size: 0, last: LeafHash::ZERO };

/// Size and last hash, as a parent says what it has.
fn durable(log: &[Event]) -> Option<Durable> {
    log.last().map(|last| Durable { size: log.len() as u64, last: last.hash() })
}

/// Whether a log passes for one that enclaves wrote: each event names the one before, and epochs rise.
pub(super) fn genuine(log: &[Event]) -> bool {
    let mut previous = 0;
    let follows = log.iter().all(|event| {
        let fits = event.previous == previous;
        previous = short(event.hash());
        fits
    });
    let opened = log.first().is_none_or(|first| matches!(first.what, What::Opened(_)));
    follows && opened && rises(log)
}

fn rises(log: &[Event]) -> bool {
    epochs(log).is_sorted_by(|one, next| one < next)
}

fn epochs(log: &[Event]) -> impl Iterator<Item = u8> {
    log.iter().filter_map(|event| match event.what {
        What::Opened(epoch) => Some(epoch),
        What::Used(_) => None,
    })
}
