//! Snapshots: a boot begins with the last one, and comes to the same as one that reads everything.

use enclave_app::{Fatal, boot::BootError};
use testkit::{
    nsm::MockImage,
    segments,
    world::{Plan, World},
};
use transcode_confidential::{
    audit::{
        AuditEventType, EventBody,
        segment::{RECORD_HEAD, RecordKind, SegmentHeader, SegmentName},
        verify::Verdict,
    },
    ids::{Epoch, Sequence},
    keys::KeyRotationPolicy,
};

/// A log of some length, whose second epoch begins with a snapshot near its end; the enclave is stopped.
async fn written(plan: Plan) -> (World, Vec<u8>) {
    let mut world = World::with(plan).await;
    let operator = world.operator();
    let policy = KeyRotationPolicy { max_uses: 1000, ..KeyRotationPolicy::default() };
    operator.generate_under("content-key-1", policy).await.unwrap();
    operator.generate("content-key-2").await.unwrap();
    let message = operator.encrypt("content-key-1", b"frame").await.unwrap();
    operator.revoke("content-key-2").await.unwrap();
    for _ in 0..20 {
        operator.encrypt("content-key-1", b"frame").await.unwrap();
    }
    world.restart_enclave().await;
    let operator = world.operator();
    operator.rotate("content-key-1").await.unwrap();
    operator.client.place_hold("case 7").await.unwrap();
    operator.snapshot().await.unwrap();
    operator.encrypt("content-key-1", b"behind").await.unwrap();
    world.stop_enclave().await.unwrap();
    (world, message)
}

fn length(segments: &segments::Segments) -> u64 {
    segments.values().map(|bytes| bytes.len() as u64).sum()
}

/// The segment that begins with a snapshot.
fn snapshot_segment(segments: &segments::Segments) -> SegmentName {
    let begins = |bytes: &[u8]| segments::records(bytes)[0].1.kind == RecordKind::Snapshot;
    *segments.iter().find(|(_, bytes)| begins(bytes)).unwrap().0
}

#[tokio::test]
async fn a_boot_reads_what_lies_behind_the_last_snapshot_and_comes_to_the_same_as_one_that_reads_everything() {
    let (mut world, message) = written(Plan::scripted()).await;
    let image = world.image().clone();
    let whole = length(&world.segments());
    let tail: u64 = {
        let (segments, from) = (world.segments(), snapshot_segment(&world.segments()));
        segments.range(from..).map(|(_, bytes)| bytes.len() as u64).sum()
    };
    assert!(tail * 2 < whole, "{tail} of {whole} bytes lie behind the snapshot");
    let mut seen = Vec::new();
    for told in [None, Some(None)] {
        world.scripted().script(|script| script.snapshot = told);
        let (before, all, expected) = (world.scripted().sent(), length(&world.segments()), told.is_some());
        world.launch(&image).await.unwrap();
        let sent = world.scripted().sent() - before;
        assert_eq!(sent == all, expected, "{sent} of {all} bytes");
        assert!(expected || sent < all / 2, "{sent} of {all} bytes");
        let operator = world.operator();
        assert_eq!(operator.decrypt(&message).await.unwrap(), b"frame");
        let status = operator.client.status().await.unwrap();
        let keys = operator.client.list_keys().await.unwrap();
        let holds = operator.client.holds().await.unwrap();
        seen.push((keys, holds, status.policy_version, status.active_keys));
        world.stop_enclave().await.unwrap();
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].0.len(), 2);
    let checked = world.check().intact();
    assert_eq!(checked.uses("content-key-1", 1), 21);
    assert_eq!(checked.of_type(AuditEventType::EnclaveCreated).len(), 4);
}

#[tokio::test]
async fn the_real_parent_begins_a_segment_with_a_snapshot_and_finds_it_again_after_a_restart() {
    let (mut world, message) = written(Plan::default()).await;
    let image = world.image().clone();
    assert!(snapshot_segment(&world.segments()).first > Sequence(0));
    world.stop_proxy().await;
    // The second of these takes a restart of both, too.
    for _ in 0..2 {
        world.start_proxy().await;
        world.launch(&image).await.unwrap();
        assert_eq!(world.operator().decrypt(&message).await.unwrap(), b"frame");
        world.stop_enclave().await.unwrap();
        world.stop_proxy().await;
        world.check().intact();
    }
}

