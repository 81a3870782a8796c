use enclave_app::{archive::LogKeeping, config};
use transcode_confidential::keys::KeyRotationPolicy;

use crate::nsm::MockImage;

/// How a world is made.
pub struct Plan {
    /// The image that the enclave is launched from at first.
    pub image: MockImage,
    /// The images that KMS gives keys to.
    pub kms_images: Vec<MockImage>,
    /// Images whose epochs the enclave accepts besides its own.
    pub predecessors: Vec<MockImage>,
    /// Limits in the measured configuration.
    pub limits: config::Limits,
    /// Policy of keys that are made without one.
    pub key_defaults: KeyRotationPolicy,
    /// When snapshots are taken and what is kept. Nothing need be kept, as tests have it.
    pub log: LogKeeping,
    /// Who is the parent.
    pub parent: ParentKind,
    /// Whether an interposer sits on every connection.
    pub interposed: bool,
}

/// Who is the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentKind {
    /// The real proxy, with the log on disk.
    Proxy,
    /// One that does as it is told, with the log in memory.
    Scripted,
    /// None of ours: proxy and enclave are processes that somebody else starts.
    Outside,
}

impl Default for Plan {
    fn default() -> Self {
        let image = MockImage::named("enclave");
        Self {
            kms_images: vec![image.clone()],
            image,
            predecessors: Vec::new(),
            limits: config::Limits { audit_wait_ms: 3000, policy_poll_secs: 1, ..config::Limits::default() },
            key_defaults: KeyRotationPolicy::default(),
            log: LogKeeping { keep_events: 0, keep_days: 0, ..LogKeeping::default() },
            parent: ParentKind::Proxy,
            interposed: false,
        }
    }
}

impl Plan {
    /// With a scripted parent, and less patience for it: yet longer than a busy machine takes for an honest answer.
    pub fn scripted() -> Self {
        let mut plan = Self { parent: ParentKind::Scripted, ..Self::default() };
        plan.limits.audit_wait_ms = 2000;
        plan
    }
}
