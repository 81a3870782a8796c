//! `confidential reconcile`: what of some content is missing.

use std::{
    fs::File,
    path::{Component, Path, PathBuf},
};

use serde_json::json;
use transcode_confidential::ids::{Digest, Sequence};

use super::{
    args::{Global, QueryArgs, Reconcile},
    audit::{self, Range},
    environment::Environment,
    exit::{Done, Exit, Failure},
    files,
    report::measure,
    terminal::line,
};
use crate::{
    local::SealedInput,
    reconcile::{Expected, Playlist, Recorded, SegmentFile},
};

/// What the name of a message ends in, where the playlist names what it was made of.
const SUFFIX: &str = ".tce";

pub(super) fn run(request: &Reconcile, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let text = files::read_text(&request.playlist)?;
    let playlist = Playlist::parse(&text).map_err(|error| Failure::file(&request.playlist, &error))?;
    let query = QueryArgs {
        dir: request.log.clone(),
        archive: request.archive.clone(),
        checkpoint: request.checkpoint.clone(),
        receipt: request.receipts.clone(),
        danger_unverified: false,
    };
    let begin = request.after.map_or(Sequence(0), |after| Sequence(after.0.saturating_add(1)));
    let mut recorded = Recorded::default();
    let source = audit::events(&query, Range::from(begin), global, environment, &mut |sealed| {
        if sealed.event.sequence >= begin {
            recorded.take(&sealed.event, &request.content_id);
        }
    })?;
    let beside = request.playlist.parent().map(Path::to_owned).unwrap_or_default();
    let dir = request.dir.clone().unwrap_or(beside);
    let expected =
        Expected { job: request.job.clone(), segments: request.expect_segments, duration: request.expect_duration };
    let found = recorded.reconcile(&playlist, &expected, |uri| file_of(&dir, uri));
    let complete = found.findings.is_empty();
    let mut lines = vec![format!(
        "{}: {} segments in the playlist, {} reported, {} keys issued",
        if complete { "complete" } else { "NOT complete" },
        found.segments,
        found.reported,
        found.issued
    )];
    lines.extend(found.findings.iter().map(|finding| format!("  {}", line(&finding.message))));
    let json = source.object(json!({
        "content": request.content_id,
        "complete": complete,
        "segments": found.segments,
        "reported": found.reported,
        "issued": found.issued,
        "findings": found.findings,
    }));
    let exit = if complete { Exit::Ok } else { Exit::Verification };
    Ok(Done { exit, notes: source.notes(), ..Done::ok(json, lines.join("\n")) })
}

/// The file of a segment, or the message that was made of it. A URI that leads out of the directory leads nowhere.
fn file_of(dir: &Path, uri: &str) -> Option<SegmentFile> {
    let name = uri.split(['?', '#']).next().filter(|name| !name.is_empty() && !name.contains("://"))?;
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain {
        return None;
    }
    let candidates = [dir.join(name), PathBuf::from(format!("{}{SUFFIX}", dir.join(name).display()))];
    let path = candidates.into_iter().find(|path| path.is_file())?;
    let (length, digest) = measure(&path).ok()?;
    let sealed = File::open(&path).ok().and_then(|file| SealedInput::read(file).ok());
    let context = sealed.map(|sealed| sealed.header().context().clone()).filter(|context| !context.is_empty());
    Some(SegmentFile { length, digest, context: context.map(|context| Digest::of(&context.serialize())) })
}
