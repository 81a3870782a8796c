//! Time that stands still until somebody lets it pass.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    ops::{Add, Sub},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use transcode_confidential::time::{Clock, Timestamp};

use crate::clock::Boottime;

thread_local! {
    static WHEEL: RefCell<Wheel> = RefCell::default();
}

#[derive(Default)]
struct Wheel {
    now: Duration,
    next: u64,
    sleeping: BTreeMap<(Duration, u64), Waker>,
}

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    /// The moment that it is.
    pub fn now() -> Self {
        Self(WHEEL.with_borrow(|wheel| wheel.now))
    }

    /// Time since then.
    pub fn elapsed(&self) -> Duration {
        Self::now().duration_since(*self)
    }

    /// Time between two moments; zero where they are the other way round.
    pub const fn duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0 + by)
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

/// Ends at a moment.
#[derive(Debug)]
pub struct Sleep {
    until: Duration,
    place: Option<u64>,
}

/// As tokio's.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now() + duration)
}

/// As tokio's.
pub const fn sleep_until(until: Instant) -> Sleep {
    Sleep { until: until.0, place: None }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        WHEEL.with_borrow_mut(|wheel| {
            if wheel.now >= self.until {
                return Poll::Ready(());
            }
            let place = *self.place.get_or_insert_with(|| {
                wheel.next += 1;
                wheel.next
            });
            wheel.sleeping.insert((self.until, place), cx.waker().clone());
            Poll::Pending
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // At the very end of a thread there is no wheel any more.
            let _ = WHEEL.try_with(|wheel| wheel.borrow_mut().sleeping.remove(&(self.until, place)));
        }
    }
}

/// It took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline has elapsed")
    }
}

impl std::error::Error for Elapsed {}

/// As tokio's.
///
/// # Errors
/// [`Elapsed`].
pub async fn timeout<F: IntoFuture>(within: Duration, work: F) -> Result<F::Output, Elapsed> {
    timeout_at(Instant::now() + within, work).await
}

/// As tokio's.
///
/// # Errors
/// [`Elapsed`].
pub async fn timeout_at<F: IntoFuture>(deadline: Instant, work: F) -> Result<F::Output, Elapsed> {
    let mut work = pin!(work.into_future());
    let mut end = pin!(sleep_until(deadline));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

/// Lets so much time pass.
pub fn pass(duration: Duration) {
    let due = WHEEL.with_borrow_mut(|wheel| {
        wheel.now += duration;
        let later = wheel.sleeping.split_off(&(wheel.now, u64::MAX));
        std::mem::replace(&mut wheel.sleeping, later)
    });
    due.into_values().for_each(Waker::wake);
}

/// Lets time pass up to the first moment that somebody waits for. `false` where nobody does.
pub fn pass_to_next() -> bool {
    let wait = WHEEL.with_borrow(|wheel| wheel.sleeping.keys().next().map(|(until, _)| *until - wheel.now));
    wait.map(pass).is_some()
}

/// Time begins anew.
pub(crate) fn begin() {
    let old = WHEEL.with_borrow_mut(std::mem::take);
    drop(old);
}

/// This time, for the enclave's clock and the mock hypervisor's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Played;

/// When time begins.
const EPOCH: Timestamp = Timestamp::from_secs(1_780_000_000);

impl Boottime for Played {
    fn boottime(&self) -> Duration {
        Instant::now().0
    }
}

impl Clock for Played {
    fn now(&self) -> Timestamp {
        EPOCH.plus(Instant::now().0)
    }
}
