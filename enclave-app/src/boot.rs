//! Boot: from nothing but the image to an open epoch.
//!
//! 1. Read our own measurements; a debug enclave stops here.
//! 2. Open the session with the parent; read and verify the whole log that it holds ([`replay`]).
//! 3. Draw an epoch key; lock PCR16 to the log and PCR17 to this epoch, before the first document.
//! 4. Anchor the clock; get the log key from KMS, by attestation.
//! 5. Have the epoch attested, sign it with the log key, and wait until its first event is durable.
//!
//! Up to the last step nothing was promised to anybody: a crash anywhere leaves at most an unsealed tail.

mod error;
mod log_key;
mod measure;
mod replay;
mod restore;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    attestation::{ImagePolicy, Measurements, Purpose, TrustRoot, UnverifiedDocument, UserData},
    audit::{
        AuditEventType, EpochOpened, EpochStatement, EventBody, EventDraft, LogState, Outcome,
        segment::{Record, RecordKind},
    },
    entropy::{Entropy, EntropyError},
    fold::Unfinished,
    ids::{Digest, Epoch, LogId, Sequence},
    protocol::host::{Durable, HostError, Welcome},
    secret::KeyMaterial,
    signature::{PublicKey, Signature, SigningKey},
    time::{Clock, Timestamp},
};

use crate::{
    Parts,
    attestor::{SelfAttestor, anchor_clock},
    clock::EnclaveClock,
    custody::Custody,
    entropy::EnclaveEntropy,
    host::{CurrentLink, HostCredentials, HostFailure, HostLink},
    keyring::WrappedRecord,
    kms::{EgressDialer, KmsClient, KmsConfig, KmsLimits, KmsSetupError},
    ledger::{Entry, Ledger, LedgerFatal, LedgerWriter, Patience, Store},
    metrics::Metrics,
    nsm::{AttestationRequest, NsmError, NsmHandle, Priority},
};
pub use error::BootError;
use replay::Replayed;

const CONNECT: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(250);

