//! What strangers need from a log, checked by code that is not ours: the crates `signed_note` and `tlog_tiles`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

use std::{fs, path::PathBuf, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use signed_note::{Note, StandardVerifier, VerifierList};
use testkit::{
    log_maker::{LogMaker, used},
    nsm::{MockHypervisor, MockImage},
};
use tlog_tiles::{Checkpoint, Hash, Tile, TileHashReader, TileReader};
use transcode_confidential::{
    audit::{decode_leaf, tlog_proof::TlogProof},
    time::SystemClock,
};

/// A log of more than two full tiles, a checkpoint inside of it and one of its end.
struct Stranger {
    dir: tempfile::TempDir,
    hypervisor: MockHypervisor,
    log: LogMaker,
}

const SMALL: u64 = 301;

impl Stranger {
    fn new() -> Self {
        let hypervisor = MockHypervisor::new(Arc::new(SystemClock));
        let image = MockImage::named("enclave");
        let mut log = LogMaker::new(&hypervisor, 7);
        log.open_epoch(&image);
        log.batch((1..SMALL).map(|_| used("film-1", 1)).collect());
        let small = log.note();
        log.open_epoch(&image);
        log.batch((0..300).map(|_| used("film-2", 1)).collect());
        let stranger = Self { dir: tempfile::tempdir().unwrap(), hypervisor, log };
        fs::create_dir(stranger.path("log")).unwrap();
        for (name, bytes) in stranger.log.segments() {
            fs::write(stranger.path("log").join(name.to_string()), bytes).unwrap();
        }
        fs::write(stranger.path("root.pem"), stranger.hypervisor.root_pem()).unwrap();
        fs::write(stranger.path("m.json"), image.measurements("release 7").to_json()).unwrap();
        fs::write(stranger.path("small"), small).unwrap();
        fs::write(stranger.path("large"), stranger.log.note()).unwrap();
        stranger
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, code: u8, args: &[&str]) -> Value {
        let place = |arg: &&str| match arg.strip_prefix('@') {
            Some(name) => self.path(name).into_os_string(),
            None => arg.into(),
        };
        let base = ["confidential", "audit", "--json", "--root", "@root.pem", "--measurements", "@m.json"];
        let mut out = Vec::new();
        let exit = client::cli::run_with(base.iter().chain(args).map(place), &mut out, &mut Vec::new());
        assert_eq!(exit.code(), code, "{}", String::from_utf8_lossy(&out));
        serde_json::from_slice(&out).unwrap()
    }
}

/// Signature and text, by `signed_note` and `tlog_tiles`; nothing but the enrolled key is believed.
fn checked(note: &str, verifier_key: &str) -> Checkpoint {
    let note = Note::from_bytes(note.as_bytes()).unwrap();
    let verifier = StandardVerifier::new(verifier_key).unwrap();
    let (by_the_log, others) = note.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert_eq!((by_the_log.len(), others.len()), (1, 1), "the log key, and the epoch key that nobody enrolled");
    Checkpoint::from_bytes(note.text()).unwrap()
}

/// The exported directory, as `tlog_tiles` reads a log. Its paths name the height of tiles, those of the C2SP format do not.
struct Exported(PathBuf);

impl TileReader for Exported {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let path = |tile: &Tile| self.0.join(tile.path().replacen("tile/8/", "tile/", 1));
        Ok(tiles.iter().map(|tile| fs::read(path(tile)).unwrap()).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

#[test]
fn the_tiles_of_a_log_are_authenticated_by_a_client_that_is_not_ours_and_prove_every_event() {
    let stranger = Stranger::new();
    for (checkpoint, size) in [("@small", SMALL), ("@large", 602)] {
        let tiles = format!("@tiles-{size}");
        let done = stranger.run(0, &["export", "@log", "--tiles", &tiles, "--checkpoint", checkpoint]);
        let prefix = stranger.path(&tiles[1..]);
        let note = fs::read_to_string(prefix.join("checkpoint")).unwrap();
        let head = checked(&note, done["verifier_key"].as_str().unwrap());
        assert_eq!(head.size(), size);
        let exported = Exported(prefix.clone());
        let hashes = TileHashReader::new(head.size(), *head.hash(), &exported);
        assert_eq!(tlog_tiles::tree_hash(size, &hashes).unwrap(), *head.hash());
        for (index, entry) in entries(&prefix, size).iter().enumerate() {
            let proof = tlog_tiles::prove_record(size, index as u64, &hashes).unwrap();
            let hash = tlog_tiles::record_hash(entry);
            tlog_tiles::check_record(&proof, size, *head.hash(), index as u64, hash).unwrap();
            assert_eq!(decode_leaf(entry).unwrap().sequence.0, index as u64);
        }
    }
}

#[test]
fn an_export_has_exactly_the_tiles_that_another_implementation_expects() {
    let stranger = Stranger::new();
    stranger.run(0, &["export", "@log", "--tiles", "@tiles", "--checkpoint", "@large"]);
    let mut expected = vec!["checkpoint".to_owned()];
    for tile in Tile::new_tiles(8, 0, 602) {
        let path = tile.path().replacen("tile/8/", "tile/", 1);
        if tile.level() == 0 {
            expected.push(path.replacen("tile/0/", "tile/entries/", 1));
        }
        expected.push(path);
    }
    expected.sort();
    assert_eq!(files_under(&stranger.path("tiles"), ""), expected);
    assert_eq!(
        stranger.run(3, &["export", "@log", "--tiles", "@tiles", "--checkpoint", "@large"])["error"]["code"],
        "FILE"
    );
    assert_eq!(stranger.run(2, &["export", "@log", "--tiles", "@more"])["error"]["code"], "USAGE");
}

#[test]
fn a_proof_file_is_accepted_by_code_that_is_not_ours() {
    let stranger = Stranger::new();
    for (event, checkpoint, size) in
        [(0, "@small", SMALL), (300, "@small", SMALL), (300, "@large", 602), (601, "@large", 602)]
    {
        let event_arg = u64::to_string(&event);
        let done = stranger
            .run(0, &["prove", "@log", "--event", &event_arg, "--checkpoint", checkpoint, "-o", "@event.tlog-proof"]);
        let text = fs::read_to_string(stranger.path("event.tlog-proof")).unwrap();
        // Read by hand, as c2sp.org/tlog-proof says.
        let (head, note) = text.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        assert_eq!(lines.next(), Some("c2sp.org/tlog-proof@v1"));
        let leaf = STANDARD.decode(lines.next().unwrap().strip_prefix("extra ").unwrap()).unwrap();
        assert_eq!(lines.next(), Some(format!("index {event}").as_str()));
        let path: Vec<Hash> = lines.map(|line| Hash(STANDARD.decode(line).unwrap().try_into().unwrap())).collect();
        let head = checked(note, done["verifier_key"].as_str().unwrap());
        assert_eq!(head.size(), size);
        tlog_tiles::check_record(&path, size, *head.hash(), event, tlog_tiles::record_hash(&leaf)).unwrap();
        let other = tlog_tiles::record_hash(b"another leaf");
        assert!(tlog_tiles::check_record(&path, size, *head.hash(), event, other).is_err());
        assert_eq!(text.parse::<TlogProof>().unwrap().index, event);
    }
}

#[test]
fn the_size_chooses_among_checkpoints_and_an_event_behind_them_cannot_be_proven() {
    let stranger = Stranger::new();
    let both = ["prove", "@log", "--checkpoint", "@small", "--checkpoint", "@large", "--event"];
    let run = |code, rest: &[&str]| stranger.run(code, &both.iter().chain(rest).copied().collect::<Vec<_>>());
    assert_eq!(run(0, &["5"])["size"], 602);
    assert_eq!(run(0, &["5", "--size", "301"])["size"], 301);
    assert_eq!(run(2, &["5", "--size", "400"])["error"]["code"], "USAGE");
    assert_eq!(run(2, &["301", "--size", "301"])["error"]["code"], "USAGE");
    let mut other = stranger.log.clone();
    other.batch(vec![used("film-3", 1)]);
    fs::write(stranger.path("longer"), other.note()).unwrap();
    let refused = stranger.run(4, &["prove", "@log", "--event", "5", "--checkpoint", "@longer"]);
    assert_eq!(refused["error"]["reason"], "truncated");
}

#[test]
fn one_checkpoint_is_proven_to_continue_another_to_code_that_is_not_ours() {
    let stranger = Stranger::new();
    let verb = ["consistency", "@log", "--old", "@small", "--new", "@large", "-o", "@proof.json"];
    let done = stranger.run(0, &verb);
    assert_eq!((&done["old"]["size"], &done["new"]["size"]), (&json!(SMALL), &json!(602)));
    let file: Value = serde_json::from_slice(&fs::read(stranger.path("proof.json")).unwrap()).unwrap();
    let proof: Vec<Hash> = file["proof"].as_array().unwrap().iter().map(|node| hash(node.as_str().unwrap())).collect();
    let key = done["verifier_key"].as_str().unwrap();
    let head = |name: &str| checked(&fs::read_to_string(stranger.path(name)).unwrap(), key);
    let (small, large) = (head("small"), head("large"));
    tlog_tiles::check_tree(&proof, 602, *large.hash(), SMALL, *small.hash()).unwrap();
    assert!(tlog_tiles::check_tree(&proof, 602, *large.hash(), SMALL, *large.hash()).is_err());
    let turned = stranger.run(2, &["consistency", "@log", "--old", "@large", "--new", "@small"]);
    assert_eq!(turned["error"]["code"], "USAGE");
    assert_eq!(stranger.run(2, &["consistency", "@log", "--old", "@small"])["error"]["code"], "USAGE");
}

#[test]
fn a_checkpoint_of_another_history_is_no_continuation() {
    let stranger = Stranger::new();
    let mut other = LogMaker::new(&stranger.hypervisor, 7);
    other.open_epoch(&MockImage::named("enclave"));
    other.batch((0..400).map(|_| used("film-9", 1)).collect());
    fs::write(stranger.path("fork"), other.note()).unwrap();
    let refused = stranger.run(4, &["consistency", "@log", "--old", "@small", "--new", "@fork"]);
    assert_eq!(refused["error"]["reason"], "forked");
    let foreign = LogMaker::sample(&stranger.hypervisor, &MockImage::named("enclave"), 8);
    fs::write(stranger.path("foreign"), foreign.note()).unwrap();
    let refused = stranger.run(4, &["consistency", "@log", "--old", "@foreign", "--new", "@large"]);
    assert_eq!(refused["error"]["reason"], "forked");
}

#[test]
fn a_cose_receipt_is_what_another_implementation_reads_and_signs_the_root_that_the_path_leads_to() {
    use coset::{CborSerializable as _, CoseSign1, Label, TaggedCborSerializable as _, cbor::Value as Cbor};
    let stranger = Stranger::new();
    for event in [0, 300, 601] {
        let bytes = stranger.log.cose_receipt(event).to_bytes();
        let sign1 = CoseSign1::from_tagged_slice(&bytes).unwrap();
        assert_eq!(sign1.payload, None, "the root is not in it");
        let header = &sign1.protected.header;
        assert_eq!(header.alg, Some(coset::RegisteredLabelWithPrivate::Assigned(coset::iana::Algorithm::EdDSA)));
        assert_eq!(header.key_id, stranger.log.log_id().as_bytes());
        assert_eq!(header.rest, [(Label::Int(395), Cbor::from(1))]);
        let [(Label::Int(396), Cbor::Map(proofs))] = &sign1.unprotected.rest[..] else { panic!("{sign1:?}") };
        let [(key, Cbor::Array(proofs))] = &proofs[..] else { panic!("{proofs:?}") };
        assert_eq!((key, proofs.len()), (&Cbor::from(-1), 1));
        let Cbor::Array(proof) = Cbor::from_slice(proofs[0].as_bytes().unwrap()).unwrap() else { panic!("no array") };
        assert_eq!(proof[..2], [Cbor::from(602), Cbor::from(event)]);
        let nodes = proof[2].as_array().unwrap().iter().map(|node| node.as_bytes().unwrap().clone());
        let path: Vec<Hash> = nodes.map(|node| Hash(node.try_into().unwrap())).collect();
        // The other side's path, checked against the other side's root.
        let root = Hash(*stranger.log.chain().state().root.as_bytes());
        let leaf = Hash(*stranger.log.leaves()[event as usize].as_bytes());
        tlog_tiles::check_record(&path, 602, root, event, leaf).unwrap();
        let key = testkit::log_maker::key(7).public_key();
        let verify = |signature: &[u8], message: &[u8]| {
            let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, key.as_bytes());
            key.verify(message, signature)
        };
        sign1.verify_detached_signature(&root.0, b"", verify).unwrap();
        assert!(sign1.verify_detached_signature(&[0; 32], b"", verify).is_err());
        assert_eq!(sign1.to_tagged_vec().unwrap(), bytes, "it is the one encoding");
    }
}

/// What the script `tests/peers/transparency` hands to a verifier in another language; without the variable, only made.
#[test]
fn what_strangers_need_is_written_where_they_want_it() {
    let stranger = Stranger::new();
    let tiles = stranger.run(0, &["export", "@log", "--tiles", "@tiles", "--checkpoint", "@large"]);
    for (event, checkpoint) in [(0, "@small"), (300, "@small"), (300, "@large"), (601, "@large")] {
        let (number, out) = (u64::to_string(&event), format!("@{event}-{}.tlog-proof", &checkpoint[1..]));
        stranger.run(0, &["prove", "@log", "--event", &number, "--checkpoint", checkpoint, "-o", &out]);
    }
    stranger.run(0, &["consistency", "@log", "--old", "@small", "--new", "@large", "-o", "@consistency.json"]);
    for event in [0, 300, 601] {
        fs::write(stranger.path(&format!("{event}.cose")), stranger.log.cose_receipt(event).to_bytes()).unwrap();
    }
    fs::write(stranger.path("verifier-key"), tiles["verifier_key"].as_str().unwrap()).unwrap();
    if let Some(wanted) = std::env::var_os("CONFIDENTIAL_STRANGER_DIR") {
        copy_dir(stranger.dir.path(), &PathBuf::from(wanted));
    }
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn hash(text: &str) -> Hash {
    let mut hash = Hash([0; 32]);
    hex::decode_to_slice(text, &mut hash.0).unwrap();
    hash
}

/// The leaves out of the bundles.
fn entries(prefix: &std::path::Path, size: u64) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    for tile in Tile::new_tiles(8, 0, size).iter().filter(|tile| tile.level() == 0) {
        let path = tile.path().replacen("tile/8/0/", "tile/entries/", 1);
        let bundle = fs::read(prefix.join(path)).unwrap();
        let mut rest = bundle.as_slice();
        while let Some((length, tail)) = rest.split_first_chunk::<2>() {
            let (entry, tail) = tail.split_at(usize::from(u16::from_be_bytes(*length)));
            entries.push(entry.to_vec());
            rest = tail;
        }
    }
    assert_eq!(entries.len() as u64, size);
    entries
}

fn files_under(dir: &std::path::Path, prefix: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_under(&entry.path(), &format!("{name}/")));
        } else {
            files.push(name);
        }
    }
    files.sort();
    files
}
