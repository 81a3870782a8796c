//! Everything at random, and the whole log verified after every step.

use std::{collections::BTreeMap, io::Write as _};

use client::ClientError;
use testkit::{
    kms::fault::Fault,
    world::{Caller, Plan, World},
};
use transcode_confidential::{
    audit::segment::{Record, RecordKind},
    protocol::api::ErrorCode,
};

/// A small generator; the same seed gives the same life.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// What is known of something that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    No,
    Maybe,
    Yes,
}

impl Known {
    /// What an answer says about something that might have happened before.
    fn learn<T>(&mut self, result: &Result<T, ClientError>) {
        match result {
            Ok(_) => *self = Self::Yes,
            Err(_) if *self == Self::No => *self = Self::Maybe,
            Err(_) => {}
        }
    }
}

#[derive(Debug)]
struct Key {
    made: Known,
    revoked: Known,
    uses: u64,
    messages: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Nobody is told that something is so which is not: neither in an answer, nor in a refusal.
fn check_refusal(what: &str, key: &Key, error: &ClientError) {
    let Some(answer) = error.answer() else { return };
    match answer.code {
        ErrorCode::AuditUnavailable | ErrorCode::KmsUnavailable | ErrorCode::RotationDue | ErrorCode::NotReady => {}
        ErrorCode::Denied => assert_ne!(key.made, Known::Yes, "{what}: {answer}"),
        ErrorCode::Revoked => assert_ne!(key.revoked, Known::No, "{what}: {answer}"),
        ErrorCode::Conflict => assert!(key.made != Known::No, "{what}: {answer}"),
        _ => panic!("{what}: {answer}"),
    }
}

struct Life {
    world: World,
    operator: Caller,
    dice: Dice,
    keys: BTreeMap<String, Key>,
}

impl Life {
    async fn begin(seed: u64) -> Self {
        let mut plan = Plan::default();
        plan.limits.audit_wait_ms = 1000;
        let world = World::with(plan).await;
        let operator = world.operator();
        Self { world, operator, dice: Dice(seed), keys: BTreeMap::new() }
    }

    async fn ask(&mut self) -> String {
        let new = self.keys.is_empty() || self.dice.roll(6) == 0;
        let id = if new { format!("content-{}", self.keys.len()) } else { self.any_key() };
        let operator = self.operator.clone();
        let what = if new { 0 } else { 1 + self.dice.roll(16) };
        let key = self.keys.entry(id.clone()).or_insert(Key {
            made: Known::No,
            revoked: Known::No,
            uses: 0,
            messages: Vec::new(),
        });
        match what {
            0 => {
                let result = operator.generate(&id).await;
                if let Err(error) = &result {
                    check_refusal("generate", key, error);
                }
                key.made.learn(&result);
                format!("generate {id}: {}", told(&result))
            }
            1..=6 => {
                let content = format!("{id} use {}", key.uses).into_bytes();
                let result = operator.encrypt(&id, &content).await;
                match &result {
                    Ok(message) => {
                        assert!(key.made != Known::No && key.revoked != Known::Yes);
                        key.made = Known::Yes;
                        key.uses += 1;
                        key.messages.push((message.clone(), content));
                    }
                    Err(error) => check_refusal("encrypt", key, error),
                }
                format!("encrypt {id}: {}", told(&result))
            }
            7..=12 => {
                let Some((message, content)) = key.messages.last() else { return "nothing".to_owned() };
                let result = operator.decrypt(message).await;
                match &result {
                    Ok(found) => {
                        assert_eq!(found, content);
                        assert_ne!(key.revoked, Known::Yes);
                    }
                    Err(error) => check_refusal("decrypt", key, error),
                }
                format!("decrypt {id}: {}", told(&result))
            }
            13..=15 => {
                let result = operator.rotate(&id).await;
                if let Err(error) = &result {
                    check_refusal("rotate", key, error);
                }
                format!("rotate {id}: {}", told(&result))
            }
            _ => {
                let result = operator.revoke(&id).await;
                if let Err(error) = &result {
                    check_refusal("revoke", key, error);
                }
                key.revoked.learn(&result);
                format!("revoke {id}: {}", told(&result))
            }
        }
    }

    fn any_key(&mut self) -> String {
        let at = self.dice.roll(self.keys.len());
        self.keys.keys().nth(at).unwrap().clone()
    }

