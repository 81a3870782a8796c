use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::config::{Target, TargetError};

/// Longest `host:port`: a DNS name of 253 characters and a port of five.
const TARGET_LIMIT: usize = 253 + 1 + 5;

/// Why a connection did not say where to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PreambleError {
    /// It ended, or failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// No target is that long.
    #[error("a target of {0} bytes")]
    Length(usize),
    /// Not `host:port`.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// What the enclave sends first: `length (2, big-endian) || "host:port"`.
pub fn preamble(target: &Target) -> Vec<u8> {
    let text = target.to_string();
    // A target is at most TARGET_LIMIT bytes, by its type.
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

/// Reads a preamble and not one byte more.
///
/// # Errors
/// [`PreambleError`].
pub async fn read_preamble<R: AsyncRead + Unpin>(source: &mut R) -> Result<Target, PreambleError> {
    let length = usize::from(source.read_u16().await?);
    if !(1..=TARGET_LIMIT).contains(&length) {
        return Err(PreambleError::Length(length));
    }
    let mut bytes = [0; TARGET_LIMIT];
    let text = bytes.get_mut(..length).ok_or(PreambleError::Length(length))?;
    source.read_exact(text).await?;
    let text = str::from_utf8(text).map_err(|_| TargetError)?;
    Ok(text.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_preamble_is_read_to_its_end_and_no_further() {
        let target: Target = "kms.example:443".parse().unwrap();
        let bytes = [preamble(&target), b"more".to_vec()].concat();
        let mut source = &bytes[..];
        assert_eq!(read_preamble(&mut source).await.unwrap(), target);
        assert_eq!(source, b"more");
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        for bad in [
            &b""[..],
            b"\0",
            b"\0\0",
            b"\0\x05a:1",
            b"\0\x04a:01",
            b"\0\x03A:1",
            b"\0\x03\xff:1",
            b"\xff\xffa:1",
            b"\0\x04a\n:1",
        ] {
            assert!(read_preamble(&mut &bad[..]).await.is_err(), "{bad:?}");
        }
    }
}
