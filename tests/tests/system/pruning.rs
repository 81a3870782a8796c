//! Pruning: what is given up is on the record first, what is left verifies, and nothing is given up that is still needed.

use testkit::{
    kms::fault::Fault,
    parent::Appends,
    segments,
    world::{Caller, Plan, World},
};
use transcode_confidential::{
    audit::{
        AuditEventType, EventBody,
        verify::{Note, Verdict},
    },
    ids::Sequence,
    protocol::api::ErrorCode,
};

use crate::{
    answers::{answer, code},
    desk::Desk,
};

/// Two epochs with keys and uses, and a snapshot behind them.
async fn written(mut plan: Plan) -> (World, Vec<u8>, Sequence) {
    plan.limits.audit_wait_ms = plan.limits.audit_wait_ms.max(10_000);
    let mut world = World::with(plan).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let message = operator.encrypt("content-key-1", b"frame").await.unwrap();
    world.restart_enclave().await;
    let operator = world.operator();
    operator.rotate("content-key-1").await.unwrap();
    operator.encrypt("content-key-1", b"frame").await.unwrap();
    let snapshot = operator.snapshot().await.unwrap();
    (world, message, snapshot.sequence)
}

async fn fresh(world: &World, name: &str) -> Caller {
    let caller = world.caller(name);
    caller.client.log().await.unwrap();
    caller
}

#[tokio::test]
async fn what_is_pruned_is_gone_and_everything_else_goes_on() {
    let (mut world, message, snapshot) = written(Plan::default()).await;
    let operator = world.operator();
    let before = world.segments();
    let done = operator.prune().await.unwrap();
    assert_eq!(done.below, Some(snapshot));
    let after = world.segments();
    assert_eq!(after.first_key_value().unwrap().0.first, snapshot);
    assert!(after.len() < before.len());
    // Offline: intact, from there on, with everything that anybody holds about what is gone.
    let checked = world.check().intact();
    assert_eq!((checked.report.begins, checked.report.kept_from), (snapshot, snapshot));
    assert!(checked.report.notes.contains(&Note::Pruned));
    assert!(checked.report.notes.contains(&Note::EvidenceOfPruned));
    assert_eq!(checked.report.epochs.iter().map(|epoch| epoch.told).collect::<Vec<_>>(), [true, false]);
    let pruned = checked.of_type(AuditEventType::LogMaintained);
    let is = |event: &&transcode_confidential::audit::AuditEvent| {
        event.body == Some(EventBody::Pruned { below: snapshot, proven: 2 })
    };
    assert_eq!(pruned.into_iter().filter(is).count(), 1);
    // The clients' old checkpoints are proven to be continued: the hashes of what is gone were kept.
    for restart in [false, true] {
        if restart {
            world.restart_enclave().await;
            world.kill_proxy().await;
            world.start_proxy().await;
        }
        let operator = fresh(&world, "operator").await;
        assert_eq!(operator.decrypt(&message).await.unwrap(), b"frame");
        operator.encrypt("content-key-1", b"later").await.unwrap();
    }
    let key = world.operator().key("content-key-1").await.unwrap();
    assert_eq!(key.versions.iter().map(|version| version.uses).collect::<Vec<_>>(), [1, 3]);
    world.check().intact();
    // There is nothing left to give up.
    assert_eq!(code(world.operator().prune().await), ErrorCode::Conflict);
}

#[tokio::test]
async fn a_legal_hold_forbids_pruning_also_after_a_restart_until_it_is_lifted() {
    let (mut world, _, _) = written(Plan::default()).await;
    let operator = world.operator();
    operator.kept_done(operator.client.place_hold("case 7").await).unwrap();
    assert_eq!(code(operator.client.place_hold("case 7").await), ErrorCode::Conflict);
    assert_eq!(code(operator.client.lift_hold("case 8").await), ErrorCode::Conflict);
    assert_eq!(code(operator.client.place_hold("").await), ErrorCode::Malformed);
    for restart in [false, true] {
        if restart {
            world.restart_enclave().await;
        }
        let operator = world.operator();
        let (code, message) = answer(operator.prune().await);
        assert_eq!(code, ErrorCode::Conflict);
        assert!(message.contains("case 7"), "{message}");
        let holds = operator.client.holds().await.unwrap();
        assert_eq!(
            holds.iter().map(|hold| (hold.name.as_str(), hold.principal.as_deref())).collect::<Vec<_>>(),
            [("case 7", Some("operator"))]
        );
    }
    assert_eq!(world.segments().first_key_value().unwrap().0.first, Sequence(0));
    let operator = world.operator();
    operator.kept_done(operator.client.lift_hold("case 7").await).unwrap();
    operator.prune().await.unwrap();
    let named = |event: transcode_confidential::audit::AuditEvent| match event.body {
        Some(EventBody::Hold { name, .. }) => Some((name, event.principal)),
        _ => None,
    };
    let holds: Vec<_> = world.check().intact().events.into_iter().filter_map(named).collect();
    assert_eq!(holds, vec![("case 7".to_owned(), Some("operator".to_owned())); holds.len()]);
    assert!(!holds.is_empty());
}

