//! The command line `confidential`: what people and scripts use.
//!
//! Results go to standard output, as text or, with `--json`, as one object; everything else goes to standard error. Exit
//! codes are those of [`Exit`].

mod args;
mod attestation;
mod audit;
mod bench;
mod connection;
mod content;
mod destination;
mod environment;
mod exit;
mod files;
mod gateway;
mod keys;
mod local;
mod pki;
mod policy;
mod progress;
mod reconcile;
mod report;
mod status;
mod terminal;
mod top;
mod watch;

use std::{
    ffi::OsString,
    io::{self, Write},
};

use clap::Parser as _;

pub use exit::Exit;

use args::{Arguments, Command};
use environment::Environment;
use exit::{Done, Failure};

/// Runs one command with the arguments of a process, the name of the program first. Standard input, output and error, the
/// environment and the current directory are those of the process.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    run_with(args, &mut std::io::stdout(), &mut std::io::stderr())
}

/// As [`run`], with what is said going elsewhere. Content that is encrypted or decrypted to standard output still goes there.
pub fn run_with(args: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let args: Vec<OsString> = args.into_iter().collect();
    // Where a reader is gone, the exit code still says what happened: so nothing is done about an error in writing.
    let (exit, _) = match Arguments::try_parse_from(&args) {
        Ok(arguments) => {
            let as_json = arguments.global.json;
            match dispatch(arguments, &Environment::of_process(), (out, err)) {
                Ok(done) => (done.exit, done.say(as_json, out, err)),
                Err(failure) => (failure.exit, failure.say(as_json, out, err)),
            }
        }
        Err(error) => usage(&error, args.iter().any(|arg| arg == "--json"), out, err),
    };
    exit
}

fn dispatch(
    arguments: Arguments,
    environment: &Environment,
    spoken: (&mut dyn Write, &mut dyn Write),
) -> Result<Done, Failure> {
    let Arguments { global, command } = arguments;
    match command {
        Command::Attestation(verb) => attestation::run(verb, &global, environment),
        Command::Audit(verb) => audit::run(verb, &global, environment, spoken),
        Command::Keys(verb) => keys::run(verb, &global, environment),
        Command::Encrypt(request) => content::encrypt(request, &global, environment),
        Command::Decrypt(request) => content::decrypt(request, &global, environment),
        Command::Rewrap(request) => content::rewrap(request, &global, environment),
        Command::Gateway(request) => gateway::run(request, &global, environment),
        Command::Watch(request) => watch::run(request, &global, environment),
        Command::Report(request) => report::run(*request, &global, environment),
        Command::Reconcile(request) => reconcile::run(&request, &global, environment),
        Command::Status => status::run(&global, environment),
        Command::Top(request) => top::run(&request, &global, environment),
        Command::Pki(verb) => pki::run(verb),
        Command::Policy(verb) => policy::run(verb, &global, environment),
        Command::Bench { arguments } => Err(bench::become_it(arguments, global.json)),
    }
}

/// Help and version are no failures; whatever else cannot be parsed is a wrong use.
fn usage(error: &clap::Error, as_json: bool, out: &mut dyn Write, err: &mut dyn Write) -> (Exit, io::Result<()>) {
    if !error.use_stderr() {
        return (Exit::Ok, write!(out, "{}", error.render()));
    }
    let object = if as_json { Failure::usage(error.kind().to_string()).say_json(out) } else { Ok(()) };
    (Exit::Usage, object.and_then(|()| write!(err, "{}", error.render())))
}
