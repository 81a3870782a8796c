use std::{io, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, timeout_at},
};
use transcode_confidential::protocol::frame::{BadFrame, FRAME_HEAD, FrameHead, WRITE_LIMIT};

/// Room made for one read, and all that is ever kept beyond what has arrived.
const READ_CHUNK: usize = 32 * 1024;

/// Why no frame came or went. The connection is of no further use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// What came is no frame, or not the one that was sent; or a frame beyond the limit.
    #[error(transparent)]
    Bad(#[from] BadFrame),
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame")]
    Truncated,
    /// A frame was not complete in time.
    #[error("a frame was not complete in time")]
    TimedOut,
}

/// Reads frames. Its buffer grows with what arrives, never with what a frame's head announces.
#[derive(Debug)]
pub struct FrameReader<R> {
    source: R,
    buffer: BytesMut,
    patience: Duration,
    deadline: Option<Instant>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A frame must be complete within `patience` from its first byte on. Before that byte there is no deadline.
    pub fn new(source: R, patience: Duration) -> Self {
        Self { source, buffer: BytesMut::new(), patience, deadline: None }
    }

    /// The payload of the next frame; `None` where the connection ended between frames. Dropping the future loses nothing:
    /// the next call goes on where this one was.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_CHUNK);
            let read = self.source.read_buf(&mut self.buffer);
            let count = match self.deadline {
                None => read.await?,
                Some(deadline) => timeout_at(deadline, read).await.map_err(|_| FrameError::TimedOut)??,
            };
            match count {
                0 if self.buffer.is_empty() => return Ok(None),
                0 => return Err(FrameError::Truncated),
                _ => self.deadline = self.deadline.or_else(|| Some(Instant::now() + self.patience)),
            }
        }
    }

    /// A frame that has arrived already.
    fn buffered(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<FRAME_HEAD>() else { return Ok(None) };
        let head = FrameHead::from_bytes(*head)?;
        let length = head.payload_length();
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(FRAME_HEAD);
        let frame = self.buffer.split_to(length).freeze();
        head.check(&frame)?;
        // Bytes of the following frame may have come along: its time runs from now on.
        self.deadline = if self.buffer.is_empty() { None } else { Some(Instant::now() + self.patience) };
        Ok(Some(frame))
    }
}

/// Writes frames, in writes of at most 32 KiB.
#[derive(Debug)]
pub struct FrameWriter<W> {
    sink: W,
    buffer: BytesMut,
    patience: Duration,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// The peer must have taken what one [`FrameWriter::flush`] writes within `patience`.
    pub fn new(sink: W, patience: Duration) -> Self {
        Self { sink, buffer: BytesMut::new(), patience }
    }

    /// Queues a frame in memory.
    ///
    /// # Errors
    /// [`FrameError::Bad`] for one beyond the limit; nothing was queued then.
    pub fn queue(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        let head = FrameHead::of(payload)?;
        self.buffer.extend_from_slice(&head.to_bytes());
        self.buffer.extend_from_slice(payload);
        Ok(())
    }

    /// Bytes that are queued and not yet written.
    pub fn queued(&self) -> usize {
        self.buffer.len()
    }

