//! What transcoders say they did, on the record, and held against what is there.

use client::ClientError;
use testkit::world::{Caller, World, key_id, people::grant};
use transcode_confidential::{
    audit::{AuditEventType, EventBody},
    ids::{Digest, KeyVersion, LeafHash, Sequence},
    protocol::{
        api::{ContentReported, ErrorCode, ReportContent},
        policy::Operation,
    },
};

use crate::{answers::code, desk::Desk};

fn piece(sequence: u64) -> ReportContent {
    ReportContent {
        key: key_id("content-key-1"),
        version: None,
        job: "job-42".into(),
        sequence,
        complete: true,
        frames: 48,
        bytes_in: 1000,
        bytes_out: 1100,
        input_digest: Some(Digest::of(b"in")),
        output_digest: None,
    }
}

async fn report(caller: &Caller, content: &str, report: &ReportContent) -> Result<ContentReported, ClientError> {
    let reported = caller.client.report(content, report).await?;
    caller.keep(reported.receipt.0.clone());
    Ok(reported)
}

/// Which event a report became.
fn event(reported: &ContentReported) -> (Sequence, LeafHash) {
    (reported.receipt.0.sequence, reported.receipt.0.leaf)
}

#[tokio::test]
async fn a_report_is_on_the_record_once_however_often_it_is_sent() {
    let mut world = World::start().await;
    world.change_policy(|policy| policy.grants.push(grant("packager", "content-", &[Operation::Report]))).await;
    world.operator().generate("content-key-1").await.unwrap();
    let packager = world.caller("packager");
    let content = "reel 3/ä";
    let first = report(&packager, content, &piece(7)).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let packager = packager.clone();
            tokio::spawn(async move { report(&packager, content, &piece(8)).await.unwrap() })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    assert!(answers.iter().all(|answer| event(answer) == event(&answers[0])));
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
    let again = report(&packager, content, &piece(7)).await.unwrap();
    assert_eq!((again.repeated, event(&again)), (true, event(&first)));
    let otherwise = ReportContent { frames: 49, ..piece(7) };
    assert_eq!(code(report(&packager, content, &otherwise).await), ErrorCode::Conflict);
    assert!(!report(&packager, "reel 4", &piece(7)).await.unwrap().repeated, "another content");
    assert!(!report(&world.operator(), content, &piece(7)).await.unwrap().repeated, "another principal");

    let malformed = ReportContent { job: String::new(), ..piece(7) };
    assert_eq!(code(report(&packager, content, &malformed).await), ErrorCode::Malformed);
    let other = ReportContent { key: key_id("master-key-1"), ..piece(7) };
    assert_eq!(code(report(&packager, content, &other).await), ErrorCode::Denied);
    assert_eq!(code(report(&world.transcoder(), content, &piece(9)).await), ErrorCode::Denied);
    let unknown = ReportContent { key: key_id("content-key-9"), ..piece(7) };
    assert_eq!(code(report(&packager, content, &unknown).await), ErrorCode::Denied, "as what is not granted");

    let checked = world.check().intact();
    let events = checked.of_type(AuditEventType::ContentProcessed);
    let reports: Vec<_> = events
        .iter()
        .filter(|event| event.principal.as_deref() == Some("packager") && event.content_id.as_deref() == Some(content))
        .collect();
    assert_eq!(reports.len(), 2);
    let Some(EventBody::Reported(reported)) = &reports[0].body else { panic!("{:?}", reports[0]) };
    assert_eq!(*reported, piece(7).to_reported().unwrap());
}

#[tokio::test]
async fn a_report_that_comes_again_after_restarts_a_snapshot_and_a_pruning_is_no_second_one() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let first = report(&operator, "reel", &piece(7)).await.unwrap();
    let version = Some(KeyVersion(1));
    report(&operator, "reel", &ReportContent { version, ..piece(8) }).await.unwrap();
    for stage in ["replayed", "from a snapshot", "pruned"] {
        match stage {
            "from a snapshot" => drop(operator.snapshot().await.unwrap()),
            "pruned" => assert!(world.operator().prune().await.unwrap().below > Some(first.receipt.0.sequence)),
            _ => {}
        }
        world.restart_enclave().await;
        let operator = world.operator();
        let again = report(&operator, "reel", &piece(7)).await.unwrap();
        assert_eq!((again.repeated, event(&again)), (true, event(&first)), "{stage}");
        for otherwise in [
            ReportContent { complete: false, ..piece(7) },
            ReportContent { version, ..piece(7) },
            ReportContent { output_digest: Some(Digest::of(b"out")), ..piece(7) },
            ReportContent { bytes_out: 1, ..piece(8) },
        ] {
            assert_eq!(code(report(&operator, "reel", &otherwise).await), ErrorCode::Conflict, "{stage}");
        }
    }
    let operator = world.operator();
    assert!(!report(&operator, "reel", &piece(9)).await.unwrap().repeated);
    world.change_policy(|policy| policy.denied.push("operator".parse().unwrap())).await;
    assert_eq!(code(report(&operator, "reel", &piece(7)).await), ErrorCode::Denied, "no answer outlives its grant");
    world.check().intact();
}

