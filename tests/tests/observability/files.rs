//! Dashboard, alert rules and documentation name exactly what a running system exports.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use testkit::world::World;

use super::{exposition::Scrape, figures::scrape_until};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every name of ours in a text.
fn names(text: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !part(c));
    words
        .filter(|word| word.starts_with("transcode_enclave_") || word.starts_with("transcode_proxy_"))
        .map(ToOwned::to_owned)
        .collect()
}

fn exported(scrape: &Scrape) -> BTreeSet<String> {
    let suffixes = |(name, kind): (&String, &String)| match kind.as_str() {
        "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec(),
        _ => vec![name.clone()],
    };
    scrape.families.iter().flat_map(suffixes).collect()
}

async fn running() -> Scrape {
    let world = World::start().await;
    scrape_until(&world, |found| found.families.contains_key("transcode_enclave_epoch")).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_alerts_ask_only_for_what_is_exported_and_all_of_it_is_documented() {
    let scrape = running().await;
    let exported = exported(&scrape);
    for file in ["deploy/observability/dashboard.json", "deploy/observability/alerts.yml"] {
        let asked = names(&read(file));
        assert!(asked.len() >= 10, "{file} asks for little: {asked:?}");
        for name in asked {
            assert!(exported.contains(&name), "{file} asks for {name}, which nobody exports");
        }
    }
    let documented = read("docs/METRICS.md");
    for (name, kind) in &scrape.families {
        let row = format!("| `{name}` | {kind} | {} |", scrape.help[name].trim_end_matches('.'));
        assert!(documented.contains(&row), "docs/METRICS.md lacks this row:\n{row}");
    }
    for name in names(&documented) {
        assert!(scrape.families.contains_key(&name), "docs/METRICS.md describes {name}, which nobody exports");
    }
}

#[test]
fn the_dashboard_has_a_title_a_unit_and_a_query_for_each_panel() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/observability/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut charts) = (BTreeSet::new(), 0);
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        charts += 1;
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{panel}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && targets.iter().all(|target| !names(&target.to_string()).is_empty()), "{panel}");
    }
    assert!(charts >= 15, "{charts}");
}

#[test]
fn every_alert_says_what_it_means_and_where_to_read_what_to_do() {
    let rules = read("deploy/observability/alerts.yml");
    let operations = read("docs/OPERATIONS.md");
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 12, "{}", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for part in ["expr:", "severity:", "summary:", "runbook: docs/OPERATIONS.md#what-each-alarm-means"] {
            assert!(alert.contains(part), "{name} lacks {part}");
        }
        assert!(operations.contains(&format!("| `{name}` |")), "docs/OPERATIONS.md does not say what {name} means");
    }
    for line in operations.lines().filter(|line| line.starts_with("| `Transcode")) {
        let name = line.split('`').nth(1).unwrap();
        assert!(
            rules.contains(&format!("- alert: {name}\n")),
            "docs/OPERATIONS.md explains {name}, which nobody raises"
        );
    }
}