#[tokio::test]
async fn whatever_a_parent_says_about_snapshots_it_is_found_out_or_does_no_harm() {
    let (mut world, message) = written(Plan::scripted()).await;
    let image = world.image().clone();
    let good = world.segments();
    let from = snapshot_segment(&good);
    let first = *good.first_key_value().unwrap().0;
    // A segment that is not there, or is of another epoch: no epoch is opened.
    for told in [SegmentName { first: Sequence(5), epoch: Epoch(1) }, SegmentName { epoch: Epoch(9), ..from }] {
        world.scripted().script(|script| script.snapshot = Some(Some(told)));
        let fatal = world.launch(&image).await.unwrap_err();
        assert!(matches!(fatal, Fatal::Boot(BootError::Host(_))), "{fatal}");
    }
    // One that does not begin with a snapshot, and nothing behind it: nothing of it is believed.
    let before = *good.range(..from).next_back().unwrap().0;
    let rest: segments::Segments = good.range(before..from).map(|(name, bytes)| (*name, bytes.clone())).collect();
    world.scripted().edit(|segments| *segments = rest);
    world.scripted().script(|script| script.snapshot = Some(Some(before)));
    let fatal = world.launch(&image).await.unwrap_err();
    let Fatal::Boot(BootError::Log(report)) = fatal else { panic!("{fatal}") };
    assert_eq!(report.verdict, Verdict::Truncated);
    // With the snapshot behind it, it is passed over.
    world.scripted().edit(|segments| *segments = good.clone());
    world.launch(&image).await.unwrap();
    assert_eq!(world.operator().decrypt(&message).await.unwrap(), b"frame");
    world.stop_enclave().await.unwrap();
    // The first segment is no snapshot, and needs none.
    world.scripted().script(|script| script.snapshot = Some(Some(first)));
    world.launch(&image).await.unwrap();
    assert_eq!(world.operator().decrypt(&message).await.unwrap(), b"frame");
    world.stop_enclave().await.unwrap();
    world.check().intact();
}

#[tokio::test]
async fn a_snapshot_with_any_part_changed_opens_no_epoch() {
    let (mut world, _) = written(Plan::scripted()).await;
    let image = world.image().clone();
    let good = world.segments();
    let name = snapshot_segment(&good);
    let records = segments::records(&good[&name]);
    let mut cases = 0;
    // Header, every part, the entry and its seal; with the check sum left wrong, and with it made right.
    let mut places: Vec<(usize, usize)> = vec![(0, SegmentHeader::LEN)];
    places.extend(records.iter().take(4).map(|(at, record)| (*at, at + record.disk_len())));
    for (start, end) in places {
        for offset in (start..end).step_by(((end - start) / 5).max(1)) {
            for mended in [false, true] {
                let mut bad = good.clone();
                segments::flip(&mut bad, name, offset);
                let in_payload = start > 0 && offset >= start + RECORD_HEAD;
                if mended && in_payload {
                    let bytes = bad.get_mut(&name).unwrap();
                    let sum = crc32c::crc32c(&bytes[start + RECORD_HEAD..end]).to_be_bytes();
                    bytes[start + 8..start + 12].copy_from_slice(&sum);
                    let sum = crc32c::crc32c(&bytes[start..start + 12]).to_be_bytes();
                    bytes[start + 12..start + 16].copy_from_slice(&sum);
                } else if mended {
                    continue;
                }
                world.scripted().edit(|segments| *segments = bad);
                world.scripted().script(|script| script.snapshot = Some(Some(name)));
                let fatal = world.launch(&image).await.unwrap_err();
                let Fatal::Boot(BootError::Log(report)) = fatal else { panic!("{offset}: {fatal}") };
                let expected = if mended { Verdict::Tampered } else { Verdict::Damaged };
                assert_eq!(report.verdict, expected, "offset {offset}: {:?}", report.first_bad);
                cases += 1;
            }
        }
    }
    assert!(cases > 20, "{cases}");
    world.scripted().edit(|segments| *segments = good);
    world.launch(&image).await.unwrap();
    world.check().intact();
}

#[tokio::test]
async fn a_snapshot_by_an_image_that_is_not_accepted_is_refused() {
    let (mut world, _) = written(Plan::scripted()).await;
    let other = MockImage::named("other");
    world.kms_accepts(&[world.image().clone(), other.clone()]);
    let fatal = world.launch(&other).await.unwrap_err();
    let Fatal::Boot(BootError::Log(report)) = fatal else { panic!("{fatal}") };
    assert_eq!(report.verdict, Verdict::Tampered);
    assert!(report.first_bad.as_ref().unwrap().what.contains("attestation document refused"), "{report:?}");
    // The same image is fine with the one before it as its predecessor.
    let old = world.image().clone();
    let [pcr0, pcr1, pcr2] = old.identity.map(|value| value.to_string());
    let predecessor = enclave_app::config::Predecessor { label: "old".into(), pcr0, pcr1, pcr2 };
    let production = testkit::nsm::Mode::Production;
    world.launch_with(&other, production, |config| config.predecessors.push(predecessor)).await.unwrap();
    world.accept_image(&other);
    world.check().intact();
}

#[tokio::test]
async fn snapshots_are_taken_by_themselves_and_at_a_clean_end() {
    let mut plan = Plan::default();
    plan.limits.sweep_secs = 1;
    plan.log.snapshot_events = 16;
    let mut world = World::with(plan).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    for _ in 0..16 {
        operator.encrypt("content-key-1", b"frame").await.unwrap();
    }
    let count = |checked: &testkit::world::Checked| {
        let is =
            |event: &&transcode_confidential::audit::AuditEvent| matches!(event.body, Some(EventBody::Snapshot { .. }));
        checked.events.iter().filter(is).count()
    };
    world.check_until(|checked| count(checked) == 1).await;
    operator.encrypt("content-key-1", b"frame").await.unwrap();
    world.stop_enclave().await.unwrap();
    assert_eq!(count(&world.check().intact()), 2);
    // Where nothing has happened since, nothing is written down again.
    let image = world.image().clone();
    world.launch(&image).await.unwrap();
    assert_eq!(world.operator().key("content-key-1").await.unwrap().versions[0].uses, 17);
}
