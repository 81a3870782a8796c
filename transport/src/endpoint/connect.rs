use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};
use tokio_vsock::{VsockAddr, VsockStream};

use super::{ConnectError, Endpoint};
use crate::stream::Stream;

/// How long to wait before trying a Unix socket again whose backlog is full.
const BACKLOG_RETRY: Duration = Duration::from_millis(5);
/// Longest answer to `CONNECT` that is read.
const ANSWER_LIMIT: usize = 32;

/// Connects, without a deadline of its own.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<Stream, ConnectError> {
    let failed = |source| ConnectError::Io { endpoint: endpoint.clone(), source };
    match endpoint {
        Endpoint::Vsock { cid, port } => {
            let stream = VsockStream::connect(VsockAddr::new(*cid, *port)).await.map_err(failed)?;
            Ok(Stream::vsock(stream))
        }
        Endpoint::Unix(path) => Ok(Stream::unix(connect_unix(path).await.map_err(failed)?)),
        Endpoint::Hybrid { path, port } => {
            let mut stream = connect_unix(path).await.map_err(failed)?;
            let accepted = ask_for_port(&mut stream, *port).await.map_err(failed)?;
            if accepted {
                Ok(Stream::hybrid(stream))
            } else {
                Err(ConnectError::NotAccepted { endpoint: endpoint.clone() })
            }
        }
        Endpoint::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
            Ok(Stream::tcp(stream))
        }
    }
}

/// A Unix socket whose backlog is full says so at once instead of letting the caller wait.
async fn connect_unix(path: &std::path::Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(BACKLOG_RETRY).await,
            result => return result,
        }
    }
}

/// `CONNECT port` and `OK ...`, as vhost-device-vsock and Firecracker have it. A monitor that cannot connect closes.
async fn ask_for_port(stream: &mut UnixStream, port: u32) -> io::Result<bool> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the line belongs to the connection.
    while answer.last() != Some(&b'\n') {
        if answer.len() == ANSWER_LIMIT {
            return Ok(false);
        }
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(answer.starts_with(b"OK ") || answer == b"OK\n")
}
