//! Segment files as somebody sees them who has the disk: to be read, and to be spoilt.

use std::{collections::BTreeMap, fs, path::Path};

use transcode_confidential::{
    audit::segment::{RECORD_HEAD, Record, RecordBuffer, RecordKind, SegmentHeader, SegmentName},
    cbor::Reader,
    ids::{LeafHash, LogId},
};

/// The segments of a log by their names, which sort as the log does.
pub type Segments = BTreeMap<SegmentName, Vec<u8>>;

/// Reads every segment in a directory.
pub fn read_dir(dir: &Path) -> Segments {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .filter_map(|entry| {
            let name: SegmentName = entry.file_name().to_str()?.parse().ok()?;
            Some((name, fs::read(entry.path()).unwrap()))
        })
        .collect()
}

/// Makes a directory hold exactly these segments.
pub fn write_dir(dir: &Path, segments: &Segments) {
    for name in read_dir(dir).keys().filter(|name| !segments.contains_key(name)) {
        fs::remove_file(dir.join(name.to_string())).unwrap();
    }
    for (name, bytes) in segments {
        fs::write(dir.join(name.to_string()), bytes).unwrap();
    }
}

/// The records of a segment with their offsets, as far as they can be read.
pub fn records(bytes: &[u8]) -> Vec<(usize, Record)> {
    let mut buffer = RecordBuffer::at(SegmentHeader::LEN as u64);
    buffer.push(bytes.get(SegmentHeader::LEN..).unwrap_or_default());
    let mut records = Vec::new();
    loop {
        let offset = usize::try_from(buffer.offset()).unwrap();
        match buffer.next_record() {
            Ok(Some(record)) => records.push((offset, record)),
            _ => return records,
        }
    }
}

/// Where the records of a segment start and end, and the byte that says of what kind each is: read with nothing but the
/// lengths, which are thought to be right.
pub fn frames(bytes: &[u8]) -> Vec<(usize, usize, u8)> {
    let mut frames = Vec::new();
    let mut at = SegmentHeader::LEN;
    while at < bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        frames.push((at, at + RECORD_HEAD + length, bytes[at + 4]));
        at += RECORD_HEAD + length;
    }
    frames
}

/// Makes the check sums of a segment with these [`frames`] right again, as whoever changes a log on purpose would.
pub fn mend(bytes: &mut [u8], frames: &[(usize, usize, u8)]) {
    let sum = |bytes: &[u8]| crc32c::crc32c(bytes).to_be_bytes();
    let of_header = sum(&bytes[..92]);
    bytes[92..96].copy_from_slice(&of_header);
    for &(start, end, _) in frames {
        let of_payload = sum(&bytes[start + RECORD_HEAD..end]);
        bytes[start + 8..start + 12].copy_from_slice(&of_payload);
        let of_head = sum(&bytes[start..start + 12]);
        bytes[start + 12..start + 16].copy_from_slice(&of_head);
    }
}

/// Takes the last `count` sealed batches of a log away, cleanly: what is left ends with a seal, and nothing in it shows
/// that more was there.
pub fn drop_batches(segments: &mut Segments, count: usize) {
    for _ in 0..count {
        let (name, bytes) = segments.pop_last().expect("a batch to drop");
        let ends = |(offset, record): &(usize, Record)| {
            (record.kind == RecordKind::Seal).then_some(offset + record.disk_len())
        };
        let seals: Vec<usize> = records(&bytes).iter().filter_map(ends).collect();
        if let [.., end, _] = seals[..] {
            segments.insert(name, bytes[..end].to_vec());
        } else if let Some((_, before)) = segments.iter_mut().next_back() {
            // What was the last segment is the last again, so it is open as it was.
            let seals: Vec<usize> = records(before).iter().filter_map(ends).collect();
            before.truncate(*seals.last().expect("a closed segment has a seal"));
        }
    }
}

/// Inverts one bit of the byte at `offset`.
pub fn flip(segments: &mut Segments, name: SegmentName, offset: usize) {
    segments.get_mut(&name).expect("the segment exists")[offset] ^= 0x10;
}

/// The log that segments belong to, and the leaf hashes of its sealed events.
pub fn sealed(segments: &Segments) -> (Option<LogId>, Vec<LeafHash>) {
    let (mut log_id, mut leaves, mut pending) = (None, Vec::new(), Vec::new());
    for bytes in segments.values() {
        let header = bytes.first_chunk().and_then(|head| SegmentHeader::from_bytes(head).ok());
        log_id = log_id.or(header.map(|header| header.log_id));
        for (_, record) in records(bytes) {
            match record.kind {
                RecordKind::Entry => pending.push(transcode_confidential::audit::leaf_hash(&record.payload)),
                RecordKind::Seal => leaves.append(&mut pending),
                _ => {}
            }
        }
        pending.clear();
    }
    (log_id, leaves)
}

/// The blob of KMS in the record of a wrapped key: `{0: 1, 1: ciphertext blob, ...}`.
pub fn wrapped_blob(record: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(record);
    let mut map = reader.int_map(16).unwrap();
    map.required(0).unwrap().uint().unwrap();
    map.required(1).unwrap().bytes(8192).unwrap().to_vec()
}
