//! `audit tail`: the last events, and those that come. The one command that prints as it goes.

use std::{
    collections::VecDeque,
    io::{self, Write},
    time::Duration,
};

use serde_json::Value;
use transcode_confidential::audit::AuditEvent;

use super::{event, export, growing::Growing, live, stored};
use crate::cli::{
    args::{Global, LogArgs, TailArgs},
    connection,
    environment::Environment,
    exit::{Done, Failure},
    terminal::escape,
};

/// How often a directory is looked at for more.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) fn tail(
    args: &TailArgs,
    global: &Global,
    environment: &Environment,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> Result<Done, Failure> {
    let mut printer = Printer { args, as_json: global.json, out };
    let notes = match &args.dir {
        None => at_server(args, global, environment, &mut printer, err)?,
        Some(_) if args.follow => return growing(args, global, environment, &mut printer),
        Some(dir) => {
            let log = LogArgs {
                dir: dir.clone(),
                archive: args.archive.clone(),
                checkpoint: Vec::new(),
                receipt: Vec::new(),
            };
            let mut last: VecDeque<AuditEvent> = VecDeque::new();
            let source = stored::intact(&log, global, environment, &mut |sealed| {
                keep(&mut last, sealed.event, args);
            })?;
            let _ = last.iter().try_for_each(|event| printer.print(event));
            source.notes()
        }
    };
    Ok(Done { notes, ..Done::ok(Value::Null, String::new()) })
}

/// Keeps the last events, or all from where the filter begins.
fn keep(last: &mut VecDeque<AuditEvent>, event: AuditEvent, args: &TailArgs) {
    if !args.filter.begins() && last.len() as u64 >= args.lines {
        last.pop_front();
    }
    if args.filter.begins() || args.lines > 0 {
        last.push_back(event);
    }
}

fn at_server(
    args: &TailArgs,
    global: &Global,
    environment: &Environment,
    printer: &mut Printer<'_>,
    err: &mut dyn Write,
) -> Result<Vec<String>, Failure> {
    let configured = connection::client(global, environment)?;
    let begin = args.filter.begins().then(|| args.filter.first());
    let view = connection::block_on(async {
        let mut show = |events: &[(AuditEvent, Vec<u8>)]| {
            let mut events = events.iter();
            // A reader that is gone wants no more, and nothing is wrong with that.
            events.try_for_each(|(event, _)| printer.print(event)).and_then(|()| printer.out.flush()).is_ok()
        };
        let mut tell = |note: String| {
            let _ = writeln!(err, "note: {}", escape(&note));
        };
        let client = &configured.client;
        Ok(live::tail(client, (begin, args.lines), args.follow, (&mut show, &mut tell)).await?)
    })?;
    Ok(configured.notes(&view))
}

/// Follows the files of a directory as they grow.
fn growing(
    args: &TailArgs,
    global: &Global,
    environment: &Environment,
    printer: &mut Printer<'_>,
) -> Result<Done, Failure> {
    let dirs = args.dir.iter().chain(&args.archive).cloned().collect();
    let mut growing = Growing::open(dirs, connection::root(global)?, connection::image_policy(global, environment)?);
    let mut last = VecDeque::new();
    growing.read(&mut |sealed| keep(&mut last, sealed.event, args))?;
    let mut news: Vec<AuditEvent> = last.into();
    loop {
        let printed = news.iter().try_for_each(|event| printer.print(event)).and_then(|()| printer.out.flush());
        if printed.is_err() {
            return Ok(Done::ok(Value::Null, String::new()));
        }
        std::thread::sleep(LOOK_EVERY);
        news.clear();
        growing.read(&mut |sealed| news.push(sealed.event))?;
    }
}

struct Printer<'a> {
    args: &'a TailArgs,
    as_json: bool,
    out: &'a mut dyn Write,
}

impl Printer<'_> {
    fn print(&mut self, event: &AuditEvent) -> io::Result<()> {
        if !self.args.filter.accepts(event) {
            return Ok(());
        }
        match self.as_json {
            true => writeln!(self.out, "{}", export::json_line(event)?),
            false => writeln!(self.out, "{}", event::row(event)),
        }
    }
}
