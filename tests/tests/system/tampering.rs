//! What becomes of a log that somebody changes who has the disk.

use client::{ClientError, log_memory::LogError};
use enclave_app::{Fatal, boot::BootError};
use testkit::{
    parent::Appends,
    segments,
    world::{Checked, Plan, World},
};
use transcode_confidential::{
    audit::verify::{Note, Verdict},
    ids::LogId,
};

/// Two epochs with keys, uses and a policy.
async fn written(plan: Plan) -> World {
    let mut world = World::with(plan).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    operator.encrypt("content-key-1", b"frame").await.unwrap();
    world.restart_enclave().await;
    operator.rotate("content-key-1").await.unwrap();
    operator.encrypt("content-key-1", b"frame").await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_anywhere_in_any_segment_is_found_offline_with_its_place() {
    let mut world = written(Plan::default()).await;
    world.stop_enclave().await.unwrap();
    world.stop_proxy().await;
    let (good, accepted) = (world.segments(), world.accepted_images());
    let verify = |segments: &segments::Segments| {
        Checked::of(segments, (world.hypervisor.trust_root(), accepted.clone()), &[], &[]).report
    };
    assert_eq!(verify(&good).verdict, Verdict::Intact);
    for name in good.keys() {
        // Every part of every record is hit; that every single byte counts is shown where the verifier is tested.
        for offset in (0..good[name].len()).step_by(211) {
            let mut bad = good.clone();
            segments::flip(&mut bad, *name, offset);
            let report = verify(&bad);
            assert!(matches!(report.verdict, Verdict::Damaged | Verdict::Tampered), "{name} {offset}: {report:?}");
            let place = report.first_bad.unwrap();
            assert_eq!(place.segment, Some(*name));
            assert!(place.offset <= offset as u64, "{name} {offset}: {place}");
        }
    }
}

#[tokio::test]
async fn an_enclave_does_not_boot_on_a_log_with_a_flipped_byte_and_does_once_it_is_mended() {
    let mut world = written(Plan::default()).await;
    let image = world.image().clone();
    world.stop_enclave().await.unwrap();
    world.stop_proxy().await;
    let good = world.segments();
    for (index, name) in good.keys().enumerate() {
        let offset = good[name].len() / 2 + index;
        world.edit_segments(|segments| segments::flip(segments, *name, offset));
        world.start_proxy().await;
        let fatal = world.launch(&image).await.unwrap_err();
        let Fatal::Boot(BootError::Log(report)) = fatal else { panic!("{fatal}") };
        assert!(matches!(report.verdict, Verdict::Damaged | Verdict::Tampered), "{report:?}");
        assert_eq!(report.first_bad.unwrap().segment, Some(*name));
        world.stop_proxy().await;
        world.edit_segments(|segments| segments::flip(segments, *name, offset));
    }
    world.start_proxy().await;
    world.launch(&image).await.unwrap();
    world.check().intact();
}

#[tokio::test]
async fn a_dropped_tail_looks_intact_and_is_caught_by_any_receipt_for_it() {
    let mut world = written(Plan::default()).await;
    world.stop_enclave().await.unwrap();
    world.stop_proxy().await;
    let newest = world.acknowledged.receipts().into_iter().max_by_key(|receipt| receipt.sequence).unwrap();
    // The end of the last stream lies behind its receipt.
    while world.segments().values().flat_map(|bytes| segments::records(bytes)).count() > 0
        && world.check_unanchored().report.events > newest.sequence.0
    {
        world.edit_segments(|segments| segments::drop_batches(segments, 1));
    }
    let unanchored = world.check_unanchored().intact();
    assert!(unanchored.report.notes.contains(&Note::Unanchored));
    let caught = world.check().report;
    assert_eq!(caught.verdict, Verdict::Truncated);
    assert!(caught.first_bad.unwrap().what.contains("there is evidence of"));
}

#[tokio::test]
async fn a_dropped_tail_that_the_enclave_cannot_see_is_caught_by_the_client_s_memory() {
    let mut world = written(Plan::scripted()).await;
    let image = world.image().clone();
    let (knows, new) = (world.operator(), world.caller("transcoder"));
    world.stop_enclave().await.unwrap();
    world.scripted().edit(|segments| segments::drop_batches(segments, 3));
    world.launch(&image).await.expect("without an anchor the enclave cannot know");
    let error = knows.client.log().await.unwrap_err();
    assert!(matches!(error, ClientError::Log(LogError::WentBack { .. } | LogError::Forked { .. })), "{error}");
    // Whoever held nothing sees nothing.
    assert!(new.client.log().await.is_ok());
    // However far the new history comes, it never becomes the old one.
    for number in 0..10 {
        new.decrypt(b"no message").await.unwrap_err();
        world.caller("stranger").key(&format!("key-{number}")).await.unwrap_err();
    }
    let error = world.operator().client.log().await.unwrap_err();
    assert!(matches!(error, ClientError::Log(LogError::Forked { .. } | LogError::WentBack { .. })), "{error}");
    let caught = world.check().report.verdict;
    assert!(matches!(caught, Verdict::Forked | Verdict::Truncated), "{caught}");
}

#[tokio::test]
async fn a_parent_that_acknowledges_and_forgets_is_found_out_when_it_is_asked_again() {
    let mut world = World::with(Plan::scripted()).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    world.scripted().script(|script| script.appends = Appends::Forget);
    operator.encrypt("content-key-1", b"frame").await.expect("an acknowledgement is believed, for now");
    // The connection breaks, and the parent has to say how far it is.
    world.scripted().disconnect();
    let fatal = world.enclave_ends().await.unwrap_err();
    assert!(matches!(fatal, Fatal::Ledger(enclave_app::ledger::LedgerFatal::StoreWentBack)), "{fatal}");
    let caught = world.check().report;
    assert_eq!(caught.verdict, Verdict::Truncated, "the receipt that was given out stands against the parent");
}

#[tokio::test]
async fn a_parent_that_forgets_in_the_middle_breaks_the_chain() {
    let world = World::with(Plan::scripted()).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let good = world.segments();
    operator.encrypt("content-key-1", b"frame").await.unwrap();
    operator.encrypt("content-key-1", b"frame").await.unwrap();
    let mut bad = world.segments();
    let (name, bytes) = bad.iter_mut().next_back().unwrap();
    let before = good[name].len();
    let seal = segments::records(bytes).into_iter().find(|(offset, record)| {
        *offset >= before && record.kind == transcode_confidential::audit::segment::RecordKind::Seal
    });
    let (seal, record) = seal.unwrap();
    bytes.drain(before..seal + record.disk_len());
    let report = Checked::of(&bad, (world.hypervisor.trust_root(), world.accepted_images()), &[], &[]).report;
    assert_eq!(report.verdict, Verdict::Tampered);
    assert_eq!(report.first_bad.unwrap().offset, before as u64);
}

#[tokio::test]
async fn an_empty_store_gets_a_new_log_id_which_clients_do_not_take_for_the_old_one() {
    let mut world = written(Plan::scripted()).await;
    let image = world.image().clone();
    let old = world.serving().log_id;
    world.stop_enclave().await.unwrap();
    world.scripted().edit(|segments| segments.clear());
    world.launch(&image).await.unwrap();
    let new = world.serving().log_id;
    assert_ne!(old, new);
    let refused = |error: ClientError, expected: LogId| match error {
        ClientError::Log(LogError::UnknownLog { known, shown, .. }) => assert_eq!((known, shown), (old, expected)),
        other => panic!("{other}"),
    };
    refused(world.operator().client.log().await.unwrap_err(), new);
    assert!(world.caller_with("operator", |_| {}, Some(new)).client.log().await.is_ok(), "unless a person says so");
}