    /// Writes what is queued. Dropping the future keeps what is not yet written.
    ///
    /// # Errors
    /// [`FrameError::Io`], [`FrameError::TimedOut`].
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        let deadline = Instant::now() + self.patience;
        while !self.buffer.is_empty() {
            let chunk = self.buffer.get(..WRITE_LIMIT).unwrap_or(&self.buffer);
            let count = timeout_at(deadline, self.sink.write(chunk)).await.map_err(|_| FrameError::TimedOut)??;
            if count == 0 {
                return Err(FrameError::Io(io::ErrorKind::WriteZero.into()));
            }
            self.buffer.advance(count);
        }
        timeout_at(deadline, self.sink.flush()).await.map_err(|_| FrameError::TimedOut)??;
        Ok(())
    }

    /// Queues a frame and writes it.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        self.queue(payload)?;
        self.flush().await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;
    use transcode_confidential::protocol::frame::FRAME_LIMIT;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn frames_of_every_size_come_back_in_order() {
        let (near, far) = duplex(1000);
        let sizes = [0, 1, 3, 1000, 32 * 1024, 32 * 1024 + 1, FRAME_LIMIT];
        let writing = tokio::spawn(async move {
            let mut writer = FrameWriter::new(near, PATIENCE);
            for size in sizes {
                writer.send(&vec![7; size]).await.unwrap();
            }
        });
        let mut reader = FrameReader::new(far, PATIENCE);
        for size in sizes {
            assert_eq!(reader.next().await.unwrap().unwrap(), vec![7; size]);
        }
        assert!(reader.next().await.unwrap().is_none());
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_frame_beyond_the_limit_is_not_sent() {
        let (near, _far) = duplex(64);
        let mut writer = FrameWriter::new(near, PATIENCE);
        assert!(writer.queue(&vec![0; FRAME_LIMIT + 1]).is_err());
        assert_eq!(writer.queued(), 0);
    }

    #[tokio::test]
    async fn a_frame_that_was_garbled_is_refused_and_a_garbled_head_at_once() {
        let mut frame = FrameHead::of(b"abcd").unwrap().to_bytes().to_vec();
        frame[3] ^= 64;
        let (mut near, far) = duplex(64);
        near.write_all(&frame).await.unwrap();
        let garbled = FrameReader::new(far, PATIENCE).next().await;
        assert!(matches!(garbled, Err(FrameError::Bad(BadFrame::Garbled))), "{garbled:?}");
        frame[3] ^= 64;
        let garbled = FrameReader::new(&[&frame[..], b"abcD"].concat()[..], PATIENCE).next().await;
        assert!(matches!(garbled, Err(FrameError::Bad(BadFrame::Garbled))), "{garbled:?}");
    }

    #[tokio::test]
    async fn memory_follows_what_arrives_and_not_what_is_announced() {
        let (mut near, far) = duplex(64);
        let mut reader = FrameReader::new(far, PATIENCE);
        let announced = FrameHead::of(&vec![0; FRAME_LIMIT]).unwrap();
        near.write_all(&announced.to_bytes()).await.unwrap();
        near.write_all(b"a little").await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), reader.next()).await.is_err());
        assert!(reader.buffer.capacity() <= 2 * READ_CHUNK, "{}", reader.buffer.capacity());
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_dawdles_times_out_but_silence_between_frames_does_not() {
        let (mut near, far) = duplex(64);
        let mut reader = FrameReader::new(far, PATIENCE);
        assert!(tokio::time::timeout(PATIENCE * 100, reader.next()).await.is_err(), "silence is no error");
        near.write_all(&[0, 0]).await.unwrap();
        // The deadline survives a future that was dropped.
        assert!(tokio::time::timeout(PATIENCE / 2, reader.next()).await.is_err());
        let started = Instant::now();
        assert!(matches!(reader.next().await, Err(FrameError::TimedOut)));
        assert!(started.elapsed() <= PATIENCE * 6 / 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (near, _far) = duplex(10);
        let mut writer = FrameWriter::new(near, PATIENCE);
        assert!(matches!(writer.send(&[0; 100]).await, Err(FrameError::TimedOut)));
    }

    #[tokio::test]
    async fn the_end_of_the_stream_inside_a_frame_is_an_error() {
        let head = FrameHead::of(b"abcd").unwrap().to_bytes();
        for end in 1..FRAME_HEAD + 4 {
            let (mut near, far) = duplex(64);
            near.write_all(&[&head[..], b"abcd"].concat()[..end]).await.unwrap();
            drop(near);
            assert!(matches!(FrameReader::new(far, PATIENCE).next().await, Err(FrameError::Truncated)), "{end}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_never_give_more_than_came(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let mut reader = FrameReader::new(&bytes[..], PATIENCE);
                let mut total = 0;
                while let Ok(Some(frame)) = reader.next().await {
                    total += frame.len() + FRAME_HEAD;
                }
                assert!(total <= bytes.len());
            });
        }
    }
}
