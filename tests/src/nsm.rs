//! A stand-in for the hypervisor: launches enclaves whose NSM writes documents in the genuine format, under a root of
//! its own. Verifiers believe it only when they are handed that root.

mod certificate;
mod der;
mod document;
mod image;
mod key;
mod pki;
mod signer;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use enclave_app::nsm::{AttestationRequest, MAX_RANDOM, Nsm, NsmError, PcrState};
use transcode_confidential::{
    attestation::{PcrIndex, PcrValue, Pcrs, TrustRoot},
    time::{Clock, Timestamp},
};

pub use certificate::{Algorithm, CertificateDraft, Extension, usage};
pub use document::{DocumentDraft, Form, bytes, cose_sign1, head, null, signed_bytes, text, unsigned};
pub use image::MockImage;
pub use key::{Curve, SigningKey, public_key_info};
pub use pki::{Chain, ChainDraft, MockPki, index_of};
pub use signer::DocumentSigner;

/// Launches enclaves. All that one hypervisor launches hang under one root.
#[derive(Clone)]
pub struct MockHypervisor {
    pki: Arc<MockPki>,
    clock: Arc<dyn Clock>,
}

/// How an enclave is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As it should be.
    Production,
    /// With an open console: PCR0, PCR1 and PCR2 are zero, the others as always.
    Debug,
}

impl MockHypervisor {
    /// With a fresh root, and this clock for the documents' time.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { pki: Arc::new(MockPki::generate()), clock }
    }

    /// With a root that was made before.
    pub fn under(pki: MockPki, clock: Arc<dyn Clock>) -> Self {
        Self { pki: Arc::new(pki), clock }
    }

    /// The certificate hierarchy.
    pub fn pki(&self) -> &MockPki {
        &self.pki
    }

    /// What a verifier must trust to believe these enclaves.
    pub fn trust_root(&self) -> TrustRoot {
        self.pki.trust_root()
    }

    /// The same as a file for `--root`.
    pub fn root_pem(&self) -> String {
        self.pki.root_pem()
    }

    /// Launches an enclave of that image.
    pub fn launch(&self, image: &MockImage) -> Arc<MockNsm> {
        self.launch_in(Mode::Production, image)
    }

    /// Launches an enclave of that image in a mode.
    pub fn launch_in(&self, mode: Mode, image: &MockImage) -> Arc<MockNsm> {
        let now = self.clock.now();
        let module_id = format!("i-{}-enc{}", random_hex(17), random_hex(16));
        let chain = self.pki.issue(&module_id, now);
        Arc::new(MockNsm {
            pki: Arc::clone(&self.pki),
            clock: Arc::clone(&self.clock),
            module_id,
            state: Mutex::new(State { pcrs: image.registers_at_launch(mode), chain, attestations: 0 }),
            behaviour: Mutex::default(),
        })
    }
}

impl fmt::Debug for MockHypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MockHypervisor({:?})", self.trust_root())
    }
}

/// The NSM of one mock enclave. It serves one request at a time, as the device does.
pub struct MockNsm {
    pki: Arc<MockPki>,
    clock: Arc<dyn Clock>,
    module_id: String,
    state: Mutex<State>,
    behaviour: Mutex<Behaviour>,
}

struct State {
    pcrs: Vec<(PcrIndex, PcrState)>,
    chain: Chain,
    attestations: u64,
}

#[derive(Default)]
struct Behaviour {
    delay: Duration,
    failure: Option<NsmError>,
    tampering: Option<Tampering>,
}

type Tampering = Arc<dyn Fn(&mut DocumentDraft) + Send + Sync>;

impl MockNsm {
    /// The enclave's name, as documents give it.
    pub fn module_id(&self) -> &str {
        &self.module_id
    }

    /// Number of documents made so far.
    pub fn attestations(&self) -> u64 {
        lock(&self.state).attestations
    }

    /// Makes each document take that long from now on; its time is that of the middle.
    pub fn set_delay(&self, delay: Duration) {
        lock(&self.behaviour).delay = delay;
    }

    /// Makes every request for a document fail from now on, or no longer.
    pub fn set_failure(&self, failure: Option<NsmError>) {
        lock(&self.behaviour).failure = failure;
    }

    /// Changes every document before it is signed from now on: well-signed lies.
    pub fn tamper(&self, tampering: impl Fn(&mut DocumentDraft) + Send + Sync + 'static) {
        lock(&self.behaviour).tampering = Some(Arc::new(tampering));
    }

    /// A document that is not signed yet, and the key to sign it with.
    pub fn draft(&self, request: AttestationRequest) -> (DocumentDraft, SigningKey) {
        let mut state = lock(&self.state);
        let now = self.clock.now();
        self.renew(&mut state, now);
        let locked = state.pcrs.iter().filter(|(_, state)| state.locked);
        let pcrs: Pcrs = locked.map(|(index, state)| (*index, state.value)).collect();
        let mut draft = DocumentDraft::new(&self.module_id, now, &state.chain);
        draft.set_pcrs(&pcrs);
        (draft.public_key, draft.user_data, draft.nonce) = (request.public_key, request.user_data, request.nonce);
        (draft, state.chain.leaf_key.clone())
    }

    /// The hypervisor renews certificates before they end.
    fn renew(&self, state: &mut State, now: Timestamp) {
        let (from, to) = state.chain.valid;
        if now < from || now.plus(Duration::from_secs(60)) > to {
            state.chain = self.pki.issue(&self.module_id, now);
        }
    }
}

impl Nsm for MockNsm {
    fn attest(&self, request: AttestationRequest) -> Result<Vec<u8>, NsmError> {
        request.check_limits()?;
        let (delay, failure, tampering) = {
            let behaviour = lock(&self.behaviour);
            (behaviour.delay, behaviour.failure, behaviour.tampering.clone())
        };
        thread::sleep(delay / 2);
        let (mut draft, key) = self.draft(request);
        thread::sleep(delay / 2);
        if let Some(failure) = failure {
            return Err(failure);
        }
        if let Some(tamper) = tampering {
            tamper(&mut draft);
        }
        lock(&self.state).attestations += 1;
        Ok(draft.sign(&key))
    }

    fn describe_pcr(&self, index: PcrIndex) -> Result<PcrState, NsmError> {
        Ok(*register(&mut lock(&self.state), index))
    }

    fn extend_pcr(&self, index: PcrIndex, data: &[u8]) -> Result<PcrValue, NsmError> {
        let mut state = lock(&self.state);
        let register = register(&mut state, index);
        if register.locked {
            return Err(NsmError::ReadOnly(index));
        }
        register.value = register.value.extended(data);
        Ok(register.value)
    }

    fn lock_pcr(&self, index: PcrIndex) -> Result<(), NsmError> {
        let mut state = lock(&self.state);
        let register = register(&mut state, index);
        if register.locked {
            return Err(NsmError::ReadOnly(index));
        }
        register.locked = true;
        Ok(())
    }

    fn random(&self, out: &mut [u8]) -> Result<(), NsmError> {
        for part in out.chunks_mut(MAX_RANDOM) {
            getrandom::fill(part).unwrap();
        }
        Ok(())
    }
}

impl fmt::Debug for MockNsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MockNsm({})", self.module_id)
    }
}

fn register(state: &mut State, index: PcrIndex) -> &mut PcrState {
    &mut state.pcrs[usize::from(index.get())].1
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn random_hex(digits: usize) -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    hex::encode(bytes).chars().take(digits).collect()
}
