//! What each defence is for: without it the walk finds a state that should not be.

use model::explorer::explore;

use super::machine::{Bounds, Defences, System};

/// The shortest way to what goes wrong without a defence.
fn without(bounds: Bounds, change: impl FnOnce(&mut Defences)) -> String {
    let mut defences = Defences::ALL;
    change(&mut defences);
    assert_ne!(defences, Defences::ALL);
    match explore(&System { bounds, defences }) {
        Ok(explored) => panic!("nothing goes wrong without it: {explored:?}"),
        Err(counterexample) => {
            println!("{} after {:?}", counterexample.broken, counterexample.path);
            counterexample.broken
        }
    }
}

const HONEST: Bounds = Bounds { boots: 2, uses: 2, lies: 0 };
const LYING: Bounds = Bounds { boots: 2, uses: 2, lies: 1 };

#[test]
fn who_is_told_when_his_event_is_sealed_is_told_of_what_a_crash_takes_back() {
    let broken = without(HONEST, |defences| defences.tells_when_durable = false);
    assert!(broken.contains("nobody lied"), "{broken}");
}

#[test]
fn who_withdraws_what_was_sealed_contradicts_a_parent_that_wrote_it() {
    let broken = without(HONEST, |defences| defences.sends_again = false);
    assert!(broken.contains("gives up"), "{broken}");
}

#[test]
fn who_does_not_compare_on_resumption_goes_on_over_a_store_that_went_back() {
    let broken = without(LYING, |defences| defences.checks_on_resumption = false);
    assert!(broken.contains("goes on"), "{broken}");
}

#[test]
fn who_opens_the_same_epoch_again_writes_a_log_that_nobody_accepts() {
    let broken = without(HONEST, |defences| defences.opens_epochs = false);
    assert!(broken.contains("nobody lied"), "{broken}");
}

#[test]
fn who_does_not_verify_at_boot_vouches_for_a_log_with_a_hole() {
    let broken = without(LYING, |defences| defences.verifies_at_boot = false);
    assert!(broken.contains("which is no log"), "{broken}");
}

#[test]
fn a_parent_that_admits_two_sessions_lets_two_enclaves_contradict_each_other() {
    let broken = without(HONEST, |defences| defences.fences = false);
    assert!(broken.contains("nobody lied"), "{broken}");
}

#[test]
fn who_holds_nothing_does_not_notice_that_the_end_is_gone() {
    let broken = without(LYING, |defences| defences.holds_receipts = false);
    assert!(broken.contains("was told otherwise"), "{broken}");
}

#[test]
fn who_compares_sizes_only_does_not_notice_a_fork() {
    let broken = without(LYING, |defences| defences.compares_roots = false);
    assert!(broken.contains("told"), "{broken}");
}
