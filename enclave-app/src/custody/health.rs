use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use transcode_confidential::protocol::api::KmsHealth;

use crate::kms::{KeyArn, KmsError};

/// How KMS has answered since boot.
#[derive(Debug, Default)]
pub struct KmsCounters {
    succeeded: AtomicU64,
    failed: AtomicU64,
    last_failure: Mutex<Option<String>>,
}

impl KmsCounters {
    /// Takes in the outcome of a call and passes it on.
    ///
    /// # Errors
    /// The call's own.
    pub fn observe<T>(&self, outcome: Result<T, KmsError>) -> Result<T, KmsError> {
        if outcome.is_ok() {
            self.succeeded.fetch_add(1, Ordering::Relaxed);
        }
        outcome.map_err(|error| self.failed(error))
    }

    /// Takes in a failed call and passes the error on.
    pub fn failed(&self, error: KmsError) -> KmsError {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let text = format!("{}: {error}. {}", error.cause(), error.next_step());
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        error
    }

    /// For the status report.
    pub fn report(&self, key: &KeyArn) -> KmsHealth {
        KmsHealth {
            key_arn: key.as_str().to_owned(),
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            last_failure: self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
