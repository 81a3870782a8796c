//! Nothing that the KMS client prints, at any level, in any error, is a secret. A process of its own: it captures all output.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

#[path = "kms/setting.rs"]
#[allow(dead_code, reason = "shared with the other tests of the client")]
mod setting;

use std::{
    fmt::Write as _,
    io,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use testkit::kms::fault::Fault;
use tracing_subscriber::fmt::MakeWriter;

use setting::{LIFETIME, ROLE, Setting, content};

/// Everything that is logged, at every level, by every crate.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn no_secret_is_ever_printed() {
    let captured = Captured::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(captured.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (secrets, mut printed) = runtime.block_on(a_run_that_prints_all());
    printed.push_str(&String::from_utf8_lossy(&captured.0.lock().unwrap()));
    assert!(printed.contains("KMS call failed"), "the run was logged");
    assert!(printed.contains("TRACE") && printed.contains("aws_smithy_runtime"), "at every level, by every crate");
    for (what, secret) in secrets {
        assert!(!printed.contains(&secret), "{what} was printed");
    }
}

/// Calls, failures, and every Debug and Display there is; gives the secrets and what was printed.
async fn a_run_that_prints_all() -> (Vec<(&'static str, String)>, String) {
    let setting = Setting::new().await;
    let mut issued = vec![setting.kms.issue_credentials(ROLE, LIFETIME), setting.kms.issue_credentials(ROLE, LIFETIME)];
    setting.credentials.set(Some(issued[0].clone()));
    let client = setting.client();
    let mut printed = format!("{client:?} {:?}", issued[0].to_session());
    let context = content("a", 1);
    let made = client.generate_data_key(&context).await.unwrap();
    let random = client.generate_random(32).await.unwrap();
    write!(printed, "{made:?} {context:?}").unwrap();
    for fault in [Fault::PlaintextBeside, Fault::Garbled(30), Fault::HalfClosed, Fault::NotJson, Fault::THROTTLED] {
        setting.kms.fail_next(1, fault);
        match client.decrypt(&made.ciphertext, &context).await {
            Ok(opened) => write!(printed, "{opened:?}").unwrap(),
            Err(error) => write!(printed, "{error:?} {error} {}", error.next_step()).unwrap(),
        }
    }
    setting.kms.expire_credentials(&issued[0].access_key_id);
    setting.credentials.set(Some(issued[1].clone()));
    client.generate_random(1).await.unwrap();
    let mut secrets = vec![
        ("the key in base64", STANDARD.encode(made.plaintext.expose())),
        ("the key in hexadecimal", hex::encode(made.plaintext.expose())),
        ("the key as a list", format!("{:?}", made.plaintext.expose()).replace(['[', ']'], "")),
        ("randomness", hex::encode(&*random)),
    ];
    for credentials in issued.drain(..) {
        secrets.push(("a secret access key", credentials.secret_access_key));
        secrets.push(("a session token", credentials.session_token));
    }
    (secrets, printed)
}
