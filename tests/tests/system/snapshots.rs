//! Snapshots: a boot begins with the last one, and comes to the same as one that reads everything.

use std::collections::BTreeMap;

use enclave_app::{Fatal, boot::BootError};
use testkit::{
    nsm::MockImage,
    segments,
    world::{Plan, World, key_id},
};
use transcode_confidential::{
    audit::{
        AuditEventType, Chain, EventBody, decode_leaf,
        segment::{RECORD_HEAD, Record, RecordKind, SegmentHeader, SegmentName},
        tree::Frontier,
        verify::Verdict,
    },
    fold::Snapshot,
    ids::{Digest, Epoch, Sequence},
    keys::KeyRotationPolicy,
    protocol::host::APPEND_LIMIT,
};

/// For a disk that has other things to do.
const PATIENCE_MS: u64 = 60_000;

/// A log of some length, whose second epoch begins with a snapshot near its end; the enclave is stopped.
async fn written(mut plan: Plan) -> (World, Vec<u8>) {
    // Nothing here is about patience.
    plan.limits.audit_wait_ms = PATIENCE_MS;
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

/// Makes the check sums of a record right again.
fn mend(bytes: &mut [u8], start: usize, end: usize) {
    let sum = crc32c::crc32c(&bytes[start + RECORD_HEAD..end]).to_be_bytes();
    bytes[start + 8..start + 12].copy_from_slice(&sum);
    let sum = crc32c::crc32c(&bytes[start..start + 12]).to_be_bytes();
    bytes[start + 12..start + 16].copy_from_slice(&sum);
}

#[tokio::test]
async fn a_snapshot_with_any_part_changed_opens_no_epoch() {
    let (mut world, _) = written(Plan::scripted()).await;
    let image = world.image().clone();
    let good = world.segments();
    let name = snapshot_segment(&good);
    let records = segments::records(&good[&name]);
    let mut cases: BTreeMap<(String, &str), usize> = BTreeMap::new();
    // Header and every record: its head, and what is in it; with the check sum left wrong, and with it made right.
    let mut places = vec![("header".to_owned(), 0, SegmentHeader::LEN, None)];
    for (at, record) in &records {
        let (kind, start, end) = (record.kind, *at, at + record.disk_len());
        places.push((format!("head of {kind:?}"), start, start + RECORD_HEAD, None));
        places.push((format!("{kind:?}"), start + RECORD_HEAD, end, Some(start)));
    }
    for (region, start, end, record) in places {
        for offset in (start..end).step_by(((end - start) / 12).max(1)) {
            for mended in [false, true] {
                let mut bad = good.clone();
                segments::flip(&mut bad, name, offset);
                match record {
                    Some(start) if mended => mend(bad.get_mut(&name).unwrap(), start, end),
                    None if mended => continue,
                    _ => {}
                }
                world.scripted().edit(|segments| *segments = bad);
                world.scripted().script(|script| script.snapshot = Some(Some(name)));
                let expected = if mended { Verdict::Tampered } else { Verdict::Damaged };
                let fatal = world.launch(&image).await.unwrap_err();
                let Fatal::Boot(BootError::Log(report)) = fatal else { panic!("{region}, {offset}: {fatal}") };
                assert_eq!(report.verdict, expected, "{region}, offset {offset}: {:?}", report.first_bad);
                // Offline, with everything before it, and where the place is named.
                let report = world.check_unanchored().report;
                let bad = report.first_bad.unwrap_or_else(|| panic!("{region}, offset {offset}: not found offline"));
                assert_eq!((report.verdict, bad.segment), (expected, Some(name)), "{region}, offset {offset}");
                *cases.entry((region.clone(), if mended { "mended" } else { "as it is" })).or_default() += 1;
            }
        }
    }
    println!("flipped bytes that opened no epoch, and that the verifier named: {cases:#?}");
    assert!(cases.values().sum::<usize>() > 200, "{cases:?}");
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
    plan.limits.audit_wait_ms = PATIENCE_MS;
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

#[tokio::test]
async fn a_snapshot_of_another_tree_does_not_fit_the_seal_behind_it_however_well_it_is_made() {
    let (mut world, _) = written(Plan::scripted()).await;
    let image = world.image().clone();
    let good = world.segments();
    let name = snapshot_segment(&good);
    // The log ends with the snapshot's own seal, so that nothing else speaks against another tree.
    let mut records: Vec<Record> = segments::records(&good[&name]).into_iter().map(|(_, record)| record).collect();
    let seal = records.iter().position(|record| record.kind == RecordKind::Seal).unwrap();
    records.truncate(seal + 1);
    let mut good: segments::Segments = good.range(..=name).map(|(name, bytes)| (*name, bytes.clone())).collect();
    let whole = with_records(&good[&name], &records);
    good.insert(name, whole);
    let is_part = |record: &&Record| record.kind == RecordKind::Snapshot;
    let parts: Vec<Vec<u8>> = records.iter().take_while(is_part).map(|record| record.payload.clone()).collect();
    let snapshot = Snapshot::decode(&parts).unwrap();
    let peaks = snapshot.chain.frontier().peaks().to_vec();
    for peak in 0..=peaks.len() {
        let mut peaks = peaks.clone();
        if let Some(peak) = peaks.get_mut(peak) {
            peak[7] ^= 1;
        }
        // The head names that tree, the entry names that head, and every check sum is right. The last time it is as it was.
        let tree = Frontier::from_parts(snapshot.chain.size(), peaks).unwrap();
        let chain = &snapshot.chain;
        let chain = Chain::from_parts(chain.epoch(), chain.last(), chain.time(), tree);
        let made = Snapshot::encode(snapshot.log_id, &chain, &snapshot.fold).unwrap();
        let mut event = decode_leaf(&records[parts.len()].payload).unwrap();
        event.body = Some(EventBody::Snapshot { parts: made.iter().map(|part| Digest::of(part)).collect() });
        let mut changed: Vec<Record> = made.into_iter().map(|part| Record::new(RecordKind::Snapshot, part)).collect();
        changed.push(Record::new(RecordKind::Entry, event.to_leaf().unwrap()));
        changed.extend_from_slice(&records[changed.len()..]);
        let mut bad = good.clone();
        bad.insert(name, with_records(&good[&name], &changed));
        let same = bad == good;
        assert_eq!(same, peak == snapshot.chain.frontier().peaks().len());
        // Alone, as after pruning, and with everything.
        let rest: segments::Segments = bad.range(name..).map(|(name, bytes)| (*name, bytes.clone())).collect();
        for segments in [rest, bad] {
            let alone = segments.len() < good.len();
            world.scripted().edit(|stored| *stored = segments);
            let report = world.check_unanchored().report;
            let expected = match (same, alone) {
                (false, _) => Verdict::Tampered,
                // No record gives up what was before it.
                (true, true) => Verdict::Truncated,
                (true, false) => Verdict::Intact,
            };
            assert_eq!(report.verdict, expected, "{:?}", report.first_bad);
            if same {
                continue;
            }
            world.scripted().script(|script| script.snapshot = Some(Some(name)));
            let fatal = world.launch(&image).await.unwrap_err();
            let Fatal::Boot(BootError::Log(report)) = fatal else { panic!("peak {peak}: {fatal}") };
            assert_eq!(report.verdict, Verdict::Tampered, "peak {peak}: {:?}", report.first_bad);
        }
    }
    assert!(!peaks.is_empty());
}

/// A segment with other records, as a parent could have stored it: check sums right, everything else as it was.
fn with_records(bytes: &[u8], records: &[Record]) -> Vec<u8> {
    let mut out = bytes[..SegmentHeader::LEN].to_vec();
    records.iter().for_each(|record| record.write_to(&mut out));
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_more_than_one_request_is_staged_whole_and_whatever_is_done_to_its_parts_shows() {
    let mut plan = Plan::default();
    plan.limits.audit_wait_ms = PATIENCE_MS;
    let mut world = World::with(plan).await;
    let image = world.image().clone();
    let ids: Vec<String> = (0..8).map(|n| format!("content-{n}-{}", "x".repeat(110))).collect();
    let mut lives = Vec::new();
    for id in &ids {
        let operator = world.operator();
        operator.generate(id).await.unwrap();
        let (id, client) = (key_id(id), operator.client.clone());
        // What each of these leaves behind is that it was answered.
        lives.push(tokio::spawn(async move {
            for _ in 0..220 {
                client.suspend_key(&id, None).await.unwrap();
                client.resume_key(&id, None).await.unwrap();
            }
        }));
    }
    for life in lives {
        life.await.unwrap();
    }
    let once = world.operator().client.repeatable_as("once").rotate_key(&key_id(&ids[0]), None).await.unwrap();
    world.operator().snapshot().await.unwrap();
    world.kill_enclave().await;
    world.stop_proxy().await;
    let (good, name) = (world.segments(), snapshot_segment(&world.segments()));
    let records: Vec<Record> = segments::records(&good[&name]).into_iter().map(|(_, record)| record).collect();
    let is_part = |record: &&Record| record.kind == RecordKind::Snapshot;
    let parts = records.iter().take_while(is_part).count();
    let length: usize = records.iter().take(parts).map(|part| part.payload.len()).sum();
    println!("a snapshot of {length} bytes in {parts} parts");
    assert!(length > APPEND_LIMIT && parts > 3, "{length} bytes in {parts} parts");
    world.check().intact();

    // Dropped, twice, in another order, changed; all of them.
    let mut cases = vec![("all dropped".to_owned(), records[parts..].to_vec())];
    for part in 0..parts {
        let mut case = |what: &str, change: &dyn Fn(&mut Vec<Record>)| {
            let mut records = records.clone();
            change(&mut records);
            cases.push((format!("part {part} {what}"), records));
        };
        case("dropped", &|records| drop(records.remove(part)));
        case("twice", &|records| records.insert(part, records[part].clone()));
        case("moved", &|records| records.swap(part, (part + 1) % parts));
        case("changed", &|records| {
            let middle = records[part].payload.len() / 2;
            records[part].payload[middle] ^= 1;
        });
        case("cut", &|records| {
            records[part].payload.pop();
        });
    }
    let count = cases.len();
    for (what, records) in cases {
        let mut bad = good.clone();
        bad.insert(name, with_records(&good[&name], &records));
        world.edit_segments(|segments| *segments = bad);
        let offline = world.check_unanchored().report;
        let found = offline.first_bad.unwrap_or_else(|| panic!("{what}: not found offline"));
        assert_eq!((offline.verdict, found.segment), (Verdict::Tampered, Some(name)), "{what}: {}", found.what);
        world.start_proxy().await;
        let fatal = world.launch(&image).await.unwrap_err();
        let Fatal::Boot(BootError::Log(report)) = fatal else { panic!("{what}: {fatal}") };
        assert_eq!(report.verdict, Verdict::Tampered, "{what}: {:?}", report.first_bad);
        world.stop_proxy().await;
    }
    println!("{count} changes of staged parts: none opened an epoch, all were named");

    // As it was, it carries everything; also alone.
    world.edit_segments(|segments| *segments = good);
    world.start_proxy().await;
    world.launch(&image).await.unwrap();
    let operator = world.operator();
    let again = operator.client.repeatable_as("once").rotate_key(&key_id(&ids[0]), None).await.unwrap();
    assert_eq!(again.receipt.0.sequence, once.receipt.0.sequence);
    operator.prune().await.unwrap();
    world.restart_enclave().await;
    assert_eq!(world.operator().client.list_keys().await.unwrap().len(), ids.len());
    world.check().intact();
}
