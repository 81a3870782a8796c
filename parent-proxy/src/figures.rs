//! What the enclave told of itself last, for as long as it is news.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use transcode_confidential::protocol::metrics::{Report, ReportError};

/// A report older than this is not shown any more: an enclave that is gone has no figures.
const NEWS: Duration = Duration::from_secs(60);

/// The last report. What it says is the enclave's word; names and labels are this program's own.
#[derive(Debug, Default)]
pub(crate) struct EnclaveFigures(Mutex<Option<(Instant, Report)>>);

impl EnclaveFigures {
    /// Takes in a report.
    ///
    /// # Errors
    /// [`ReportError`]; the one before stays.
    pub(crate) fn take(&self, bytes: &[u8]) -> Result<(), ReportError> {
        let report = Report::decode(bytes)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), report));
        Ok(())
    }

    /// Writes the figures where there are any, and gives their age.
    pub(crate) fn expose(&self, out: &mut String) -> Option<Duration> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, report) = held.as_ref()?;
        let age = since.elapsed();
        if age < NEWS {
            report.expose(out);
        }
        Some(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn figures_are_shown_while_they_are_news_and_bad_ones_change_nothing() {
        let figures = EnclaveFigures::default();
        let mut text = String::new();
        assert_eq!(figures.expose(&mut text), None);
        figures.take(&Report::default().encode()).unwrap();
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(figures.take(b"no report").is_err());
        assert_eq!(figures.expose(&mut text), Some(Duration::from_secs(59)));
        assert!(text.contains("transcode_enclave_log_available 0\n"));
        tokio::time::advance(Duration::from_secs(1)).await;
        text.clear();
        assert_eq!(figures.expose(&mut text), Some(Duration::from_secs(60)));
        assert_eq!(text, "");
    }
}
