//! The console: one JSON object a line, with what the event says and nothing around it.
//!
//! Outside of debug mode nobody can read an enclave's console, and in debug mode everybody on the host can: what is printed is
//! public. It is a subscriber of its own, because the usual one brings its pattern languages into the enclave.

use std::{
    fmt::{self, Write as _},
    io::Write,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use serde_json::{Map, Value};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
};

/// Crates of ours: their `info!` is shown. Of others, only what is `warn!` or worse.
const OURS: [&str; 3] = ["enclave_app", "transcode_confidential", "transport"];
/// Characters of one field; what is beyond is cut off.
const LONGEST: usize = 2000;

/// Writes events to `out`.
pub struct Console<W> {
    out: Mutex<W>,
    started: Instant,
}

impl<W: Write + Send + 'static> Console<W> {
    /// Writes events to `out`, with the time since now.
    pub fn new(out: W) -> Self {
        Self { out: Mutex::new(out), started: Instant::now() }
    }

    /// Takes every event of this process from here on. A second one changes nothing.
    pub fn start(self) {
        let _ = tracing::subscriber::set_global_default(self);
    }
}

impl<W: Write + Send + 'static> Subscriber for Console<W> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let crate_name = metadata.target().split("::").next().unwrap_or_default();
        let most = if OURS.contains(&crate_name) { Level::INFO } else { Level::WARN };
        metadata.is_event() && *metadata.level() <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let mut line = Map::new();
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        line.insert("ms".into(), since.into());
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.insert("message".into(), fields.0.remove("message").unwrap_or_default());
        line.insert("target".into(), event.metadata().target().into());
        line.extend(fields.0);
        let line = format!("{}\n", Value::Object(line));
        // Nobody is told where nobody can be.
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }

    // Spans are not shown: what an event is about, its own fields say.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl<W> fmt::Debug for Console<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Console")
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a String does not fail; a value that cannot show itself shows what it could.
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let shown: String = value.chars().take(LONGEST).collect();
        self.put(field, shown);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(say: impl FnOnce()) -> Vec<Value> {
        let captured = Captured::default();
        tracing::subscriber::with_default(Console::new(captured.clone()), say);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn an_event_is_one_object_on_one_line_with_its_fields() {
        let said = lines(|| {
            let error = std::io::Error::other("line one\nline two\u{1b}[2J");
            tracing::warn!(request_id = "0011", %error, size = 7_u64, ok = true, kind = ?Some(1), "KMS call failed");
        });
        let [line] = &said[..] else { panic!("{said:?}") };
        assert!(line["ms"].is_u64());
        for (name, value) in [
            ("level", Value::from("WARN")),
            ("message", "KMS call failed".into()),
            ("target", "enclave_app::console::tests".into()),
            ("request_id", "0011".into()),
            ("error", "line one\nline two\u{1b}[2J".into()),
            ("size", 7.into()),
            ("ok", true.into()),
            ("kind", "Some(1)".into()),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
    }

    #[test]
    fn of_ours_info_is_shown_of_others_only_warnings_and_of_nobody_more() {
        let said = lines(|| {
            tracing::info!("ours");
            tracing::debug!("too much");
            tracing::info!(target: "aws_smithy_runtime::client", "chatter");
            tracing::warn!(target: "aws_smithy_runtime::client", "trouble");
            tracing::info_span!("span", secret = 1).in_scope(|| tracing::info!("inside"));
        });
        let messages: Vec<&str> = said.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["ours", "trouble", "inside"]);
        assert!(said.iter().all(|line| line["secret"].is_null()));
    }

    #[test]
    fn a_long_field_is_cut_off() {
        let said = lines(|| tracing::info!(text = "x".repeat(10_000).as_str(), "long"));
        assert_eq!(said[0]["text"].as_str().unwrap().len(), LONGEST);
    }
}
