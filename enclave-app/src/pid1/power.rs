//! The end of the machine.

use std::{any::Any, io::Write as _, panic::Location};

use rustix::system::{RebootCommand, reboot};

use super::is_first_process;

/// Says where it happened before a panic ends the process and, where that is the first one, the machine.
///
/// What was formatted into the message is left out, whatever it was: the console is public.
pub fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let _ = writeln!(std::io::stderr(), "{}", last_words(panic.location(), panic.payload()));
        if is_first_process() {
            end();
        }
    }));
}

/// Ends the machine. Comes back only where the kernel refuses, which it does to all but the first process of a machine.
///
/// A restart rather than a power-off: an enclave has no ACPI, so the kernel could only halt, and a halted enclave holds its
/// memory until somebody looks. No launcher starts an enclave again by itself.
pub fn end() {
    let _ = rustix::termios::tcdrain(std::io::stderr());
    for command in [RebootCommand::Restart, RebootCommand::PowerOff] {
        let _ = reboot(command);
    }
}

fn last_words(place: Option<&Location<'_>>, payload: &dyn Any) -> String {
    let place = place.map(ToString::to_string).unwrap_or_default();
    let fixed = payload.downcast_ref::<&'static str>().copied().unwrap_or("(message withheld)");
    format!("panic at {place}: {fixed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_where_but_nothing_that_was_formatted() {
        let here = Location::caller();
        let words = |payload: Box<dyn Any>| last_words(Some(here), &*payload);
        let fixed = words(Box::new("a fixed text"));
        assert!(fixed.contains("power.rs:") && fixed.ends_with(": a fixed text"), "{fixed}");
        let formatted = words(Box::new(format!("the key is {}", 4711)));
        assert!(formatted.contains("power.rs:") && !formatted.contains("4711"), "{formatted}");
    }
}
