//! `audit prove`: one event, to somebody who has the log's verifier key and nothing else.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use transcode_confidential::{
    audit::{
        Receipt,
        checkpoint::{Checkpoint, NoteError, SignedNote, log_verifier_key},
        cose_receipt::CoseReceipt,
        tlog_proof::TlogProof,
        tree::PathBuilder,
    },
    ids::{LeafHash, Sequence},
    signature::PublicKey,
};

use super::{consistency, source::Source, stored};
use crate::{
    Client, ClientError,
    cli::{
        args::{Global, LogArgs, ProofFormat, ProveArgs},
        connection,
        environment::Environment,
        exit::{Done, Failure},
        files::{self, Access},
    },
    log_memory::LogError,
};

pub(super) fn prove(args: &ProveArgs, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    match (&args.dir, args.format) {
        (Some(dir), ProofFormat::TlogProof) => stored_proof(dir, args, global, environment),
        (Some(_), ProofFormat::Cose) => {
            Err(Failure::usage("the log key signs a COSE receipt, so it takes the --server instead of a directory"))
        }
        (None, _) => live_proof(args, global, environment),
    }
}

fn stored_proof(dir: &Path, args: &ProveArgs, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let index = args.event.0;
    let (checkpoint, note) = checkpoint(&args.checkpoint, args.size)?;
    let mut path = PathBuilder::new(index, checkpoint.size).ok_or_else(|| outside(index, &checkpoint))?;
    let mut leaf = None;
    let log = LogArgs {
        dir: dir.to_owned(),
        archive: args.archive.clone(),
        checkpoint: args.checkpoint.clone(),
        receipt: args.receipt.clone(),
    };
    let (mut begins, mut begun) = (None, true);
    let source = stored::intact(&log, global, environment, &mut |sealed| {
        if begins.is_none() {
            begins = Some(sealed.event.sequence);
            begun = stored::before(&sealed).is_none_or(|before| path.begin_behind(&before));
        }
        if sealed.event.sequence == args.event {
            leaf = sealed.event.to_leaf().ok();
        }
        path.push(sealed.event.hash);
    })?;
    if let (Some(first), false) = (begins, begun) {
        return Err(ClientError::from(LogError::Pruned { event: args.event, first }).into());
    }
    let (_, path) = path.finish().ok_or_else(|| Failure::verification("the log ends before the checkpoint"))?;
    let proof = TlogProof { leaf, index, path, checkpoint: note };
    written(args, &proof, &checkpoint, log_key(&source)?, &source)
}

fn live_proof(args: &ProveArgs, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let configured = connection::client(global, environment)?;
    let receipt = receipt_of(&args.receipt, args.event)?;
    let given = match args.checkpoint.is_empty() && args.size.is_none() {
        true => None,
        false => Some(checkpoint(&args.checkpoint, args.size)?),
    };
    if args.format == ProofFormat::Cose && given.is_some() {
        return Err(Failure::usage(
            "a COSE receipt is to the server's newest tree: give no --checkpoint and no --size",
        ));
    }
    connection::block_on(async {
        let client = &configured.client;
        let view = client.log().await?;
        let newest = Checkpoint::of(view.log_id(), view.checkpoint().state());
        let (checkpoint, note) = match given {
            None => (newest, parsed(view.checkpoint().note())?),
            Some((checkpoint, note)) => {
                consistency::of_this_log(&view, &note, &checkpoint)?;
                let (old, new) = ((checkpoint.size, checkpoint.root), (newest.size, newest.root));
                client.prove_consistency(newest.log_id, old, new).await?;
                (checkpoint, note)
            }
        };
        if args.event.0 >= checkpoint.size {
            return Err(outside(args.event.0, &checkpoint));
        }
        let (hash, leaf) = match receipt {
            Some(receipt) => (receipt.leaf, None),
            None => {
                let event = one_event(client, args.event).await?;
                (event.0, Some(event.1))
            }
        };
        let source = Source::live(view.checkpoint().clone(), Vec::new());
        let mut done = match args.format {
            ProofFormat::TlogProof => {
                let place = (checkpoint.size, checkpoint.root);
                let path = client.prove_inclusion((args.event, hash), place).await?.path;
                let proof = TlogProof { leaf, index: args.event.0, path, checkpoint: note };
                written(args, &proof, &checkpoint, view.log_key(), &source)?
            }
            ProofFormat::Cose => {
                let receipt = client.cose_receipt(args.event, hash).await?;
                written_cose(args, &receipt, view.log_key(), &source)?
            }
        };
        done.notes.extend(configured.notes(&view));
        Ok(done)
    })
}

