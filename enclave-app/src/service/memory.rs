//! What requests keep in memory, all together: whole bodies while they come in, and streams of content.
//!
//! The number of connections bounds what each of them holds by itself; what a request may make of it, a message with frames of
//! 16 MiB or a slow body of 256 KiB, is bounded here, over all connections.

use std::{
    error::Error,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::Request,
};
use http_body_util::LengthLimitError;
use hyper::body::{Frame, SizeHint};
use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use transcode_confidential::{message::FrameLength, protocol::api::ErrorCode};

use super::Failure;

/// For bodies that are taken in whole, in bytes.
pub const BODY_MEMORY: usize = 32 << 20;
/// For streams of content, in bytes: some 340 of messages as our clients write them, seven with the largest frames.
pub const STREAM_MEMORY: usize = 128 << 20;
/// What a stream holds besides its frames: pieces on their way in and out.
const PIECES: usize = 256 << 10;
/// How long a stream waits for memory.
const WAIT: Duration = Duration::from_secs(5);
/// How long a whole body may take to come in.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Bytes of one permit.
const UNIT: usize = 1024;

/// The memory that there is.
pub struct RequestMemory {
    bodies: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// What the caller of a request is told whose body did not come in.
pub(super) fn refusal(error: &axum::Error, limit: usize) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<BodyRefused>() {
            return Failure::new(ErrorCode::RateLimited, refused.to_string());
        }
        if error.is::<LengthLimitError>() {
            return Failure::new(ErrorCode::TooLarge, format!("send at most {limit} bytes"));
        }
        cause = error.source();
    }
    Failure::malformed("the body ended early")
}

/// Memory that is taken; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
}

/// Why a body did not come in.
#[derive(Debug, Error)]
pub(super) enum BodyRefused {
    #[error("too many requests are being taken in")]
    NoRoom,
    #[error("the body takes too long")]
    Slow,
}

/// What the body of one request holds, until the request is answered.
#[derive(Clone, Default)]
pub(super) struct Held(Arc<Mutex<Holding>>);

#[derive(Default)]
struct Holding {
    permits: Option<OwnedSemaphorePermit>,
    answered: bool,
}

impl Default for RequestMemory {
    fn default() -> Self {
        let room = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT));
        Self { bodies: room(BODY_MEMORY), streams: room(STREAM_MEMORY) }
    }
}

impl RequestMemory {
    /// Memory for a stream that keeps so many frames of that length.
    ///
    /// # Errors
    /// `RATE_LIMITED` where there is none for too long.
    pub(super) async fn for_frames(&self, count: usize, length: FrameLength) -> Result<Room, Failure> {
        let units = u32::try_from((PIECES + count * length.as_usize()).div_ceil(UNIT)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.streams).acquire_many_owned(units);
        let busy = || Failure::new(ErrorCode::RateLimited, "too much content is being worked on at the same time");
        match tokio::time::timeout(WAIT, room).await {
            Ok(Ok(permit)) => Ok(Room { _permit: permit }),
            _ => Err(busy()),
        }
    }

    /// The request, whose body counts from now on, until [`Held::answered`].
    pub(super) fn hold<B>(&self, request: Request<B>) -> (Request<Body>, Held)
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let held = Held::default();
        let (bodies, holding) = (Arc::clone(&self.bodies), held.clone());
        let request = request.map(|body| {
            Body::new(HeldBody { body: Box::pin(body), bodies, held: holding, time: Box::pin(sleep(BODY_TIME)) })
        });
        (request, held)
    }
}

impl Held {
    /// The request is answered: what was taken in is given up, and what still comes in streams through.
    pub(super) fn answered(&self) {
        let mut holding = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        holding.answered = true;
        holding.permits = None;
    }

    fn is_answered(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).answered
    }

    fn take(&self, bodies: &Arc<Semaphore>, length: usize) -> Result<(), BodyRefused> {
        let mut holding = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if holding.answered {
            return Ok(());
        }
        let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let more = Arc::clone(bodies).try_acquire_many_owned(units).map_err(|_| BodyRefused::NoRoom)?;
        match &mut holding.permits {
            Some(permits) => permits.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// A body whose bytes count.
struct HeldBody<B> {
    body: Pin<Box<B>>,
    bodies: Arc<Semaphore>,
    held: Held,
    time: Pin<Box<Sleep>>,
}

impl<B> HttpBody for HeldBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>>> {
        let this = self.get_mut();
        match this.body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                let taken = this.held.take(&this.bodies, length).map_err(Into::into);
                Poll::Ready(Some(taken.map(|()| frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if !this.held.is_answered() && this.time.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Some(Err(BodyRefused::Slow.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    fn request(length: usize) -> Request<Body> {
        Request::new(Body::from(vec![0; length]))
    }

    #[tokio::test]
    async fn bodies_hold_memory_until_their_request_is_answered_and_no_more_than_there_is() {
        let memory = RequestMemory::default();
        let mut under_way = Vec::new();
        for _ in 0..BODY_MEMORY / (1 << 20) {
            let (request, held) = memory.hold(request(1 << 20));
            to_bytes(request.into_body(), 1 << 20).await.unwrap();
            under_way.push(held);
        }
        let (one_more, _held) = memory.hold(request(1));
        let error = to_bytes(one_more.into_body(), 1).await.unwrap_err();
        assert!(error.to_string().contains("too many requests"), "{error}");
        under_way.pop().unwrap().answered();
        let (another, held) = memory.hold(request(1 << 20));
        to_bytes(another.into_body(), 1 << 20).await.unwrap();
        held.answered();
        // What streams on after the answer holds nothing.
        let (streaming, held) = memory.hold(request(1 << 25));
        held.answered();
        assert_eq!(to_bytes(streaming.into_body(), 1 << 25).await.unwrap().len(), 1 << 25);
        drop(under_way);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_takes_too_long_is_given_up() {
        let memory = RequestMemory::default();
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let (request, _held) = memory.hold(Request::new(Body::from_stream(never)));
        let error = to_bytes(request.into_body(), 10).await.unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn streams_wait_for_memory_and_are_refused_where_none_comes_free() {
        let memory = RequestMemory::default();
        let mut large = Vec::new();
        for _ in 0..STREAM_MEMORY / ((16 << 20) + PIECES) {
            large.push(memory.for_frames(1, FrameLength::MAX).await.unwrap());
        }
        let refused = memory.for_frames(1, FrameLength::MAX).await.unwrap_err();
        assert_eq!(refused.into_parts().0, ErrorCode::RateLimited);
        drop(large.pop());
        memory.for_frames(1, FrameLength::MAX).await.unwrap();
    }
}
