//! Something to be played with, and the plays themselves.

mod core;
mod enclave;
mod record;

pub use self::core::{Core, OPERATOR, TRANSCODER, Writing, id};
pub use enclave::{Enclave, House};
pub use record::Record;

use std::time::Instant;

use shuttle::{Config, Runner, scheduler::RandomScheduler};

use crate::{host::Parent, runtime};

/// Plays an act so many times, each time with other turns; `MODEL_PLAYS` multiplies that. What fails prints its seed, and
/// `SHUTTLE_RANDOM_SEED` with that plays it again.
#[allow(clippy::print_stdout, reason = "the number of plays is what a test of this kind shows")]
pub fn play<A, F>(name: &str, times: usize, act: A)
where
    A: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = ()> + 'static,
{
    let times = times * multiplied();
    let begun = Instant::now();
    let scheduler = RandomScheduler::new_from_seed(seed_of(name), times);
    let played = Runner::new(scheduler, config()).run(move || once(&act));
    println!("{name}: {played} plays, {:.1} s", begun.elapsed().as_secs_f64());
}

/// Plays an act once, with the turns of that seed.
pub fn play_once<A, F>(seed: u64, act: A)
where
    A: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = ()> + 'static,
{
    Runner::new(RandomScheduler::new_from_seed(seed, 1), config()).run(move || once(&act));
}

/// How many times more than in an ordinary run.
pub fn multiplied() -> usize {
    std::env::var("MODEL_PLAYS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

fn once<F: Future<Output = ()> + 'static>(act: &impl Fn() -> F) {
    begin();
    shuttle::future::block_on(act());
    begin();
}

fn begin() {
    runtime::task::begin();
    runtime::time::begin();
    Parent::begin();
}

fn config() -> Config {
    let mut config = Config::new();
    // What goes on for so long goes on for ever.
    config.max_steps = shuttle::MaxSteps::FailAfter(1_000_000);
    // The deepest stack is that of a certificate chain without optimisation.
    config.stack_size = 1 << 20;
    config
}

/// Another one for each test, the same in every run.
fn seed_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
