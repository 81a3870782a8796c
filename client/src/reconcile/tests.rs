use transcode_confidential::{
    audit::{AuditEventType, Chain, EventDraft},
    ids::Period,
    time::Timestamp,
};

use super::*;

/// Ten segments of two seconds.
fn playlist(count: u64) -> Playlist {
    let segments = (0..count).map(|number| PlaylistSegment { uri: uri(number), duration: 2.0, key_uri: None });
    Playlist { media_sequence: 0, segments: segments.collect(), ended: true }
}

fn uri(number: u64) -> String {
    format!("seg{number}.ts")
}

fn file(uri: &str) -> Option<SegmentFile> {
    let digest = Digest::of(uri.as_bytes());
    Some(SegmentFile { length: 1000, digest, context: Some(Digest::of(&digest.as_bytes()[..])) })
}

fn piece(number: u64, complete: bool) -> EventBody {
    EventBody::Reported(Reported {
        job: "job".into(),
        number,
        complete,
        frames: 48,
        bytes_in: 900,
        bytes_out: 1000,
        input: None,
        output: Some(Digest::of(uri(number).as_bytes())),
    })
}

fn issued(number: u64) -> EventBody {
    let context = file(&uri(number)).unwrap().context;
    EventBody::KeyUsed { operation: KeyOperation::IssueDataKey, uses: 1, context, period: None }
}

fn recorded(bodies: impl IntoIterator<Item = EventBody>) -> Recorded {
    let (mut recorded, mut chain) = (Recorded::default(), Chain::new());
    for body in bodies {
        for content in ["reel-3", "another"] {
            let draft = EventDraft::new(AuditEventType::ContentProcessed, "").content(content).body(body.clone());
            let (event, _) = chain.append(draft, Timestamp(1)).unwrap();
            recorded.take(&event, "reel-3");
        }
    }
    recorded
}

fn kinds(reconciled: &Reconciled) -> Vec<(FindingKind, Option<u64>)> {
    reconciled.findings.iter().map(|finding| (finding.kind, finding.segment)).collect()
}

#[test]
fn what_is_complete_has_no_findings() {
    let recorded = recorded((0..10).flat_map(|number| [issued(number), piece(number, true)]));
    let expected = Expected { segments: Some(10), duration: Some(21.0), job: Some("job".into()) };
    let reconciled = recorded.reconcile(&playlist(10), &expected, file);
    assert_eq!(reconciled, Reconciled { segments: 10, reported: 10, issued: 10, findings: Vec::new() });
}

#[test]
fn segments_that_were_silently_left_out_are_found_by_their_keys_and_by_their_reports() {
    let keys = recorded((0..12).map(issued)).reconcile(&playlist(10), &Expected::default(), file);
    assert_eq!(kinds(&keys), [(FindingKind::NeverWritten, None); 2]);
    assert_eq!(keys.findings[0].event, Some(Sequence(20)));
    let reports = recorded((0..12).map(|number| piece(number, true)));
    let reports = reports.reconcile(&playlist(10), &Expected::default(), file);
    let left_out = [(FindingKind::NotInPlaylist, Some(10)), (FindingKind::NotInPlaylist, Some(11))];
    assert_eq!(kinds(&reports), left_out);
    let gap = recorded([0, 1, 2, 5].map(|number| piece(number, true)));
    let gap = gap.reconcile(&playlist(3), &Expected::default(), file);
    assert_eq!(kinds(&gap), [5, 3, 4].map(|number| (FindingKind::NotInPlaylist, Some(number))));
    let short = Expected { segments: Some(11), duration: Some(23.0), job: None };
    let short = Recorded::default().reconcile(&playlist(10), &short, file);
    assert_eq!(kinds(&short), [(FindingKind::TooShort, None); 2]);
}

#[test]
fn files_that_are_missing_empty_or_others_are_found() {
    let recorded = recorded((0..4).map(|number| piece(number, true)));
    let reconciled = recorded.reconcile(&playlist(4), &Expected::default(), |uri| match uri {
        "seg0.ts" => None,
        "seg1.ts" => Some(SegmentFile { length: 0, ..file(uri)? }),
        "seg2.ts" => file("seg3.ts"),
        _ => file(uri),
    });
    let expected = [(FindingKind::FileMissing, 0), (FindingKind::FileMissing, 1), (FindingKind::OtherFile, 2)];
    assert_eq!(kinds(&reconciled), expected.map(|(kind, number)| (kind, Some(number))));
}

#[test]
fn a_media_key_that_nothing_is_under_tells_that_a_packager_gave_up() {
    let mut playlist = playlist(3);
    for (number, segment) in playlist.segments.iter_mut().enumerate() {
        segment.key_uri = Some(format!("http://127.0.0.1:9/token/hls/content-key-1/reel-3/{}/key", 70 + number));
    }
    let derived = |period| EventBody::KeyUsed {
        operation: KeyOperation::DeriveMediaKey,
        uses: 1,
        context: None,
        period: Some(Period(period)),
    };
    let recorded = recorded([69, 70, 71, 71, 72, 73].map(derived));
    let reconciled = recorded.reconcile(&playlist, &Expected::default(), file);
    assert_eq!((kinds(&reconciled), reconciled.issued), (vec![(FindingKind::NeverWritten, None)], 5));
    assert!(reconciled.findings[0].message.contains("period 73"), "{reconciled:?}");
}

#[test]
fn what_was_given_up_counts_until_it_was_done_after_all() {
    let bodies = [piece(0, true), piece(1, false), piece(1, true), piece(2, true), piece(2, false), piece(3, false)];
    let reconciled = recorded(bodies).reconcile(&playlist(5), &Expected::default(), file);
    let expected = [(FindingKind::NotReported, Some(4)), (FindingKind::GivenUp, Some(3))];
    assert_eq!(kinds(&reconciled), expected);
    assert_eq!(reconciled.reported, 3);
}

#[test]
fn a_window_that_slid_on_is_no_gap_and_an_open_playlist_is_unfinished() {
    let window = Playlist { media_sequence: 6, ended: false, ..playlist(4) };
    let recorded = recorded((0..10).map(|number| piece(number, true)));
    let same = |_: &str| None::<SegmentFile>;
    let kinds = kinds(&recorded.reconcile(&window, &Expected::default(), same));
    let missing = (6..10).map(|number| (FindingKind::FileMissing, Some(number)));
    assert_eq!(kinds, missing.chain([(FindingKind::Unfinished, None)]).collect::<Vec<_>>());
}
