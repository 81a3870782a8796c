//! `confidential policy`: who may do what, signed by an authority that is offline.

mod authority;
mod draft;
mod kms;
mod restore;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use serde_json::json;
use transcode_confidential::{
    protocol::policy::{CallerImages, Policy, SignedPolicy},
    signature::PublicKey,
    time::{Clock as _, SystemClock},
};

use super::{
    args::{Global, Once, PolicyVerb},
    connection,
    environment::Environment,
    exit::{Done, Failure},
    files::{self, Access},
    terminal::line,
};
use authority::AuthorityKey;
use draft::Draft;

pub(super) fn run(verb: PolicyVerb, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    match verb {
        PolicyVerb::Init { dir, deployment } => init(&dir, &deployment),
        PolicyVerb::Sign { file, key, output } => sign(&file, &key, output),
        PolicyVerb::Show { file, authority } => show(&file, authority.as_deref()),
        PolicyVerb::Put { file, once } => put(&file, &once, global, environment),
        PolicyVerb::Restore(args) => restore::sign(args),
        PolicyVerb::Kms(verb) => kms::run(verb, global, environment),
    }
}

fn init(dir: &Path, deployment: &str) -> Result<Done, Failure> {
    let (key_path, policy_path) = (dir.join("authority.key"), dir.join("policy.toml"));
    std::fs::create_dir_all(dir).map_err(|error| Failure::file(dir, &error))?;
    let text = draft::template(deployment)?;
    let key = AuthorityKey::generate()?;
    files::create(&key_path, key.to_pem().as_bytes(), Access::Private)?;
    files::create(&policy_path, text.as_bytes(), Access::Public)?;
    let public = key.public_key();
    let text = format!(
        "made a policy authority and a policy to start from\n  {}  signs policies: it is the root of all grants; keep it \
         offline, away from whoever runs the host\n  {}  says who may do what: edit it, then confidential policy \
         sign\n  {public}  is the authority's public key: policy_authority in the enclave's measured configuration",
        key_path.display(),
        policy_path.display()
    );
    Ok(Done::ok(json!({ "key": key_path, "policy": policy_path, "policy_authority": public }), text))
}

fn sign(file: &Path, key: &Path, output: Option<PathBuf>) -> Result<Done, Failure> {
    let policy = Draft::read(file)?.into_policy(SystemClock.now(), file)?;
    let authority = AuthorityKey::read(key)?;
    let signed = SignedPolicy::sign(policy, authority.signing_key());
    // What an enclave would not read must not leave this house.
    SignedPolicy::verify(signed.document(), &authority.public_key())
        .map_err(|error| Failure::file(file, &format!("cannot be encoded: {error}")))?;
    let output = output.unwrap_or_else(|| file.with_extension("cose"));
    files::replace(&output, signed.document(), Access::Public)?;
    let policy = signed.policy();
    let text = format!(
        "signed version {} of the policy for {}: {}\n  confidential policy put {} hands it to the enclave",
        policy.version,
        line(&policy.deployment),
        signed.digest(),
        output.display()
    );
    let json = json!({
        "document": output,
        "deployment": policy.deployment,
        "version": policy.version,
        "digest": signed.digest(),
        "policy_authority": authority.public_key(),
    });
    Ok(Done::ok(json, text))
}

fn show(file: &Path, authority: Option<&str>) -> Result<Done, Failure> {
    let document = files::read(file)?;
    let (policy, verified) = match authority {
        Some(authority) => {
            let signed = SignedPolicy::verify(&document, &public_key(authority)?)
                .map_err(|error| Failure::verification(format!("{}: {error}", file.display())))?;
            (signed.policy().clone(), true)
        }
        None => (SignedPolicy::claimed(&document).map_err(|error| Failure::file(file, &error))?, false),
    };
    let json = json!({
        "verified": verified,
        "deployment": policy.deployment,
        "version": policy.version,
        "issued_at": policy.issued_at.to_string(),
        "grants": policy.grants,
        "denied": policy.denied,
    });
    let title =
        if verified { "signed by the authority" } else { "NOT VERIFIED: give --authority to check who signed it" };
    Ok(Done::ok(json, format!("{title}\n{}", describe(&policy))))
}

fn put(file: &Path, once: &Once, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let document = files::read(file)?;
    SignedPolicy::claimed(&document).map_err(|error| Failure::file(file, &error))?;
    let configured = connection::client(global, environment)?;
    connection::block_on(async {
        let view = configured.client.log().await?;
        let adopted =
            connection::once(&configured.client, once.idempotency_key.as_deref()).put_policy(document).await?;
        connection::keep(&adopted.receipt, &once.receipt)?;
        let event = adopted.receipt.0.sequence;
        let text = format!(
            "version {} of the policy is in force\non the record as event {event} of log {}",
            adopted.version,
            view.log_id()
        );
        let json = json!({
            "version": adopted.version,
            "log_id": view.log_id(),
            "sequence": event,
            "receipt": adopted.receipt,
        });
        let mut done = Done::ok(json, text);
        done.notes = configured.notes(&view);
        Ok(done)
    })
}

fn describe(policy: &Policy) -> String {
    let mut text =
        format!("policy for {}, version {}, issued {}", line(&policy.deployment), policy.version, policy.issued_at);
    for grant in &policy.grants {
        let operations: Vec<_> = grant.operations.iter().map(|operation| draft::word(*operation)).collect();
        let keys = match grant.key_prefix.as_str() {
            "" => "all keys".into(),
            prefix => format!("keys {}*", line(prefix)),
        };
        let _ = write!(text, "\n  {} may {} with {keys}", grant.principal, operations.join(", "));
        for image in grant.caller.iter().flat_map(CallerImages::images) {
            let registers: Vec<_> = image.iter().map(|(index, value)| format!("{index} {value}")).collect();
            let _ = write!(text, "\n    only as an attested caller with {}", registers.join(", "));
        }
    }
    if policy.grants.is_empty() {
        text.push_str("\n  nobody may do anything");
    }
    for principal in &policy.denied {
        let _ = write!(text, "\n  {principal} may do nothing, whatever is granted");
    }
    text
}

/// A public key in hexadecimal, or a file that holds it so, or the authority's private key file.
fn public_key(text: &str) -> Result<PublicKey, Failure> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let path = Path::new(text);
    let content = files::read_text(path)?;
    match content.trim().parse() {
        Ok(key) => Ok(key),
        Err(_) => AuthorityKey::from_pem(&content).map(|key| key.public_key()).map_err(|()| {
            Failure::file(path, &"neither 64 hexadecimal digits of an Ed25519 public key nor an authority's key file")
        }),
    }
}