async fn one_event(client: &Client, event: Sequence) -> Result<(LeafHash, Vec<u8>), Failure> {
    let mut reader = client.read_log(event);
    loop {
        let page = reader.next(Duration::ZERO).await?;
        if let Some((event, leaf)) = page.events.into_iter().next() {
            return Ok((event.hash, leaf));
        }
        if !page.more {
            return Err(Failure::malformed(format!("the log has no event {event}")));
        }
    }
}

fn receipt_of(paths: &[PathBuf], event: Sequence) -> Result<Option<Receipt>, Failure> {
    let mut found = None;
    for path in paths {
        let receipt = Receipt::from_bytes(&stored::receipt_bytes(files::read(path)?));
        let receipt = receipt.map_err(|error| Failure::file(path, &error))?;
        if receipt.sequence == event {
            found = Some(receipt);
        }
    }
    if found.is_none() && !paths.is_empty() {
        return Err(Failure::usage(format!("none of the receipts is of event {event}")));
    }
    Ok(found)
}

/// Verifies a proof as whoever gets it will, and writes it.
fn written(
    args: &ProveArgs,
    proof: &TlogProof,
    checkpoint: &Checkpoint,
    log_key: PublicKey,
    source: &Source,
) -> Result<Done, Failure> {
    let index = args.event.0;
    let verifier_key = log_verifier_key(checkpoint.log_id, log_key);
    match &proof.leaf {
        Some(_) => proof.verify(log_key).map(|_| ()).map_err(|error| Failure::verification(error.to_string()))?,
        // The path was verified from the receipt's leaf hash.
        None => proof.checkpoint.verify(&verifier_key).map_err(|error| Failure::verification(error.to_string()))?,
    }
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
        "verifier_key": verifier_key.to_string(),
        "proof": proof.to_string(),
        "output": output,
    }));
    let mut done = Done::ok(json, text);
    done.notes = source.notes();
    Ok(done)
}

fn written_cose(args: &ProveArgs, receipt: &CoseReceipt, log_key: PublicKey, source: &Source) -> Result<Done, Failure> {
    let (event, size) = (args.event, receipt.size);
    let output = args.output.as_deref().filter(|path| *path != Path::new("-"));
    let bytes = receipt.to_bytes();
    let text = match output {
        None => STANDARD.encode(&bytes),
        Some(path) => {
            files::replace(path, &bytes, Access::Public)?;
            format!("wrote {}: event {event} of {size}\nlog key {log_key}", path.display())
        }
    };
    let (receipt, log_key) = (STANDARD.encode(&bytes), json!(log_key));
    let object = json!({ "event": event, "size": size, "log_key": log_key, "receipt": receipt, "output": output });
    let mut done = Done::ok(source.object(object), text);
    done.notes = source.notes();
    Ok(done)
}

fn outside(index: u64, checkpoint: &Checkpoint) -> Failure {
    Failure::usage(format!(
        "event {index} is not among the {} of the checkpoint: a newer one is needed",
        checkpoint.size
    ))
}

fn parsed(note: &str) -> Result<SignedNote, Failure> {
    note.parse().map_err(|error: NoteError| Failure::verification(error.to_string()))
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

pub(super) fn log_key(source: &Source) -> Result<PublicKey, Failure> {
    let key = source.report().and_then(|report| report.log_key);
    key.ok_or_else(|| Failure::verification("the log has no key"))
}
