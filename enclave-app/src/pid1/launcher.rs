//! The handshake with whoever launched the enclave: `nitro-cli` says that an enclave runs when it has heard from it.

use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use transport::{ConnectError, Endpoint};

/// Where the launcher waits, on the parent.
pub const PORT: u32 = 9000;
/// What is said, and echoed.
const HEARTBEAT: u8 = 0xb7;
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the launcher does not know of us. Nothing depends on it: who launches in another way waits for nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LauncherError {
    /// Nobody waits there.
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    /// The connection broke.
    #[error("the launcher hung up: {0}")]
    Broken(#[from] std::io::Error),
    /// It said something else.
    #[error("the launcher echoed {0:#04x}")]
    Echo(u8),
    /// It said nothing.
    #[error("the launcher does not answer")]
    TimedOut,
}

/// The launcher of an enclave whose parent is reached like this; none where the parent is not on vsock.
pub fn of_parent(parent: &Endpoint) -> Option<Endpoint> {
    match parent {
        Endpoint::Vsock { cid, .. } => Some(Endpoint::Vsock { cid: *cid, port: PORT }),
        _ => None,
    }
}

/// Tells the launcher that the enclave runs.
///
/// # Errors
/// [`LauncherError`], which is worth a line in the log.
pub async fn greet(launcher: &Endpoint) -> Result<(), LauncherError> {
    let greeted = async {
        let mut stream = launcher.connect(PATIENCE).await?;
        stream.write_all(&[HEARTBEAT]).await?;
        match stream.read_u8().await? {
            HEARTBEAT => Ok(()),
            other => Err(LauncherError::Echo(other)),
        }
    };
    tokio::time::timeout(PATIENCE, greeted).await.unwrap_or(Err(LauncherError::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn greeted_by(echo: u8) -> (u8, Result<(), LauncherError>) {
        let path = std::env::temp_dir().join(format!("launcher-{echo}-{}.sock", std::process::id()));
        let endpoint = Endpoint::Unix(path);
        let listener = endpoint.bind().await.unwrap();
        let launcher = async {
            let mut stream = listener.accept().await.unwrap();
            let heard = stream.read_u8().await.unwrap();
            stream.write_all(&[echo]).await.unwrap();
            heard
        };
        tokio::join!(launcher, greet(&endpoint))
    }

    #[tokio::test]
    async fn the_launcher_hears_one_byte_and_echoes_it() {
        let (heard, greeted) = greeted_by(0xb7).await;
        assert_eq!(heard, 0xb7);
        greeted.unwrap();
        assert!(matches!(greeted_by(0).await.1, Err(LauncherError::Echo(0))));
    }

    #[test]
    fn the_launcher_is_where_the_parent_is() {
        let of = |text: &str| of_parent(&text.parse().unwrap()).map(|endpoint| endpoint.to_string());
        assert_eq!(of("vsock:3:5001"), Some("vsock:3:9000".to_owned()));
        assert_eq!(of("unix:/run/host.sock"), None);
    }
}
