use std::{
    fmt, io,
    io::IoSlice,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_vsock::VsockStream;
use transcode_confidential::protocol::frame::WRITE_LIMIT;

/// A connection to or from an [`crate::Endpoint`].
///
/// On vsock, real or hybrid, no write hands more than 32 KiB to the system, whatever the caller gives. `shutdown` closes
/// the writing half only; see [`Stream::half_close`] for what some peers make of it.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    peer: Peer,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Hybrid(UnixStream),
    Vsock(VsockStream),
}

/// What becomes of the other direction when one is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfClose {
    /// It goes on.
    Kept,
    /// It may be cut off: monitors that offer hybrid vsock close both.
    Lost,
}

/// Who is at the other end, as far as the system says. For limits and logs; it authenticates nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A vsock context.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// A process on this machine.
    Unix,
    /// A TCP address.
    Tcp(SocketAddr),
    /// The system does not say: the connection is gone already.
    Unknown,
}

impl Stream {
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        // Small requests and replies dominate; where it fails, they are only slower.
        let _ = stream.set_nodelay(true);
        let peer = stream.peer_addr().map_or(Peer::Unknown, Peer::Tcp);
        Self { socket: Socket::Tcp(stream), peer }
    }

    pub(crate) const fn unix(stream: UnixStream) -> Self {
        Self { socket: Socket::Unix(stream), peer: Peer::Unix }
    }

    pub(crate) const fn hybrid(stream: UnixStream) -> Self {
        Self { socket: Socket::Hybrid(stream), peer: Peer::Unix }
    }

    pub(crate) fn vsock(stream: VsockStream) -> Self {
        let peer = stream.peer_addr().map_or(Peer::Unknown, |addr| Peer::Vsock { cid: addr.cid(), port: addr.port() });
        Self { socket: Socket::Vsock(stream), peer }
    }

    /// Two connected streams, for tests and in-process use.
    ///
    /// # Errors
    /// Those of the system.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (left, right) = UnixStream::pair()?;
        Ok((Self::unix(left), Self::unix(right)))
    }

    /// The other end.
    pub const fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether `shutdown` leaves the reading half alive.
    pub const fn half_close(&self) -> HalfClose {
        match self.socket {
            Socket::Hybrid(_) => HalfClose::Lost,
            Socket::Tcp(_) | Socket::Unix(_) | Socket::Vsock(_) => HalfClose::Kept,
        }
    }

    /// Greatest number of bytes that one write hands to the system.
    pub const fn write_limit(&self) -> usize {
        match self.socket {
            Socket::Tcp(_) | Socket::Unix(_) => usize::MAX,
            Socket::Hybrid(_) | Socket::Vsock(_) => WRITE_LIMIT,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) | Socket::Hybrid(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Vsock(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let limit = self.write_limit();
        let buf = buf.get(..limit).unwrap_or(buf);
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Unix(stream) | Socket::Hybrid(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Vsock(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            // One buffer at a time, so that the limit of a write holds.
            Socket::Hybrid(_) | Socket::Vsock(_) => {
                let buf = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
                self.poll_write(cx, buf)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self.socket, Socket::Tcp(_) | Socket::Unix(_))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Unix(stream) | Socket::Hybrid(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Vsock(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) | Socket::Hybrid(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Vsock(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Unix => f.write_str("unix"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn one_write_on_vsock_is_bounded_and_one_elsewhere_is_not() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut hybrid = Stream::hybrid(near);
        assert_eq!(hybrid.write(&[0; 100_000]).await.unwrap(), WRITE_LIMIT);
        let parts = [IoSlice::new(&[]), IoSlice::new(&[1; 50_000]), IoSlice::new(&[2; 50_000])];
        assert_eq!(hybrid.write_vectored(&parts).await.unwrap(), WRITE_LIMIT);
        assert_eq!(hybrid.half_close(), HalfClose::Lost);
        let (mut near, _far) = Stream::pair().unwrap();
        assert_eq!(near.write(&[0; 100_000]).await.unwrap(), 100_000);
    }
}
