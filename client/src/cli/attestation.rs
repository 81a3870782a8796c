//! `confidential attestation`: what a document says, and whether to believe it.

use std::{fmt::Write as _, path::Path, str::FromStr, time::Duration};

use serde_json::{Value, json};
use transcode_confidential::{
    attestation::{
        Claims, ExpectedNonce, Freshness, ImagePolicy, ImageVerdict, Nonce, PcrIndex, Refusal, TrustRoot,
        UnverifiedDocument, UserData, Verification, VerifiedDocument,
    },
    ids::Digest,
    time::{Clock as _, SystemClock, Timestamp},
};

use super::{
    args::{AttestationVerb, Global},
    connection,
    environment::Environment,
    exit::{Done, Exit, Failure},
    files,
    terminal::line,
};

/// The time at which a document is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VerifyAt {
    Now,
    /// Its own signed time.
    Document,
    Time(Timestamp),
}

impl FromStr for VerifyAt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "now" => Ok(Self::Now),
            "document" => Ok(Self::Document),
            _ => match text.parse::<u64>() {
                Ok(seconds) => Ok(Self::Time(Timestamp::from_secs(seconds))),
                Err(_) => text.parse().map(Self::Time).map_err(
                    |_| "write now, document, a time as 2026-01-31T12:00:00Z, or seconds since the Unix epoch",
                ),
            },
        }
    }
}

pub(super) fn parse_nonce(text: &str) -> Result<[u8; Nonce::LEN], String> {
    let mut bytes = [0; Nonce::LEN];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| "write 64 hexadecimal digits".to_owned())?;
    Ok(bytes)
}

pub(super) fn run(verb: AttestationVerb, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    match verb {
        AttestationVerb::Show { file } => show(&file),
        AttestationVerb::Verify { file, at, max_age, nonce } => {
            let check = Check {
                root: connection::root(global)?,
                image: connection::image_policy(global, environment)?,
                at,
                max_age: Duration::from_secs(max_age),
                nonce,
                now: SystemClock.now(),
            };
            Ok(check.run(&files::read(&file)?))
        }
    }
}

fn show(file: &Path) -> Result<Done, Failure> {
    let bytes = files::read(file)?;
    let document = UnverifiedDocument::parse(&bytes)
        .map_err(|refusal| Failure::malformed(format!("{}: {refusal}", file.display())))?;
    let claims = document.unverified_claims();
    let text = format!("NOT VERIFIED: anybody may have written this\n{}", describe(claims, SystemClock.now()));
    let mut json = claimed(claims);
    if let Value::Object(object) = &mut json {
        object.insert("verified".into(), false.into());
        object.insert("digest".into(), Digest::of(&bytes).to_string().into());
    }
    Ok(Done::ok(json, text))
}

/// One verification, with everything that it depends on.
struct Check {
    root: TrustRoot,
    image: ImagePolicy,
    at: VerifyAt,
    max_age: Duration,
    nonce: Option<[u8; Nonce::LEN]>,
    now: Timestamp,
}

impl Check {
    fn run(&self, bytes: &[u8]) -> Done {
        let digest = Digest::of(bytes);
        let document = match UnverifiedDocument::parse(bytes) {
            Ok(document) => document,
            Err(refusal) => return self.refused(&refusal, None, digest),
        };
        let claims = document.unverified_claims().clone();
        match self.at {
            VerifyAt::Document => match document.verify_archived(&self.root, &self.image) {
                Ok(document) => self.verified(&document),
                Err(refusal) => self.refused(&refusal, Some(&claims), digest),
            },
            VerifyAt::Now | VerifyAt::Time(_) => {
                let freshness = Freshness {
                    nonce: self.nonce.map_or(ExpectedNonce::Any, |nonce| ExpectedNonce::Exactly(Nonce::derived(nonce))),
                    max_age: self.max_age,
                    future_tolerance: Freshness::DEFAULT_FUTURE_TOLERANCE,
                };
                match document.verify_live(&self.root, self.time(&claims), freshness, &self.image) {
                    Ok(document) => self.verified(&document),
                    Err(refusal) => self.refused(&refusal, Some(&claims), digest),
                }
            }
        }
    }

