use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::transport::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tokio_rustls::client::TlsStream;

/// A TLS stream that says why the peer closed it.
///
/// In TLS 1.3 a server refuses a client certificate after the client's handshake is over: it sends an alert and closes.
/// Who writes next hears of a broken pipe only, while the alert waits to be read. So a failed write reads it first.
pub(super) struct TlsTransport {
    tls: TlsStream<Stream>,
    failure: Option<Failure>,
}

/// A write that failed, and how long an alert may take to be read: it has arrived, but the reactor may not know yet.
struct Failure {
    error: io::Error,
    patience: Pin<Box<Sleep>>,
}

const PATIENCE: Duration = Duration::from_millis(250);

impl TlsTransport {
    pub(super) const fn new(tls: TlsStream<Stream>) -> Self {
        Self { tls, failure: None }
    }

    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TlsStream<Stream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.failure.is_none() {
            match ready!(write(Pin::new(&mut self.tls), cx)) {
                Ok(done) => return Poll::Ready(Ok(done)),
                Err(error) => self.failure = Some(Failure { error, patience: Box::pin(sleep(PATIENCE)) }),
            }
        }
        self.explain(cx).map(Err)
    }

    /// Reads on until the alert shows, or the end. Nothing else that comes is wanted any more: the request has failed.
    fn explain(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut scratch = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.tls).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(Err(alert)) if alert.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                    self.failure = None;
                    return Poll::Ready(alert);
                }
                Poll::Ready(_) => break,
                Poll::Pending => match &mut self.failure {
                    Some(failure) => {
                        ready!(failure.patience.as_mut().poll(cx));
                        break;
                    }
                    None => break,
                },
            }
        }
        let failure = self.failure.take();
        Poll::Ready(failure.map_or_else(|| io::ErrorKind::BrokenPipe.into(), |failure| failure.error))
    }
}

impl AsyncRead for TlsTransport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsTransport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |tls, cx| tls.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |tls, cx| tls.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, |tls, cx| tls.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
