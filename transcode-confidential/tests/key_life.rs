//! The life of a key beyond making, rotating and revoking it: suspension, destruction, the oldest version that decrypts, and
//! requests that are remembered.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should fail loudly")]

use proptest::prelude::*;
use transcode_confidential::{
    audit::{
        AuditEvent, AuditEventType, AuditSeverity, Chain, CreationReason, EventBody, KeyChange, KeyOperation,
        RequestTag, decode_leaf,
    },
    ids::{KeyId, KeyVersion},
    keys::{
        AnsweredRequests, KeyError, KeyRequest, KeyRotationManager, KeyRotationPolicy, KeyState, KeyTable, VersionState,
    },
    time::Timestamp,
};

const POLICY: KeyRotationPolicy = KeyRotationPolicy { max_age_secs: 3600, max_uses: 100, require_attestation: false };

/// A log and the state that it comes to.
#[derive(Default)]
struct Desk {
    chain: Chain,
    keys: KeyTable,
    events: Vec<AuditEvent>,
}

impl Desk {
    /// With `film`, of three versions.
    fn with_film() -> Self {
        let mut desk = Self::default();
        desk.ask(&KeyRequest::Generate { policy: POLICY, record: None }).unwrap();
        desk.rotate();
        desk.rotate();
        desk
    }

    fn ask(&mut self, request: &KeyRequest) -> Result<(), KeyError> {
        self.ask_as(request, None)
    }

    fn ask_as(&mut self, request: &KeyRequest, tag: Option<RequestTag>) -> Result<(), KeyError> {
        let now = Timestamp(1000);
        let draft = self.keys.decide(&film(), request, now)?.request(tag);
        let (event, leaf) = self.chain.append(draft, now)?;
        assert_eq!(decode_leaf(&leaf).as_ref(), Ok(&event), "every event survives its leaf");
        self.keys.apply(&event).unwrap();
        self.events.push(event);
        Ok(())
    }

    fn rotate(&mut self) {
        let request = KeyRequest::Rotate { expected: None, reason: CreationReason::Manual, record: None };
        self.ask(&request).unwrap();
    }

    fn use_of(&mut self, operation: KeyOperation, version: Option<u32>) -> Result<(), KeyError> {
        self.ask(&KeyRequest::Use { operation, version: version.map(KeyVersion), context: None })
    }
}

fn film() -> KeyId {
    "film".parse().unwrap()
}

#[test]
fn a_suspended_key_does_nothing_until_it_is_resumed() {
    let mut desk = Desk::with_film();
    let (suspend, resume) = (KeyRequest::Change(KeyChange::Suspended), KeyRequest::Change(KeyChange::Resumed));
    assert_eq!(desk.ask(&resume), Err(KeyError::NotSuspended));
    desk.ask(&suspend).unwrap();
    assert_eq!(desk.ask(&suspend), Err(KeyError::Suspended));
    for (operation, version) in [(KeyOperation::Encrypt, None), (KeyOperation::Decrypt, Some(1))] {
        assert_eq!(desk.use_of(operation, version), Err(KeyError::Suspended));
    }
    desk.ask(&resume).unwrap();
    desk.use_of(KeyOperation::Encrypt, None).unwrap();
    desk.use_of(KeyOperation::Decrypt, Some(1)).unwrap();
    desk.ask(&suspend).unwrap();
    desk.ask(&KeyRequest::Change(KeyChange::Revoked)).unwrap();
    assert_eq!(desk.ask(&resume), Err(KeyError::Revoked), "what was revoked does not come back");
}

