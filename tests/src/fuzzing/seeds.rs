//! What fuzzing starts from: one small input for each form that a decoder knows.

use transcode_confidential::{
    audit::{
        LogState, Seal, leaf_hash,
        segment::{Record, RecordKind, SegmentName},
    },
    ids::{Epoch, LeafHash, LogId, RootHash, Sequence},
    protocol::frame::FrameHead,
    protocol::host::{Append, Credentials, Durable, HostError, Reply, Request, SegmentInfo, Welcome},
    secret::KeyMaterial,
    signature::SigningKey,
};

use super::{document::EXAMPLE, material};

/// Paths within the repository and what belongs there.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut seed =
        |target: &str, name: &str, bytes: Vec<u8>| files.push((format!("fuzz/seeds/{target}/{name}"), bytes));
    let led = |lead: &[u8], bytes: &[u8]| [lead, bytes].concat();
    // An edit that flips one bit, in the form that `edits` reads.
    let flip = [0, 0, 40, 0, 1];

    seed("attestation_document", "example", led(&[0], &material::repository(EXAMPLE)));
    seed("attestation_document", "untouched", vec![1]);
    seed("attestation_document", "flip", led(&[1], &flip));
    for place in 0..5 {
        seed("certificates", &format!("untouched-{place}"), vec![place, 1]);
        seed("certificates", &format!("flip-{place}"), led(&[place, 1], &flip));
    }
    let measurements = "transcode-confidential/tests/vectors/attestation/measurements.json";
    seed("measurements", "example", material::repository(measurements));
    for (name, bytes) in material::vectors() {
        let file = name.replace([' ', '(', ')'], "-");
        match name.split(' ').next() {
            Some("leaf") if !name.starts_with("leaf hash") => seed("leaf", &file, bytes),
            Some("user_data") => seed("user_data", &file, bytes),
            Some("receipt" | "seal") if name != "seal record" => seed("receipt", &file, led(&[0], &bytes)),
            Some("segment" | "footer") => seed("segment", &file, bytes),
            Some("signed") => seed("policy", &file, led(&[0], &bytes)),
            _ => {}
        }
    }
    seed("segment", "seal-record", led(&[0, 6], &material::vector("seal record")));
    seed("segment", "framed", led(&[1, 6, 0, 30, 1], b"\0\0\x14an entry of 20 bytes\x02\0\x04seal"));
    seed("receipt", "flip", led(&[1], &flip));
    seed("policy", "flip", led(&[1], &flip));
    seed("note", "checkpoint", led(&[0], material::vector_checkpoint().as_bytes()));
    seed("note", "verifier-key", led(&[0], material::vector_line("log verifier key").as_bytes()));
    seed("note", "segment-name", b"\x0000000000000000000000-0000000001.seg".to_vec());
    seed("note", "untouched", vec![1]);
    seed("note", "flip", led(&[1], &flip));
    seed("proofs", "of-9", led(&[8, 3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9], &flip));
    seed("proofs", "of-256", vec![255, 200]);

    seed("log_verifier", "untouched", vec![1, 4, 0]);
    for kind in 0..9 {
        seed("log_verifier", &format!("edit-{kind}"), led(&[1, 4, 0, kind, 0, 1, 0, 2], &[5, 0, 0, 40, 0, 1]));
    }
    seed("log_verifier", "segment", led(&[0, 4, 0], &material::repository("fuzz/material/0.seg")));

    seed("message", "untouched", vec![1, 4]);
    seed("message", "flip", led(&[1, 4], &flip));
    for name in
        ["a_rest_is_the_final_frame", "content_without_frames_is_refused", "a_message_of_nine_data_keys_is_refused"]
    {
        let vector = material::repository(&format!("transcode-confidential/tests/vectors/message/{name}.json"));
        let vector: serde_json::Value = serde_json::from_slice(&vector).unwrap();
        seed("message", name, led(&[0, 9], &hex::decode(vector["message"].as_str().unwrap()).unwrap()));
    }
    let record = b"\xa4\x00\x01\x01\x43key\x02\x63arn\x03\x50sixteen bytes!!!";
    seed("wrapped_keys", "record", record.to_vec());
    let data_key =
        [&b"\0\x16transcode-confidential\0\x23content-key-1#7\0\0\0\x80\0\0\0\x0c"[..], &[1; 12], b"\0\x30", &[2; 48]];
    seed("wrapped_keys", "data-key", data_key.concat());
    seed("cms_envelope", "envelope", led(&[0], material::envelope()));
    seed("cms_envelope", "flip", led(&[1], &flip));

    let (requests, replies) = (requests(), replies());
    let payloads = requests.iter().map(|request| request.encode(1)).chain(replies.iter().map(|reply| reply.encode(1)));
    let mut stream = Vec::new();
    for (number, payload) in payloads.enumerate() {
        stream.extend_from_slice(&FrameHead::of(&payload).unwrap().to_bytes());
        stream.extend_from_slice(&payload);
        seed("host_protocol", &format!("payload-{number}"), payload);
    }
    seed("host_protocol", "stream", stream);

    seed("egress_preamble", "target", b"\0\x0fkms.example:443more".to_vec());
    seed("playlist", "ended", PLAYLIST.as_bytes().to_vec());
    let parts = ["0", "1"].map(|part| material::vector(&format!("snapshot of these 5 events, part {part}")));
    let framed = parts.each_ref().map(|part| led(&u16::try_from(part.len()).unwrap().to_be_bytes(), part)).concat();
    seed("snapshot", "example", led(&[0], &framed));
    seed("restore_order", "example", led(&[0], &material::vector("restore order")));
    let mut file = Vec::new();
    packed::pack(&mut material::repository("fuzz/material/0.seg").as_slice(), &mut file).unwrap();
    seed("packed_segment", "example", led(&[0], &file));
    for mode in 0..3 {
        for target in ["snapshot", "restore_order", "packed_segment", "document_differential"] {
            seed(target, &format!("untouched-{mode}"), vec![mode]);
            seed(target, &format!("flip-{mode}"), led(&[mode], &flip));
        }
    }
    seed("tree_differential", "of-9", led(&[8, 3, 5, 4, 7], &flip));
    seed("tree_differential", "of-256", vec![255, 200, 100, 4, 7]);
    seed("metrics_report", "of-no-series", vec![1, 0x80]);
    seed("metrics_report", "of-one-series", vec![1, 0x81, 0x83, 0, 0, 0x81, 7]);

    for (name, text) in [
        ("create", r#"{"id":"film-1","max_age_secs":60,"max_uses":9,"require_attestation":true}"#),
        ("rotate", r#"{"expected_version":3}"#),
        ("context", r#"{"title":"film","reel":"7"}"#),
        ("arn", "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
        ("vsock", "vsock:3:5001"),
        ("hybrid", "unix:/run/vsock:5000"),
        ("tcp", "tcp:127.0.0.1:80"),
        ("time", "2026-01-31T12:00:00.123Z"),
    ] {
        seed("api_bodies", name, text.as_bytes().to_vec());
    }
    seed("configuration", "enclave", material::repository("eif/enclave.example.toml"));
    seed("configuration", "parent", PARENT.as_bytes().to_vec());
    files
}

const PARENT: &str = r#"enclave = "vsock:16:5000"
drain = "1s"
[relay]
listen = ["tcp:0.0.0.0:443"]
max_per_client = 4
[egress]
listen = "vsock:any:5002"
allow = ["kms.eu-central-1.amazonaws.com:443"]
[host]
listen = "vsock:any:5001"
[store]
directory = "/var/lib/log"
segment_size = "64KiB"
reserve = 0
[credentials]
source = "imds"
[policy]
path = "/etc/policy"
[admin]
listen = "tcp:127.0.0.1:9100"
"#;

const PLAYLIST: &str = "#EXTM3U
#EXT-X-MEDIA-SEQUENCE:4
#EXT-X-KEY:METHOD=AES-128,URI=\"http://127.0.0.1:8080/media/film-1/reel-7/3/key\"
#EXTINF:2.000000,
film4.ts
#EXTINF:1.5,
film5.ts
#EXT-X-ENDLIST
";

const NAME: SegmentName = SegmentName { first: Sequence(9), epoch: Epoch(2) };
const DURABLE: Durable = Durable { size: 12, last: LeafHash::ZERO };

fn requests() -> Vec<Request> {
    let (log_id, last) = (LogId::new([7; 16]), leaf_hash(b"leaf"));
    let key = SigningKey::from_seed(&KeyMaterial::from_bytes([1; 32])).unwrap();
    let state = LogState { epoch: Epoch(2), size: 10, root: RootHash::new([0; 32]), last };
    let mut records = Vec::new();
    Record::new(RecordKind::Entry, *b"leaf").write_to(&mut records);
    Record::new(RecordKind::Seal, Seal::sign(&key, log_id, state).to_bytes()).write_to(&mut records);
    let after = Durable { size: 10, last };
    let append = Append { log_id, epoch: Epoch(2), first: Sequence(9), previous: LeafHash::ZERO, after, records };
    vec![
        Request::Hello { version: 1, session: [1; 16] },
        Request::Segments { after: Some(NAME) },
        Request::Read { name: NAME, offset: 96, length: 1000 },
        Request::Quarantine { name: NAME, offset: 96 },
        Request::Append(append),
        Request::Credentials,
        Request::Policy { after: 3 },
        Request::Inclusion { index: 3, size: 9 },
        Request::Consistency { old: 3, new: 9 },
        Request::Ping,
    ]
}

fn replies() -> Vec<Reply> {
    vec![
        Reply::Welcome(Welcome { version: 1, parent: "proxy".into(), durable: Some((LogId::new([7; 16]), DURABLE)) }),
        Reply::Segments(vec![SegmentInfo { name: NAME, length: 96 }]),
        Reply::Bytes(b"bytes".to_vec()),
        Reply::Done,
        Reply::Appended(DURABLE),
        Reply::Credentials(Credentials::new("AKIDEXAMPLE", "secret", "token", 60)),
        Reply::Policy(Some(b"policy".to_vec())),
        Reply::Proof(vec![[1; 32], [2; 32]]),
        Reply::Failed(HostError::Fenced),
    ]
}
