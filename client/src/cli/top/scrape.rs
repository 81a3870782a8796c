//! Reads figures in the Prometheus text format from a proxy, which may send anything.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use transport::{ConnectError, Endpoint};

/// How long the proxy may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that are read at most.
const LIMIT: u64 = 4 << 20;
/// Series that are kept at most.
const SERIES: usize = 20_000;

/// Why there are no figures.
#[derive(Debug, Error)]
pub(super) enum ScrapeError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("it does not serve metrics")]
    NoMetrics,
}

/// The figures of one moment: for each series, as `name{label="value",...}` has it, its value.
#[derive(Debug, Default)]
pub(super) struct Scrape(BTreeMap<String, f64>);

/// Asks for `/metrics`.
pub(super) async fn fetch(admin: &Endpoint) -> Result<Scrape, ScrapeError> {
    let asking = async {
        let mut stream = admin.connect(PATIENCE).await?;
        // HTTP/1.0: the body comes in one piece and ends with the connection.
        stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: admin\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(LIMIT).read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(ScrapeError::NoMetrics)?;
        if head.split(' ').nth(1) != Some("200") || !body.contains("transcode_proxy_") {
            return Err(ScrapeError::NoMetrics);
        }
        Ok(Scrape::read(body))
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or(Err(ScrapeError::TimedOut))
}

impl Scrape {
    /// Takes the samples; whatever is none is left out.
    fn read(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).take(SERIES).collect())
    }

    /// The value of a series without labels.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Every series of a name, with one of its labels.
    pub(super) fn by<'a>(&'a self, name: &'a str, label: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter_map(move |(series, value)| {
            let labels = series.strip_prefix(name)?.strip_prefix('{')?;
            let at = labels.find(&format!("{label}=\""))?;
            let from = labels.get(at + label.len() + 2..)?;
            Some((from.split('"').next()?, *value))
        })
    }

    /// The sum of all series of a name.
    pub(super) fn sum(&self, name: &str) -> f64 {
        let of_name =
            |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        self.0.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| value).sum()
    }

    pub(super) fn json(&self) -> Value {
        Value::Object(self.0.iter().map(|(series, value)| (series.clone(), json!(value))).collect::<Map<_, _>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE a counter\na{route=\"GET /x y\",code=\"OK\"} 3\na{route=\"other\",code=\"OK\"} 4\nab 9\nb 2.5\nnonsense\nc x\n";

    #[test]
    fn samples_are_found_by_name_and_label_and_nonsense_is_left_out() {
        let scrape = Scrape::read(TEXT);
        assert_eq!(scrape.value("b"), Some(2.5));
        assert_eq!(scrape.value("c"), None);
        assert_eq!(scrape.sum("a"), 7.0);
        assert_eq!(scrape.by("a", "route").collect::<Vec<_>>(), [("GET /x y", 3.0), ("other", 4.0)]);
        assert_eq!(scrape.by("a", "code").count(), 2);
        assert_eq!(scrape.json()["b"], json!(2.5));
    }
}
