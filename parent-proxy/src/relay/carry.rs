use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    time::{Instant, sleep_until},
};
use transport::{HalfClose, Stream};

use super::buffer::{Buffer, BufferPool};
use crate::metrics::Counter;

/// How long a connection may do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Nothing moves in either direction.
    pub idle: Duration,
    /// The same, after one direction has ended.
    pub linger: Duration,
    /// One receiver takes nothing although bytes wait for it.
    pub stall: Duration,
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// Bytes taken by the receivers: left to right, right to left.
    pub bytes: [u64; 2],
    /// How it ended.
    pub end: End,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both directions to their last byte.
    Closed,
    /// Nothing moved for too long.
    Idle,
    /// A receiver took nothing for too long.
    Stalled,
    /// A peer is gone. What the other had said before was carried to its end, where somebody was left to take it.
    Failed(io::ErrorKind),
}

impl End {
    /// Counts an end that is not as it should be, by whose patience or connection failed.
    pub(crate) fn count(self, timed_out: &Counter, failed: &Counter) {
        match self {
            Self::Closed => {}
            Self::Idle | Self::Stalled => timed_out.increment(),
            Self::Failed(_) => failed.increment(),
        }
    }
}

/// How long the left end may stay silent after the right one has ended: it has nothing more to wait for, and holds a place.
const FAREWELL: Duration = Duration::from_secs(5);

/// Buffers that one direction moves before everybody else has had a turn: the other direction, and other connections. At a
/// gigabyte a second this is half a millisecond.
const TURN: usize = 8;

/// Carries bytes both ways until both directions have ended or a deadline has passed.
///
/// Each direction holds at most one borrowed buffer and reads only when that is empty, so a slow receiver slows its sender
/// down and nobody else; the other direction is read all the while, and a fast connection takes turns with the others. A
/// half-close is passed on, except to a peer that would cut the other direction off: that one is closed when both have ended.
pub async fn carry(
    left: &mut Stream,
    right: &mut Stream,
    buffers: &BufferPool,
    patience: Patience,
    counters: [&Counter; 2],
) -> Carried {
    let start = Instant::now();
    let [to_right, to_left] = counters;
    let mut forth = Direction::new(start, to_right);
    let mut back = Direction::new(start, to_left);
    let mut timer = pin!(sleep_until(start + patience.idle.min(patience.stall)));
    let end = poll_fn(|cx| {
        let open = forth.is_open() && back.is_open();
        let done = forth.poll(cx, left, right, buffers).is_ready() & back.poll(cx, right, left, buffers).is_ready();
        // A stream that cannot be read takes nothing either. One that takes nothing may still have something to say.
        if done || forth.state == State::Broken || back.state == State::Broken {
            return Poll::Ready(match forth.failure.or(back.failure) {
                None => End::Closed,
                Some(kind) => End::Failed(kind),
            });
        }
        if open && !(forth.is_open() && back.is_open()) {
            // From now on the shorter patience counts.
            timer.as_mut().reset(Instant::now());
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            match next_deadline([&forth, &back], patience) {
                Ok(deadline) => timer.as_mut().reset(deadline),
                Err(end) => return Poll::Ready(end),
            }
        }
    })
    .await;
    Carried { bytes: [forth.moved, back.moved], end }
}

/// When to look again, or the deadline that has passed.
fn next_deadline(directions: [&Direction<'_>; 2], patience: Patience) -> Result<Instant, End> {
    let now = Instant::now();
    let [forth, back] = directions;
    let quiet = match (forth.is_open(), back.is_open()) {
        (true, true) => patience.idle,
        (false, true) => patience.linger,
        // Whoever asked has been told the last that there is.
        (_, false) => patience.linger.min(FAREWELL),
    };
    let idle = forth.touched.max(back.touched) + quiet;
    if idle <= now {
        return Err(End::Idle);
    }
    let stalled = directions.into_iter().filter(|direction| direction.waiting.is_some());
    match stalled.map(|direction| direction.touched + patience.stall).min() {
        Some(stall) if stall <= now => Err(End::Stalled),
        Some(stall) => Ok(idle.min(stall)),
        // A receiver may stall from now on at the earliest.
        None => Ok(idle.min(now + patience.stall)),
    }
}

/// One direction of a connection.
struct Direction<'p> {
    state: State,
    /// Bytes that were read and not yet written.
    waiting: Option<Waiting<'p>>,
    moved: u64,
    counter: &'p Counter,
    /// When bytes last moved here.
    touched: Instant,
    failure: Option<io::ErrorKind>,
}

