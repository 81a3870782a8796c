//! Boot, epochs, resumption and a parent that lies: every state, up to a number of boots, uses and lies.
//!
//! The machine takes the enclave's own decisions where it has them as functions ([`resume`], [`next_epoch`],
//! [`store_agrees`]), and mirrors the rest: a parent's store takes what follows on it (`parent_proxy::store`), an auditor holds a
//! log against receipts (`transcode_confidential::audit::verify`; what the mirror says is held against what that says, log by
//! log, in `auditor`). Each defence can be taken away; then the walk finds what it is for.

mod auditor;
mod defences;
mod machine;

use model::explorer::explore;

use machine::{Bounds, Defences, System};

/// `MODEL_BOOTS`, `MODEL_USES`, `MODEL_LIES` for another size.
fn bounds(boots: u8, uses: u8, lies: u8) -> Bounds {
    let or = |name: &str, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    Bounds { boots: or("MODEL_BOOTS", boots), uses: or("MODEL_USES", uses), lies: or("MODEL_LIES", lies) }
}

fn walk(name: &str, bounds: Bounds) {
    let begun = std::time::Instant::now();
    match explore(&System { bounds, defences: Defences::ALL }) {
        Ok(explored) => println!("{name}: {bounds:?}: {explored:?}, {:.1} s", begun.elapsed().as_secs_f64()),
        Err(counterexample) => panic!("{counterexample:?}"),
    }
}

#[test]
fn with_a_parent_that_does_not_lie_nothing_that_was_told_is_lost_and_it_always_goes_on() {
    walk("honest parent", Bounds { lies: 0, ..bounds(3, 3, 0) });
}

#[test]
fn whatever_a_parent_does_it_is_found_out_by_whoever_holds_receipts() {
    walk("lying parent", bounds(2, 3, 2));
}
