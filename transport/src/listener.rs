use std::{
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use thiserror::Error;
use tokio::net::{TcpListener, UnixListener, UnixSocket, UnixStream};
use tokio_vsock::{VsockAddr, VsockListener};

use crate::{endpoint::Endpoint, stream::Stream};

/// Connections that wait to be accepted on a Unix socket; the system may hold fewer.
const BACKLOG: u32 = 4096;

/// A bound [`Endpoint`]. The file of a Unix socket is removed when the listener is dropped.
#[derive(Debug)]
pub struct Listener {
    /// Dropped before the socket: while the socket lives nobody else takes the name.
    _file: Option<SocketFile>,
    socket: Socket,
    endpoint: Endpoint,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
    Hybrid(UnixListener),
    Vsock(VsockListener),
}

/// Why an endpoint could not be bound.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody listens there.
    #[error("somebody listens on {0} already")]
    InUse(Endpoint),
    /// The path of a Unix socket names something else.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on {endpoint}: {source}")]
    Io {
        /// The endpoint.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
}

impl Listener {
    pub(crate) async fn bind(endpoint: &Endpoint) -> Result<Self, BindError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(endpoint.clone()),
            _ => BindError::Io { endpoint: endpoint.clone(), source },
        };
        let mut bound = endpoint.clone();
        let mut file = None;
        let socket = match endpoint {
            Endpoint::Tcp { host, port } => {
                let listener = TcpListener::bind((host.as_str(), *port)).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                bound = Endpoint::Tcp { host: host.clone(), port: address.port() };
                Socket::Tcp(listener)
            }
            Endpoint::Unix(path) => {
                let (listener, made) = bind_unix(endpoint, path).await?;
                file = Some(made);
                Socket::Unix(listener)
            }
            Endpoint::Hybrid { path, port } => {
                let mut name = path.clone().into_os_string();
                name.push(format!("_{port}"));
                let (listener, made) = bind_unix(endpoint, Path::new(&name)).await?;
                file = Some(made);
                Socket::Hybrid(listener)
            }
            Endpoint::Vsock { cid, port } => {
                Socket::Vsock(VsockListener::bind(VsockAddr::new(*cid, *port)).map_err(failed)?)
            }
        };
        Ok(Self { _file: file, socket, endpoint: bound })
    }

    /// The next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// Those of the system; most pass (the caller waits a moment and tries again).
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::tcp(stream)),
            Socket::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::unix(stream)),
            Socket::Hybrid(listener) => listener.accept().await.map(|(stream, _)| Stream::hybrid(stream)),
            Socket::Vsock(listener) => listener.accept().await.map(|(stream, _)| Stream::vsock(stream)),
        }
    }

    /// Where it listens: as bound, with the port that the system chose in place of port 0.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// Binds with mode 0600 from the first moment on.
async fn bind_unix(endpoint: &Endpoint, path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    let failed = |source| BindError::Io { endpoint: endpoint.clone(), source };
    remove_stale(endpoint, path).await?;
    let socket = UnixSocket::new_stream().map_err(failed)?;
    // On Linux the file of a socket takes the mode that the unbound socket has, so nobody can connect before a chmod.
    let handle = std::fs::File::from(socket.as_fd().try_clone_to_owned().map_err(failed)?);
    handle.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    drop(handle);
    socket.bind(path).map_err(failed)?;
    let file = SocketFile(path.to_owned());
    // Where the umask or another system had its own idea.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    Ok((listener, file))
}

