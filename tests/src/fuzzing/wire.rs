//! The host protocol, signed policies, bodies and headers of the API, and the configurations.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
    sync::LazyLock,
    time::Duration,
};

use client::reconcile::Playlist;
use enclave_app::{config::Config as EnclaveConfig, kms::KeyArn};
use parent_proxy::{
    egress::{preamble, read_preamble},
    store,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime::{Builder, Runtime};
use transcode_confidential::{
    audit::segment::{RecordKind, RecordViews},
    ids::{KeyId, LogId, Principal},
    message::EncryptionContext,
    protocol::{
        api::{
            ApiError, Batch, CallerAttested, CallerChallenge, ChangeKey, CheckpointReply, ConsistencyReply,
            ContentReported, CreateKey, DecryptFrom, HoldList, HoldRequest, InclusionReply, IssueDataKeys, KeyChanged,
            KeyInfo, KeyList, LogMaintained, PruneRequest, ReceiptText, ReportContent, RotateKey, Status,
            UnwrapDataKeys,
        },
        frame::{FRAME_LIMIT, FrameHead},
        host::{Append, Reply, Request},
        metrics::{Report, fingerprint},
        policy::{Policy, SignedPolicy},
    },
    time::Timestamp,
};
use transport::{Endpoint, FrameReader};

use super::{
    edits::edited,
    material::{policy_authority, vector},
};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

/// As one payload, and as a stream of frames. What is accepted is the one encoding.
pub(super) fn host_protocol(input: &[u8]) {
    payload(input);
    let mut frames = FrameReader::new(input, Duration::from_secs(1));
    let mut read = 0;
    while let Ok(Some(frame)) = RUNTIME.block_on(frames.next()) {
        assert!(frame.len() <= FRAME_LIMIT);
        let head = FrameHead::of(&frame).unwrap().to_bytes();
        assert!(input[read..].starts_with(&[&head[..], &frame].concat()), "another frame than was sent");
        read += head.len() + frame.len();
        payload(&frame);
    }
}

fn payload(bytes: &[u8]) {
    if let Ok((id, request)) = Request::decode(bytes) {
        assert_eq!(request.encode(id), bytes);
        if let Request::Append(append) = request {
            batch(append);
        }
    }
    if let Ok((id, reply)) = Reply::decode(bytes) {
        assert_eq!(reply.encode(id), bytes);
    }
}

/// What the parent would store can be read to its end, which is its only seal.
fn batch(append: Append) {
    let bytes = append.records.clone();
    if store::Batch::new(append).is_ok() {
        let mut records = RecordViews::of(&bytes);
        let seals: Vec<bool> = records.by_ref().map(|record| record.kind == RecordKind::Seal).collect();
        assert!(records.rest().is_empty());
        assert_eq!(seals.iter().position(|is_seal| *is_seal), Some(seals.len() - 1));
    }
}

/// Even first byte: a document or what it signs. Odd: edits of a signed one, none of which may verify.
pub(super) fn policy(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let genuine = vector("signed policy");
    let document = if mode % 2 == 0 { rest.to_vec() } else { edited(&genuine, rest) };
    if let Ok(policy) = Policy::decode(&document) {
        assert_eq!(policy.encode(), document);
    }
    let claimed = SignedPolicy::claimed(&document);
    assert_eq!(
        claimed.as_ref().map(|policy| policy.version),
        SignedPolicy::claimed_version(&document).as_ref().copied()
    );
    let verified = SignedPolicy::verify(&document, &policy_authority());
    assert_eq!(verified.is_ok(), document == genuine, "the genuine policy verifies, and no other");
    if let Ok(signed) = verified {
        assert_eq!(Some(signed.policy()), claimed.as_ref().ok());
    }
}

/// Whatever is read as JSON is read again from what is written for it; so are texts.
pub(super) fn api_bodies(input: &[u8]) {
    json::<CreateKey>(input);
    json::<RotateKey>(input);
    json::<KeyInfo>(input);
    json::<KeyList>(input);
    json::<KeyChanged>(input);
    json::<CheckpointReply>(input);
    json::<ConsistencyReply>(input);
    json::<Status>(input);
    json::<ApiError>(input);
    json::<EncryptionContext>(input);
    json::<ChangeKey>(input);
    json::<DecryptFrom>(input);
    json::<Batch>(input);
    json::<IssueDataKeys>(input);
    json::<UnwrapDataKeys>(input);
    json::<ReportContent>(input);
    json::<ContentReported>(input);
    json::<HoldRequest>(input);
    json::<HoldList>(input);
    json::<PruneRequest>(input);
    json::<LogMaintained>(input);
    json::<InclusionReply>(input);
    json::<CallerChallenge>(input);
    json::<CallerAttested>(input);
    if let Ok(input) = std::str::from_utf8(input) {
        text::<ReceiptText>(input);
        text::<KeyId>(input);
        text::<Principal>(input);
        text::<LogId>(input);
        text::<KeyArn>(input);
        text::<Endpoint>(input);
        text::<Timestamp>(input);
    }
}

fn json<T: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) {
    if let Ok(read) = serde_json::from_slice::<T>(input) {
        let written = serde_json::to_vec(&read).unwrap();
        assert_eq!(serde_json::from_slice::<T>(&written).ok(), Some(read));
    }
}

fn text<T: FromStr + Display + PartialEq + Debug>(input: &str) {
    if let Ok(read) = input.parse::<T>() {
        assert_eq!(read.to_string().parse::<T>().ok(), Some(read));
    }
}

/// The enclave's, which is measured, and the parent's.
pub(super) fn configuration(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(config) = EnclaveConfig::from_toml(text) {
        assert!(config.predecessor_images().is_ok() && config.key_defaults.check().is_ok());
    }
    if let Ok(config) = parent_proxy::config::Config::parse(text, "fuzz") {
        assert!(config.needing_restart(&config).is_empty());
    }
}

/// What the enclave tells the parent of itself: even first byte, all of it; odd, what follows the name of the catalogue. What
/// is accepted is the one encoding.
pub(super) fn metrics_report(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let lead = [&[0x82, 0x48][..], &fingerprint()].concat();
    let bytes = if mode % 2 == 0 { rest.to_vec() } else { [&lead, rest].concat() };
    if let Ok(report) = Report::decode(&bytes) {
        assert_eq!(report.encode(), bytes);
    }
}

/// Where the enclave wants its connection carried to. What is accepted is the one encoding, and nothing behind it is taken.
pub(super) fn egress_preamble(input: &[u8]) {
    let mut source = input;
    if let Ok(target) = RUNTIME.block_on(read_preamble(&mut source)) {
        let read = &input[..input.len() - source.len()];
        assert_eq!(target.to_string().parse().as_ref(), Ok(&target));
        assert!(preamble(&target).eq_ignore_ascii_case(read), "{target}");
    }
}

/// A packager's playlist. What is read has finite durations, one for each line that names a segment.
pub(super) fn playlist(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(playlist) = Playlist::parse(text) {
        assert!(playlist.duration() >= 0.0);
        let lines = text
            .trim_start_matches('\u{feff}')
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        assert_eq!(lines.count(), playlist.segments.len());
        assert!(playlist.segments.iter().all(|segment| segment.period().is_none() || segment.key_uri.is_some()));
    }
}