#[test]
fn a_destroyed_version_stays_so_and_the_others_go_on() {
    let mut desk = Desk::with_film();
    assert_eq!(desk.ask(&KeyRequest::DestroyVersion(KeyVersion(3))), Err(KeyError::ActiveVersion(KeyVersion(3))));
    assert_eq!(desk.ask(&KeyRequest::DestroyVersion(KeyVersion(9))), Err(KeyError::NoSuchVersion(KeyVersion(9))));
    desk.ask(&KeyRequest::DestroyVersion(KeyVersion(1))).unwrap();
    assert_eq!(desk.ask(&KeyRequest::DestroyVersion(KeyVersion(1))), Err(KeyError::Revoked));
    desk.rotate();
    let states: Vec<_> = desk.keys.key(&film()).unwrap().versions.iter().map(|version| version.state).collect();
    use VersionState::{Active, Deactivated, Destroyed};
    assert_eq!(states, [Destroyed, Deactivated, Deactivated, Active]);
    assert_eq!(desk.use_of(KeyOperation::Decrypt, Some(1)), Err(KeyError::Revoked));
    desk.use_of(KeyOperation::Decrypt, Some(2)).unwrap();
}

#[test]
fn a_destroyed_key_is_gone_and_its_id_is_never_used_again() {
    for before in [None, Some(KeyChange::Suspended), Some(KeyChange::Revoked)] {
        let mut desk = Desk::with_film();
        if let Some(before) = before {
            desk.ask(&KeyRequest::Change(before)).unwrap();
        }
        desk.ask(&KeyRequest::Change(KeyChange::Destroyed)).unwrap();
        let key = desk.keys.key(&film()).unwrap();
        assert_eq!(key.state, KeyState::Destroyed);
        assert!(key.versions.iter().all(|version| version.state == VersionState::Destroyed));
        assert_eq!(desk.use_of(KeyOperation::Decrypt, Some(1)), Err(KeyError::Revoked));
        assert_eq!(desk.ask(&KeyRequest::Generate { policy: POLICY, record: None }), Err(KeyError::Exists));
        for change in [KeyChange::Destroyed, KeyChange::Revoked, KeyChange::Suspended, KeyChange::Resumed] {
            assert_eq!(desk.ask(&KeyRequest::Change(change)), Err(KeyError::Revoked));
        }
    }
}

#[test]
fn versions_below_the_minimum_are_not_read_until_it_is_lowered() {
    let mut desk = Desk::with_film();
    assert_eq!(desk.ask(&KeyRequest::DecryptFrom(KeyVersion(1))), Err(KeyError::Unchanged(KeyVersion(1))));
    assert_eq!(desk.ask(&KeyRequest::DecryptFrom(KeyVersion(4))), Err(KeyError::NoSuchVersion(KeyVersion(4))));
    desk.ask(&KeyRequest::DecryptFrom(KeyVersion(2))).unwrap();
    for operation in [KeyOperation::Decrypt, KeyOperation::UnwrapDataKey, KeyOperation::Rewrap] {
        let refused = KeyError::BelowMinimum { version: KeyVersion(1), minimum: KeyVersion(2) };
        assert_eq!(desk.use_of(operation, Some(1)), Err(refused));
        desk.use_of(operation, Some(2)).unwrap();
    }
    desk.ask(&KeyRequest::DecryptFrom(KeyVersion(1))).unwrap();
    desk.use_of(KeyOperation::Decrypt, Some(1)).unwrap();
}

#[test]
fn to_encrypt_anew_is_a_use_of_the_active_version() {
    let mut desk = Desk::with_film();
    desk.use_of(KeyOperation::Rewrap, Some(1)).unwrap();
    let uses: Vec<_> = desk.keys.key(&film()).unwrap().versions.iter().map(|version| version.uses).collect();
    assert_eq!(uses, [0, 0, 1]);
    assert_eq!(desk.events.last().unwrap().key_version, Some(KeyVersion(3)));
}

