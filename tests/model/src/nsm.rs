//! The NSM, without a thread: a document is made where it is asked for.

use std::sync::Arc;

pub use enclave_app::nsm::{AttestationRequest, MAX_RANDOM, Nsm, NsmError, Priority};

use crate::{metrics::Metrics, runtime::task};

/// As [`enclave_app::nsm::NsmHandle`].
#[derive(Clone)]
pub struct NsmHandle(Arc<dyn Nsm>);

impl NsmHandle {
    /// In front of this device.
    ///
    /// # Errors
    /// None.
    pub fn start(nsm: impl Nsm) -> std::io::Result<Self> {
        Ok(Self(Arc::new(nsm)))
    }

    /// The same.
    #[must_use]
    pub fn counting(self, _metrics: Arc<Metrics>) -> Self {
        self
    }

    /// Nobody waits.
    pub const fn waiting(&self, _priority: Priority) -> u64 {
        0
    }

    /// A document.
    ///
    /// # Errors
    /// [`NsmError`].
    pub async fn attest(&self, _priority: Priority, request: AttestationRequest) -> Result<Vec<u8>, NsmError> {
        task::turn();
        self.0.attest(request)
    }
}
