//! `audit stats`.

use std::fmt::Write as _;

use serde_json::{Map, json};

use super::{
    source::{self, Range},
    tally::{Tally, Time},
};
use crate::cli::{
    args::{Filter, Global, QueryArgs},
    environment::Environment,
    exit::{Done, Failure},
    terminal::line,
};

/// Most keys and most principals that are printed for people.
const ROWS: usize = 50;

pub(super) fn stats(
    query: &QueryArgs,
    filter: &Filter,
    global: &Global,
    environment: &Environment,
) -> Result<Done, Failure> {
    let mut tally = Tally::default();
    let source = source::events(query, Range::from(filter.first()), global, environment, &mut |sealed| {
        if filter.accepts(&sealed.event) {
            tally.add(&sealed.event);
        }
    })?;
    let types: Map<_, _> = tally.types.iter().map(|(kind, count)| (kind.to_string(), json!(count))).collect();
    let severities: Map<_, _> =
        tally.severities.iter().map(|(level, count)| (level.to_string(), json!(count))).collect();
    let json = source.object(json!({
        "events": tally.events,
        "first": tally.first.map(Time),
        "last": tally.last.map(Time),
        "types": types,
        "severities": severities,
        "keys": tally.keys,
        "principals": tally.principals,
        "refusals": tally.refusals,
        "bytes_in": tally.bytes_in,
        "bytes_out": tally.bytes_out,
    }));
    let mut done = Done::ok(json, text(&tally));
    done.notes = source.notes();
    Ok(done)
}

fn text(tally: &Tally) -> String {
    let mut text = format!("{} events", tally.events);
    if let (Some(first), Some(last)) = (tally.first, tally.last) {
        let _ = write!(text, " from {first} to {last}");
    }
    for (severity, count) in &tally.severities {
        let _ = write!(text, "\n  {:20} {count:>10}", severity.to_string());
    }
    text.push_str("\ntypes");
    for (kind, count) in &tally.types {
        let _ = write!(text, "\n  {:20} {count:>10}", kind.to_string());
    }
    let _ = write!(text, "\nrefusals {}, bytes in {}, bytes out {}", tally.refusals, tally.bytes_in, tally.bytes_out);
    if !tally.keys.is_empty() {
        text.push_str("\nkeys");
    }
    for (id, key) in tally.keys.iter().take(ROWS) {
        let uses = key.versions.values().fold(0_u64, |sum, version| sum.saturating_add(version.uses));
        let openings: u64 = key.versions.values().map(|version| version.openings).sum();
        let (id, versions) = (line(id), key.versions.len());
        let _ = write!(text, "\n  {id:20} {versions} versions, {uses} uses, {openings} openings");
        if let Some(change) = key.change {
            let _ = write!(text, ", {}", format!("{change:?}").to_lowercase());
        }
    }
    rest(&mut text, tally.keys.len());
    if !tally.principals.is_empty() {
        text.push_str("\nprincipals");
    }
    for (name, principal) in tally.principals.iter().take(ROWS) {
        let (name, events, critical) = (line(name), principal.events, principal.critical);
        let _ = write!(text, "\n  {name:20} {events} events, {critical} critical");
    }
    rest(&mut text, tally.principals.len());
    text
}

fn rest(text: &mut String, count: usize) {
    if count > ROWS {
        let _ = write!(text, "\n  and {} more (--json has all)", count - ROWS);
    }
}
