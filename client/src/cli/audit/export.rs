//! `audit export`: the events for other tools. Nothing takes its place, or is printed, before the whole log has verified.

mod csv;
mod ocsf;

use std::{
    fs::File,
    io::{self, BufWriter, Seek as _, Write},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use transcode_confidential::{
    audit::{AuditEvent, EventBody},
    ids::LogId,
};

use super::{
    event,
    source::{self, Range},
};
use crate::cli::{
    args::{ExportArgs, ExportFormat, Global},
    environment::Environment,
    exit::{Done, Failure},
    files::{self, Access},
};

pub(super) fn export(args: &ExportArgs, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let path = args.output.as_deref().filter(|path| *path != Path::new("-"));
    if path.is_none() && global.json {
        return Err(Failure::usage("--json takes standard output: name a file with -o OUT"));
    }
    let at = |error: io::Error| Failure::file(path.unwrap_or(Path::new("standard output")), &error);
    let spool = Spool::beside(path).map_err(at)?;
    let format = args.format.ok_or_else(|| Failure::usage("which --format?"))?;
    let mut writer = Writer::new(format, spool.file().map_err(at)?);
    let mut written = writer.begin();
    let mut count = 0_u64;
    let range = Range::from(args.filter.first());
    let source = source::events(&args.query, range, global, environment, &mut |sealed| {
        writer.learn(&sealed.event);
        if written.is_ok() && args.filter.accepts(&sealed.event) {
            written = writer.write(&sealed.event);
            count += 1;
        }
    })?;
    written.and_then(|()| writer.finish()).and_then(|()| spool.commit()).map_err(at)?;
    let text = path.map(|path| format!("wrote {}: {count} events", path.display())).unwrap_or_default();
    let mut done = Done::ok(source.object(json!({ "events": count, "output": path })), text);
    done.notes = source.notes();
    Ok(done)
}

/// What is written until it may be seen.
enum Spool<'a> {
    Beside(tempfile::NamedTempFile, &'a Path),
    StandardOutput(File),
}

impl<'a> Spool<'a> {
    fn beside(path: Option<&'a Path>) -> io::Result<Self> {
        Ok(match path {
            Some(path) => Self::Beside(files::temporary_beside(path, Access::Public)?, path),
            None => Self::StandardOutput(tempfile::tempfile()?),
        })
    }

    fn file(&self) -> io::Result<File> {
        match self {
            Self::Beside(temporary, _) => temporary.as_file().try_clone(),
            Self::StandardOutput(file) => file.try_clone(),
        }
    }

    fn commit(self) -> io::Result<()> {
        match self {
            Self::Beside(temporary, path) => files::put_in_place(temporary, path),
            Self::StandardOutput(mut file) => {
                file.rewind()?;
                let mut out = io::stdout().lock();
                io::copy(&mut file, &mut out)?;
                out.flush()
            }
        }
    }
}

struct Writer {
    format: ExportFormat,
    out: BufWriter<File>,
    /// As the last epoch that was seen names it.
    log_id: Option<LogId>,
}

impl Writer {
    fn new(format: ExportFormat, file: File) -> Self {
        Self { format, out: BufWriter::new(file), log_id: None }
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.format == ExportFormat::Csv { self.out.write_all(csv::HEADER.as_bytes()) } else { Ok(()) }
    }

    /// Every event is shown to this, wanted or not.
    const fn learn(&mut self, event: &AuditEvent) {
        if let Some(EventBody::EpochOpened(opened)) = &event.body {
            self.log_id = Some(opened.log_id);
        }
    }

    fn write(&mut self, event: &AuditEvent) -> io::Result<()> {
        match self.format {
            ExportFormat::Csv => self.out.write_all(csv::row(event).as_bytes()),
            ExportFormat::Jsonl => self.line(&json_line(event)?),
            ExportFormat::Ocsf => self.line(&ocsf::event(event, self.log_id, &leaf(event)?)),
        }
    }

    fn line(&mut self, object: &Value) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, object)?;
        self.out.write_all(b"\n")
    }

    fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// One event with its leaf.
pub(super) fn json_line(event: &AuditEvent) -> io::Result<Value> {
    let mut object = event::object(event);
    if let Value::Object(object) = &mut object {
        object.insert("leaf".into(), leaf(event)?.into());
    }
    Ok(object)
}

/// The leaf in base64: `SHA-256(0x00 || leaf)` is the event's hash, and key 6 inside is the hash before.
fn leaf(event: &AuditEvent) -> io::Result<String> {
    Ok(STANDARD.encode(event.to_leaf().map_err(io::Error::other)?))
}
