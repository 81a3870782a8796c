use std::fs;

use serde_json::json;

use crate::desk::Desk;

#[test]
fn a_report_says_the_verdict_and_holds_no_markup_of_an_event() {
    let desk = Desk::new();
    fs::write(desk.path("checkpoint"), desk.log.note()).unwrap();
    let done = desk.json(0, &["report", "@log", "-o", "@report.html", "--checkpoint", "@checkpoint"]);
    assert_eq!((&done["verdict"], &done["events"]), (&json!("intact"), &json!(11)));
    let html = fs::read_to_string(desk.path("report.html")).unwrap();
    for wanted in
        ["INTACT", "default-src 'none'", "release &lt;7&gt;", "UnauthorizedAccess", "reel-1", "revoked", "<svg"]
    {
        assert!(html.contains(wanted), "{wanted}");
    }
    let lower = html.to_lowercase();
    for markup in ["<script", "<img", "<a ", "http://", "https://", "\u{1b}", "\u{202e}", "url("] {
        assert!(!lower.contains(markup), "{markup}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)"), "it is shown as text");
}

#[test]
fn a_report_of_a_damaged_log_says_so_and_exits_4() {
    let desk = Desk::new();
    desk.flip_a_byte();
    assert_eq!(desk.json(4, &["report", "@log", "-o", "@report.html"])["verdict"], "damaged");
    let html = fs::read_to_string(desk.path("report.html")).unwrap();
    assert!(html.contains("DAMAGED") && html.contains("First wrong place") && !html.contains("verdict intact"));
}
