//! What is taken away is gone from the event on that says so, whoever was on his way.

use model::{
    custody::{Asked, Change, CustodyError},
    grants::AdoptError,
    stage::{Core, OPERATOR, TRANSCODER, play},
};
use testkit::world::people::grant;
use transcode_confidential::{
    audit::{AuditEvent, AuditEventType},
    keys::KeyError,
    protocol::policy::{Operation, PolicyError},
};

/// Positions of the events of a type.
fn positions(events: &[AuditEvent], event_type: AuditEventType) -> Vec<u64> {
    events.iter().filter(|event| event.event_type == event_type).map(|event| event.sequence.0).collect()
}

#[test]
fn a_use_that_races_a_policy_that_forbids_it_is_on_the_record_before_it_or_not_at_all() {
    play("a grant that is taken back", 1500, || async {
        let (core, mut authority, writing) = Core::start(64).await;
        core.generate("film", 100).await.unwrap();
        let users: Vec<_> = (0..3)
            .map(|_| {
                let permit = core.permit(TRANSCODER, Operation::Encrypt, "film");
                let core = core.clone();
                core.island.spawn(async move { core.encrypt(&permit).await.map(|grant| grant.receipt.clone()) })
            })
            .collect();
        let document = authority.issue(|policy| policy.grants = vec![grant(OPERATOR, "", &Operation::ALL)]);
        let adopting = core.clone();
        let adopted =
            core.island.spawn(async move { adopting.grants.adopt(adopting.ledger(), &document, None).await.map(drop) });
        let mut granted = Vec::new();
        for user in users {
            match user.await.unwrap() {
                Ok(receipt) => granted.push(receipt),
                Err(CustodyError::Key(KeyError::Unknown)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        adopted.await.unwrap().unwrap();
        let record = core.end(writing).await;
        let policy = positions(&record.events, AuditEventType::PolicyChanged)[0];
        let uses = positions(&record.events, AuditEventType::KeyUsed);
        assert!(uses.iter().all(|used| *used < policy), "uses at {uses:?}, taken back at {policy}");
        record.holds_all(&granted);
    });
}

#[test]
fn a_use_that_races_a_revocation_is_on_the_record_before_it_or_not_at_all() {
    play("a key that is revoked", 1500, || async {
        let (core, _authority, writing) = Core::start(64).await;
        core.generate("film", 100).await.unwrap();
        let users: Vec<_> = (0..3)
            .map(|_| {
                let permit = core.permit(TRANSCODER, Operation::Encrypt, "film");
                let core = core.clone();
                core.island.spawn(async move { core.encrypt(&permit).await.map(|grant| grant.receipt.clone()) })
            })
            .collect();
        let permit = core.permit(OPERATOR, Operation::Revoke, "film");
        let revoking = core.clone();
        let revoked = core.island.spawn(async move {
            let asked = Asked { permit: &permit, expected: None, tag: None };
            revoking.custody.change(&asked, Change::Revoke).await.map(|changed| changed.receipt)
        });
        let mut granted = Vec::new();
        for user in users {
            match user.await.unwrap() {
                Ok(receipt) => granted.push(receipt),
                Err(CustodyError::Key(KeyError::Revoked)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let revoked = revoked.await.unwrap().unwrap();
        let permit = core.permit(TRANSCODER, Operation::Encrypt, "film");
        assert!(matches!(core.encrypt(&permit).await, Err(CustodyError::Key(KeyError::Revoked))));
        let record = core.end(writing).await;
        let ended = record.holds(&revoked).sequence.0;
        let uses = positions(&record.events, AuditEventType::KeyUsed);
        assert!(uses.iter().all(|used| *used < ended), "uses at {uses:?}, revoked at {ended}");
        assert!(granted.iter().all(|receipt| record.holds(receipt).sequence.0 < ended));
    });
}

#[test]
fn of_policies_that_are_adopted_at_once_versions_only_ever_go_up() {
    play("policies at once", 500, || async {
        let (core, mut authority, writing) = Core::start(64).await;
        let second = authority.issue(|_| ());
        let third = authority.issue(|_| ());
        let adopting: Vec<_> = [&second, &third, &second, &third]
            .map(|document| {
                let (core, document) = (core.clone(), document.clone());
                core.island.spawn(async move { core.grants.adopt(core.ledger(), &document, None).await })
            })
            .into_iter()
            .collect();
        let mut adopted = Vec::new();
        for task in adopting {
            match task.await.unwrap() {
                Ok((version, receipt)) => adopted.push((version, receipt.sequence)),
                Err(AdoptError::Policy(PolicyError::NotNewer { .. })) => {}
                Err(error) => panic!("{error}"),
            }
        }
        adopted.sort_by_key(|(_, sequence)| *sequence);
        assert!(adopted.is_sorted_by(|(a, _), (b, _)| a < b), "{adopted:?}");
        assert_eq!(adopted.last().map(|(version, _)| *version), Some(3));
        assert_eq!(core.grants.version(), 3);
        let record = core.end(writing).await;
        assert_eq!(positions(&record.events, AuditEventType::PolicyChanged).len(), adopted.len());
    });
}