#[tokio::test]
async fn what_ffmpeg_silently_left_out_is_found() {
    let mut world = World::start().await;
    world.operator().generate("content-key-1").await.unwrap();
    let desk = Desk::of(&world, "operator");
    std::fs::create_dir(desk.path("hls")).unwrap();
    let names: Vec<_> = (0..6).map(|number| format!("@seg{number}.ts")).collect();
    for (number, name) in names.iter().enumerate() {
        desk.write(&name[1..], vec![number as u8; 5000]);
    }
    let base = ["encrypt", "--local", "--key", "content-key-1", "--content-id", "reel-3", "--out-dir", "@hls"];
    let args: Vec<_> = base.into_iter().chain(names.iter().map(String::as_str)).collect();
    desk.run(0, &args).await;
    for (number, name) in names.iter().enumerate() {
        let (sequence, output) = (number.to_string(), format!("@hls/seg{number}.ts.tce"));
        let args = ["report", "reel-3", "--key", "content-key-1", "--job", "job", "--frames", "48"];
        let rest = ["--sequence", &sequence, "--input", name, "--output", &output];
        let done = desk.run(0, &args.into_iter().chain(rest).collect::<Vec<_>>()).await;
        assert_eq!((done["report"]["bytes_in"].as_u64(), done["repeated"].as_bool()), (Some(5000), Some(false)));
    }
    let playlist = |count: usize| {
        let segments: String = (0..count).map(|number| format!("#EXTINF:2.0,\nseg{number}.ts\n")).collect();
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n{segments}#EXT-X-ENDLIST\n")
    };
    desk.write("hls/whole.m3u8", playlist(6));
    desk.write("hls/short.m3u8", playlist(4));
    // Of the server, as it runs.
    let live = desk.run(0, &["reconcile", "reel-3", "--playlist", "@hls/whole.m3u8"]).await;
    assert_eq!((live["complete"].as_bool(), live["reported"].as_u64()), (Some(true), Some(6)));
    assert_eq!((live["source"].as_str(), live["verified"].as_bool()), (Some("server"), Some(true)));
    let live = desk.run(4, &["reconcile", "reel-3", "--playlist", "@hls/short.m3u8"]).await;
    assert_eq!(live["findings"].as_array().unwrap().len(), 4);
    let end = (live["head"]["size"].as_u64().unwrap() - 1).to_string();
    let nothing = desk.run(0, &["reconcile", "reel-3", "--playlist", "@hls/whole.m3u8", "--after", &end]).await;
    assert_eq!((nothing["reported"].as_u64(), nothing["issued"].as_u64()), (Some(0), Some(0)));
    world.stop_enclave().await.unwrap();
    let log = world.segments_dir();
    let log = log.to_str().unwrap();
    let reconcile = |playlist| ["reconcile", "reel-3", "--playlist", playlist, "--log", log];
    let whole = desk.run(0, &reconcile("@hls/whole.m3u8")).await;
    assert_eq!((whole["complete"].as_bool(), whole["reported"].as_u64()), (Some(true), Some(6)));
    let short = desk.run(4, &reconcile("@hls/short.m3u8")).await;
    let kinds: Vec<_> = short["findings"].as_array().unwrap().iter().map(|finding| &finding["kind"]).collect();
    assert_eq!(kinds, ["not-in-playlist", "not-in-playlist", "never-written", "never-written"]);
    std::fs::remove_file(desk.path("hls/seg2.ts.tce")).unwrap();
    std::fs::copy(desk.path("hls/seg4.ts.tce"), desk.path("hls/seg3.ts.tce")).unwrap();
    let lost = desk.run(4, &reconcile("@hls/whole.m3u8")).await;
    let kinds: Vec<_> = lost["findings"].as_array().unwrap().iter().map(|finding| &finding["kind"]).collect();
    assert_eq!(kinds, ["file-missing", "other-file", "never-written", "never-written"]);
    world.check().intact();
}
