use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::signature::{PublicKey, Signature, SigningKey};

/// Signature type Ed25519 of c2sp.org/signed-note.
const ED25519: u8 = 0x01;
const SIGNATURE_LIMIT: usize = 16;
const NOTE_LIMIT: usize = 16 * 1024;

/// Why some text is not the signed note that was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Not a signed note.
    #[error("not a signed note")]
    Malformed,
    /// Not the text of a checkpoint of such a log.
    #[error("not a checkpoint of a log of this kind")]
    Checkpoint,
    /// Not a verifier key.
    #[error("not a verifier key")]
    VerifierKey,
    /// No signature by the key.
    #[error("the note carries no signature by that key")]
    NoSignature,
    /// The signature by the key does not verify.
    #[error("the note's signature does not verify")]
    Signature,
}

/// A text and the signatures over it (c2sp.org/signed-note).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One signature line of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// Name of the key.
    pub name: String,
    /// First four bytes of the hash of name, type and key.
    pub key_hash: [u8; 4],
    /// The signature; 64 bytes for Ed25519.
    pub signature: Vec<u8>,
}

impl SignedNote {
    /// A note without signatures. The text ends with a newline.
    pub const fn unsigned(text: String) -> Self {
        Self { text, signatures: Vec::new() }
    }

    /// Adds a signature.
    pub fn sign(&mut self, name: &str, key: &SigningKey) {
        let verifier = VerifierKey { name: name.to_owned(), key: key.public_key() };
        self.signatures.push(NoteSignature {
            key_hash: verifier.hash(),
            name: verifier.name,
            signature: key.sign_bare(self.text.as_bytes()).as_bytes().to_vec(),
        });
    }

    /// The signed text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, verified or not.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Verifies the signature by `verifier`.
    ///
    /// # Errors
    /// [`NoteError::NoSignature`] where there is none by that key, [`NoteError::Signature`] where it does not verify.
    pub fn verify(&self, verifier: &VerifierKey) -> Result<(), NoteError> {
        let by = |line: &&NoteSignature| line.name == verifier.name && line.key_hash == verifier.hash();
        let line = self.signatures.iter().find(by).ok_or(NoteError::NoSignature)?;
        let signature = <[u8; Signature::LEN]>::try_from(&line.signature[..]).map_err(|_| NoteError::Signature)?;
        let verified = verifier.key.verify_bare(self.text.as_bytes(), &Signature::new(signature));
        verified.map_err(|_| NoteError::Signature)
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| {
            let bytes = [&line.key_hash[..], &line.signature].concat();
            writeln!(f, "\u{2014} {} {}", line.name, STANDARD.encode(bytes))
        })
    }
}

impl FromStr for SignedNote {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        let control = |c: char| c.is_ascii_control() && c != '\n';
        if note.len() > NOTE_LIMIT || note.contains(control) {
            return Err(NoteError::Malformed);
        }
        let end = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
        let (text, lines) = note.split_at(end + 1);
        let lines = lines.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n')).ok_or(NoteError::Malformed)?;
        let signatures: Vec<_> =
            lines.split('\n').map(signature_line).collect::<Option<_>>().ok_or(NoteError::Malformed)?;
        if signatures.len() > SIGNATURE_LIMIT {
            return Err(NoteError::Malformed);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }
}

fn signature_line(line: &str) -> Option<NoteSignature> {
    let (name, bytes) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = STANDARD.decode(bytes).ok()?;
    let (key_hash, signature) = bytes.split_first_chunk()?;
    let valid = is_key_name(name) && !signature.is_empty();
    valid.then(|| NoteSignature { name: name.to_owned(), key_hash: *key_hash, signature: signature.to_vec() })
}

fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+')
}

/// A public key under a name: `<name>+<key hash>+<base64 of type and key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    /// The name that signature lines carry.
    pub name: String,
    /// The Ed25519 key.
    pub key: PublicKey,
}

impl VerifierKey {
    /// First four bytes of `SHA-256(name || "\n" || type || key)`.
    pub fn hash(&self) -> [u8; 4] {
        let mut hasher = Sha256::new();
        hasher.update(self.name.as_bytes());
        hasher.update([b'\n', ED25519]);
        hasher.update(self.key.as_bytes());
        let [a, b, c, d, ..] = <[u8; 32]>::from(hasher.finalize());
        [a, b, c, d]
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ED25519], &self.key.as_bytes()[..]].concat());
        write!(f, "{}+{}+{key}", self.name, hex::encode(self.hash()))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let parse = || {
            let mut parts = text.splitn(3, '+');
            let (name, _hash, key) = (parts.next()?, parts.next()?, STANDARD.decode(parts.next()?).ok()?);
            let key = PublicKey::try_from(key.strip_prefix(&[ED25519])?).ok()?;
            is_key_name(name).then(|| Self { name: name.to_owned(), key })
        };
        parse().filter(|key: &Self| key.to_string() == text).ok_or(NoteError::VerifierKey)
    }
}
