//! An auditor's desk: a log in a directory, and the command.

use std::{fs, path::PathBuf, sync::Arc};

use serde_json::Value;
use testkit::{
    log_maker::{LogMaker, used},
    nsm::{MockHypervisor, MockImage},
};
use transcode_confidential::{
    audit::{AuditEventType, CreationReason, EventBody, EventDraft, KeyChange, Outcome},
    ids::{KeyVersion, Sequence},
    time::SystemClock,
};

/// Text as nobody should show it unescaped: markup, a formula, a colour, an overriding mark, quotes and lines.
pub(crate) const HOSTILE: &str =
    "=cmd|' /C calc'!A0,\"</script><script>alert(1)</script>\u{1b}[31m\u{202e}\r\n<img src=x onerror=alert(1)>";

pub(crate) struct Desk {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) log: LogMaker,
}

impl Desk {
    /// Two epochs, a key with its life, and an intruder.
    pub(crate) fn new() -> Self {
        let hypervisor = MockHypervisor::new(Arc::new(SystemClock));
        let image = MockImage::named("enclave");
        let mut log = LogMaker::sample(&hypervisor, &image, 1);
        log.batch(vec![
            made("reel-1"),
            used("reel-1", 1).content("scene-4"),
            EventDraft::new(AuditEventType::ContentProcessed, "encrypted").key("reel-1", None).body(
                EventBody::Processed {
                    began: Some(Sequence(6)),
                    outcome: Outcome::Complete,
                    bytes_in: 1000,
                    bytes_out: 1100,
                    digest: None,
                },
            ),
            EventDraft::new(AuditEventType::KeyRevoked, "revoked")
                .key("reel-1", None)
                .body(EventBody::KeyChanged { change: KeyChange::Revoked }),
        ]);
        log.batch(vec![
            EventDraft::new(AuditEventType::UnauthorizedAccess, HOSTILE)
                .key(HOSTILE, None)
                .principal(HOSTILE)
                .content(HOSTILE)
                .body(EventBody::Refused { code: HOSTILE.to_owned(), count: 3 }),
        ]);
        let desk = Self { dir: tempfile::tempdir().unwrap(), log };
        fs::write(desk.path("root.pem"), hypervisor.root_pem()).unwrap();
        fs::write(desk.path("m.json"), image.measurements("release <7>").to_json()).unwrap();
        desk.store();
        desk
    }

    /// Writes the log as it is now.
    pub(crate) fn store(&self) {
        fs::create_dir_all(self.path("log")).unwrap();
        for (name, bytes) in self.log.segments() {
            fs::write(self.path("log").join(name.to_string()), bytes).unwrap();
        }
    }

    /// Changes one byte in the middle of the last segment.
    pub(crate) fn flip_a_byte(&self) {
        let (name, mut bytes) = self.log.segments().last().unwrap().clone();
        let at = bytes.len() - 300;
        bytes[at] ^= 1;
        fs::write(self.path("log").join(name.to_string()), bytes).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `confidential audit`; `@name` stands for a file on this desk.
    pub(crate) fn run(&self, args: &[&str]) -> (u8, String, String) {
        let place = |arg: &&str| match arg.strip_prefix('@') {
            Some(name) => self.path(name).into_os_string(),
            None => arg.into(),
        };
        let base = ["confidential", "audit", "--root", "@root.pem", "--measurements", "@m.json"];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = client::cli::run_with(base.iter().chain(args).map(place), &mut out, &mut err);
        (exit.code(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    pub(crate) fn json(&self, code: u8, args: &[&str]) -> Value {
        let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
        let (exit, out, err) = self.run(&args);
        assert_eq!(exit, code, "{out}{err}");
        serde_json::from_str(&out).unwrap()
    }
}

fn made(id: &str) -> EventDraft {
    EventDraft::new(AuditEventType::KeyGenerated, "made").key(id, Some(KeyVersion(1))).principal("admin-1").body(
        EventBody::KeyCreated {
            record: None,
            max_age_secs: 3600,
            max_uses: 10,
            require_attestation: false,
            reason: CreationReason::Initial,
        },
    )
}
