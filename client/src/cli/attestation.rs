//! `confidential attestation`: what a document says, and whether to believe it.

mod describe;

use std::{fmt::Write as _, path::Path, str::FromStr, time::Duration};

use serde_json::{Value, json};
use transcode_confidential::{
    attestation::{
        Claims, ExpectedNonce, Freshness, ImagePolicy, ImageVerdict, Nonce, Refusal, TrustRoot, UnverifiedDocument,
        Verification, VerifiedDocument,
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
use describe::{claimed, describe};

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
                    // Two clocks differ; a time that somebody names does not.
                    future_tolerance: match self.at {
                        VerifyAt::Time(_) => Duration::ZERO,
                        _ => Freshness::DEFAULT_FUTURE_TOLERANCE,
                    },
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

/// Takes over the members of another object.
fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
