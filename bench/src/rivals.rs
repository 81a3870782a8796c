//! What a user would do instead.

use std::{
    fs::OpenOptions,
    io::{Seek as _, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The same bytes, written as they come and synced with fdatasync: the limit of any log that grows on this disk.
pub(crate) fn bare(dir: &Path, portions: &[Vec<u8>]) -> Duration {
    written(dir, portions, 0)
}

/// The same into a file that was written full of zeros and synced before: what laying segments out ahead could reach.
pub(crate) fn laid_out(dir: &Path, portions: &[Vec<u8>]) -> Duration {
    written(dir, portions, portions.iter().map(Vec::len).sum())
}

fn written(dir: &Path, portions: &[Vec<u8>], ahead: usize) -> Duration {
    let path = dir.join("bare");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).unwrap();
    file.write_all(&vec![0; ahead]).unwrap();
    file.sync_all().unwrap();
    file.rewind().unwrap();
    let begin = Instant::now();
    for portion in portions {
        file.write_all(portion).unwrap();
        file.sync_data().unwrap();
    }
    let time = begin.elapsed();
    std::fs::remove_file(path).unwrap();
    time
}

/// One JSON object a line, one fdatasync a line, each line with the hash of the one before.
pub(crate) fn json_lines(dir: &Path, events: usize) -> Duration {
    let path = dir.join("events.jsonl");
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
    let mut previous = [0_u8; 32];
    let begin = Instant::now();
    for sequence in 0..events {
        let line = format!("{}\n", event(sequence, &previous));
        previous = Sha256::digest(&line).into();
        file.write_all(line.as_bytes()).unwrap();
        file.sync_data().unwrap();
    }
    let time = begin.elapsed();
    std::fs::remove_file(path).unwrap();
    time
}

/// A hash chain in a table, write-ahead log, synchronous = FULL, so many events a transaction.
pub(crate) fn sqlite(dir: &Path, events: usize, transaction: usize) -> Duration {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let mut connection = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.pragma_update(None, "synchronous", "full").unwrap();
    connection.execute_batch("CREATE TABLE events (sequence INTEGER PRIMARY KEY, hash BLOB, event BLOB)").unwrap();
    let mut previous = [0_u8; 32];
    let begin = Instant::now();
    for first in (0..events).step_by(transaction) {
        let batch = connection.transaction().unwrap();
        {
            let mut insert = batch.prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3)").unwrap();
            for sequence in first..first + transaction {
                let event = event(sequence, &previous);
                previous = Sha256::digest(&event).into();
                insert.execute((sequence as i64, &previous[..], event.as_bytes())).unwrap();
            }
        }
        batch.commit().unwrap();
    }
    begin.elapsed()
}

/// What our leaf says, as JSON.
fn event(sequence: usize, previous: &[u8; 32]) -> String {
    let previous: String = previous.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "sequence": sequence, "type": "KeyUsed", "key": "content-key-000001", "version": 1,
        "principal": "transcoder-eu-central-1a", "content": "title-4711/season-1/episode-3",
        "details": "message decrypted", "previous": previous,
    })
    .to_string()
}