#[tokio::test]
async fn only_who_has_the_grant_may_keep_the_log() {
    let (world, ..) = written(Plan::default()).await;
    let other = world.transcoder();
    assert_eq!(code(other.client.snapshot_log().await), ErrorCode::Denied);
    assert_eq!(code(other.client.prune_log(None).await), ErrorCode::Denied);
    assert_eq!(code(other.client.place_hold("x").await), ErrorCode::Denied);
    assert_eq!(code(other.client.lift_hold("x").await), ErrorCode::Denied);
    assert_eq!(code(other.client.holds().await), ErrorCode::Denied);
    world.check().intact();
}

#[tokio::test]
async fn nothing_is_given_up_while_a_key_cannot_be_unwrapped() {
    let (world, message, snapshot) = written(Plan::default()).await;
    let operator = world.operator();
    for fault in [Fault::Error(400, "AccessDeniedException", "no"), Fault::PlaintextInstead] {
        world.kms.fail_next(1, fault);
        assert_eq!(code(operator.prune().await), ErrorCode::KmsUnavailable);
        assert_eq!(world.segments().first_key_value().unwrap().0.first, Sequence(0));
    }
    let unwrapped = world.kms.requests().len();
    assert_eq!(operator.prune().await.unwrap().below, Some(snapshot));
    assert_eq!(world.kms.requests().len() - unwrapped, 2, "each version once, whatever is in memory");
    assert_eq!(operator.decrypt(&message).await.unwrap(), b"frame");
    world.check().intact();
}

#[tokio::test]
async fn the_parent_is_not_told_to_drop_anything_before_the_record_of_it_is_durable() {
    let (mut world, ..) = written(Plan::scripted()).await;
    let operator = world.operator();
    operator.client.log().await.unwrap();
    let told = |world: &World| world.scripted().requests().into_iter().filter(|kind| *kind == "prune").count();
    world.scripted().script(|script| script.appends = Appends::Hold);
    assert_eq!(code(operator.prune().await), ErrorCode::AuditUnavailable);
    assert_eq!(told(&world), 0);
    world.scripted().script(|script| script.appends = Appends::Keep);
    world.restart_enclave().await;
    // At the next boot it is on the record.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while told(&world) == 0 {
        assert!(tokio::time::Instant::now() < deadline, "the parent is never told");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    world.check().intact();
}

#[tokio::test]
async fn what_the_retention_policy_keeps_nobody_prunes() {
    let mut plan = Plan::default();
    plan.log.keep_events = 12;
    plan.log.prune = true;
    plan.limits.sweep_secs = 1;
    let (world, _, snapshot) = written(plan).await;
    let operator = world.operator();
    assert_eq!(code(operator.prune().await), ErrorCode::Conflict);
    assert_eq!(world.segments().first_key_value().unwrap().0.first, Sequence(0));
    for _ in 0..6 {
        operator.encrypt("content-key-1", b"frame").await.unwrap();
    }
    // From here on it is due, and happens by itself.
    world.check_until(|checked| checked.report.begins == snapshot).await;
}

#[tokio::test]
async fn segments_that_are_missing_without_a_record_are_missed() {
    let (mut world, ..) = written(Plan::default()).await;
    world.stop_enclave().await.unwrap();
    world.stop_proxy().await;
    let good = world.segments();
    for missing in 1..good.len() {
        world.edit_segments(|segments| {
            for _ in 0..missing {
                segments.pop_first();
            }
        });
        let report = world.check_unanchored().report;
        assert_eq!(report.verdict, Verdict::Truncated, "without the first {missing}: {report:?}");
        assert!(report.first_bad.unwrap().what.contains("begins only at event"));
        world.edit_segments(|segments| *segments = good.clone());
    }
    world.check().intact();
}

