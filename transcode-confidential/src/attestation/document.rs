//! From received bytes to a verified document.

use std::marker::PhantomData;

use super::{
    chain::Chain,
    claims::Claims,
    es384,
    freshness::Freshness,
    measurements::{ImagePolicy, ImageVerdict},
    pcr::PcrIndex,
    purpose::{Purpose, UserData},
    refusal::{Level, Refusal},
    root::TrustRoot,
    scan::{self, Fault, Item, Outermost},
};
use crate::{ids::Digest, time::Timestamp};

/// Largest document that is looked at, in bytes. Genuine ones have 4.4 to 5.3 KB; the NSM's response is at most 12 KiB.
pub const MAX_SIZE: usize = 16 * 1024;

/// Tag 18, COSE_Sign1: the NSM leaves it out, RFC 9052 allows it.
const TAG_COSE_SIGN1: u8 = 0xd2;
/// `{1: -35}`: ES384 and nothing else.
const PROTECTED_HEADER: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];

/// A document that is well-formed, and nothing more: anybody may have written it.
#[derive(Debug)]
pub struct UnverifiedDocument<'a> {
    received: &'a [u8],
    payload: &'a [u8],
    signature: &'a [u8],
    claims: Claims,
}

impl<'a> UnverifiedDocument<'a> {
    /// Reads received bytes strictly: the scanner first, then the fields. No signature is looked at.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`], or the [`Refusal`] that names what is not as a document has it, and where.
    pub fn parse(received: &'a [u8]) -> Result<Self, Refusal> {
        if received.len() > MAX_SIZE {
            return Err(Refusal::TooLarge { size: received.len() });
        }
        let untagged = received.strip_prefix(&[TAG_COSE_SIGN1]).unwrap_or(received);
        let skipped = received.len() - untagged.len();
        let envelope = scan::scan(untagged, Outermost::Definite).map_err(|Fault { offset, fault }| {
            Refusal::Structure { level: Level::Envelope, offset: offset + skipped, fault }
        })?;
        let (payload, signature) = envelope_parts(&envelope)?;
        let items = scan::scan(payload, Outermost::MapMayBeIndefinite)
            .map_err(|Fault { offset, fault }| Refusal::Structure { level: Level::Payload, offset, fault })?;
        Ok(Self { received, payload, signature, claims: Claims::map(items)? })
    }

    /// What the document says, for display only: nothing of it is verified.
    pub const fn unverified_claims(&self) -> &Claims {
        &self.claims
    }

    /// Verifies a document that was made just now: all certificates are valid `now`, it is fresh, and its image is
    /// accepted. Only the result of this can authorise the release of anything.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies: certificates, signature, image, freshness.
    pub fn verify_live(
        self,
        root: &TrustRoot,
        now: Timestamp,
        freshness: Freshness,
        image: &ImagePolicy,
    ) -> Result<VerifiedDocument<Live>, Refusal> {
        let image = self.check(root, now, image)?;
        freshness.check(&self.claims, now)?;
        Ok(self.verified(image))
    }

    /// Verifies a document from a log or archive at its own signed time. The result says that an enclave of that image
    /// once attested this; it may be years old, and its key may have leaked since.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies: certificates, signature, image.
    pub fn verify_archived(self, root: &TrustRoot, image: &ImagePolicy) -> Result<VerifiedDocument<Archived>, Refusal> {
        let image = self.check(root, self.claims.timestamp(), image)?;
        Ok(self.verified(image))
    }

    /// Everything but freshness. The document's signature goes before those of the certificates: most documents that
    /// fail, fail there, for a fifth of the cost. What it was made for and by comes last, so that those reasons speak
    /// of authentic documents only.
    fn check(&self, root: &TrustRoot, at: Timestamp, image: &ImagePolicy) -> Result<ImageVerdict, Refusal> {
        let chain = Chain::check_properties(root, self.claims.bundle(), self.claims.certificate(), at)?;
        if !es384::verifies(chain.leaf_key(), &self.signed_bytes(), self.signature) {
            return Err(Refusal::Signature);
        }
        chain.check_path()?;
        self.check_no_debug_mode()?;
        image.check(self.claims.pcrs(), at)
    }

    /// Debug mode zeroes PCR0 to PCR2 and leaves the others: no policy can accept that.
    fn check_no_debug_mode(&self) -> Result<(), Refusal> {
        for index in PcrIndex::OF_IMAGE {
            let value = self.claims.pcrs().get(index).ok_or(Refusal::MissingPcr { index })?;
            if value.is_zero() {
                return Err(Refusal::DebugMode { index });
            }
        }
        Ok(())
    }

