//! Keys that the enclave releases: in plain inside TLS, or encrypted to a caller that attested itself.

use transcode_confidential::{
    protocol::api::{KeyText, ReleasedKey, SealedText},
    secret::KeyMaterial,
};
use zeroize::Zeroizing;

use crate::session::{CallerAttestor, SessionError};

/// Opens a data key. A caller that attests itself takes no key that anybody but itself could read, and the other way round.
pub(super) fn open_data_key(
    key: ReleasedKey,
    caller: Option<&dyn CallerAttestor>,
) -> Result<KeyMaterial, SessionError> {
    match (key, caller) {
        (ReleasedKey::Plaintext(KeyText(material)), None) => Ok(material),
        (ReleasedKey::Plaintext(_), Some(_)) => Err(SessionError::NotSealed("it came in plain")),
        (ReleasedKey::Sealed(SealedText(sealed)), caller) => {
            open::<32>(&sealed, caller).map(|key| KeyMaterial::copied_from(&key))
        }
    }
}

/// Opens a secret of `N` bytes that is encrypted to the caller.
pub(super) fn open<const N: usize>(
    sealed: &[u8],
    caller: Option<&dyn CallerAttestor>,
) -> Result<Zeroizing<[u8; N]>, SessionError> {
    let caller = caller.ok_or(SessionError::NotSealed("it is sealed, and this caller has no key"))?;
    let opened = caller.open(sealed).ok_or(SessionError::NotSealed("it does not open under this caller's key"))?;
    let exact = <&[u8; N]>::try_from(opened.as_slice());
    exact
        .map(|bytes| Zeroizing::new(*bytes))
        .map_err(|_| SessionError::NotSealed("what it opens to has another length"))
}