#[tokio::test]
async fn an_interrupted_removal_is_no_false_alarm_and_is_finished_at_the_next_boot() {
    let (mut world, message, snapshot) = written(Plan::default()).await;
    let image = world.image().clone();
    let before = world.segments();
    world.operator().prune().await.unwrap();
    world.stop_enclave().await.unwrap();
    world.stop_proxy().await;
    let dropped: Vec<_> = before.iter().filter(|(name, _)| name.first < snapshot).collect();
    assert!(dropped.len() > 1);
    // The oldest go first, so what is left of them are the newest.
    for left in 1..=dropped.len() {
        world.edit_segments(|segments| {
            segments.extend(dropped.iter().rev().take(left).map(|(name, bytes)| (**name, (*bytes).clone())));
        });
        let checked = world.check().intact();
        let begins = if left == dropped.len() { Sequence(0) } else { snapshot };
        assert_eq!(checked.report.begins, begins, "{left} left");
    }
    world.start_proxy().await;
    world.launch(&image).await.unwrap();
    assert_eq!(world.operator().decrypt(&message).await.unwrap(), b"frame");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while world.segments().first_key_value().unwrap().0.first != snapshot {
        assert!(tokio::time::Instant::now() < deadline, "the parent is never told again");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    world.check().intact();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_anywhere_in_what_is_left_is_found() {
    let (mut world, ..) = written(Plan::default()).await;
    world.operator().prune().await.unwrap();
    world.stop_enclave().await.unwrap();
    world.stop_proxy().await;
    let good = world.segments();
    world.check().intact();
    for name in good.keys() {
        for offset in (0..good[name].len()).step_by(97) {
            let mut bad = good.clone();
            segments::flip(&mut bad, *name, offset);
            let trusted = (world.hypervisor.trust_root(), world.accepted_images());
            let report = testkit::world::Checked::of(&bad, trusted, &[], &[]).report;
            assert!(matches!(report.verdict, Verdict::Damaged | Verdict::Tampered), "{name} {offset}: {report:?}");
        }
    }
}

/// A checkpoint of the log as it is now, in a file.
async fn keep_checkpoint(desk: &Desk, world: &World, name: &str) -> u64 {
    let view = fresh(world, "operator").await.client.log().await.unwrap();
    desk.write(name, view.checkpoint().note());
    view.checkpoint().state().size
}

#[tokio::test]
async fn proofs_of_what_is_left_are_made_and_of_what_is_gone_it_is_said_that_it_is_gone() {
    let (mut world, _, snapshot) = written(Plan::default()).await;
    let desk = Desk::of(&world, "operator");
    let early = keep_checkpoint(&desk, &world, "early").await;
    assert!(early > snapshot.0);
    world.operator().prune().await.unwrap();
    for _ in 0..5 {
        world.operator().encrypt("content-key-1", b"frame").await.unwrap();
    }
    let late = keep_checkpoint(&desk, &world, "late").await;
    world.stop_enclave().await.unwrap();
    let dir = world.segments_dir();
    let dir = dir.to_str().unwrap();
    for event in 0..late {
        let event_arg = event.to_string();
        for (checkpoint, size) in [("@early", early), ("@late", late)] {
            let prove = ["audit", "prove", dir, "--event", &event_arg, "--checkpoint", checkpoint];
            if event >= size {
                desk.run(2, &prove).await;
            } else if event < snapshot.0 {
                let error = desk.run(3, &prove).await;
                assert_eq!(error["error"]["reason"], "event-pruned", "{error}");
                assert!(error["error"]["message"].as_str().unwrap().contains(&snapshot.to_string()), "{error}");
            } else {
                // The command verifies what it writes, up to the signed root.
                assert_eq!(desk.run(0, &prove).await["size"], size);
            }
        }
    }
    desk.run(0, &["audit", "consistency", dir, "--old", "@early", "--new", "@late"]).await;
    let error = desk.run(3, &["audit", "export", dir, "--tiles", "@tiles", "--checkpoint", "@late"]).await;
    assert_eq!(error["error"]["reason"], "event-pruned", "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains(&format!("event {snapshot}")), "{error}");
    assert!(!desk.has("tiles"));
}

#[tokio::test]
async fn without_the_hashes_of_what_is_gone_some_proofs_are_not_to_be_had_and_nobody_is_told_of_a_fork() {
    let (mut world, _, snapshot) = written(Plan::default()).await;
    let image = world.image().clone();
    let operator = world.operator();
    operator.prune().await.unwrap();
    operator.encrypt("content-key-1", b"frame").await.unwrap();
    fresh(&world, "operator").await;
    let mut good = None;
    for spoil in [None, Some(40)] {
        world.stop_enclave().await.unwrap();
        world.stop_proxy().await;
        let path = world.segments_dir().join("hashes");
        let hashes = good.get_or_insert_with(|| std::fs::read(&path).unwrap()).clone();
        match spoil {
            None => std::fs::remove_file(&path).unwrap(),
            Some(byte) => {
                let mut hashes = hashes;
                hashes[byte] ^= 1;
                std::fs::write(&path, hashes).unwrap();
            }
        }
        world.start_proxy().await;
        world.launch(&image).await.unwrap();
        // What the snapshot itself has is enough for whoever was there since.
        let operator = fresh(&world, "operator").await;
        let size = operator.client.log().await.unwrap().checkpoint().state().size;
        let state = operator.client.log().await.unwrap().checkpoint().state().to_owned();
        let events = world.check_until(|checked| checked.events.len() as u64 >= size - snapshot.0).await.events;
        for event in events.iter().filter(|event| event.sequence.0 < size) {
            let place = (event.sequence, event.hash);
            operator.client.prove_inclusion(place, (size, state.root)).await.unwrap();
        }
        // For the others there is no proof, and no alarm either.
        let mut none = 0;
        for event in 0..snapshot.0 {
            let place = (Sequence(event), transcode_confidential::ids::LeafHash::ZERO);
            let error = operator.client.prove_inclusion(place, (size, state.root)).await.unwrap_err();
            none += u64::from(matches!(error, client::ClientError::Unavailable(_)));
            assert!(!matches!(error, client::ClientError::Log(client::log_memory::LogError::Forked { .. })), "{error}");
        }
        assert!(none > 0, "some need what is lost");
    }
    world.check().intact();
}
