//! A strict reader of the Prometheus text exposition format, version 0.0.4, that shares no code with what writes it.

use std::collections::{BTreeMap, BTreeSet};

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// Everything that one scrape says.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    /// Name of each family and its type.
    pub(crate) families: BTreeMap<String, String>,
    pub(crate) help: BTreeMap<String, String>,
    pub(crate) samples: Vec<Sample>,
}

impl Scrape {
    /// Reads a scrape.
    ///
    /// # Panics
    /// Where anything in it is not as the format has it.
    pub(crate) fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut scrape = Self::default();
        let mut current: Option<String> = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(!help.is_empty() && !help.starts_with(' '), "{line}");
                assert!(scrape.help.insert(name.to_owned(), help.to_owned()).is_none(), "twice: {line}");
                current = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert_eq!(current.as_deref(), Some(name), "TYPE follows HELP of the same family: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                scrape.families.insert(name.to_owned(), kind.to_owned());
            } else {
                let sample = sample(line);
                let family = current.as_deref().expect("a sample belongs to a family");
                let kind = scrape.families.get(family).map(String::as_str).expect("HELP and TYPE come first");
                let suffix = sample.name.strip_prefix(family).expect("samples stand below their family");
                match kind {
                    "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
                    _ => assert_eq!(suffix, "", "{line}"),
                }
                assert!(kind != "counter" || sample.value >= 0.0, "{line}");
                scrape.samples.push(sample);
            }
        }
        scrape.check();
        scrape
    }

    /// The value of one series.
    ///
    /// # Panics
    /// Where there is none.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?}"))
    }

    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        self.samples.iter().find(|sample| sample.name == name && sample.labels == wanted).map(|sample| sample.value)
    }

    fn check(&self) {
        let mut seen = BTreeSet::new();
        for sample in &self.samples {
            assert!(seen.insert(format!("{} {:?}", sample.name, sample.labels)), "twice: {sample:?}");
        }
        for (name, _) in self.families.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
            for sample in self.samples.iter().filter(|sample| sample.name == format!("{name}_bucket")) {
                let mut rest = sample.labels.clone();
                let bound = rest.remove("le").expect("every bucket has a bound");
                series.entry(format!("{rest:?}")).or_default().push((bound.parse().expect(&bound), sample.value));
            }
            for (labels, buckets) in &series {
                assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels}: {buckets:?}");
                let (last, all) = buckets[buckets.len() - 1];
                assert!(last.is_infinite(), "{name} {labels}");
                let count = self
                    .samples
                    .iter()
                    .find(|sample| sample.name == format!("{name}_count") && format!("{:?}", sample.labels) == *labels);
                assert_eq!(count.map(|count| count.value), Some(all), "{name} {labels}");
            }
        }
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let (name, labels) = series.split_once('{').map_or((series, None), |(name, rest)| (name, Some(rest)));
    let identifier = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    assert!(identifier(name), "{line}");
    let mut read = BTreeMap::new();
    if let Some(labels) = labels {
        let labels = labels.strip_suffix("\"}").expect(line);
        for pair in labels.split("\",") {
            let (label, value) = pair.split_once("=\"").expect(line);
            assert!(identifier(label) && !value.contains(['"', '\\']), "{line}");
            assert!(read.insert(label.to_owned(), value.to_owned()).is_none(), "{line}");
        }
    }
    Sample { name: name.to_owned(), labels: read, value: value.parse().expect(line) }
}
