//! A stored log under the edits of an adversarial parent.

use transcode_confidential::{
    attestation::ImagePolicy,
    audit::{
        AuditEvent,
        segment::{RECORD_HEAD, SegmentHeader, SegmentName},
        verify::{LogVerifier, Report, Verdict},
    },
    ids::{Epoch, Sequence},
};

use super::{
    edits::{Cursor, edited},
    material,
};

type Frames = Vec<(u8, Vec<u8>)>;

/// What a verifier says of these files, and the events that it vouches for.
pub(super) fn verify(segments: &[(SegmentName, Vec<u8>)], step: usize) -> (Report, Vec<AuditEvent>) {
    let mut verifier = LogVerifier::new(material::LOG.root.clone(), ImagePolicy::danger_any_image());
    let mut events = Vec::new();
    for (name, bytes) in segments {
        verifier.segment(*name);
        bytes.chunks(step).for_each(|chunk| verifier.push(chunk, &mut |sealed| events.push(sealed.event)));
    }
    (verifier.finish(), events)
}

fn frames(mut bytes: &[u8]) -> Frames {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<RECORD_HEAD>() {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        frames.push((head[4], rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    frames
}

/// With right check sums, whatever the kind.
fn write(frames: &Frames, out: &mut Vec<u8>) {
    for (kind, payload) in frames {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let sum = crc32c::crc32c(payload).to_be_bytes();
        let head = [&length[..], &[*kind, 0, 0, 0], &sum].concat();
        out.extend_from_slice(&head);
        out.extend_from_slice(&crc32c::crc32c(&head).to_be_bytes());
        out.extend_from_slice(payload);
    }
}

/// First byte 0: the rest is a segment file. Otherwise the rest is edits of a genuine log, check sums put right or not.
/// Whatever is done to it, the events that the verifier vouches for are the first ones of the genuine log, in order.
pub(super) fn log_verifier(input: &[u8]) {
    let genuine = &*material::LOG;
    let mut cursor = Cursor(input);
    let (mode, step) = (cursor.byte(), 1 + cursor.short() % 4096);
    if mode == 0 {
        let (report, events) =
            verify(&[(SegmentName { first: Sequence(0), epoch: Epoch(1) }, cursor.0.to_vec())], step);
        assert!(genuine.events.starts_with(&events), "{report:?}");
        return;
    }
    let header_of = |bytes: &[u8]| bytes[..SegmentHeader::LEN].to_vec();
    let mut files: Vec<(SegmentName, Vec<u8>, Frames)> = genuine
        .segments
        .iter()
        .map(|(name, bytes)| (*name, header_of(bytes), frames(&bytes[SegmentHeader::LEN..])))
        .collect();
    let mut raw = None;
    for _ in 0..16 {
        if cursor.is_empty() {
            break;
        }
        let (kind, file) = (cursor.byte(), cursor.below(files.len()));
        let (name, header, frames) = &mut files[file];
        let at = cursor.below(frames.len() + 1);
        match kind % 9 {
            0 if at < frames.len() => {
                let count = usize::from(cursor.byte());
                frames[at].1 = edited(&frames[at].1, cursor.take(count));
            }
            1 if at < frames.len() => drop(frames.remove(at)),
            2 if at < frames.len() => frames.insert(cursor.below(frames.len()), frames[at].clone()),
            3 if at < frames.len() => {
                let other = cursor.below(frames.len());
                frames.swap(at, other);
            }
            4 if at < frames.len() => frames[at].0 = cursor.byte(),
            5 => frames.truncate(at),
            6 => {
                let (kind, count) = (cursor.byte(), usize::from(cursor.byte()));
                frames.insert(at, (kind, cursor.take(count).to_vec()));
            }
            7 => {
                let at = cursor.below(SegmentHeader::LEN - 4);
                header[at] ^= cursor.byte();
                let sum = crc32c::crc32c(&header[..SegmentHeader::LEN - 4]).to_be_bytes();
                header[SegmentHeader::LEN - 4..].copy_from_slice(&sum);
                if cursor.byte() % 2 == 0
                    && let Ok(read) = SegmentHeader::from_bytes(header.as_slice().try_into().unwrap())
                {
                    *name = read.name();
                }
            }
            _ => {
                let count = usize::from(cursor.byte());
                raw = Some((file, cursor.take(count)));
            }
        }
    }
    let written: Vec<_> = files
        .into_iter()
        .enumerate()
        .map(|(file, (name, mut bytes, frames))| {
            write(&frames, &mut bytes);
            match raw {
                Some((edited_file, edits)) if edited_file == file => (name, edited(&bytes, edits)),
                _ => (name, bytes),
            }
        })
        .collect();
    let (report, events) = verify(&written, step);
    assert!(genuine.events.starts_with(&events), "{report:?}");
    assert_eq!(report.events, events.len() as u64);
    if written == genuine.segments {
        assert_eq!((report.verdict, events.len()), (Verdict::Intact, genuine.events.len()));
    }
}