    fn time(&self, claims: &Claims) -> Timestamp {
        match self.at {
            VerifyAt::Now => self.now,
            VerifyAt::Document => claims.timestamp(),
            VerifyAt::Time(time) => time,
        }
    }

    fn verified<S: Verification>(&self, document: &VerifiedDocument<S>) -> Done {
        let claims = document.claims();
        if let (VerifyAt::Document, Some(nonce)) = (self.at, &self.nonce)
            && document.nonce() != Some(nonce.as_slice())
        {
            return self.refused(&Refusal::NonceMismatch, Some(claims), document.digest());
        }
        let label = match document.image() {
            ImageVerdict::Expected { label } => Some(label.as_str()),
            _ => None,
        };
        let (checked, unchecked) = self.scope(label);
        let mut json = self.json("verified", document.digest());
        merge(&mut json, claimed(claims));
        merge(
            &mut json,
            json!({
                "image": document.image().to_string(),
                "label": label,
                "verified_at": self.time(claims).to_string(),
                "checked": checked,
                "not_checked": unchecked,
            }),
        );
        let mut text = format!("VERIFIED {}", self.when(claims));
        let image = label.map_or_else(
            || "NOT CHECKED (--any-image): anybody's enclave would pass".into(),
            |label| format!("{label} (expected)"),
        );
        let _ = write!(text, "\n  image       {}\n{}", line(&image), describe(claims, self.now));
        let _ = write!(text, "\n  SHA-256     {} of the document", document.digest());
        for (title, items) in [("checked", &checked), ("not checked", &unchecked)] {
            for (index, item) in items.iter().enumerate() {
                let title = if index == 0 { title } else { "" };
                let _ = write!(text, "\n  {title:11} {item}");
            }
        }
        Done::ok(json, text)
    }

    fn refused(&self, refusal: &Refusal, claims: Option<&Claims>, digest: Digest) -> Done {
        let mut json = self.json("refused", digest);
        merge(
            &mut json,
            json!({
                "reason": refusal.reason(),
                "message": refusal.to_string(),
                "image": match refusal {
                    Refusal::UnexpectedImage(_) | Refusal::ImageExpired { .. } => "unexpected",
                    _ => "unchecked",
                },
                "unverified": claims.map(claimed),
            }),
        );
        let when = claims.map(|claims| format!(" {}", self.when(claims))).unwrap_or_default();
        let mut text = format!("REFUSED{when}\n  {}: {}", refusal.reason(), line(&refusal.to_string()));
        if let Some(claims) = claims {
            let _ = write!(text, "\n\nwhat it says, none of which is to be believed:\n{}", describe(claims, self.now));
        }
        Done { exit: Exit::Verification, json, text, notes: Vec::new() }
    }

    /// The members that every verdict has.
    fn json(&self, verdict: &str, digest: Digest) -> Value {
        json!({
            "verdict": verdict,
            "reason": null,
            "message": null,
            "image": null,
            "label": null,
            "module_id": null,
            "timestamp": null,
            "pcrs": null,
            "digest": digest,
            "root": { "sha256": self.root.fingerprint(), "aws": self.root.is_aws() },
        })
    }

    fn when(&self, claims: &Claims) -> String {
        match self.at {
            VerifyAt::Now => format!("now, {}", self.now),
            VerifyAt::Time(time) => format!("for the time {time}"),
            VerifyAt::Document => format!("at its own signed time, {}", claims.timestamp()),
        }
    }

    /// What this verification covers and what it does not.
    fn scope(&self, label: Option<&str>) -> (Vec<String>, Vec<String>) {
        let root = if self.root.is_aws() {
            "AWS's root for Nitro Enclaves".to_owned()
        } else {
            format!("the given root, SHA-256 {}", self.root.fingerprint())
        };
        let mut checked = vec![
            "structure: strict CBOR and COSE, nothing repeated, nothing behind".to_owned(),
            format!("five certificates up to {root}"),
            "signature of the document".to_owned(),
            "not from an enclave in debug mode".to_owned(),
        ];
        let mut unchecked = Vec::new();
        match label {
            Some(label) => checked.push(format!("PCR0, PCR1 and PCR2 are those of image {}", line(label))),
            None => unchecked.push("the image: give --measurements to check it".to_owned()),
        }
        match self.at {
            VerifyAt::Document => {
                unchecked.push("age: it was valid at its own time, and may be a replay now".to_owned())
            }
            VerifyAt::Now | VerifyAt::Time(_) => {
                checked.push(format!("age: at most {} s, certificates valid", self.max_age.as_secs()));
            }
        }
        match self.nonce {
            Some(_) => checked.push("it answers the given nonce".to_owned()),
            None => unchecked.push("nonce: it may have been made for another question".to_owned()),
        }
        unchecked.push("that its public key is the one that you talk to".to_owned());
        (checked, unchecked)
    }
}

