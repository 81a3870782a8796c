//! Fixed keys and documents that the targets start from, so that an input means the same in every process. The private keys
//! among them protect nothing.

use std::{fs, path::PathBuf, sync::LazyLock};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeySize, PrivateDecryptingKey},
};
use enclave_app::kms::recipient::RecipientKey;
use transcode_confidential::{
    attestation::TrustRoot,
    audit::{AuditEvent, segment::SegmentHeader, segment::SegmentName},
    signature::PublicKey,
    time::Timestamp,
};

use super::document::NOW;
use crate::{
    clock::ManualClock,
    kms::ber::{self, ContentShape},
    log_maker::LogMaker,
    nsm::{Chain, Curve, MockHypervisor, MockImage, MockPki, SigningKey},
};

const FOLDER: &str = "fuzz/material";
const POSITIONS: [&str; 5] = ["root", "regional", "zonal", "instance", "leaf"];
const SEGMENTS: usize = 2;

/// A file of this repository.
pub(super) fn repository(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn stored(name: &str) -> Vec<u8> {
    repository(&format!("{FOLDER}/{name}"))
}

/// Five certificates that are valid at [`NOW`], and the key that signs documents under them.
pub(super) static CHAIN: LazyLock<Chain> = LazyLock::new(|| Chain {
    certificates: POSITIONS.map(|position| stored(&format!("{position}.der"))),
    leaf_key: SigningKey::from_pkcs8(Curve::P384, stored("leaf.key.p8.der")),
    valid: (Timestamp(0), Timestamp(u64::MAX)),
});

pub(super) static CHAIN_ROOT: LazyLock<TrustRoot> =
    LazyLock::new(|| TrustRoot::from_der(&CHAIN.certificates[0]).unwrap());

/// A genuine log.
pub(super) struct Log {
    pub(super) root: TrustRoot,
    pub(super) segments: Vec<(SegmentName, Vec<u8>)>,
    pub(super) events: Vec<AuditEvent>,
}

pub(super) static LOG: LazyLock<Log> = LazyLock::new(|| {
    let named = |bytes: Vec<u8>| {
        let header = SegmentHeader::from_bytes(bytes.first_chunk().unwrap()).unwrap();
        (header.name(), bytes)
    };
    let segments: Vec<_> = (0..SEGMENTS).map(|number| named(stored(&format!("{number}.seg")))).collect();
    let events = segments.iter().flat_map(|(_, bytes)| entries(bytes)).collect();
    Log { root: TrustRoot::from_der(&stored("log-root.der")).unwrap(), segments, events }
});

/// The events of a segment whose every record is whole and sealed, by their records alone.
fn entries(bytes: &[u8]) -> Vec<AuditEvent> {
    use transcode_confidential::audit::{
        decode_leaf,
        segment::{RecordBuffer, RecordKind},
    };
    let mut buffer = RecordBuffer::at(0);
    buffer.push(&bytes[SegmentHeader::LEN..]);
    let records = std::iter::from_fn(|| buffer.next_record().unwrap());
    records
        .filter(|record| record.kind == RecordKind::Entry)
        .map(|record| decode_leaf(&record.payload).unwrap())
        .collect()
}

/// An RSA key, PKCS#8.
pub(super) fn recipient_key() -> &'static [u8] {
    static KEY: LazyLock<Vec<u8>> = LazyLock::new(|| stored("recipient.key.p8.der"));
    &KEY
}

/// A secret that is sealed to [`recipient_key`].
pub(super) fn envelope() -> &'static [u8] {
    static ENVELOPE: LazyLock<Vec<u8>> = LazyLock::new(|| stored("envelope.ber"));
    &ENVELOPE
}

static VECTORS: LazyLock<String> =
    LazyLock::new(|| String::from_utf8(repository("transcode-confidential/tests/vectors/protocol.txt")).unwrap());

/// All byte strings of the protocol's vectors, by name.
pub(super) fn vectors() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    VECTORS
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .filter_map(|(name, value)| Some((name, hex::decode(value).ok()?)))
}

/// A line of the protocol's vectors, as text.
pub(super) fn vector_line(name: &str) -> String {
    let value = VECTORS.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
    value.unwrap_or_else(|| panic!("{name}: no such vector")).to_owned()
}

/// A byte string of the protocol's vectors.
pub(super) fn vector(name: &str) -> Vec<u8> {
    hex::decode(vector_line(name)).unwrap()
}

/// The checkpoint of the protocol's vectors.
pub(super) fn vector_checkpoint() -> String {
    let text = VECTORS.split_once("checkpoint:\n").unwrap().1;
    // A blank line ends the file, which is none of the note's.
    format!("{}\n", text.trim_end())
}

fn public_key(vector_name: &str) -> PublicKey {
    PublicKey::new(vector(vector_name).try_into().unwrap())
}

pub(super) fn log_key() -> PublicKey {
    public_key("log key")
}

pub(super) fn epoch_key() -> PublicKey {
    public_key("epoch key")
}

/// The key that signs the policy of the vectors.
pub(super) fn policy_authority() -> PublicKey {
    crate::log_maker::key(3).public_key()
}

/// Makes what the targets start from anew, as paths and contents: for when a format changes. The keys are fresh, so inputs that
/// were found before mean something else afterwards.
pub fn make() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut file = |name: &str, bytes: &[u8]| files.push((format!("{FOLDER}/{name}"), bytes.to_vec()));
    let chain = MockPki::generate().issue("i-0-enc0", NOW);
    for (position, certificate) in POSITIONS.iter().zip(&chain.certificates) {
        file(&format!("{position}.der"), certificate);
    }
    file("leaf.key.p8.der", chain.leaf_key.pkcs8());

    let hypervisor = MockHypervisor::new(std::sync::Arc::new(ManualClock::at(NOW)));
    let mut log = LogMaker::sample(&hypervisor, &MockImage::named("1.0"), 1);
    log.close_segment();
    file("log-root.der", hypervisor.trust_root().der());
    for (number, (_, bytes)) in log.segments().iter().enumerate() {
        file(&format!("{number}.seg"), bytes);
    }

    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).unwrap();
    file("recipient.key.p8.der", pkcs8.as_ref());
    let recipient = RecipientKey::from_pkcs8(pkcs8.as_ref()).unwrap();
    file("envelope.ber", &ber::seal(recipient.public_key(), &[0x5a; 32], ContentShape::Constructed).unwrap());
    files
}
