//! Holds `docs/openapi.json` against a live enclave: every operation of the file is a route, and no other method of its paths is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

use bytes::Bytes;
use client::session::RequestBody;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use testkit::world::World;
use transcode_confidential::protocol::api::{ApiError, ErrorCode};

const FILE: &str = include_str!("../../docs/openapi.json");

#[tokio::test]
async fn every_operation_of_the_file_is_a_route_and_no_other_method_of_its_paths_is() {
    let world = World::start().await;
    let operator = world.operator();
    let session = operator.client.session();
    let file: Value = serde_json::from_str(FILE).unwrap();
    for (path, item) in file["paths"].as_object().unwrap() {
        let address = path.replace("{version}", "1").replace("{period}", "1").replace(['{', '}'], "");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let listed = item.get(method.to_lowercase());
            let body: RequestBody = Full::new(Bytes::from("not json")).map_err(|never| match never {}).boxed_unsync();
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let what = format!("{method} {address}");
            let request = Request::builder().method(method).uri(&address).body(body).unwrap();
            let mut connection = session.connection().await.unwrap();
            let answer = connection.fetch(request, 1 << 20, &session.settings().timeouts).await.unwrap();
            let status = answer.status().as_u16();
            let code = serde_json::from_slice::<ApiError>(answer.body()).map(|error| error.code).ok();
            assert_eq!(code != Some(ErrorCode::NoSuchRoute), listed.is_some(), "{what}: {status} {code:?}");
            if let Some(operation) = listed {
                let statuses = operation["responses"].as_object().unwrap();
                assert!(statuses.contains_key(&status.to_string()), "{what}: {status} is not in the file");
            }
        }
    }
    world.check().intact();
}
