//! The embedding API, used as the product page shows it: names, argument types and what each call returns.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that fails should fail loudly"
)]

use std::{
    collections::VecDeque,
    error::Error,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use transcode_confidential::{
    audit::{AuditEventType, AuditLog, AuditSeverity, KeyError, KeyRotationManager, KeyRotationPolicy, ManagedKey},
    ids::{Digest, KeyId, KeyVersion},
    keys::{Attested, Attestor, AttestorError, RotationNeed},
};

fn current_time_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

const POLICY: KeyRotationPolicy = KeyRotationPolicy { max_age_secs: 3600, max_uses: 10_000, require_attestation: true };

#[test]
fn events_are_logged_counted_queried_and_verified() {
    let mut log = AuditLog::new();
    assert!(log.is_empty());
    for (event_type, key, details) in [
        (AuditEventType::EnclaveCreated, None, "enclave up"),
        (AuditEventType::KeyGenerated, Some("content-key-1".to_string()), "AES-256-GCM key"),
        (AuditEventType::ContentProcessed, Some("content-key-1".to_string()), "240 frames at 1080p"),
    ] {
        log.log(event_type, Some("enclave-001".to_string()), key, details.to_string(), AuditSeverity::Info);
    }
    assert_eq!(log.len(), 3);
    assert!(log.verify_integrity());
    assert_eq!(log.events_by_type(&AuditEventType::KeyGenerated).len(), 1);
    assert!(log.critical_events().is_empty());
    log.log(AuditEventType::UnauthorizedAccess, None, None, "who?".to_string(), AuditSeverity::Critical);
    let critical = log.critical_events();
    assert_eq!(critical.len(), 1);
    for event in critical {
        assert_eq!(
            format!("[CRITICAL] {}: {}", event.event_type, event.details),
            "[CRITICAL] UnauthorizedAccess: who?"
        );
    }
}

#[test]
fn the_nine_event_types_of_the_page_have_its_severities() {
    use AuditEventType as T;
    use AuditSeverity as S;
    for (event_type, name, severity) in [
        (T::EnclaveCreated, "EnclaveCreated", S::Info),
        (T::AttestationVerified, "AttestationVerified", S::Info),
        (T::AttestationFailed, "AttestationFailed", S::Critical),
        (T::KeyGenerated, "KeyGenerated", S::Info),
        (T::KeyRotated, "KeyRotated", S::Info),
        (T::KeyRevoked, "KeyRevoked", S::Warning),
        (T::ContentProcessed, "ContentProcessed", S::Info),
        (T::PolicyViolation, "PolicyViolation", S::Critical),
        (T::UnauthorizedAccess, "UnauthorizedAccess", S::Critical),
    ] {
        assert_eq!((event_type.to_string().as_str(), event_type.severity()), (name, severity));
    }
}

#[test]
fn a_key_lives_from_generation_to_revocation() -> Result<(), Box<dyn Error>> {
    let mut manager = KeyRotationManager::new(POLICY);
    manager.generate_key("content-key-1")?;
    let key = manager.get_active_key("content-key-1").unwrap();
    assert_eq!(key.version.to_string(), "1");
    assert!(!manager.needs_rotation("content-key-1", current_time_secs()));
    assert!(manager.needs_rotation("content-key-1", current_time_secs() + 3600));
    if manager.needs_rotation("content-key-1", current_time_secs() + 4000) {
        let new_version = manager.rotate_key("content-key-1")?;
        assert_eq!(new_version.to_string(), "2");
    }
    manager.revoke_key("content-key-1")?;
    let versions = manager.key_versions("content-key-1");
    assert_eq!(versions.len(), 2);
    for key in versions {
        assert!(!key.active);
    }
    assert!(manager.get_active_key("content-key-1").is_none());
    let audit = manager.audit_log();
    assert!(audit.verify_integrity());
    // Generated, the warning that nothing attested the rotation, rotated, revoked.
    assert_eq!(audit.len(), 4);
    assert_eq!(audit.critical_events().len(), 1);
    Ok(())
}

#[test]
fn exactly_one_version_is_active_and_old_ones_stay() -> Result<(), KeyError> {
    let mut manager = KeyRotationManager::new(KeyRotationPolicy { require_attestation: false, ..POLICY });
    manager.generate_key("k")?;
    for expected in 2..=5 {
        assert_eq!(manager.rotate_key("k")?, expected);
        let active: Vec<ManagedKey> = manager.key_versions("k").into_iter().filter(|key| key.active).collect();
        assert_eq!(active.iter().map(|key| key.version).collect::<Vec<_>>(), [expected]);
    }
    assert_eq!(manager.key_versions("k").len(), 5);
    Ok(())
}

#[test]
fn a_look_is_not_a_use_and_uses_end_at_the_limit() -> Result<(), KeyError> {
    let policy = KeyRotationPolicy { max_age_secs: 3600, max_uses: 5, require_attestation: false };
    let mut manager = KeyRotationManager::new(policy);
    manager.generate_key("k")?;
    for _ in 0..20 {
        assert_eq!(manager.get_active_key("k").unwrap().uses, 0);
    }
    for used in 1..=5 {
        manager.use_key("k", |_, _| ())?;
        let need = match used {
            5 => RotationNeed::Required,
            4 => RotationNeed::Due,
            _ => RotationNeed::None,
        };
        assert_eq!(manager.rotation_need("k", current_time_secs()), need);
    }
    let before = manager.audit_log().len();
    assert_eq!(manager.use_key("k", |_, _| ()), Err(KeyError::RotationDue));
    assert_eq!(manager.audit_log().len(), before, "a refused use changes nothing");
    manager.rotate_key("k")?;
    manager.use_key("k", |version, _| assert_eq!(version, KeyVersion(2)))?;
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() -> Result<(), KeyError> {
    let mut manager = KeyRotationManager::new(POLICY);
    assert_eq!(manager.rotate_key("k"), Err(KeyError::Unknown));
    assert_eq!(manager.revoke_key("k"), Err(KeyError::Unknown));
    assert!(matches!(manager.generate_key("no spaces"), Err(KeyError::Id(_))));
    manager.generate_key("k")?;
    assert_eq!(manager.generate_key("k"), Err(KeyError::Exists));
    manager.revoke_key("k")?;
    assert_eq!(manager.generate_key("k"), Err(KeyError::Exists), "an id is never reused");
    assert_eq!(manager.rotate_key("k"), Err(KeyError::Revoked));
    assert_eq!(manager.revoke_key("k"), Err(KeyError::Revoked));
    assert_eq!(manager.audit_log().len(), 2);
    let mut zero = KeyRotationManager::new(KeyRotationPolicy { max_uses: 0, ..POLICY });
    assert!(matches!(zero.generate_key("k"), Err(KeyError::Policy(_))));
    Ok(())
}

#[test]
fn an_attestor_is_asked_and_its_refusal_stops_the_rotation() -> Result<(), KeyError> {
    struct Scripted(Arc<Mutex<VecDeque<bool>>>);
    impl Attestor for Scripted {
        fn attest(&mut self, _key: &KeyId, _next: KeyVersion) -> Result<Attested, AttestorError> {
            match self.0.lock().unwrap().pop_front() {
                Some(true) => Ok(Attested { document: Digest::new([1; 32]) }),
                _ => Err(AttestorError { reason: "no device".into() }),
            }
        }
    }
    let script = Arc::new(Mutex::new(VecDeque::from([true, false])));
    let mut manager = KeyRotationManager::with_attestor(POLICY, Scripted(script));
    manager.generate_key("k")?;
    assert_eq!(manager.rotate_key("k")?, 2);
    assert!(matches!(manager.rotate_key("k"), Err(KeyError::Attestation(_))));
    assert_eq!(manager.get_active_key("k").unwrap().version, 2);
    let types: Vec<_> = manager.audit_log().events().iter().map(|event| event.event_type.to_string()).collect();
    assert_eq!(types, ["KeyGenerated", "AttestationVerified", "KeyRotated", "AttestationFailed"]);
    Ok(())
}
