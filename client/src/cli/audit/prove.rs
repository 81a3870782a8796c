//! `audit prove`: one event, to somebody who has the log's verifier key and nothing else.

use std::path::{Path, PathBuf};

use serde_json::json;
use transcode_confidential::audit::{
    checkpoint::{Checkpoint, SignedNote, log_verifier_key},
    tlog_proof::TlogProof,
    tree::PathBuilder,
};

use super::stored::{self, Source};
use crate::cli::{
    args::{Global, ProveArgs},
    environment::Environment,
    exit::{Done, Failure},
    files::{self, Access},
};

pub(super) fn prove(args: &ProveArgs, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let index = args.event.0;
    let (checkpoint, note) = checkpoint(&args.log.checkpoint, args.size)?;
    let Some(mut path) = PathBuilder::new(index, checkpoint.size) else {
        return Err(Failure::usage(format!(
            "event {index} is not among the {} of the checkpoint: a newer one is needed",
            checkpoint.size
        )));
    };
    let mut leaf = None;
    let source = stored::intact(&args.log, global, environment, &mut |sealed| {
        if sealed.event.sequence == args.event {
            leaf = sealed.event.to_leaf().ok();
        }
        path.push(sealed.event.hash);
    })?;
    let (_, path) = path.finish().ok_or_else(|| Failure::verification("the log ends before the checkpoint"))?;
    let proof = TlogProof { leaf, index, path, checkpoint: note };
    let log_key = log_key(&source)?;
    // Whoever gets the file will do the same.
    proof.verify(log_key).map_err(|error| Failure::verification(error.to_string()))?;
    let verifier_key = log_verifier_key(checkpoint.log_id, log_key).to_string();
    let output = args.output.as_deref().filter(|path| *path != Path::new("-"));
    let text = match output {
        None => proof.to_string().trim_end().to_owned(),
        Some(path) => {
            files::replace(path, proof.to_string().as_bytes(), Access::Public)?;
            format!("wrote {}: event {index} of {}\nverifier key {verifier_key}", path.display(), checkpoint.size)
        }
    };
    let json = source.object(json!({
        "event": index,
        "size": checkpoint.size,
        "root": checkpoint.root,
        "verifier_key": verifier_key,
        "proof": proof.to_string(),
        "output": output,
    }));
    let mut done = Done::ok(json, text);
    done.notes = source.notes();
    Ok(done)
}

/// The checkpoint of this size, or else the largest. Its signature is not verified yet: the walk over the log does that.
pub(super) fn checkpoint(paths: &[PathBuf], size: Option<u64>) -> Result<(Checkpoint, SignedNote), Failure> {
    let mut found: Option<(Checkpoint, SignedNote)> = None;
    for path in paths {
        let note: SignedNote = files::read_text(path)?.parse().map_err(|error| Failure::file(path, &error))?;
        let checkpoint = Checkpoint::from_text(note.text()).map_err(|error| Failure::file(path, &error))?;
        let wanted = size.is_none_or(|size| size == checkpoint.size);
        if wanted && found.as_ref().is_none_or(|(best, _)| best.size < checkpoint.size) {
            found = Some((checkpoint, note));
        }
    }
    found.ok_or_else(|| match size {
        Some(size) if !paths.is_empty() => Failure::usage(format!("none of the checkpoints is of {size} events")),
        _ => Failure::usage("to which checkpoint? Give --checkpoint FILE; confidential audit checkpoint fetches one"),
    })
}

pub(super) fn log_key(source: &Source) -> Result<transcode_confidential::signature::PublicKey, Failure> {
    let key = source.report.as_ref().and_then(|report| report.log_key);
    key.ok_or_else(|| Failure::verification("the log has no key"))
}
