//! Every stream between client, proxy, enclave, KMS and the source of credentials is cut, garbled and delayed, byte by byte.
//!
//! Each case does a piece of work while one byte is struck. What must hold then: the work is done or fails with a typed error, in
//! time; a delay changes nothing; the same enclave serves again by itself; the log is intact and has everything that was
//! acknowledged. `STREAM_STRIDE=1` strikes every byte; without it, one in so many that CI has the time. A byte that never comes
//! costs a time-out: such cases are few.

use std::time::{Duration, Instant};

use client::{ClientError, ErrorKind};
use enclave_app::Fatal;
use testkit::{
    interposer::{
        Direction::{self, Back, Forth},
        Fault, Interposer, Strike,
    },
    nsm::MockImage,
    world::{Plan, Wires, World},
};

const FILM: &str = "content-key-1";
/// Longer than any time-out of client, proxy and enclave together, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(600);
/// Shorter than any of their time-outs. What takes longer may have failed because the machine is busy with other things.
const PROMPT: Duration = Duration::from_secs(3);
/// Cases of one world, so that its log stays short.
const CASES: usize = 120;
/// How often the whole log is verified, and at the end of each world.
const CHECK_EVERY: usize = 20;
/// Most of the time is spent waiting for somebody to try again.
const WORLDS: usize = 6;
/// Bytes of each direction of a stream that never come.
const STALLS: u64 = 3;
/// Worlds of each stream where that is waited for.
const STALLED_WORLDS: usize = 3;

/// A piece of work.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// By a client that has to attest the enclave first.
    Stranger,
    /// By a client that is connected: a message encrypted.
    Message,
    /// A key made, for which KMS is called.
    Key,
}

impl Work {
    async fn run(self, world: &World, operator: &testkit::world::Caller, number: usize) -> Result<(), ClientError> {
        match self {
            Self::Stranger => world.operator().encrypt(FILM, b"frame").await.map(drop),
            Self::Message => operator.encrypt(FILM, b"frame").await.map(drop),
            Self::Key => operator.generate(&format!("content-{number}")).await.map(drop),
        }
    }
}

/// A stream, and the work whose bytes on it are struck.
#[derive(Clone, Copy)]
struct Stream {
    name: &'static str,
    wire: fn(&Wires) -> &Interposer,
    work: Work,
}

impl Stream {
    fn of(self, world: &World) -> &Interposer {
        (self.wire)(world.wires())
    }

    /// Bytes that the work takes, in one direction: the most of several times, since TLS is not of the same length each time.
    async fn length(self, direction: Direction) -> u64 {
        let world = world().await;
        let operator = world.operator();
        let mut most = 0;
        for number in 0..5 {
            self.of(&world).arm(None);
            // What failed on a busy machine did not take all of its bytes.
            let Ok(()) = self.work.run(&world, &operator, number).await else { continue };
            // The end of a message goes on the record a moment later.
            tokio::time::sleep(Duration::from_millis(50)).await;
            // The first time there are connections to be made that the others find.
            most = most.max(self.of(&world).carried(direction) * u64::from(number > 0));
        }
        assert!(most > 0, "{}: the work is done at least once", self.name);
        most
    }

    /// Strikes each of these bytes in turn; gives how many strikes were met, and the longest time until all was well again.
    async fn strike_all(self, strikes: Vec<Strike>) -> (usize, Duration) {
        let (mut met, mut longest) = (0, Duration::ZERO);
        for part in strikes.chunks(CASES) {
            let world = world().await;
            let operator = world.operator();
            recovered("before", &world, &operator).await;
            for (number, strike) in part.iter().enumerate() {
                let what = format!("{} {strike:?}", self.name);
                self.of(&world).arm(Some(*strike));
                let begun = Instant::now();
                let outcome = tokio::time::timeout(PATIENCE, self.work.run(&world, &operator, number)).await;
                let outcome = outcome.unwrap_or_else(|_| panic!("{what}: it hangs"));
                if let Err(error) = outcome {
                    typed(&what, &error);
                    let delayed = matches!(strike.fault, Fault::Delayed(_));
                    assert!(!delayed || begun.elapsed() > PROMPT, "{what}: {error}");
                }
                met += usize::from(self.of(&world).has_struck());
                self.of(&world).arm(None);
                longest = longest.max(recovered(&what, &world, &operator).await);
                if number % CHECK_EVERY == 0 {
                    world.check().intact();
                }
            }
            world.check().intact();
        }
        (met, longest)
    }
}

