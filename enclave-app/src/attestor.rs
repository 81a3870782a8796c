//! Our own attestation documents: made by the NSM, and verified by the verifier that everybody else uses.

use std::sync::Arc;

use thiserror::Error;
use transcode_confidential::{
    attestation::{
        Freshness, ImagePolicy, Live, Purpose, Refusal, TrustRoot, UnverifiedDocument, UserData, VerifiedDocument,
    },
    audit::LogState,
    ids::{Epoch, LogId},
    time::Clock,
};

use crate::{
    clock::{Anchoring, EnclaveClock},
    nsm::{AttestationRequest, NsmError, NsmHandle, Priority},
};

/// How old a document of our own may be when we get it.
const MAX_AGE: std::time::Duration = std::time::Duration::from_secs(60);

/// Why there is no document of our own, or none that we would accept ourselves.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum AttestFailure {
    /// The NSM gave none.
    #[error("the NSM gave no document: {0}")]
    Nsm(#[from] NsmError),
    /// Our own verifier refused it.
    #[error("our own document was refused: {0}")]
    Refused(#[from] Refusal),
}

impl AttestFailure {
    /// The listed reason, for the record.
    pub fn reason(&self) -> String {
        match self {
            Self::Nsm(_) => "nsm".to_owned(),
            Self::Refused(refusal) => refusal.reason().to_owned(),
        }
    }
}

/// Makes documents, anchors the clock by them, and verifies those that authorise something.
#[derive(Clone)]
pub struct SelfAttestor {
    nsm: NsmHandle,
    root: TrustRoot,
    image: ImagePolicy,
    clock: Arc<EnclaveClock>,
    log_id: LogId,
    epoch: Epoch,
}

impl SelfAttestor {
    /// For documents of `epoch` of a log; they must be of the image that `image` accepts, which is our own.
    pub const fn new(
        nsm: NsmHandle,
        root: TrustRoot,
        image: ImagePolicy,
        clock: Arc<EnclaveClock>,
        log_id: LogId,
        epoch: Epoch,
    ) -> Self {
        Self { nsm, root, image, clock, log_id, epoch }
    }

    /// A document over a state of the log, verified.
    ///
    /// # Errors
    /// [`AttestFailure`].
    pub async fn attest_head(&self, state: LogState) -> Result<Vec<u8>, AttestFailure> {
        let data = UserData::Head { log_id: self.log_id, epoch: self.epoch, size: state.size, last: state.last };
        let request = AttestationRequest { user_data: Some(data.encode()), ..AttestationRequest::default() };
        let document = self.nsm.attest(Priority::Epoch, request).await?;
        self.verify(&document, Purpose::Head)?;
        Ok(document)
    }

    /// Anchors the clock by a fresh document; gives what became of that.
    ///
    /// # Errors
    /// [`AttestFailure`].
    pub async fn anchor_clock(&self) -> Result<Anchoring, AttestFailure> {
        anchor_clock(&self.nsm, &self.clock, &self.root, &self.image).await
    }

    /// How many of a priority wait for the NSM.
    pub fn waiting(&self, priority: Priority) -> u64 {
        self.nsm.waiting(priority)
    }

    /// A document for a client, over the key of the channel, answering its nonce. The client verifies it, not we.
    ///
    /// # Errors
    /// [`NsmError`].
    pub async fn channel_document(&self, spki: &[u8], nonce: &[u8]) -> Result<Vec<u8>, NsmError> {
        let data = UserData::Channel { log_id: self.log_id, epoch: self.epoch };
        let request = AttestationRequest {
            public_key: Some(spki.to_vec()),
            user_data: Some(data.encode()),
            nonce: Some(nonce.to_vec()),
        };
        self.nsm.attest(Priority::Client, request).await
    }

    fn verify(&self, document: &[u8], purpose: Purpose) -> Result<VerifiedDocument<Live>, Refusal> {
        let verified = UnverifiedDocument::parse(document)?.verify_live(
            &self.root,
            self.clock.now(),
            Freshness::within(MAX_AGE),
            &self.image,
        )?;
        verified.require_purpose(purpose)?;
        Ok(verified)
    }
}

/// Asks the NSM for a document that is of no use but for its timestamp, verifies its signature, and anchors the clock by it.
///
/// # Errors
/// [`AttestFailure`]; the clock goes on as before then.
pub async fn anchor_clock(
    nsm: &NsmHandle,
    clock: &EnclaveClock,
    root: &TrustRoot,
    image: &ImagePolicy,
) -> Result<Anchoring, AttestFailure> {
    let before = clock.boottime();
    let document = nsm.attest(Priority::Epoch, AttestationRequest::default()).await?;
    let after = clock.boottime();
    let document = UnverifiedDocument::parse(&document)?.verify_archived(root, image)?;
    Ok(clock.anchor(before, after, document.timestamp()))
}
