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

use std::fmt::Write as _;

use testkit::capture::{Captured, form_of_secret_in};
use testkit::kms::fault::Fault;

use setting::{LIFETIME, ROLE, Setting, content};

#[test]
fn no_secret_is_ever_printed() {
    let captured = Captured::everything();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (secrets, mut printed) = runtime.block_on(a_run_that_prints_all());
    printed.push_str(&String::from_utf8_lossy(&captured.bytes()));
    assert!(printed.contains("KMS call failed"), "the run was logged");
    assert!(printed.contains("TRACE") && printed.contains("aws_smithy_runtime"), "at every level, by every crate");
    for (what, secret) in secrets {
        assert_eq!(form_of_secret_in(printed.as_bytes(), &secret), None, "{what} was printed");
    }
}

/// Calls, failures, and every Debug and Display there is; gives the secrets and what was printed.
async fn a_run_that_prints_all() -> (Vec<(&'static str, Vec<u8>)>, String) {
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
    let mut secrets = vec![("the key", made.plaintext.expose().to_vec()), ("randomness", random.to_vec())];
    for credentials in issued.drain(..) {
        secrets.push(("a secret access key", credentials.secret_access_key.into_bytes()));
        secrets.push(("a session token", credentials.session_token.into_bytes()));
    }
    (secrets, printed)
}
