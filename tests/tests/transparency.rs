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
use serde_json::Value;
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
        let stranger = Self { dir: tempfile::tempdir().unwrap(), log };
        fs::create_dir(stranger.path("log")).unwrap();
        for (name, bytes) in stranger.log.segments() {
            fs::write(stranger.path("log").join(name.to_string()), bytes).unwrap();
        }
        fs::write(stranger.path("root.pem"), hypervisor.root_pem()).unwrap();
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