    /// The Sig_structure of RFC 9052 section 4.4 around the payload as it was received:
    /// `["Signature1", protected header, h'', payload]`.
    fn signed_bytes(&self) -> Vec<u8> {
        const CONTEXT: &[u8] = b"\x84\x6aSignature1\x44\xa1\x01\x38\x22\x40";
        let mut out = crate::cbor::Writer::with_capacity(CONTEXT.len() + 5 + self.payload.len());
        out.raw(CONTEXT).bytes(self.payload);
        out.into_bytes()
    }

    fn verified<S: Verification>(self, image: ImageVerdict) -> VerifiedDocument<S> {
        VerifiedDocument { claims: self.claims, image, digest: Digest::of(self.received), verification: PhantomData }
    }
}

/// How a document was verified: [`Live`] or [`Archived`].
pub trait Verification: sealed::Sealed {}

/// Fresh, at the verifier's time.
#[derive(Debug, Clone, Copy)]
pub enum Live {}

/// At the document's own signed time.
#[derive(Debug, Clone, Copy)]
pub enum Archived {}

impl Verification for Live {}
impl Verification for Archived {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Live {}
    impl Sealed for super::Archived {}
}

/// A document that is authentic, from no debug-mode enclave, and from an accepted image unless [`ImageVerdict`] says
/// that this was not checked. The type says whether it is also fresh: only `VerifiedDocument<Live>` is.
///
/// An archived document cannot stand in for a live one:
///
/// ```compile_fail
/// use transcode_confidential::attestation::{Archived, Live, VerifiedDocument};
///
/// fn release(_authorised_by: &VerifiedDocument<Live>) {}
///
/// fn replay(old: &VerifiedDocument<Archived>) {
///     release(old);
/// }
/// ```
#[derive(Debug, Clone)]
pub struct VerifiedDocument<S: Verification> {
    claims: Claims,
    image: ImageVerdict,
    digest: Digest,
    verification: PhantomData<S>,
}

impl<S: Verification> VerifiedDocument<S> {
    /// All that the document says.
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The enclave: `i-<instance>-enc<enclave>`.
    pub fn module_id(&self) -> &str {
        self.claims.module_id()
    }

    /// When the NSM made the document.
    pub const fn timestamp(&self) -> Timestamp {
        self.claims.timestamp()
    }

    /// The locked registers; PCR0, PCR1 and PCR2 are among them and not zero.
    pub const fn pcrs(&self) -> &super::Pcrs {
        self.claims.pcrs()
    }

    /// The attested key. Which kind of key it is, the purpose tells.
    pub fn public_key(&self) -> Option<&[u8]> {
        self.claims.public_key()
    }

    /// The attested data as it stands; consumers use [`VerifiedDocument::require_purpose`].
    pub fn user_data(&self) -> Option<&[u8]> {
        self.claims.user_data()
    }

    /// The nonce that the enclave was given.
    pub fn nonce(&self) -> Option<&[u8]> {
        self.claims.nonce()
    }

    /// What the document was made for, refused where that is anything but `expected`. Each consumer calls this first.
    ///
    /// # Errors
    /// The [`Refusal`] of user data that cannot be read or were made for something else.
    pub fn require_purpose(&self, expected: Purpose) -> Result<UserData, Refusal> {
        UserData::for_purpose(self.user_data(), expected)
    }

    /// What the document was made for, for display; `None` where that is not in this project's format.
    pub fn purpose(&self) -> Option<UserData> {
        self.user_data().and_then(|bytes| UserData::decode(bytes).ok())
    }

    /// Whether and as what the image was accepted.
    pub const fn image(&self) -> &ImageVerdict {
        &self.image
    }

    /// SHA-256 of the received bytes.
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

fn envelope_parts<'a>(envelope: &Item<'a>) -> Result<(&'a [u8], &'a [u8]), Refusal> {
    let Item::Array(items) = envelope else { return Err(Refusal::NotCoseSign1) };
    let [Item::Bytes(protected), Item::Map(unprotected), Item::Bytes(payload), Item::Bytes(signature)] =
        items.as_slice()
    else {
        return Err(Refusal::NotCoseSign1);
    };
    if *protected != PROTECTED_HEADER {
        let found = hex::encode(protected.get(..16).unwrap_or(protected));
        return Err(Refusal::ProtectedHeader { found });
    }
    if !unprotected.is_empty() {
        return Err(Refusal::UnprotectedHeader);
    }
    if signature.len() != es384::SIGNATURE_LENGTH {
        return Err(Refusal::SignatureLength { length: signature.len() });
    }
    Ok((payload, signature))
}