/// What a document says, for programs.
fn claimed(claims: &Claims) -> Value {
    json!({
        "module_id": claims.module_id(),
        "timestamp": claims.timestamp().to_string(),
        "pcrs": claims.pcrs(),
        "purpose": purpose(claims).map(|data| data.purpose()),
        "log_id": purpose(claims).and_then(|data| data.log_id()),
        "public_key": claims.public_key().map(hex::encode),
        "user_data": claims.user_data().map(hex::encode),
        "nonce": claims.nonce().map(hex::encode),
    })
}

/// What a document says, for people. PCRs that are listed but zero are named together.
fn describe(claims: &Claims, now: Timestamp) -> String {
    let mut text = format!("  enclave     {}", line(claims.module_id()));
    let _ = write!(text, "\n  made        {} ({})", claims.timestamp(), age(claims.timestamp(), now));
    let _ = write!(text, "\n  purpose     {}", purpose_text(claims));
    for (title, field) in [("public key", claims.public_key()), ("nonce", claims.nonce())] {
        let _ = match field {
            None => write!(text, "\n  {title:11} none"),
            Some(bytes) if bytes.len() <= 48 => write!(text, "\n  {title:11} {}", hex::encode(bytes)),
            Some(bytes) => write!(text, "\n  {title:11} {} bytes, SHA-256 {}", bytes.len(), Digest::of(bytes)),
        };
    }
    let mut zero = Vec::new();
    for (index, value) in claims.pcrs().iter() {
        if value.is_zero() && !PcrIndex::OF_IMAGE.contains(&index) {
            zero.push(index.to_string());
        } else {
            let _ = write!(text, "\n  {:11} {value}{}", index.to_string(), meaning(index));
        }
    }
    if !zero.is_empty() {
        let _ = write!(text, "\n  zero        {}", zero.join(" "));
    }
    text
}

fn purpose(claims: &Claims) -> Option<UserData> {
    claims.user_data().and_then(|bytes| UserData::decode(bytes).ok())
}

fn purpose_text(claims: &Claims) -> String {
    match (purpose(claims), claims.user_data()) {
        (Some(UserData::Epoch { log_id, epoch, first, .. }), _) => {
            format!("epoch: opens epoch {epoch} of log {log_id} at event {first}")
        }
        (Some(UserData::Channel { log_id, epoch }), _) => format!("channel: a client of log {log_id}, epoch {epoch}"),
        (Some(UserData::Head { log_id, epoch, size, .. }), _) => {
            format!("head: log {log_id} has {size} events in epoch {epoch}")
        }
        (Some(UserData::Kms { request, .. }), _) => format!("kms: for the request {request}"),
        (Some(UserData::Caller { log_id }), _) => format!("caller: of the enclave of log {log_id}"),
        (Some(data), _) => data.purpose().to_string(),
        (None, Some(bytes)) => format!("none that is known here: {} bytes of user data", bytes.len()),
        (None, None) => "none: no user data".into(),
    }
}

const fn meaning(index: PcrIndex) -> &'static str {
    match index.get() {
        0 => "  image",
        1 => "  kernel",
        2 => "  application",
        3 => "  parent's role",
        4 => "  parent instance",
        8 => "  image signer",
        16 => "  log, in this project's images",
        17 => "  epoch, in this project's images",
        _ => "",
    }
}

fn age(made: Timestamp, now: Timestamp) -> String {
    let (age, ahead) = (now.since(made), made.since(now));
    if ahead > Duration::ZERO { format!("{} in the future", span(ahead)) } else { format!("{} ago", span(age)) }
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Takes over the members of another object.
fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
