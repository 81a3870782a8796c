//! `audit export --tiles`: the log as C2SP tlog-tiles.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use serde_json::json;
use transcode_confidential::{
    audit::{
        checkpoint::log_verifier_key,
        tiles::{Tile, TileBuilder},
    },
    ids::Sequence,
};

use super::{prove, stored};
use crate::cli::{
    args::{Global, QueryArgs},
    environment::Environment,
    exit::{Done, Failure},
};

pub(super) fn export(
    query: &QueryArgs,
    out: &Path,
    global: &Global,
    environment: &Environment,
) -> Result<Done, Failure> {
    let log = query.stored().ok_or_else(|| Failure::usage("tiles are made of a stored log: name its directory"))?;
    let (checkpoint, note) = prove::checkpoint(&log.checkpoint, None)?;
    let at = |error: io::Error| Failure::file(out, &error);
    if fs::symlink_metadata(out).is_ok() {
        return Err(Failure::file(out, &"exists already; it is not overwritten"));
    }
    // Everything is written beside the place, and gets its name when the whole log has verified.
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let building = tempfile::Builder::new().prefix(".confidential-").tempdir_in(parent).map_err(at)?;
    let prefix = building.path().join("log");
    let mut builder = TileBuilder::new();
    let mut written: io::Result<()> = fs::create_dir(&prefix);
    let mut files = 0_u64;
    let mut begins = None;
    let source = stored::intact(&log, global, environment, &mut |sealed| {
        let first = *begins.get_or_insert(sealed.event.sequence);
        if first == Sequence(0) && written.is_ok() && builder.size() < checkpoint.size {
            let leaf = sealed.event.to_leaf().map_err(io::Error::other);
            let full = leaf.and_then(|leaf| builder.push(&leaf).map_err(io::Error::other));
            written = full.and_then(|tiles| {
                files += tiles.len() as u64;
                tiles.iter().try_for_each(|tile| write(&prefix, tile))
            });
        }
    })?;
    if let Some(first) = begins.filter(|first| *first > Sequence(0)) {
        let what =
            format!("the log begins at event {first}: those before it were given up, and tiles take all of them");
        return Err(Failure::malformed(what).because("event-pruned"));
    }
    written.map_err(at)?;
    let log_key = prove::log_key(&source)?;
    let verifier_key = log_verifier_key(checkpoint.log_id, log_key);
    note.verify(&verifier_key).map_err(|error| Failure::verification(error.to_string()))?;
    if (builder.size(), builder.root()) != (checkpoint.size, checkpoint.root) {
        return Err(Failure::verification("the tiles do not have the root of the checkpoint"));
    }
    let partial = builder.finish();
    files += partial.len() as u64;
    let finish = || {
        partial.iter().try_for_each(|tile| write(&prefix, tile))?;
        fs::write(prefix.join("checkpoint"), note.to_string())?;
        fs::rename(&prefix, out)?;
        File::open(parent)?.sync_all()
    };
    finish().map_err(at)?;
    let text = format!(
        "wrote {}: {} events in {files} tiles and bundles\nverifier key {verifier_key}",
        out.display(),
        checkpoint.size
    );
    let json = source.object(json!({
        "events": checkpoint.size,
        "tiles": files,
        "verifier_key": verifier_key.to_string(),
        "output": out,
    }));
    let mut done = Done::ok(json, text);
    done.notes = source.notes();
    Ok(done)
}

fn write(prefix: &Path, tile: &Tile) -> io::Result<()> {
    let path = prefix.join(tile.path.to_string());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, &tile.bytes)
}
