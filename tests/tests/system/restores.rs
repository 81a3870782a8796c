//! A log that is taken up again from an older copy: refused by everybody who knows better, unless the policy authority ordered
//! it; and then on the record.

use std::time::Duration;

use client::{ClientError, log_memory::LogError};
use testkit::world::{Plan, World};
use transcode_confidential::{
    audit::{
        EventBody,
        verify::{Note, Verdict},
    },
    ids::{Epoch, Sequence},
};

use crate::answers::code;

/// A world that went on after a copy of its log was made, with the copy in its place: its enclave is stopped.
async fn set_back() -> (World, Vec<u8>, Vec<u8>) {
    let mut world = World::with(Plan::default()).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let kept = operator.encrypt("content-key-1", b"kept").await.unwrap();
    world.restart_enclave().await;
    world.operator().encrypt("content-key-1", b"kept too").await.unwrap();
    world.stop_enclave().await.unwrap();
    world.stop_proxy().await;
    let copy = world.segments();
    world.start_proxy().await;
    let image = world.image().clone();
    for _ in 0..2 {
        world.launch(&image).await.unwrap();
        let operator = world.operator();
        operator.generate("content-key-2").await.ok();
        operator.encrypt("content-key-2", b"lost").await.unwrap();
        world.stop_enclave().await.unwrap();
    }
    world.check().intact();
    world.stop_proxy().await;
    world.edit_segments(|segments| *segments = copy);
    let report = world.check_unanchored().intact().report;
    let head = report.head.unwrap();
    let document = world.authority.restore((report.log_id.unwrap(), head.size, head.root), Epoch(4));
    world.start_proxy().await;
    (world, kept, document)
}

#[tokio::test]
async fn a_copy_without_an_order_is_refused_by_whoever_knows_more_whatever_they_are_told_to_accept() {
    let (mut world, ..) = set_back().await;
    let image = world.image().clone();
    world.launch(&image).await.unwrap();
    for accept in [false, true] {
        let operator = world.operator();
        if accept {
            operator.client.accept_restored();
        }
        let error = operator.client.log().await.unwrap_err();
        assert!(matches!(error, ClientError::Log(LogError::WentBack { .. } | LogError::Forked { .. })), "{error}");
    }
    assert!(matches!(world.check().report.verdict, Verdict::Truncated | Verdict::Forked));
}

#[tokio::test]
async fn an_order_is_recorded_and_accepted_by_who_is_told_to_and_the_evidence_is_kept() {
    let (mut world, kept, document) = set_back().await;
    let image = world.image().clone();
    std::fs::write(world.dir().join("restore.cose"), &document).unwrap();
    world.launch(&image).await.unwrap();
    // Offline: no false alarm, but it is said.
    let checked = world.check().intact();
    assert!(checked.report.notes.contains(&Note::Restored), "{:?}", checked.report.notes);
    assert!(checked.report.notes.contains(&Note::EvidenceOfLost), "{:?}", checked.report.notes);
    let epochs = checked.report.epochs.iter().map(|epoch| (epoch.epoch.0, epoch.restored));
    // The numbers of the lost epochs are not given again.
    assert_eq!(epochs.collect::<Vec<_>>(), [(1, false), (2, false), (5, true)]);
    // Online: refused with the way out, then accepted.
    let operator = world.operator();
    let error = operator.client.log().await.unwrap_err();
    assert!(matches!(error, ClientError::Log(LogError::Restored { .. })), "{error}");
    assert!(matches!(error.reason(), Some("log-went-back" | "log-forked")), "{error}");
    assert!(error.to_string().contains("--accept-restored"));
    operator.client.accept_restored();
    assert_eq!(operator.decrypt(&kept).await.unwrap(), b"kept");
    assert!(code(operator.encrypt("content-key-2", b"x").await).status() >= 400, "that key is lost");
    // Read live, the log goes across the restored epoch as it is on disk, without a gap.
    let size = operator.client.log().await.unwrap().checkpoint().state().size;
    let mut reader = operator.client.read_log(Sequence(0));
    let mut told = Vec::new();
    while reader.position().0 < size {
        told.extend(reader.next(Duration::ZERO).await.unwrap().events.into_iter().map(|(event, _)| event));
    }
    let stored = world.check_until(|checked| checked.events.len() as u64 >= size).await.events;
    assert_eq!(told[..], stored[..told.len()]);
    assert!(told.iter().any(|event| matches!(event.body, Some(EventBody::Restored { .. }))));
    let lost: Vec<_> = std::fs::read_dir(world.memory("operator").dir().join("lost")).unwrap().collect();
    assert_eq!(lost.len(), 1);
    // From here on the log is the log again, without being told.
    world.restart_enclave().await;
    let operator = world.operator();
    operator.encrypt("content-key-1", b"later").await.unwrap();
    let restored =
        |event: &&transcode_confidential::audit::AuditEvent| matches!(event.body, Some(EventBody::Restored { .. }));
    let checked = world.check().intact();
    assert_eq!(checked.events.iter().filter(restored).count(), 1, "once, although the document still lies there");
    // And what comes after it is missed as ever.
    world.stop_enclave().await.unwrap();
    world.stop_proxy().await;
    while world.check_unanchored().report.events + 4 > checked.report.events {
        world.edit_segments(|segments| testkit::segments::drop_batches(segments, 1));
    }
    assert_eq!(world.check().report.verdict, Verdict::Truncated);
}

#[tokio::test]
async fn an_order_for_another_head_log_or_deployment_or_by_somebody_else_changes_nothing() {
    let (mut world, _, document) = set_back().await;
    let image = world.image().clone();
    let claimed = transcode_confidential::protocol::restore::SignedRestore::claimed(&document).unwrap();
    let (log_id, size, root) = (claimed.log_id, claimed.size, claimed.root);
    let mut forged = document.clone();
    *forged.last_mut().unwrap() ^= 1;
    let other = testkit::world::PolicyAuthority::new("test");
    let documents = [
        world.authority.restore((log_id, size - 1, root), Epoch(4)),
        world.authority.restore((transcode_confidential::ids::LogId::new([9; 16]), size, root), Epoch(4)),
        other.restore((log_id, size, root), Epoch(4)),
        forged,
        b"no document".to_vec(),
    ];
    for document in documents {
        std::fs::write(world.dir().join("restore.cose"), &document).unwrap();
        world.launch(&image).await.unwrap();
        let operator = world.operator();
        operator.client.accept_restored();
        let error = operator.client.log().await.unwrap_err();
        assert!(matches!(error, ClientError::Log(LogError::WentBack { .. } | LogError::Forked { .. })), "{error}");
        world.stop_enclave().await.unwrap();
        world.stop_proxy().await;
        // The next is about the copy again.
        let shown = world.check_unanchored().intact();
        assert!(!shown.report.notes.contains(&Note::Restored));
        world.edit_segments(|segments| drop(segments.pop_last()));
        world.start_proxy().await;
    }
}