struct Waiting<'p> {
    buffer: Buffer<'p>,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The sender has ended; the receiver is being told.
    Ending,
    /// The receiver takes nothing more. The sender is read to its end: closing on unread bytes would reset the connection,
    /// and with it could go what the receiver had said before.
    Discarding,
    Ended,
    /// The sender cannot be read.
    Broken,
}

impl<'p> Direction<'p> {
    const fn new(now: Instant, counter: &'p Counter) -> Self {
        Self { state: State::Open, waiting: None, moved: 0, counter, touched: now, failure: None }
    }

    fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Moves what can be moved; ready when this direction has ended.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream, buffers: &'p BufferPool) -> Poll<()> {
        for _ in 0..TURN {
            match self.state {
                State::Ended | State::Broken => return Poll::Ready(()),
                State::Ending => {
                    ready!(self.poll_end(cx, to));
                    self.state = State::Ended;
                }
                State::Open | State::Discarding => {
                    ready!(self.poll_deliver(cx, to));
                    ready!(self.poll_fetch(cx, from, buffers));
                }
            }
        }
        // There is more to do, after the others.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what waits.
    fn poll_deliver(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<()> {
        while let Some(waiting) = &mut self.waiting {
            let Some(bytes) = waiting.buffer.get(waiting.start..waiting.end).filter(|bytes| !bytes.is_empty()) else {
                self.waiting = None;
                break;
            };
            match ready!(Pin::new(&mut *to).poll_write(cx, bytes)) {
                Ok(count) if count > 0 => {
                    waiting.start += count;
                    self.touched = Instant::now();
                    self.moved += count as u64;
                    self.counter.add(count as u64);
                }
                failed => {
                    self.failure = Some(failed.map_or_else(|error| error.kind(), |_| io::ErrorKind::WriteZero));
                    self.state = State::Discarding;
                    self.waiting = None;
                }
            }
        }
        Poll::Ready(())
    }

    /// Reads into a fresh buffer.
    fn poll_fetch(&mut self, cx: &mut Context<'_>, from: &mut Stream, buffers: &'p BufferPool) -> Poll<()> {
        let mut buffer = buffers.take();
        let mut room = ReadBuf::new(&mut buffer);
        let result = ready!(Pin::new(from).poll_read(cx, &mut room));
        let end = room.filled().len();
        match (result, self.state) {
            (Err(error), _) => {
                self.failure = self.failure.or_else(|| Some(error.kind()));
                self.state = State::Broken;
            }
            (Ok(()), State::Discarding) if end == 0 => self.state = State::Ended,
            (Ok(()), State::Discarding) => {}
            (Ok(()), _) if end == 0 => self.state = State::Ending,
            (Ok(()), _) => {
                self.touched = Instant::now();
                self.waiting = Some(Waiting { buffer, start: 0, end });
            }
        }
        Poll::Ready(())
    }

    /// Tells the receiver that nothing more comes.
    fn poll_end(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<()> {
        self.touched = Instant::now();
        if to.half_close() == HalfClose::Kept {
            match ready!(Pin::new(to).poll_shutdown(cx)) {
                // The receiver is gone already: there is nobody left to tell.
                Err(error) if error.kind() != io::ErrorKind::NotConnected => self.failure = Some(error.kind()),
                _ => {}
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENT: Patience =
        Patience { idle: Duration::from_secs(60), linger: Duration::from_secs(60), stall: Duration::from_secs(60) };

    /// A client's and a server's end, with the relay between them.
    fn relayed(patience: Patience) -> (Stream, Stream, tokio::task::JoinHandle<Carried>) {
        let (client, mut left) = Stream::pair().unwrap();
        let (mut right, server) = Stream::pair().unwrap();
        let task = tokio::spawn(async move {
            let (pool, counters) = (BufferPool::default(), [Counter::default(), Counter::default()]);
            carry(&mut left, &mut right, &pool, patience, [&counters[0], &counters[1]]).await
        });
        (client, server, task)
    }

    #[tokio::test]
    async fn a_half_close_is_passed_on_and_the_answer_still_comes() {
        let (mut client, mut server, task) = relayed(PATIENT);
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        server.write_all(b"the answer").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!((question.as_slice(), answer.as_slice()), (&b"question"[..], &b"the answer"[..]));
        assert_eq!(task.await.unwrap(), Carried { bytes: [8, 10], end: End::Closed });
    }

    #[tokio::test]
    async fn both_directions_at_once_lose_no_byte() {
        const LENGTH: usize = 3_000_001;
        let (client, server, task) = relayed(PATIENT);
        let push = |stream: Stream, seed: u8| async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let sent: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8 ^ seed).collect();
            let writing = async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let (_, _) = tokio::join!(writing, reader.read_to_end(&mut received));
            (sent, received)
        };
        let ((sent, got_back), (answered, got)) = tokio::join!(push(client, 0), push(server, 77));
        assert!(sent == got && answered == got_back);
        assert_eq!(task.await.unwrap(), Carried { bytes: [LENGTH as u64; 2], end: End::Closed });
    }

    #[tokio::test]
    async fn what_a_server_said_before_it_closed_arrives_although_the_client_still_sends() {
        let (mut client, mut server, task) = relayed(PATIENT);
        client.write_all(&[1; 1000]).await.unwrap();
        server.read_exact(&mut [0; 1000]).await.unwrap();
        server.write_all(b"stop").await.unwrap();
        drop(server);
        // Nobody takes it any more.
        client.write_all(&[1; 1_000_000]).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"stop");
        drop(client);
        assert_eq!(task.await.unwrap(), Carried { bytes: [1000, 4], end: End::Failed(io::ErrorKind::BrokenPipe) });
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_and_a_byte_in_time_does_not() {
        let patience = Patience { idle: Duration::from_secs(10), ..PATIENT };
        let (mut client, mut server, task) = relayed(patience);
        let start = Instant::now();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            client.write_all(b"x").await.unwrap();
            server.read_u8().await.unwrap();
        }
        assert_eq!(task.await.unwrap().end, End::Idle);
        let took = start.elapsed();
        assert!((55..56).contains(&took.as_secs()), "{took:?}");
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_half_close_the_shorter_patience_counts() {
        let patience = Patience { linger: Duration::from_secs(5), ..PATIENT };
        let (mut client, _server, task) = relayed(patience);
        let start = Instant::now();
        client.shutdown().await.unwrap();
        assert_eq!(task.await.unwrap().end, End::Idle);
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_takes_nothing_is_given_up_although_the_other_direction_is_busy() {
        let patience = Patience { stall: Duration::from_secs(7), ..PATIENT };
        let (client, server, task) = relayed(patience);
        let (_from_client, mut to_client) = tokio::io::split(server);
        let (mut from_server, mut to_server) = tokio::io::split(client);
        let start = Instant::now();
        let flood = async { while to_server.write_all(&[0; 65536]).await.is_ok() {} };
        let tick = async {
            while to_client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let mut ticks = Vec::new();
        let (_, _, _) = tokio::join!(flood, tick, from_server.read_to_end(&mut ticks));
        assert_eq!(task.await.unwrap().end, End::Stalled);
        assert!((7..9).contains(&ticks.len()), "{}", ticks.len());
        assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn an_idle_connection_holds_no_buffer() {
        let (client, mut left) = Stream::pair().unwrap();
        let (mut right, mut server) = Stream::pair().unwrap();
        let (pool, counter) = (BufferPool::default(), Counter::default());
        let mut client = client;
        let carrying = carry(&mut left, &mut right, &pool, PATIENT, [&counter, &counter]);
        let using = async {
            client.write_all(&[1; 200_000]).await.unwrap();
        };
        let taking = async {
            server.read_exact(&mut vec![0; 200_000]).await.unwrap();
            tokio::task::yield_now().await;
        };
        let ((), ()) = tokio::select! {
            both = async { tokio::join!(using, taking) } => both,
            carried = carrying => panic!("ended: {carried:?}"),
        };
        assert_eq!(pool.lent(), 0);
    }
}
