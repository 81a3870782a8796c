use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use transcode_confidential::{
    audit::{decode_leaf, leaf_hash, tree::Frontier},
    ids::LeafHash,
};

use crate::desk::{Desk, HOSTILE};

fn export(desk: &Desk, args: &[&str]) -> String {
    let args: Vec<_> = ["export", "@log", "-o", "@out", "--format"].iter().chain(args).copied().collect();
    let (code, out, err) = desk.run(&args);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("wrote "), "{out}");
    fs::read_to_string(desk.path("out")).unwrap()
}

/// As a reader of the copy would: from nothing but the lines, up to the root that a checkpoint has.
fn verify_copy(desk: &Desk, lines: &str, fields: impl Fn(&Value) -> Value) {
    let mut previous = LeafHash::ZERO;
    let mut tree = Frontier::new();
    for (at, line) in lines.lines().enumerate() {
        let event: Value = serde_json::from_str(line).unwrap();
        let fields = fields(&event);
        let leaf = STANDARD.decode(fields["leaf"].as_str().unwrap()).unwrap();
        let hash = leaf_hash(&leaf);
        assert_eq!(fields["hash"], hash.to_string());
        assert_eq!(fields["previous"], previous.to_string());
        assert_eq!((&fields["sequence"], decode_leaf(&leaf).unwrap().previous), (&json!(at), previous));
        previous = hash;
        tree.push(hash);
    }
    assert_eq!((tree.size(), tree.root()), (desk.log.chain().size(), desk.log.chain().state().root));
}

#[test]
fn a_copy_in_json_lines_still_verifies_up_to_the_root() {
    let desk = Desk::new();
    let lines = export(&desk, &["jsonl"]);
    verify_copy(&desk, &lines, Clone::clone);
    assert!(lines.contains("\\u001b") && !lines.contains('\u{1b}'));
}

#[test]
fn a_copy_in_ocsf_still_verifies_up_to_the_root_and_has_what_its_class_requires() {
    let desk = Desk::new();
    let lines = export(&desk, &["ocsf"]);
    verify_copy(&desk, &lines, |event| event["unmapped"].clone());
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for event in &events {
        for required in ["activity_id", "category_uid", "class_uid", "type_uid", "severity_id", "time"] {
            assert!(event[required].is_u64(), "{required}: {event}");
        }
        for required in ["metadata", "actor", "api", "src_endpoint"] {
            assert!(event[required].is_object(), "{required}: {event}");
        }
        assert_eq!(
            event["type_uid"].as_u64().unwrap(),
            event["class_uid"].as_u64().unwrap() * 100 + event["activity_id"].as_u64().unwrap()
        );
        assert_eq!(event["metadata"]["log_name"], desk.log.log_id().to_string());
    }
    let refused = events.last().unwrap();
    assert_eq!((&refused["severity_id"], &refused["status"]), (&json!(5), &json!("Failure")));
    assert_eq!(
        (&refused["actor"]["user"]["name"], &refused["resources"][0]["uid"]),
        (&json!(HOSTILE), &json!(HOSTILE))
    );
    assert_eq!((&events[9]["activity_name"], &events[9]["resources"][0]["uid"]), (&json!("Delete"), &json!("reel-1")));
}

#[test]
fn no_cell_of_a_table_is_a_formula_and_every_row_has_its_cells() {
    let desk = Desk::new();
    let table = parse_csv(&export(&desk, &["csv"]));
    assert_eq!(table.len() as u64, desk.log.chain().size() + 1);
    for row in &table {
        assert_eq!(row.len(), table[0].len(), "{row:?}");
        for cell in row {
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "{cell:?}");
        }
    }
    let last = table.last().unwrap();
    let hostile = format!("'{}", HOSTILE.replace("\r\n", "\r'\n"));
    assert_eq!((&last[5], &last[10]), (&hostile, &hostile));
}

#[test]
fn filters_narrow_an_export_and_the_object_tells_how_much_was_written() {
    let desk = Desk::new();
    let lines = export(&desk, &["jsonl", "--type", "KeyUsed"]);
    assert_eq!(lines.lines().count(), 4);
    let done = desk.json(0, &["export", "@log", "--format", "ocsf", "-o", "@out", "--severity", "critical"]);
    assert_eq!((&done["events"], &done["verified"]), (&json!(1), &json!(true)));
    assert_eq!(desk.json(2, &["export", "@log", "--format", "csv"])["error"]["code"], "USAGE");
}

#[test]
fn an_export_of_a_log_that_is_not_intact_leaves_the_old_file_and_nothing_else() {
    let desk = Desk::new();
    fs::write(desk.path("out"), "old").unwrap();
    desk.flip_a_byte();
    let before = fs::read_dir(desk.dir.path()).unwrap().count();
    let refused = desk.json(4, &["export", "@log", "--format", "jsonl", "-o", "@out"]);
    assert_eq!(refused["error"]["reason"], "damaged");
    assert_eq!(fs::read(desk.path("out")).unwrap(), b"old");
    assert_eq!(fs::read_dir(desk.dir.path()).unwrap().count(), before);
}

/// RFC 4180, as a reader sees it.
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted && chars.next_if_eq(&'\n').is_some() => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            _ => cell.push(c),
        }
    }
    assert!(!quoted && row.is_empty() && cell.is_empty());
    rows
}
