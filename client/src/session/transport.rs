use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::transport::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

/// A TLS stream that lets the peer have the last word.
///
/// A server may answer and close before it has taken everything: it refuses a request whose content is still on its way, or,
/// after a handshake of TLS 1.3, the client's certificate, by an alert. Who writes next hears of a broken pipe, while the
/// answer waits to be read. So a write that finds the other end closed is let go, and reading goes on to the answer, the
/// alert or the end. No reply is taken for more than it is: an enclave ends one only after it has read the whole request.
#[derive(Debug)]
pub(super) struct TlsTransport {
    tls: TlsStream<Stream>,
    closed_by_peer: bool,
}

impl TlsTransport {
    pub(super) const fn new(tls: TlsStream<Stream>) -> Self {
        Self { tls, closed_by_peer: false }
    }

    /// Writes, or lets go what cannot be written any more; `let_go` is what writing it would have returned.
    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TlsStream<Stream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
        let_go: T,
    ) -> Poll<io::Result<T>> {
        if self.closed_by_peer {
            return Poll::Ready(Ok(let_go));
        }
        match ready!(write(Pin::new(&mut self.tls), cx)) {
            Err(error) if is_closed_by_peer(&error) => {
                self.closed_by_peer = true;
                Poll::Ready(Ok(let_go))
            }
            result => Poll::Ready(result),
        }
    }
}

fn is_closed_by_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

impl AsyncRead for TlsTransport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsTransport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |tls, cx| tls.poll_write(cx, buf), buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        self.write(cx, |tls, cx| tls.poll_write_vectored(cx, bufs), length)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, |tls, cx| tls.poll_flush(cx), ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, |tls, cx| tls.poll_shutdown(cx), ())
    }
}
