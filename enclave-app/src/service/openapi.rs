//! Holds `docs/openapi.json` against the router and the error codes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use transcode_confidential::protocol::api::ErrorCode;

const FILE: &str = include_str!("../../../docs/openapi.json");
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

fn file() -> Value {
    serde_json::from_str(FILE).unwrap()
}

#[test]
fn every_route_of_the_router_is_in_the_file_and_every_one_of_the_file_in_the_router() {
    // The router has no list of its routes but this one.
    let text = format!("{:?}", super::routes());
    let router: BTreeSet<&str> = text.split('"').filter(|part| part.starts_with("/v1/")).collect();
    let file = file();
    let listed: BTreeSet<&str> = file["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert!(router.len() >= 10, "{text}");
    assert_eq!(listed, router, "docs/openapi.json and the router");
}

#[test]
fn every_error_code_is_in_the_file_under_its_status_and_no_other_is() {
    let file = file();
    let mut by_status = BTreeMap::<String, BTreeSet<String>>::new();
    for code in ErrorCode::ALL {
        by_status.entry(code.status().to_string()).or_default().insert(code.to_string());
    }
    let texts = |value: &Value| -> BTreeSet<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let all = by_status.values().flatten().cloned().collect();
    assert_eq!(texts(&file["components"]["schemas"]["ErrorCode"]["enum"]), all);
    let responses = file["components"]["responses"].as_object().unwrap();
    let found: BTreeMap<_, _> = responses
        .iter()
        .map(|(status, response)| {
            let schema = &response["content"]["application/json"]["schema"]["allOf"][1];
            (status.clone(), texts(&schema["properties"]["code"]["enum"]))
        })
        .collect();
    assert_eq!(found, by_status);
}

#[test]
fn every_operation_says_what_it_needs_and_how_it_can_fail() {
    let file = file();
    let mut names = BTreeSet::new();
    for (path, item) in file["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(METHODS.contains(&method.as_str()), "{what}");
            assert!(operation["x-grant"].is_string() && operation["summary"].is_string(), "{what}");
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{what}: its name is taken");
            let responses = operation["responses"].as_object().unwrap();
            let status = |code: ErrorCode| responses.contains_key(&code.status().to_string());
            assert!(status(ErrorCode::Internal) && status(ErrorCode::NotReady), "{what}");
            let public = operation["security"].as_array().is_some_and(Vec::is_empty);
            assert_eq!(status(ErrorCode::Unauthenticated), !public, "{what}");
            for (status, response) in responses.iter().filter(|(status, _)| !status.starts_with('2')) {
                let expected = format!("#/components/responses/{status}");
                assert_eq!(response["$ref"].as_str(), Some(expected.as_str()), "{what}");
            }
            for part in path.split('/').filter(|part| part.starts_with('{')) {
                let named = operation["parameters"].as_array().unwrap().iter().any(|parameter| {
                    let name = parameter["$ref"].as_str().and_then(|name| name.rsplit('/').next());
                    let name = name.or(parameter["name"].as_str());
                    name == Some(part.trim_matches(['{', '}']))
                });
                assert!(named, "{what}: {part}");
            }
        }
    }
}
