//! The command line `confidential`: what people and scripts use.
//!
//! Results go to standard output, as text or, with `--json`, as one object; everything else goes to standard error. Exit
//! codes are those of [`Exit`].

mod args;
mod attestation;
mod audit;
mod connection;
mod content;
mod destination;
mod environment;
mod exit;
mod files;
mod keys;
mod pki;
mod policy;
mod progress;
mod status;
mod terminal;

use std::{ffi::OsString, io::Write as _};

use clap::Parser as _;
use serde_json::{Value, json};

pub use exit::Exit;

use args::{Arguments, Command};
use environment::Environment;
use exit::{Done, Failure};
use terminal::escape;

/// Runs one command with the arguments of a process, the name of the program first. Standard input, output and error, the
/// environment and the current directory are those of the process.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let args: Vec<OsString> = args.into_iter().collect();
    let arguments = match Arguments::try_parse_from(&args) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error, args.iter().any(|arg| arg == "--json")),
    };
    let as_json = arguments.global.json;
    match dispatch(arguments, &Environment::of_process()) {
        Ok(done) => {
            for note in &done.notes {
                say(&format!("note: {}", escape(note)));
            }
            print(if as_json { &done.json } else { &Value::Null }, &done.text);
            done.exit
        }
        Err(failure) => {
            if as_json {
                print(&json!({ "error": failure.json() }), "");
            }
            say(&format!("confidential: {}", escape(&failure.to_string())));
            failure.exit
        }
    }
}

fn dispatch(arguments: Arguments, environment: &Environment) -> Result<Done, Failure> {
    let Arguments { global, command } = arguments;
    match command {
        Command::Attestation(verb) => attestation::run(verb, &global, environment),
        Command::Audit(verb) => audit::run(verb, &global, environment),
        Command::Keys(verb) => keys::run(verb, &global, environment),
        Command::Encrypt(request) => content::encrypt(request, &global, environment),
        Command::Decrypt(request) => content::decrypt(request, &global, environment),
        Command::Status => status::run(&global, environment),
        Command::Pki(verb) => pki::run(verb),
        Command::Policy(verb) => policy::run(verb, &global, environment),
    }
}

/// Help and version are no failures; whatever else cannot be parsed is a wrong use.
fn usage(error: &clap::Error, as_json: bool) -> Exit {
    let asked_for = !error.use_stderr();
    if as_json && !asked_for {
        let failure = Failure::usage(error.kind().to_string());
        print(&json!({ "error": failure.json() }), "");
    }
    // Where not even this can be written, the exit code still says it.
    let _ = error.print();
    if asked_for { Exit::Ok } else { Exit::Usage }
}

/// Prints the object, or the text where there is none. A reader that is gone wants to know no more.
fn print(json: &Value, text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = match json {
        Value::Null if text.is_empty() => Ok(()),
        Value::Null => writeln!(out, "{text}"),
        object => writeln!(out, "{object}"),
    };
    let _ = out.flush();
}

/// A line on standard error.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
