//! Byte streams to hosts.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::{Connected, Connection};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use transport::Endpoint;

/// Why no byte stream to a host could be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DialError {
    /// The parent's egress did not answer, or broke off.
    #[error("the parent's egress cannot be reached")]
    Egress(#[source] io::Error),
    /// The parent's allow-list does not have the host.
    #[error("the parent's egress refuses {0}: it is not on its allow-list")]
    Refused(String),
    /// The parent could not connect to the host.
    #[error("the parent's egress cannot connect to {0}")]
    Unreachable(String),
    /// The parent answered with something that the protocol does not have.
    #[error("the parent's egress answered {0:#04x}")]
    Protocol(u8),
    /// No connection within the time allowed.
    #[error("no connection within the time allowed")]
    TimedOut,
}

/// Opens byte streams to hosts. Nothing that arrives through one is believed: TLS runs inside.
pub trait Dial: Send + Sync {
    /// A stream to `port` of `host`.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Result<ByteStream, DialError>>;
}

trait Bytes: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Bytes for S {}

/// A bidirectional stream of bytes of whatever kind.
pub struct ByteStream(Pin<Box<dyn Bytes>>);

impl ByteStream {
    /// Wraps a stream.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

/// Goes through the parent's egress.
#[derive(Debug, Clone)]
pub struct EgressDialer {
    endpoint: Endpoint,
    timeout: Duration,
}

impl EgressDialer {
    /// Over streams to the egress at `endpoint`, each of which must be there within `timeout`.
    pub const fn new(endpoint: Endpoint, timeout: Duration) -> Self {
        Self { endpoint, timeout }
    }
}

impl Dial for EgressDialer {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Result<ByteStream, DialError>> {
        Box::pin(async move {
            let connecting = self.endpoint.connect(self.timeout);
            let mut stream = connecting.await.map_err(|error| DialError::Egress(io::Error::other(error)))?;
            request_egress(&mut stream, host, port).await?;
            Ok(ByteStream::new(stream))
        })
    }
}

/// Asks the parent's egress, over a fresh stream to it, to connect to `port` of `host`: a 16-bit big-endian length and
/// `host:port` in UTF-8; the answer is one byte. After [`EGRESS_CONNECTED`] the stream is the host's.
///
/// # Errors
/// [`DialError`]; the stream is of no use then.
pub async fn request_egress<S>(stream: &mut S, host: &str, port: u16) -> Result<(), DialError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let target = format!("{host}:{port}");
    let length = u16::try_from(target.len()).map_err(|_| DialError::Refused("an overlong name".to_owned()))?;
    let mut request = length.to_be_bytes().to_vec();
    request.extend_from_slice(target.as_bytes());
    stream.write_all(&request).await.map_err(DialError::Egress)?;
    stream.flush().await.map_err(DialError::Egress)?;
    match stream.read_u8().await.map_err(DialError::Egress)? {
        EGRESS_CONNECTED => Ok(()),
        EGRESS_REFUSED => Err(DialError::Refused(target)),
        EGRESS_UNREACHABLE => Err(DialError::Unreachable(target)),
        other => Err(DialError::Protocol(other)),
    }
}

/// The egress connected; what follows are the host's bytes.
pub const EGRESS_CONNECTED: u8 = 0;
/// The host is not on the egress's allow-list.
pub const EGRESS_REFUSED: u8 = 1;
/// The host cannot be reached.
pub const EGRESS_UNREACHABLE: u8 = 2;

impl AsyncRead for ByteStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // vsock: a larger single write can stall.
        let (first, _) = buf.split_at(buf.len().min(MAX_WRITE));
        self.0.as_mut().poll_write(cx, first)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}

const MAX_WRITE: usize = 32 * 1024;

/// To the HTTP client a stream is just a stream: no proxy, HTTP/1.1.
impl Connection for ByteStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(answer: &'static [u8]) -> (Result<(), DialError>, Vec<u8>) {
        let (mut enclave, mut parent) = tokio::io::duplex(1024);
        let parent = tokio::spawn(async move {
            let length = parent.read_u16().await.unwrap();
            let mut target = vec![0; usize::from(length)];
            parent.read_exact(&mut target).await.unwrap();
            parent.write_all(answer).await.unwrap();
            target
        });
        let result = request_egress(&mut enclave, "kms.eu-west-1.amazonaws.com", 443).await;
        (result, parent.await.unwrap())
    }

    #[tokio::test]
    async fn the_egress_is_told_host_and_port_and_says_what_became_of_it() {
        let (connected, target) = asked(&[EGRESS_CONNECTED]).await;
        assert!(connected.is_ok());
        assert_eq!(target, b"kms.eu-west-1.amazonaws.com:443");
        assert!(matches!(asked(&[EGRESS_REFUSED]).await.0, Err(DialError::Refused(_))));
        assert!(matches!(asked(&[EGRESS_UNREACHABLE]).await.0, Err(DialError::Unreachable(_))));
        assert!(matches!(asked(&[9]).await.0, Err(DialError::Protocol(9))));
        assert!(matches!(asked(&[]).await.0, Err(DialError::Egress(_))));
    }
}
