//! `confidential policy restore`: the authority says which copy of a log is taken up again.

use std::path::Path;

use serde_json::json;
use transcode_confidential::{
    protocol::restore::{Restore, SignedRestore},
    time::{Clock as _, SystemClock},
};

use super::authority::AuthorityKey;
use crate::cli::{
    args::RestoreArgs,
    exit::{Done, Failure},
    files::{self, Access},
    terminal::line,
};

pub(super) fn sign(args: RestoreArgs) -> Result<Done, Failure> {
    let RestoreArgs { log_id, size, root, deployment, lost_epoch, reason, key, output } = args;
    let authority = AuthorityKey::read(&key)?;
    let issued_at = SystemClock.now();
    let restore = Restore { deployment, log_id, size, root, lost_epoch, issued_at, reason };
    let signed = SignedRestore::sign(restore, authority.signing_key());
    // What an enclave would not read must not leave this house.
    SignedRestore::verify(signed.document(), &authority.public_key())
        .map_err(|error| Failure::usage(format!("cannot be encoded: {error}")))?;
    let output = output.unwrap_or_else(|| Path::new("restore.cose").to_owned());
    files::replace(&output, signed.document(), Access::Public)?;
    let restore = signed.restore();
    let text = format!(
        "signed: log {log_id} of {} may be taken up again from its first {size} events\n  put {} where restore in the \
         [policy] section of parent-proxy points, then start the enclave",
        line(&restore.deployment),
        output.display()
    );
    let json = json!({
        "document": output,
        "deployment": restore.deployment,
        "log_id": log_id,
        "size": size,
        "root": root,
        "lost_epoch": lost_epoch,
        "digest": signed.digest(),
        "policy_authority": authority.public_key(),
    });
    Ok(Done::ok(json, text))
}