async fn world() -> World {
    let plan = Plan { interposed: true, ..Plan::default() };
    let image = plan.image.clone();
    let mut world = World::without_enclave(plan).await;
    boots(&mut world, &image, None).await;
    let (operator, begun) = (world.operator(), Instant::now());
    while let Err(error) = operator.generate(FILM).await {
        // What was answered too late may have been done nevertheless.
        if matches!(error, ClientError::Conflict(_)) {
            break;
        }
        assert!(error.retryable() && begun.elapsed() < PATIENCE, "a first key: {error}");
    }
    world
}

/// A failure says what kind it is: nobody was refused, and nothing was malformed but what came over the stream.
fn typed(what: &str, error: &ClientError) {
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Verification), "{what}: {error}");
}

/// Waits until somebody is served who was there before, by the same enclave; gives how long that took.
async fn recovered(what: &str, world: &World, operator: &testkit::world::Caller) -> Duration {
    let begun = Instant::now();
    loop {
        assert!(world.enclave_lives(), "{what}: the enclave has ended");
        let served = async {
            let message = operator.encrypt(FILM, b"after").await?;
            operator.decrypt(&message).await
        };
        match served.await {
            Ok(content) => {
                assert_eq!(content, b"after", "{what}");
                return begun.elapsed();
            }
            Err(error) => typed(what, &error),
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: nobody is served any more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Strikes one in `stride` bytes of a stream in every way; `STREAM_STRIDE` has another number, `STREAM_FROM` the first byte, and
/// `STREAM_NAME` a part of the names of those streams that are struck at all.
async fn strike(stream: Stream, stride: u64) {
    if std::env::var("STREAM_NAME").is_ok_and(|part| !stream.name.contains(&part)) {
        return println!("{}: left out", stream.name);
    }
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (stride, from) = (number("STREAM_STRIDE").unwrap_or(stride), number("STREAM_FROM").unwrap_or(0));
    let mut strikes = Vec::new();
    for direction in [Forth, Back] {
        let length = stream.length(direction).await;
        println!("{}: {length} bytes {direction:?}", stream.name);
        for (number, offset) in (from..length).step_by(stride as usize).enumerate() {
            let delayed = Fault::Delayed(Duration::from_millis(5));
            // With a stride, each of the three ways gets bytes of its own.
            let ways = if stride == 1 {
                vec![Fault::Cut, Fault::Garbled, delayed]
            } else {
                vec![[Fault::Garbled, Fault::Cut, Fault::Garbled, Fault::Cut, delayed][number % 5]]
            };
            strikes.extend(ways.into_iter().map(|fault| Strike { direction, offset, fault }));
        }
    }
    strike_side_by_side(stream, &strikes, WORLDS).await;
}

/// Lets bytes all over a stream never come, `STALLS` of each direction.
async fn stall(stream: Stream) {
    let mut strikes = Vec::new();
    for direction in [Forth, Back] {
        let length = stream.length(direction).await;
        strikes.extend(stalls(direction, length));
    }
    strike_side_by_side(stream, &strikes, STALLED_WORLDS).await;
}

fn stalls(direction: Direction, length: u64) -> impl Iterator<Item = Strike> {
    (0..STALLS).map(move |part| Strike { direction, offset: length * part / STALLS, fault: Fault::Stalled })
}

/// Strikes these bytes of a stream, in so many worlds at the same time.
async fn strike_side_by_side(stream: Stream, strikes: &[Strike], worlds: usize) {
    let begun = Instant::now();
    let share = strikes.len().div_ceil(worlds);
    let worlds = strikes.chunks(share).map(|share| tokio::spawn(stream.strike_all(share.to_vec())));
    let (mut met, mut longest) = (0, Duration::ZERO);
    for struck in worlds.collect::<Vec<_>>() {
        let (some, time) = struck.await.unwrap();
        (met, longest) = (met + some, longest.max(time));
    }
    let all = strikes.len();
    println!(
        "{}: {all} cases, {met} met, well again after {longest:.1?} at the latest, {:.0?} in all",
        stream.name,
        begun.elapsed()
    );
    assert!(met * 10 > all * 8, "most strikes met a byte: {met} of {all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_s_stream_may_break_or_lie_at_any_byte() {
    strike(Stream { name: "enclave to host service, a message", wire: |wires| &wires.host, work: Work::Message }, 5)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_s_stream_may_break_or_lie_at_any_byte() {
    strike(Stream { name: "client to proxy, attesting first", wire: |wires| &wires.relay, work: Work::Stranger }, 61)
        .await;
    strike(Stream { name: "client to proxy, a message", wire: |wires| &wires.relay, work: Work::Message }, 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_s_stream_to_the_enclave_may_break_or_lie_at_any_byte() {
    strike(
        Stream { name: "proxy to enclave, attesting first", wire: |wires| &wires.enclave, work: Work::Stranger },
        97,
    )
    .await;
    strike(Stream { name: "proxy to enclave, a message", wire: |wires| &wires.enclave, work: Work::Message }, 23).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_to_kms_may_break_or_lie_at_any_byte() {
    strike(Stream { name: "enclave to KMS, a key", wire: |wires| &wires.egress, work: Work::Key }, 61).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_is_given_up_in_time_and_the_next_one_serves() {
    let streams = [
        Stream { name: "enclave to host service, a message, stalled", wire: |wires| &wires.host, work: Work::Message },
        Stream { name: "client to proxy, a message, stalled", wire: |wires| &wires.relay, work: Work::Message },
        Stream { name: "proxy to enclave, attesting first, stalled", wire: |w| &w.enclave, work: Work::Stranger },
        Stream { name: "enclave to KMS, a key, stalled", wire: |wires| &wires.egress, work: Work::Key },
    ];
    for stalled in streams.map(|stream| tokio::spawn(stall(stream))) {
        stalled.await.unwrap();
    }
}

/// Boots while a byte is struck, and once more where that failed; gives whether the strike was met.
async fn boots(world: &mut World, image: &MockImage, strike: Option<Strike>) -> bool {
    let mut may_fail = strike.is_some_and(|strike| !matches!(strike.fault, Fault::Delayed(_)));
    world.wires().host.arm(strike);
    let (all, mut met) = (Instant::now(), None);
    loop {
        let begun = Instant::now();
        let booted = tokio::time::timeout(PATIENCE, world.launch(image)).await;
        if strike.is_some() {
            met.get_or_insert(world.wires().host.has_struck());
            world.wires().host.arm(None);
        }
        match booted.unwrap_or_else(|_| panic!("{strike:?}: it hangs")) {
            Ok(()) => return met == Some(true),
            Err(Fatal::Boot(_)) if may_fail || begun.elapsed() > PROMPT && all.elapsed() < PATIENCE => may_fail = false,
            Err(other) => panic!("{strike:?}: {other}"),
        }
    }
}

/// Boots over a stream that is struck; gives how many strikes were met.
async fn boot_all(strikes: Vec<Strike>) -> usize {
    let mut met = 0;
    for part in strikes.chunks(20) {
        let mut world = world().await;
        let image = world.image().clone();
        for (number, strike) in part.iter().enumerate() {
            world.kill_enclave().await;
            met += usize::from(boots(&mut world, &image, Some(*strike)).await);
            if number % 5 == 0 {
                world.check().intact();
            }
        }
        recovered("after boots", &world, &world.operator()).await;
        world.check().intact();
    }
    met
}

/// `BOOT_STRIDE` has another number of bytes of which one is struck.
#[tokio::test(flavor = "multi_thread")]
async fn a_boot_may_be_interrupted_or_lied_to_at_any_byte() {
    let stride = std::env::var("BOOT_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(307);
    let begun = Instant::now();
    let mut first = world().await;
    first.kill_enclave().await;
    let image = first.image().clone();
    boots(&mut first, &image, None).await;
    let mut strikes = Vec::new();
    for direction in [Forth, Back] {
        let length = first.wires().host.carried(direction);
        println!("a boot, enclave to host service: {length} bytes {direction:?}");
        for (number, offset) in (0..length).step_by(stride).enumerate() {
            let delayed = Fault::Delayed(Duration::from_millis(5));
            let fault = [Fault::Garbled, Fault::Cut, Fault::Garbled, Fault::Cut, delayed][number % 5];
            strikes.push(Strike { direction, offset, fault });
        }
        strikes.extend(stalls(direction, length));
    }
    let worlds = (0..WORLDS).map(|world| {
        let share: Vec<_> = strikes.iter().skip(world).step_by(WORLDS).copied().collect();
        tokio::spawn(boot_all(share))
    });
    let mut met = 0;
    for struck in worlds.collect::<Vec<_>>() {
        met += struck.await.unwrap();
    }
    println!("a boot: {} cases, {met} met, {:.0?} in all", strikes.len(), begun.elapsed());
    assert!(met * 10 > strikes.len() * 8, "{met} of {}", strikes.len());
}