    async fn disturb(&mut self) -> &'static str {
        let image = self.world.image().clone();
        match self.dice.roll(9) {
            0 => {
                self.world.kill_enclave().await;
                self.world.launch(&image).await.unwrap();
                "the enclave was killed"
            }
            1 => {
                self.world.restart_enclave().await;
                "the enclave was restarted"
            }
            2 => {
                self.world.kill_proxy().await;
                self.world.start_proxy().await;
                "the proxy was killed"
            }
            3 => {
                self.world.disk.set_full(true);
                self.ask().await;
                self.world.disk.set_full(false);
                "the disk was full"
            }
            4 => {
                self.world.disk.set_failing_sync(true);
                self.ask().await;
                self.world.disk.set_failing_sync(false);
                "the disk did not sync"
            }
            5 => {
                let fault = [Fault::THROTTLED, Fault::Closed, Fault::PlaintextInstead, Fault::EXPIRED]
                    [self.dice.roll(4)]
                .clone();
                self.world.kms.fail_next(1, fault);
                "KMS fails once"
            }
            6 => match self.operator.snapshot().await {
                Ok(_) => "a snapshot was taken",
                Err(error) => {
                    assert_eq!(error.answer().map(|answer| answer.code), Some(ErrorCode::AuditUnavailable), "{error}");
                    "no snapshot was taken"
                }
            },
            7 => match self.operator.prune().await {
                Ok(_) => "the log was pruned",
                Err(error) => {
                    let code = error.answer().map(|answer| answer.code);
                    // Nothing to give up; or KMS was told to fail once, and a version could not be unwrapped.
                    let expected = [ErrorCode::Conflict, ErrorCode::KmsUnavailable, ErrorCode::AuditUnavailable];
                    assert!(code.is_some_and(|code| expected.contains(&code)), "{error}");
                    "the log was not pruned"
                }
            },
            _ => {
                self.world.kill_enclave().await;
                self.world.kill_proxy().await;
                self.tear();
                self.world.start_proxy().await;
                self.world.launch(&image).await.unwrap();
                "the machine lost its power in the middle of a write"
            }
        }
    }

    /// Leaves what a write leaves that was interrupted.
    fn tear(&mut self) {
        let mut torn = Vec::new();
        Record::new(RecordKind::Entry, vec![1; 300]).write_to(&mut torn);
        let length = 1 + self.dice.roll(torn.len() - 1);
        let (name, _) = self.world.segments().pop_last().unwrap();
        let path = self.world.segments_dir().join(name.to_string());
        let mut file = std::fs::File::options().append(true).open(path).unwrap();
        file.write_all(&torn[..length]).unwrap();
    }

    fn check(&self) {
        let checked = self.world.check().intact();
        for (id, key) in self.keys.iter().filter(|(_, key)| key.made == Known::Yes) {
            let found = checked.key(id);
            let uses: u64 = found.versions.iter().map(|version| version.uses).sum();
            assert!(uses >= key.uses, "{id}: {uses} uses are on the record, {} were granted", key.uses);
            assert_eq!(
                found.active().is_none(),
                key.revoked == Known::Yes || (key.revoked == Known::Maybe && found.active().is_none())
            );
        }
    }
}

fn told<T>(result: &Result<T, ClientError>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => error.to_string(),
    }
}

async fn live(seed: u64, steps: usize) {
    let mut life = Life::begin(seed).await;
    let mut story = Vec::new();
    for _ in 0..steps {
        let step = if life.dice.roll(3) == 0 { life.disturb().await.to_owned() } else { life.ask().await };
        story.push(step);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| life.check()));
        assert!(checked.is_ok(), "seed {seed}: {story:#?}");
    }
    let done = story.iter().filter(|step| step.ends_with("done")).count();
    assert!(done * 4 > steps, "too little went well to show anything: {story:#?}");
}

/// `CHAOS_SEED` and `CHAOS_STEPS` give longer lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_in_whatever_order_the_log_is_intact_and_holds_what_was_acknowledged() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let steps = number("CHAOS_STEPS").unwrap_or(40) as usize;
    match number("CHAOS_SEED") {
        Some(seed) => live(seed, steps).await,
        None => {
            for seed in [1, 2, 3] {
                live(seed, steps).await;
            }
        }
    }
}
