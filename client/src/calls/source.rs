use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, sleep_until},
};

use crate::error::ContentError;

/// Bytes that are read from an input at a time.
const CHUNK: usize = 64 * 1024;

/// A request body that is read from an input as the connection takes it, and an [`Activity`] that tells how it goes.
pub(super) struct Source<R> {
    input: R,
    buffer: Box<[u8]>,
    activity: Activity,
}

/// How a stream of content goes: shared between the request body and whoever reads the response.
#[derive(Clone)]
pub(super) struct Activity(Arc<Mutex<Progress>>);

struct Progress {
    last: Instant,
    input: InputState,
    bytes: u64,
}

enum InputState {
    /// The connection does not want more at the moment.
    Idle,
    /// The connection wants more, and the input has none yet. That is no stall: inputs may be slow.
    Awaited,
    /// Read to its end.
    Ended,
    Failed(Option<io::Error>),
}

impl<R> Source<R> {
    pub(super) fn new(input: R) -> (Self, Activity) {
        let progress = Progress { last: Instant::now(), input: InputState::Idle, bytes: 0 };
        let activity = Activity(Arc::new(Mutex::new(progress)));
        (Self { input, buffer: vec![0; CHUNK].into_boxed_slice(), activity: activity.clone() }, activity)
    }
}

impl<R: AsyncRead + Unpin> Body for Source<R> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        this.activity.progress().input = InputState::Awaited;
        let mut buffer = ReadBuf::new(&mut this.buffer);
        let result = ready!(Pin::new(&mut this.input).poll_read(cx, &mut buffer));
        let mut progress = this.activity.progress();
        progress.last = Instant::now();
        Poll::Ready(match result {
            Ok(()) if buffer.filled().is_empty() => {
                progress.input = InputState::Ended;
                None
            }
            Ok(()) => {
                progress.input = InputState::Idle;
                progress.bytes += buffer.filled().len() as u64;
                Some(Ok(Frame::data(Bytes::copy_from_slice(buffer.filled()))))
            }
            Err(error) => {
                // The connection is aborted with this, so the enclave never sees an end of the content.
                let aborted = io::Error::from(error.kind());
                progress.input = InputState::Failed(Some(error));
                Some(Err(aborted))
            }
        })
    }
}

impl Activity {
    /// Waits for `work` as long as something moves. The time that the input takes does not count.
    pub(super) async fn unless_stalled<T>(
        &self,
        idle: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, ContentError> {
        self.progress().last = Instant::now();
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.stalled(idle) => Err(ContentError::Stalled(idle.as_secs())),
        }
    }

    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.progress().bytes
    }

    /// Whether the input was read to its end.
    pub(super) fn input_ended(&self) -> bool {
        matches!(self.progress().input, InputState::Ended)
    }

    /// Why the input failed, if it did.
    pub(super) fn input_failure(&self) -> Option<ContentError> {
        match &mut self.progress().input {
            InputState::Failed(error) => error.take().map(ContentError::Input),
            _ => None,
        }
    }

    async fn stalled(&self, idle: Duration) {
        loop {
            let until = {
                let mut progress = self.progress();
                if matches!(progress.input, InputState::Awaited) {
                    progress.last = Instant::now();
                }
                progress.last + idle
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http_body_util::BodyExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const IDLE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn an_input_that_takes_its_time_is_no_stall_but_a_connection_that_does_is() {
        let (mut writer, reader) = tokio::io::duplex(16);
        let (source, activity) = Source::new(reader);
        let mut body = Box::pin(source);
        let slow = async {
            tokio::time::sleep(4 * IDLE).await;
            writer.write_all(b"late").await.unwrap();
        };
        let (frame, ()) = activity.unless_stalled(IDLE, async { tokio::join!(body.frame(), slow) }).await.unwrap();
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "late");
        let stalled = activity.unless_stalled(IDLE, pending::<()>()).await;
        assert!(matches!(stalled, Err(ContentError::Stalled(_))));
    }

    #[tokio::test]
    async fn the_end_of_the_input_is_seen_and_counted() {
        let (source, activity) = Source::new(&b"12345"[..]);
        assert!(!activity.input_ended());
        let collected = source.collect().await.unwrap().to_bytes();
        assert_eq!((collected.len(), activity.bytes(), activity.input_ended()), (5, 5, true));
        assert!(activity.input_failure().is_none());
    }

    #[tokio::test]
    async fn a_failing_input_fails_the_body_and_says_why() {
        let (source, activity) = Source::new(Failing);
        assert!(source.collect().await.is_err());
        assert!(matches!(activity.input_failure(), Some(ContentError::Input(error)) if error.to_string() == "rotten"));
        assert!(!activity.input_ended());
    }

    struct Failing;

    impl AsyncRead for Failing {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other("rotten")))
        }
    }
}
