use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_smithy_async::time::TimeSource;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use transcode_confidential::time::Clock;

/// The enclave's one clock, as TLS and request signing want to see it.
#[derive(Clone)]
pub(super) struct EnclaveTime(pub(super) Arc<dyn Clock>);

impl EnclaveTime {
    fn since_epoch(&self) -> Duration {
        Duration::from_millis(self.0.now().0)
    }
}

impl fmt::Debug for EnclaveTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnclaveTime")
    }
}

impl TimeSource for EnclaveTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.since_epoch()
    }
}

impl TimeProvider for EnclaveTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.since_epoch()))
    }
}
