//! The host protocol: what the enclave asks of its parent, over one framed connection that the enclave opens.
//!
//! A request is the CBOR array `[id, kind, body]`, a reply `[id, status, body]` with status 0 for success. Replies to
//! [`Request::Append`] come in the order of the requests; several may be under way. The parent never asks anything.
//!
//! Nothing in a reply is believed: records are verified, a policy is signed, credentials are tried. An acknowledgement is the
//! exception that the design bounds: a parent that acknowledges what it then loses is found out by every receipt.

mod reply;
mod request;

pub use reply::{Credentials, HostError, Reply, SegmentInfo, Welcome};
pub use request::{Append, Request};

use crate::{
    cbor::{CborError, Reader, Writer},
    ids::LeafHash,
};

/// Version of this protocol.
pub const VERSION: u64 = 1;
/// Greatest number of bytes that one [`Request::Read`] may ask for.
pub const READ_LIMIT: usize = 256 * 1024;
/// Greatest length of the records in one [`Append`] or [`Request::Stage`], in bytes as they lie on disk.
pub const APPEND_LIMIT: usize = 768 * 1024;
/// Greatest total that [`Request::Stage`] may bring together for one [`Append`], in bytes: a snapshot, with the heads of its
/// records.
pub const STAGE_LIMIT: usize = crate::fold::SNAPSHOT_LIMIT + crate::fold::SNAPSHOT_LIMIT / 16;
/// Greatest number of segments in one answer to [`Request::Segments`]; ask again from the last one on.
pub const SEGMENTS_LIMIT: usize = 4096;

/// How far a log has come on the parent's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    /// Number of events.
    pub size: u64,
    /// Leaf hash of the last.
    pub last: LeafHash,
}

impl Durable {
    fn put(self, out: &mut Writer) {
        out.array(2).uint(self.size).bytes(self.last.as_bytes());
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        exactly(reader.array(2)?, 2)?;
        Ok(Self { size: reader.uint()?, last: LeafHash::new(reader.array_of()?) })
    }
}

const fn exactly(found: usize, expected: usize) -> Result<(), CborError> {
    if found == expected { Ok(()) } else { Err(CborError::Range) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        audit::segment::SegmentName,
        ids::{Epoch, LogId, Sequence},
    };

    fn requests() -> Vec<Request> {
        let name = SegmentName { first: Sequence(7), epoch: Epoch(2) };
        vec![
            Request::Hello { version: VERSION, session: [9; 16] },
            Request::Segments { after: None },
            Request::Segments { after: Some(name) },
            Request::Read { name, offset: 96, length: 4096 },
            Request::Quarantine { name, offset: 1000 },
            Request::Append(Append {
                log_id: LogId::new([1; 16]),
                epoch: Epoch(2),
                first: Sequence(7),
                previous: LeafHash::new([2; 32]),
                after: Durable { size: 8, last: LeafHash::new([3; 32]) },
                records: b"whatever lies on disk".to_vec(),
            }),
            Request::Credentials,
            Request::Policy { after: 3 },
            Request::Inclusion { index: 3, size: 9 },
            Request::Consistency { old: 3, new: 9 },
            Request::Ping,
            Request::Metrics(vec![8; 30]),
            Request::Stage(b"what lies before it".to_vec()),
            Request::Snapshot,
            Request::Prune { below: Sequence(77) },
            Request::Restoration,
        ]
    }

    fn replies() -> Vec<Reply> {
        let name = SegmentName { first: Sequence(7), epoch: Epoch(2) };
        vec![
            Reply::Welcome(Welcome { version: 1, parent: "parent-proxy 1.0.0".into(), durable: None }),
            Reply::Welcome(Welcome {
                version: 1,
                parent: String::new(),
                durable: Some((LogId::new([1; 16]), Durable { size: 8, last: LeafHash::new([3; 32]) })),
            }),
            Reply::Segments(vec![SegmentInfo { name, length: 5000 }]),
            Reply::Bytes(vec![1, 2, 3]),
            Reply::Done,
            Reply::Appended(Durable { size: 8, last: LeafHash::new([3; 32]) }),
            Reply::Credentials(Credentials::new("AKIDEXAMPLE", "secret", "token", 3600)),
            Reply::Policy(None),
            Reply::Policy(Some(vec![5; 40])),
            Reply::Proof(vec![[6; 32], [7; 32]]),
            Reply::Start(None),
            Reply::Start(Some(name)),
            Reply::Failed(HostError::StorageFull),
            Reply::Stop,
        ]
    }

    #[test]
    fn every_message_survives_its_bytes_and_no_prefix_of_it_is_one() {
        for request in requests() {
            let bytes = request.encode(5);
            assert_eq!(Request::decode(&bytes).unwrap(), (5, request));
            (0..bytes.len()).for_each(|end| assert!(Request::decode(&bytes[..end]).is_err()));
        }
        for reply in replies() {
            let bytes = reply.encode(6);
            assert_eq!(Reply::decode(&bytes).unwrap(), (6, reply));
            (0..bytes.len()).for_each(|end| assert!(Reply::decode(&bytes[..end]).is_err()));
        }
    }

    #[test]
    fn credentials_cannot_be_printed() {
        let text = format!("{:?}", Credentials::new("AKIDEXAMPLE", "s3cr3t", "t0ken", 60));
        assert!(!text.contains("s3cr3t") && !text.contains("t0ken"), "{text}");
    }

    proptest! {
        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(
            which in 0..13_usize, at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let mut bytes = requests()[which].encode(1);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok((id, request)) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(id), bytes);
            }
            let mut bytes = replies()[which].encode(1);
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            if let Ok((id, reply)) = Reply::decode(&bytes) {
                prop_assert_eq!(reply.encode(id), bytes);
            }
        }
    }
}
