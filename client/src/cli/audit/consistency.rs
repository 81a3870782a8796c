//! `audit consistency`: that one checkpoint of a log continues another.

use std::path::Path;

use serde_json::json;
use transcode_confidential::audit::{
    checkpoint::{Checkpoint, SignedNote, log_verifier_key},
    tree::{ConsistencyBuilder, Node, verify_consistency},
};

use super::{prove, source::Source, stored};
use crate::{
    LogView,
    cli::{
        args::{ConsistencyArgs, Global, LogArgs},
        connection,
        environment::Environment,
        exit::{Done, Failure},
        files::{self, Access},
    },
};

pub(super) fn prove(args: &ConsistencyArgs, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let old = read(&args.old)?;
    let new = args.new.as_deref().map(read).transpose()?;
    if let Some((newer, _)) = &new
        && newer.log_id != old.0.log_id
    {
        let what = format!("the checkpoints are of two logs, {} and {}", old.0.log_id, newer.log_id);
        return Err(Failure::verification(what).because("forked"));
    }
    match &args.dir {
        Some(dir) => in_directory(dir, old, new, args, global, environment),
        None => at_server(old, new, args, global, environment),
    }
}

type Read = (Checkpoint, SignedNote);

fn read(path: &Path) -> Result<Read, Failure> {
    let note: SignedNote = files::read_text(path)?.parse().map_err(|error| Failure::file(path, &error))?;
    let checkpoint = Checkpoint::from_text(note.text()).map_err(|error| Failure::file(path, &error))?;
    Ok((checkpoint, note))
}

/// The walk over the log verifies both checkpoints; the proof says the same to whoever has no log.
fn in_directory(
    dir: &Path,
    (old, _): Read,
    new: Option<Read>,
    args: &ConsistencyArgs,
    global: &Global,
    environment: &Environment,
) -> Result<Done, Failure> {
    let (Some((new, _)), Some(path)) = (new, &args.new) else {
        return Err(Failure::usage("which checkpoint continues it? Give --new FILE"));
    };
    let mut proof = ConsistencyBuilder::new(old.size, new.size).ok_or_else(|| turned_round(&old, &new))?;
    let log = LogArgs {
        dir: dir.to_owned(),
        archive: args.archive.clone(),
        checkpoint: vec![args.old.clone(), path.clone()],
        receipt: Vec::new(),
    };
    let (mut begins, mut begun) = (None, true);
    let source = stored::intact(&log, global, environment, &mut |sealed| {
        if begins.is_none() {
            begins = Some(sealed.event.sequence);
            begun = stored::before(&sealed).is_none_or(|before| proof.begin_behind(&before));
        }
        proof.push(sealed.event.hash);
    })?;
    if let (Some(first), false) = (begins, begun) {
        let what = format!(
            "the events before {first} were given up, and a proof from {} events on takes more of them than is left there; the              server may still have their hashes",
            old.size
        );
        return Err(Failure::malformed(what).because("event-pruned"));
    }
    let proof = proof.finish().ok_or_else(|| Failure::verification("the log ends before the checkpoint"))?;
    verify_consistency(old.size, old.root, new.size, new.root, &proof)
        .map_err(|error| Failure::verification(error.to_string()).because("forked"))?;
    let key = log_verifier_key(old.log_id, prove::log_key(&source)?).to_string();
    written(args, (&old, &new), &proof, key, &source)
}

fn at_server(
    (old, old_note): Read,
    new: Option<Read>,
    args: &ConsistencyArgs,
    global: &Global,
    environment: &Environment,
) -> Result<Done, Failure> {
    let configured = connection::client(global, environment)?;
    connection::block_on(async {
        let client = &configured.client;
        let view = client.log().await?;
        of_this_log(&view, &old_note, &old)?;
        let newest = Checkpoint::of(view.log_id(), view.checkpoint().state());
        let new = match new {
            None => newest,
            Some((new, note)) => {
                of_this_log(&view, &note, &new)?;
                if old.size > new.size {
                    return Err(turned_round(&old, &new));
                }
                client.prove_consistency(new.log_id, (new.size, new.root), (newest.size, newest.root)).await?;
                new
            }
        };
        let proof = client.prove_consistency(new.log_id, (old.size, old.root), (new.size, new.root)).await?;
        let source = Source::live(view.checkpoint().clone(), Vec::new());
        let key = log_verifier_key(old.log_id, view.log_key()).to_string();
        let mut done = written(args, (&old, &new), &proof, key, &source)?;
        done.notes.extend(configured.notes(&view));
        Ok(done)
    })
}

/// A checkpoint must be signed by the key of the log that the enclave attested, and be no longer than that log.
pub(super) fn of_this_log(view: &LogView, note: &SignedNote, checkpoint: &Checkpoint) -> Result<(), Failure> {
    let refused = |what: String, reason: &str| Err(Failure::verification(what).because(reason));
    if checkpoint.log_id != view.log_id() {
        let what = format!("the checkpoint is of log {}, the server has log {}", checkpoint.log_id, view.log_id());
        return refused(what, "forked");
    }
    if let Err(error) = note.verify(&log_verifier_key(view.log_id(), view.log_key())) {
        return refused(format!("the checkpoint of {} events: {error}", checkpoint.size), "checkpoint-wrong");
    }
    let size = view.checkpoint().state().size;
    if checkpoint.size > size {
        return refused(format!("the log has {size} events, the checkpoint is of {}", checkpoint.size), "truncated");
    }
    Ok(())
}

fn turned_round(old: &Checkpoint, new: &Checkpoint) -> Failure {
    Failure::usage(format!(
        "the old checkpoint is of {} events, the new one of {}: turn them round",
        old.size, new.size
    ))
}

fn written(
    args: &ConsistencyArgs,
    (old, new): (&Checkpoint, &Checkpoint),
    proof: &[Node],
    verifier_key: String,
    source: &Source,
) -> Result<Done, Failure> {
    let proof: Vec<_> = proof.iter().map(hex::encode).collect();
    let mut text = format!(
        "CONSISTENT: the log of {} events begins with that of {}\n  root   {}\n  root   {}\n  key    {verifier_key}",
        new.size, old.size, old.root, new.root
    );
    if let Some(path) = &args.output {
        let object = json!({ "old": old.size, "new": new.size, "proof": proof });
        files::replace(path, format!("{object}\n").as_bytes(), Access::Public)?;
        text += &format!("\n  wrote  {}", path.display());
    }
    let side = |checkpoint: &Checkpoint| json!({ "size": checkpoint.size, "root": checkpoint.root });
    let object = json!({
        "old": side(old), "new": side(new), "proof": proof, "verifier_key": verifier_key, "output": args.output,
    });
    let mut done = Done::ok(source.object(object), text);
    done.notes = source.notes();
    Ok(done)
}
