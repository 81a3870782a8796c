//! The report in a real browser: headless Chromium, where there is one (`CONFIDENTIAL_CHROMIUM` names another). CI has one.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use testkit::log_maker::used;
use transcode_confidential::audit::{AuditEventType, EventBody, EventDraft};

use crate::desk::Desk;

/// How long a browser may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(300);

/// Counts who connects.
struct Elsewhere {
    address: String,
    connections: Arc<AtomicUsize>,
}

impl Elsewhere {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            while listener.accept().is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Text that would run, load or leave, were it markup. `owned` is what it would do to the title.
    fn hostile(&self) -> Vec<String> {
        let to = &self.address;
        vec![
            "</td></table><script>document.title='owned'</script>".into(),
            format!("<img src=http://{to}/img onerror=\"document.title='owned'\">"),
            format!("<script src=http://{to}/script></script>"),
            format!("<svg onload=document.title='owned'><image href=http://{to}/svg /></svg>"),
            format!(
                "<iframe src=http://{to}/frame srcdoc=\"<script>parent.document.title='owned'</script>\"></iframe>"
            ),
            format!("<meta http-equiv=refresh content=\"0;url=http://{to}/refresh\">"),
            format!("</style><style>@import url(http://{to}/style); body{{background:url(http://{to}/back)}}</style>"),
            format!("<link rel=stylesheet href=http://{to}/link><base href=http://{to}/>"),
            format!("<object data=http://{to}/object></object><embed src=http://{to}/embed>"),
            "\" onmouseover=\"document.title='owned'\" x=\"".into(),
            "' autofocus onfocus='document.title=1' tabindex=1 x='".into(),
            "<!--<title>owned</title>-->--><title>owned</title>]]>".into(),
            "<a href=javascript:document.title='owned' autofocus>x</a>".into(),
            "&lt;b&gt;&amp;&#60;script&#62;&#x3c;".into(),
            "\u{202e}\u{2066}\u{1b}]0;owned\u{7}\u{0}\u{feff}".into(),
        ]
    }
}

/// The file of a Chromium, where there is one.
fn chromium() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CONFIDENTIAL_CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name))).find(|file| file.is_file())
}

/// What becomes of a page: its document after everything in it has run.
fn rendered(chromium: &Path, page: &Path) -> String {
    let profile = tempfile::tempdir().unwrap();
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut browser = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage"])
        .args(["--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .stdout(out.reopen().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    loop {
        if browser.try_wait().unwrap().is_some() {
            return fs::read_to_string(out.path()).unwrap();
        }
        if begun.elapsed() > PATIENCE {
            browser.kill().unwrap();
            panic!("the browser does not end");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn title(dom: &str) -> &str {
    dom.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>")).unwrap().0
}

/// A log with a hostile text in every field that takes text, and its report.
fn report(elsewhere: &Elsewhere) -> (Desk, String) {
    let mut desk = Desk::new();
    for hostile in elsewhere.hostile() {
        let mut refused = EventDraft::new(AuditEventType::UnauthorizedAccess, hostile.as_str())
            .key(hostile.as_str(), None)
            .principal(hostile.as_str())
            .content(hostile.as_str())
            .body(EventBody::Refused { code: hostile.clone(), count: 1 });
        refused.enclave_id = Some(hostile.clone());
        let mut use_of_it = used(&hostile, 1).principal(hostile.as_str()).content(hostile.as_str());
        use_of_it.details = hostile.clone();
        desk.log.batch(vec![refused, use_of_it]);
    }
    desk.store();
    let label = format!("'\"><img src=http://{}/label onerror=document.title='owned'>", elsewhere.address);
    let measurements = testkit::nsm::MockImage::named("enclave").measurements(&label).to_json();
    fs::write(desk.path("m.json"), measurements).unwrap();
    let done = desk.json(0, &["report", "@log", "-o", "@report.html"]);
    assert_eq!(done["verdict"], "intact");
    let html = fs::read_to_string(desk.path("report.html")).unwrap();
    (desk, html)
}

#[test]
#[allow(clippy::print_stderr, reason = "a test says that it is skipped")]
fn in_a_browser_hostile_text_stays_text_nothing_runs_and_nothing_leaves() {
    let Some(chromium) = chromium() else { return eprintln!("skipped: there is no Chromium") };
    let elsewhere = Elsewhere::new();
    let (desk, html) = report(&elsewhere);

    let dom = rendered(&chromium, &desk.path("report.html"));
    assert_eq!(title(&dom), "Audit report");
    for element in [
        "<script",
        "<img",
        "<iframe",
        "<object",
        "<embed",
        "<link",
        "<base",
        "<a ",
        "<image",
        "<style>@",
        "<title>owned",
    ] {
        assert!(!dom.contains(element), "{element} came to be");
    }
    assert!(dom.contains("&lt;script&gt;document.title='owned'&lt;/script&gt;"), "it is shown as text");
    assert!(dom.contains("&amp;lt;b&amp;gt;"), "also where it looks like an escape");
    assert!(dom.matches("<rect ").count() > 0 && dom.contains("</svg>"), "the chart is drawn");
    assert_eq!(elsewhere.connections(), 0, "a request left");

    // As if escaping had failed: the policy in the page holds by itself. (A refresh is a navigation, which no policy in a page
    // forbids: against that there is the escaping alone.)
    let raw = elsewhere.hostile().concat().replace("http-equiv=refresh", "name=x");
    fs::write(desk.path("leaky.html"), html.replacen("<h1>", &format!("{raw}<h1>"), 1)).unwrap();
    let dom = rendered(&chromium, &desk.path("leaky.html"));
    assert!(dom.contains("<script>"), "the markup is there");
    assert_eq!(title(&dom), "Audit report", "and did not run");
    let before = elsewhere.connections();
    assert_eq!(before, 0, "a request left");

    // Without the policy all of it does: so this test would see it.
    let probe = "<script>addEventListener('load',()=>{document.title=[...document.querySelectorAll('svg rect')].map(\
                 r=>r.getBoundingClientRect()).filter(b=>b.width>0&&b.height>0).length})</script>";
    let policy = html.find("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
    let end = policy + html[policy..].find('>').unwrap() + 1;
    let open = format!("{}{}", &html[..policy], &html[end..]);
    let image = format!("<img src=http://{}/img>", elsewhere.address);
    let open = open.replacen("<h1>", &format!("{probe}{image}<h1>"), 1);
    fs::write(desk.path("open.html"), open).unwrap();
    let dom = rendered(&chromium, &desk.path("open.html"));
    let drawn: usize = title(&dom).parse().expect("a script runs where no policy forbids it");
    let empty = html.matches(" height=\"0\"/>").count();
    assert!(drawn > 0);
    assert_eq!(drawn, html.matches("<rect ").count() - empty, "every bar that stands for events has an extent");
    assert!(elsewhere.connections() > before, "an image is loaded where no policy forbids it");
}