#[test]
fn a_request_with_an_idempotency_key_is_remembered_by_the_log_alone() {
    let mut desk = Desk::with_film();
    let tag = RequestTag::new(&"ops".parse().unwrap(), "retry-1", ("POST", "/v1/keys/film/suspend", b""));
    desk.ask_as(&KeyRequest::Change(KeyChange::Suspended), Some(tag)).unwrap();
    let answered = desk.keys.answered().find(&tag, Timestamp(1000)).unwrap();
    let event = desk.events.last().unwrap();
    assert_eq!((answered.sequence, answered.leaf, answered.tag), (event.sequence, event.hash, tag));
    let mut again = KeyTable::new();
    desk.events.iter().for_each(|event| again.apply(event).unwrap());
    assert_eq!(again, desk.keys);
    for other in [
        RequestTag::new(&"spo".parse().unwrap(), "retry-1", ("POST", "/v1/keys/film/suspend", b"")),
        RequestTag::new(&"ops".parse().unwrap(), "retry-2", ("POST", "/v1/keys/film/suspend", b"")),
        tag.item(0),
    ] {
        assert_eq!(desk.keys.answered().find(&other, Timestamp(1000)), None);
    }
    let other_body = RequestTag::new(&"ops".parse().unwrap(), "retry-1", ("POST", "/v1/keys/film/suspend", b"{}"));
    assert_eq!(desk.keys.answered().find(&other_body, Timestamp(1000)), Some(answered), "found, and seen to differ");
    assert_ne!(other_body.request, answered.tag.request);
    assert_ne!(desk.keys.answered(), &AnsweredRequests::new());
}

#[test]
fn no_log_resumes_or_alters_what_was_ended() {
    let mut desk = Desk::with_film();
    desk.ask(&KeyRequest::Change(KeyChange::Destroyed)).unwrap();
    for change in [KeyChange::Resumed, KeyChange::Suspended, KeyChange::Revoked, KeyChange::DecryptFrom] {
        let mut event = desk.events.last().unwrap().clone();
        (event.event_type, event.severity) = (AuditEventType::KeyRevoked, AuditSeverity::Warning);
        event.body = Some(EventBody::KeyChanged { change });
        let before = desk.keys.clone();
        assert!(desk.keys.apply(&event).is_err(), "{change:?}");
        assert_eq!(desk.keys, before);
    }
}

#[test]
fn the_manager_does_all_of_it_on_the_record() {
    let mut manager = KeyRotationManager::new(POLICY);
    manager.generate_key("reel").unwrap();
    manager.rotate_key("reel").unwrap();
    manager.suspend_key("reel").unwrap();
    assert_eq!(manager.use_key("reel", |_, _| ()), Err(KeyError::Suspended));
    manager.resume_key("reel").unwrap();
    manager.decrypt_from("reel", 2).unwrap();
    manager.destroy_version("reel", 1).unwrap();
    manager.use_key("reel", |version, _| assert_eq!(version, KeyVersion(2))).unwrap();
    manager.destroy_key("reel").unwrap();
    assert_eq!(manager.use_key("reel", |_, _| ()), Err(KeyError::Revoked));
    assert_eq!(manager.audit_log().events_by_type(&AuditEventType::KeyRevoked).len(), 5);
    assert!(manager.audit_log().verify_integrity());
}

fn any_request() -> impl Strategy<Value = KeyRequest> {
    let changes = [KeyChange::Revoked, KeyChange::Destroyed, KeyChange::Suspended, KeyChange::Resumed];
    let version = (1..5_u32).prop_map(KeyVersion);
    prop_oneof![
        1 => prop::sample::select(changes.to_vec()).prop_map(KeyRequest::Change),
        2 => version.clone().prop_map(KeyRequest::DestroyVersion),
        2 => version.clone().prop_map(KeyRequest::DecryptFrom),
        3 => Just(KeyRequest::Rotate { expected: None, reason: CreationReason::Manual, record: None }),
        3 => version.prop_map(|version| KeyRequest::Use {
            operation: KeyOperation::Decrypt,
            version: Some(version),
            context: None,
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_is_decided_is_applied_and_a_usable_key_has_one_active_version(requests in prop::collection::vec(any_request(), 0..40)) {
        let mut desk = Desk::with_film();
        for request in requests {
            // `ask` sees that what was decided can be applied.
            let _ = desk.ask(&request);
            let key = desk.keys.key(&film()).unwrap();
            let active = key.versions.iter().filter(|version| version.state == VersionState::Active).count();
            prop_assert_eq!(active, usize::from(matches!(key.state, KeyState::Active | KeyState::Suspended)));
        }
    }
}