/// An open epoch.
pub struct Booted {
    /// The keys and the log.
    pub custody: Arc<Custody>,
    /// The connection to the parent.
    pub link: CurrentLink,
    /// The task that writes the log; ends when the ledger is closed.
    pub writer: tokio::task::JoinHandle<Result<(), LedgerFatal>>,
    /// The key that is the same for the whole life of the log.
    pub log_key: Arc<SigningKey>,
    /// The key of this epoch.
    pub epoch_key: Arc<SigningKey>,
    /// The newest policy on the log, as its authority signed it.
    pub policy: Option<Vec<u8>>,
    /// The enclave, as the NSM names it.
    pub enclave_id: String,
    /// When the epoch was opened.
    pub booted_at: Timestamp,
    /// Randomness.
    pub entropy: Arc<EnclaveEntropy>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Opens an epoch. `stop` is cancelled when the parent asks for the enclave's end, then or later.
///
/// # Errors
/// [`BootError`]. A new boot may go better.
pub async fn boot(parts: &Parts, stop: &CancellationToken, abandon: &CancellationToken) -> Result<Booted, BootError> {
    let config = &parts.config;
    let own = measure::own_image(&parts.nsm)?;
    let entropy = Arc::new(EnclaveEntropy::new());
    entropy.mix(&measure::nsm_random(&parts.nsm)?);
    let metrics = Arc::new(Metrics::default());
    let nsm = NsmHandle::start(Arc::clone(&parts.nsm))?.counting(Arc::clone(&metrics));
    let clock = Arc::new(EnclaveClock::new(Arc::clone(&parts.boottime)));
    let mut accepted = vec![own.clone()];
    accepted.extend(config.predecessor_images()?);
    let accepted = image_policy(accepted);
    let own = image_policy(vec![own]);

    let mut session = [0; 16];
    entropy.fill(&mut session)?;
    let store = Store { endpoint: config.parent.host.clone(), session, stop: stop.clone() };
    let (link, welcome) = open_session(&store).await?;
    let link = Arc::new(link);
    let Replayed { state, chain, fold, quarantined } =
        replay::replay(&link, &parts.attestation_root, &accepted).await?;
    let keyring = replay::keyring(&fold, &config.kms_key_arn);
    let log_key_record = fold.epoch().and_then(|epoch| WrappedRecord::from_bytes(&epoch.log_key_record).ok());
    let policy = fold.policy().map(<[u8]>::to_vec);
    let unfinished: Vec<Unfinished> = fold.unfinished().cloned().collect();
    let found = state.map(|(log_id, _, state)| (log_id, Durable { size: state.size, last: state.last }));
    if !store_agrees(welcome.durable, found, quarantined.is_some()) {
        return Err(BootError::StoreDisagrees);
    }

    let restored = match &state {
        Some((log_id, _, state)) => {
            let authority = (&config.policy_authority, config.deployment.as_str());
            restore::ordered(&link, authority, (*log_id, state), &fold).await?
        }
        None => None,
    };

    let log_id = match &state {
        Some((log_id, ..)) => *log_id,
        None => new_log_id(&entropy)?,
    };
    let lost = restored.as_ref().map_or(Epoch(0), |restored| restored.lost_epoch);
    let epoch = next_epoch(chain.epoch(), lost);
    let (first, previous) = (Sequence(chain.size()), chain.last());
    let epoch_key = Arc::new(SigningKey::from_seed(&KeyMaterial::generate(&*entropy)?)?);
    measure::lock_epoch(&parts.nsm, log_id, epoch, previous, &epoch_key.public_key())?;
    anchor_clock(&nsm, &clock, &parts.attestation_root, &own).await?;

    let (links, follow) = watch::channel(Some(Arc::clone(&link)));
    let current = CurrentLink::following(follow);
    let kms = kms_client(parts, &current, &clock, &nsm)?.counting(Arc::clone(&metrics));
    let from_kms = async {
        match kms.generate_random(64).await {
            Ok(random) => entropy.mix(&random),
            // The role need not be allowed to: two other sources feed the pool.
            Err(error) => tracing::warn!(%error, "KMS gave no randomness"),
        }
        log_key::obtain(&kms, log_id, log_key_record).await
    };
    let (log_key, record) = tokio::select! {
        obtained = from_kms => obtained?,
        // Nobody connects anew before the ledger is there, and what the parent says then might be another log.
        () = link.closed() => return Err(HostFailure::Ended.into()),
    };
    if state.is_some_and(|(_, known, _)| known != log_key.public_key()) {
        return Err(BootError::WrongLogKey);
    }

    let data = UserData::Epoch { log_id, epoch, first, previous };
    let judges = (&parts.attestation_root, &own);
    let (document, enclave_id) = epoch_document(&nsm, judges, &epoch_key.public_key(), data).await?;
    let mut opened = EpochOpened {
        log_id,
        epoch_key: epoch_key.public_key(),
        log_key: log_key.public_key(),
        document: Digest::of(&document),
        log_key_record: Digest::of(&record),
        statement: Signature::new([0; Signature::LEN]),
    };
    opened.statement = EpochStatement::of(&opened, epoch, first, previous).sign(&log_key);

    let mut chain = chain;
    let patience =
        Patience { wait: Duration::from_millis(config.limits.audit_wait_ms), backlog: config.limits.audit_backlog };
    let dyn_clock = Arc::clone(&clock) as Arc<dyn Clock>;
    let before = chain.state();
    chain.open_epoch(epoch);
    let ledger = Ledger::new((log_id, enclave_id.clone()), chain, fold, dyn_clock, patience);
    debug_assert_eq!(before.size, ledger.persisted().size);
    let writer = LedgerWriter::new(ledger.clone(), Arc::clone(&epoch_key), store, links).counting(Arc::clone(&metrics));
    let writer = tokio::spawn(writer.run(abandon.clone()));

    let draft = EventDraft::new(AuditEventType::EnclaveCreated, format!("epoch {epoch} opened"))
        .body(EventBody::EpochOpened(Box::new(opened)));
    let records = vec![Record::new(RecordKind::Attestation, document), Record::new(RecordKind::WrappedKey, record)];
    // One batch: whoever sees the epoch sees that it goes on from a copy.
    let first = [Entry { draft, records }].into_iter().chain(restored.map(|restored| restored.entry)).collect();
    let recorded = ledger.place_together(first)?;
    if let Some(draft) = quarantined {
        let _ = ledger.decide_at_once(|_, _| Ok(draft.into()))?;
    }
    for draft in unfinished.into_iter().map(unknown_outcome) {
        let _ = ledger.decide_at_once(|_, _| Ok(draft.into()))?;
    }
    let (event, _receipt) = recorded.persisted().await?;
    tracing::info!(%log_id, %epoch, size = event.sequence.0, "epoch opened");

    let attestor = SelfAttestor::new(nsm, parts.attestation_root.clone(), own, Arc::clone(&clock), log_id, epoch);
    let custody = Custody::new(ledger, keyring, kms, attestor, clock, epoch, config.key_defaults);
    Ok(Booted {
        custody: Arc::new(custody),
        link: current,
        writer,
        log_key: Arc::new(log_key),
        epoch_key,
        policy,
        enclave_id,
        booted_at: event.time,
        entropy,
        metrics,
    })
}

/// Reads and verifies the log that the parent holds by the very code of [`boot`], sets an unsealed tail aside, and opens
/// nothing. Gives log and state; `None` for an empty store.
///
/// # Errors
/// [`BootError`], as a boot would end.
pub async fn read_back(
    link: &HostLink,
    root: &TrustRoot,
    accepted: &ImagePolicy,
) -> Result<Option<(LogId, LogState)>, BootError> {
    let replayed = replay::replay(link, root, accepted).await?;
    Ok(replayed.state.map(|(log_id, _, state)| (log_id, state)))
}

/// Keeps knocking: the parent may start after us.
async fn open_session(store: &Store) -> Result<(HostLink, Welcome), HostFailure> {
    loop {
        match HostLink::open(&store.endpoint, store.session, CONNECT, &store.stop).await {
            Err(HostFailure::Unreachable(_) | HostFailure::Ended | HostFailure::Broken(_)) => {}
            // The session of the boot before may take a moment to be found dead.
            Err(HostFailure::Refused(HostError::Fenced)) => {}
            other => return other,
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn kms_client(
    parts: &Parts,
    parent: &CurrentLink,
    clock: &Arc<EnclaveClock>,
    nsm: &NsmHandle,
) -> Result<KmsClient, KmsSetupError> {
    let limits = KmsLimits::default();
    KmsClient::new(KmsConfig {
        key: parts.config.kms_key_arn.clone(),
        roots: parts.kms_roots.clone(),
        dialer: Arc::new(EgressDialer::new(parts.config.parent.egress.clone(), limits.connect)),
        credentials: Arc::new(HostCredentials(parent.clone())),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        documents: Arc::new(nsm.clone()),
        limits,
    })
}

/// A document over the key of an epoch, held to what every verifier will ask of it: better no epoch than one that makes the
/// log worthless. Gives its bytes, and the enclave as the NSM names it.
async fn epoch_document(
    nsm: &NsmHandle,
    (root, own): (&TrustRoot, &ImagePolicy),
    key: &PublicKey,
    data: UserData,
) -> Result<(Vec<u8>, String), BootError> {
    let key = key.to_spki();
    let request = AttestationRequest { public_key: Some(key.clone()), user_data: Some(data.encode()), nonce: None };
    let document = nsm.attest(Priority::Epoch, request).await?;
    let verified = UnverifiedDocument::parse(&document)?.verify_archived(root, own)?;
    if verified.require_purpose(Purpose::Epoch)? != data || verified.public_key() != Some(key.as_slice()) {
        return Err(NsmError::UnexpectedAnswer.into());
    }
    let enclave_id = verified.module_id().to_owned();
    Ok((document, enclave_id))
}

/// Whether what the parent says it has is what its segments came to. Where a tail was set aside it could not know.
pub fn store_agrees(said: Option<(LogId, Durable)>, found: Option<(LogId, Durable)>, quarantined: bool) -> bool {
    said == found || quarantined
}

/// The epoch that a boot opens: behind that of the last event, and behind those that are known to be lost.
pub fn next_epoch(last: Epoch, lost: Epoch) -> Epoch {
    Epoch(last.max(lost).0.saturating_add(1))
}

fn image_policy(images: Vec<transcode_confidential::attestation::ExpectedImage>) -> ImagePolicy {
    match Measurements::new(images) {
        Ok(measurements) => measurements.into(),
        // Our own image is always among them.
        Err(_) => unreachable!("there is always our own image"),
    }
}

fn new_log_id(entropy: &EnclaveEntropy) -> Result<LogId, EntropyError> {
    let mut bytes = [0; LogId::LEN];
    entropy.fill(&mut bytes)?;
    Ok(LogId::new(bytes))
}

fn unknown_outcome(stream: Unfinished) -> EventDraft {
    let mut draft = EventDraft::new(AuditEventType::ContentProcessed, "outcome unknown: the enclave stopped").body(
        EventBody::Processed {
            began: Some(stream.began),
            outcome: Outcome::Unknown,
            bytes_in: 0,
            bytes_out: 0,
            digest: None,
        },
    );
    (draft.key_id, draft.key_version) = (stream.key_id, stream.key_version);
    (draft.principal, draft.content_id) = (stream.principal, stream.content_id);
    draft
}