/// Removes a socket file that a dead process left; never a file that is no socket, never one that somebody listens on.
async fn remove_stale(endpoint: &Endpoint, path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io { endpoint: endpoint.clone(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Connected, or its backlog is full: alive either way.
        _ => Err(BindError::InUse(endpoint.clone())),
    }
}

/// The file of a bound Unix socket.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Where it fails, the next bind finds a stale socket and replaces it.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    async fn echo_once(listener: Listener) {
        let mut stream = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    }

    async fn round_trip(endpoint: &Endpoint) -> Vec<u8> {
        let mut stream = endpoint.connect(SOON).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn tcp_and_unix_carry_bytes_and_a_half_close() {
        let dir = tempfile::tempdir().unwrap();
        for endpoint in [Endpoint::Unix(dir.path().join("s")), Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 }] {
            let listener = endpoint.bind().await.unwrap();
            let bound = listener.endpoint().clone();
            let server = tokio::spawn(echo_once(listener));
            assert_eq!(round_trip(&bound).await, b"hello");
            server.await.unwrap();
        }
    }

    #[tokio::test]
    #[allow(clippy::print_stdout, reason = "says that it is skipped")]
    async fn vsock_carries_bytes_where_the_kernel_has_a_loopback_for_it() {
        let Ok(listener) = (Endpoint::Vsock { cid: crate::VSOCK_ANY_CID, port: 47_001 }).bind().await else {
            println!("skipped: this machine has no vsock");
            return;
        };
        let server = tokio::spawn(echo_once(listener));
        let loopback = Endpoint::Vsock { cid: tokio_vsock::VMADDR_CID_LOCAL, port: 47_001 };
        if loopback.connect(SOON).await.is_err() {
            println!("skipped: this machine's kernel has no vsock loopback");
            return;
        }
        // That connection was the one that is served; what it says is nothing.
        server.await.unwrap();
        let listener = (Endpoint::Vsock { cid: crate::VSOCK_ANY_CID, port: 47_002 }).bind().await.unwrap();
        let server = tokio::spawn(echo_once(listener));
        let loopback = Endpoint::Vsock { cid: tokio_vsock::VMADDR_CID_LOCAL, port: 47_002 };
        assert_eq!(round_trip(&loopback).await, b"hello");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_unix_socket_is_private_and_goes_away_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = Endpoint::Unix(path.clone()).bind().await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_but_never_a_live_one_and_never_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let endpoint = Endpoint::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = endpoint.bind().await.unwrap();
        assert!(matches!(endpoint.bind().await, Err(BindError::InUse(_))));
        drop(live);
        std::fs::write(&path, b"precious").unwrap();
        assert!(matches!(endpoint.bind().await, Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn hybrid_listening_takes_the_path_that_a_monitor_connects_to() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Hybrid { path: dir.path().join("vm"), port: 9001 };
        let listener = endpoint.bind().await.unwrap();
        let server = tokio::spawn(echo_once(listener));
        assert_eq!(round_trip(&Endpoint::Unix(dir.path().join("vm_9001"))).await, b"hello");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn hybrid_connecting_says_connect_and_keeps_every_byte_after_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm");
        let monitor = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = monitor.accept().await.unwrap();
            let mut line = [0; 13];
            stream.read_exact(&mut line).await.unwrap();
            assert_eq!(&line, b"CONNECT 5000\n");
            stream.write_all(b"OK 1073741824\nfirst bytes").await.unwrap();
        });
        let mut stream = Endpoint::Hybrid { path, port: 5000 }.connect(SOON).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"first bytes");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_monitor_that_closes_or_rambles_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for answer in [&b""[..], b"NO\n", b"OKAY\n", &[b'x'; 100]] {
            let path = dir.path().join("vm");
            let monitor = UnixListener::bind(&path).unwrap();
            let server = tokio::spawn(async move {
                let (mut stream, _) = monitor.accept().await.unwrap();
                let mut line = [0; 13];
                stream.read_exact(&mut line).await.unwrap();
                let _ = stream.write_all(answer).await;
            });
            let result = Endpoint::Hybrid { path: path.clone(), port: 5000 }.connect(SOON).await;
            assert!(matches!(result, Err(crate::ConnectError::NotAccepted { .. })), "{answer:?}: {result:?}");
            server.await.unwrap();
            std::fs::remove_file(path).unwrap();
        }
    }

    #[tokio::test]
    async fn a_monitor_that_never_answers_costs_the_timeout_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm");
        let _monitor = UnixListener::bind(&path).unwrap();
        let result = Endpoint::Hybrid { path, port: 5000 }.connect(Duration::from_millis(50)).await;
        assert!(matches!(result, Err(crate::ConnectError::TimedOut { .. })));
    }
}
