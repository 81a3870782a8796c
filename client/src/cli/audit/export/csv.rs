//! A table (RFC 4180) that a spreadsheet may open: no cell of it is a formula, whatever the event says.

use std::fmt::Write as _;

use transcode_confidential::audit::AuditEvent;

pub(super) const HEADER: &str = "sequence,time,epoch,severity,type,key_id,key_version,principal,content_id,enclave_id,details,body,previous,hash\r\n";

pub(super) fn row(event: &AuditEvent) -> String {
    let mut row = format!("{},{},{},{},{}", event.sequence, event.time, event.epoch, event.severity, event.event_type);
    let body = event.body.as_ref().and_then(|body| serde_json::to_string(body).ok()).unwrap_or_default();
    text(&mut row, event.key_id.as_deref().unwrap_or_default());
    let _ = match event.key_version {
        Some(version) => write!(row, ",{version}"),
        None => write!(row, ","),
    };
    for name in [&event.principal, &event.content_id, &event.enclave_id] {
        text(&mut row, name.as_deref().unwrap_or_default());
    }
    text(&mut row, &event.details);
    text(&mut row, &body);
    let _ = write!(row, ",{},{}\r\n", event.previous, event.hash);
    row
}

/// Adds a quoted cell. An apostrophe comes before whatever would start a formula: at the start of the cell, and behind what
/// a spreadsheet of another region takes for the end of a cell or line.
fn text(row: &mut String, content: &str) {
    row.push_str(",\"");
    let mut at_start = true;
    for c in content.chars() {
        if at_start && is_formula(c) {
            row.push('\'');
        }
        if c == '"' {
            row.push('"');
        }
        row.push(c);
        // Spaces and quotes before a formula do not stop it everywhere.
        at_start = matches!(c, ';' | '\t' | '\r' | '\n') || at_start && (c.is_whitespace() || matches!(c, '"' | '\''));
    }
    row.push('"');
}

const fn is_formula(c: char) -> bool {
    matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(content: &str) -> String {
        let mut row = String::new();
        text(&mut row, content);
        row
    }

    #[test]
    fn no_cell_starts_a_formula() {
        for start in ["=", "+", "-", "@", "\t", "\r", "＝"] {
            assert_eq!(cell(&format!("{start}1+1")), format!(",\"'{start}1+1\""), "{start:?}");
        }
        assert_eq!(cell(" =1"), ",\" '=1\"");
        assert_eq!(cell("\"=1"), ",\"\"\"'=1\"");
        assert_eq!(cell("a;=1"), ",\"a;'=1\"");
        assert_eq!(cell("a\r\n=1"), ",\"a\r'\n'=1\"");
    }

    #[test]
    fn quotes_are_doubled_and_ordinary_text_stays_as_it_is() {
        assert_eq!(cell("say \"no\", twice"), ",\"say \"\"no\"\", twice\"");
        assert_eq!(cell("a-b=c"), ",\"a-b=c\"");
    }
}
