//! Whole lives of an enclave at random: what anybody asks for, what goes wrong around it, kills and boots; against a small model
//! of what may be so, and an auditor at the end.
//!
//! A life is a seed: the operations, the faults, and every turn of every task follow from it. `MODEL_LIFE` plays one again,
//! `MODEL_PLAYS` multiplies their number, `MODEL_LIVES_AFTER` begins after another seed: processes beside each other, each
//! with lives of its own.

mod known;
mod life;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use model::stage::{multiplied, play_once};

/// Lives of an ordinary run.
const LIVES: u64 = 150;
/// Steps of a life.
const STEPS: usize = 30;

#[test]
fn whatever_happens_in_a_life_nothing_that_was_told_is_untrue_and_no_key_is_used_beyond_its_limit() {
    let one = seed_in("MODEL_LIFE");
    let after = seed_in("MODEL_LIVES_AFTER").unwrap_or(0);
    let seeds = one.map_or(after + 1..=after + LIVES * multiplied() as u64, |seed| seed..=seed);
    let begun = std::time::Instant::now();
    let mut total = life::Tally::default();
    let lives = seeds.clone().count();
    for seed in seeds {
        let lived = catch_unwind(AssertUnwindSafe(|| play_once(seed, || life::live(STEPS))));
        let story = life::story();
        if let Err(failure) = lived {
            println!("life {seed} failed; again: MODEL_LIFE={seed} cargo test -p model lives");
            println!("{story:#?}");
            resume_unwind(failure);
        }
        total.add(&life::tally());
    }
    println!("lives: {lives} seeds after {after}, {total:?}, {:.1} s", begun.elapsed().as_secs_f64());
    assert!(one.is_some() || total.done * 3 > total.asked, "too little went well to show anything: {total:?}");
}

/// A seed that the environment names; what is none is an error, not another run.
fn seed_in(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no seed")))
}
