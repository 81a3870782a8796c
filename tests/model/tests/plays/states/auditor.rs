//! What an auditor says of a log, mirrored; and the mirror held against the real one.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    explorer::{Machine, explore},
    runtime::time::Played,
};
use testkit::{
    log_maker::{LogMaker, used, verify},
    nsm::{MockHypervisor, MockImage},
};
use transcode_confidential::audit::verify::{self as real, Evidence};

use super::machine::{Bounds, Defences, Event, Log, State, System, What, genuine};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Intact,
    Truncated,
    Forked,
    Broken,
}

/// Holds a log against receipts.
pub(super) fn verdict(log: &Log, receipts: &[Log], compares_roots: bool) -> Verdict {
    let mut verdict = Verdict::Intact;
    for told in receipts {
        match log.get(..told.len()) {
            None => verdict = Verdict::Truncated,
            Some(same) if same == told || !compares_roots => {}
            Some(_) => return Verdict::Forked,
        }
    }
    if genuine(log) { verdict } else { Verdict::Broken }
}

/// Real logs with real documents, keys and seals, for the logs of the machine.
struct Maker {
    hypervisor: MockHypervisor,
    image: MockImage,
    made: BTreeMap<Log, LogMaker>,
}

impl Maker {
    fn new() -> Self {
        let hypervisor = MockHypervisor::new(std::sync::Arc::new(Played));
        Self { hypervisor, image: MockImage::named("enclave"), made: BTreeMap::new() }
    }

    fn log(&mut self, log: &[Event]) -> LogMaker {
        let Some((last, before)) = log.split_last() else { return LogMaker::new(&self.hypervisor, 1) };
        if let Some(made) = self.made.get(log) {
            return made.clone();
        }
        let mut maker = self.log(before);
        match last.what {
            What::Opened(_) => {
                maker.launch_another(last.boot);
                maker.open_epoch(&self.image);
            }
            What::Used(number) => maker.batch(vec![used("film", u32::from(number))]),
        }
        self.made.insert(log.to_vec(), maker.clone());
        maker
    }

    fn verdict(&mut self, log: &Log, receipts: &[Log]) -> real::Verdict {
        let receipts = receipts.iter().map(|told| self.log(told).receipts.last().unwrap().clone());
        let evidence: Vec<Evidence> = receipts.map(|receipt| Evidence::Receipt(Box::new(receipt))).collect();
        let segments = self.log(log).segments().to_vec();
        verify(&self.hypervisor, self.image.measurements("enclave"), &segments, &evidence).verdict
    }
}

/// Every log that an enclave wrote, with all that was told, in the states of a walk.
fn seen() -> BTreeSet<(Log, Vec<Log>)> {
    struct Watched(System, std::cell::RefCell<BTreeSet<(Log, Vec<Log>)>>);
    impl Machine for Watched {
        type State = State;
        type Action = super::machine::Action;

        fn start(&self) -> State {
            self.0.start()
        }

        fn actions(&self, state: &State) -> Vec<Self::Action> {
            self.0.actions(state)
        }

        fn next(&self, state: &State, action: &Self::Action) -> State {
            self.0.next(state, action)
        }

        fn check(&self, state: &State) -> Result<(), String> {
            for store in state.stores.iter().filter(|store| !store.is_empty() && genuine(store)) {
                self.1.borrow_mut().insert((store.clone(), state.receipts.iter().cloned().collect()));
            }
            Ok(())
        }
    }
    let bounds = Bounds { boots: 2, uses: 2, lies: 1 };
    let watched = Watched(System { bounds, defences: Defences::ALL }, Default::default());
    assert!(explore(&watched).is_ok());
    watched.1.into_inner()
}

#[test]
fn the_auditor_of_the_machine_says_what_the_real_one_says() {
    let (seen, mut maker) = (seen(), Maker::new());
    let some = 120 * model::stage::multiplied();
    let every = seen.len().div_ceil(some).max(1);
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    for (log, receipts) in seen.iter().step_by(every) {
        let (ours, real) = (verdict(log, receipts, true), maker.verdict(log, receipts));
        assert_eq!(format!("{ours:?}"), format!("{real:?}"), "{log:?} held against {receipts:?}");
        *said.entry(format!("{ours:?}")).or_default() += 1;
    }
    println!("auditor: {} of {} logs and what was told of them: {said:?}", said.values().sum::<usize>(), seen.len());
    assert!(["Intact", "Truncated", "Forked"].iter().all(|verdict| said.contains_key(*verdict)), "{said:?}");
}
