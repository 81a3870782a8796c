//! Data keys and media keys of callers that attested themselves: encrypted to the key in their document, and released in no
//! other form.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use client::{
    ClientError,
    session::{CallerKey, RequestBody, SessionError},
};
use enclave_app::nsm::AttestationRequest;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use testkit::world::{Caller, World, key_id};
use transcode_confidential::{
    entropy::OsEntropy,
    message::{EncryptionContext, Encryptor, FrameLength},
    protocol::{
        api::{IssueDataKeys, SEALED_HEADER},
        policy::Operation,
    },
};

use crate::attested_callers::{Transcoder, cloud, image, world_for};

const KEY: &str = "content-key-1";

async fn world() -> World {
    world_for(&[Operation::IssueDataKey, Operation::Decrypt, Operation::ExportMediaKey]).await
}

/// What the enclave says, before any client has looked at it.
async fn ask(caller: &Caller, method: Method, path: &str, body: &Value) -> Response<Bytes> {
    let body: RequestBody = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed_unsync();
    let request = Request::builder().method(method).uri(path).body(body).unwrap();
    let mut connection = caller.client.session().connection().await.unwrap();
    let timeouts = caller.client.session().settings().timeouts.clone();
    let answer = connection.fetch(request, 1 << 20, &timeouts).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}: {:?}", answer.body());
    answer
}

async fn ask_json(caller: &Caller, path: &str, body: &Value) -> Value {
    serde_json::from_slice(ask(caller, Method::POST, path, body).await.body()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

async fn media_key(caller: &Caller) -> Result<[u8; 16], ClientError> {
    caller.media_key(KEY, "1080p", 0).await.map(|media| *media.key)
}

#[tokio::test]
async fn an_attested_caller_works_with_sealed_keys_as_others_do_with_plain_ones() {
    let world = world().await;
    let (operator, transcoder) = (world.operator(), cloud(&world, Transcoder::on(world.hypervisor.launch(&image()))));
    let wanted = IssueDataKeys { count: Some(3), ..IssueDataKeys::default() };
    for released in transcoder.client.issue_data_keys(&key_id(KEY), &wanted).await.unwrap() {
        let issued = *released.data_key.data_key().material().expose();
        let item = (released.data_key.wrapped().clone(), EncryptionContext::new());
        for caller in [&transcoder, &operator] {
            let unwrapped = caller.client.unwrap_data_keys(vec![item.clone()], None).await.unwrap().remove(0).unwrap();
            assert_eq!(*unwrapped.data_key.material().expose(), issued);
        }
        let mut message = Vec::new();
        let mut encryptor =
            Encryptor::begin_issued(released.data_key, FrameLength::DEFAULT, &OsEntropy, &mut message).unwrap();
        encryptor.push(b"frame", &mut message).unwrap();
        encryptor.finish(&mut message).unwrap();
        assert_eq!(operator.decrypt(&message).await.unwrap(), b"frame");
    }
    assert_eq!(media_key(&transcoder).await.unwrap(), media_key(&operator).await.unwrap());
    assert_eq!(world.check().intact().uses(KEY, 1), 4, "three data keys and a media key");
}

#[tokio::test]
async fn what_an_attested_caller_is_sent_holds_no_key_that_anybody_but_itself_can_open() {
    let world = world().await;
    let (operator, transcoder) = (world.operator(), cloud(&world, Transcoder::on(world.hypervisor.launch(&image()))));
    let attestor = transcoder.client.session().settings().caller.clone().unwrap();
    let stranger = CallerKey::generate().unwrap();

    let issued = ask_json(&transcoder, "/v1/keys/content-key-1/data-keys", &json!({ "count": 2 })).await;
    let issued = issued["data_keys"].as_array().unwrap();
    assert_eq!(issued.len(), 2);
    let items: Vec<_> = issued.iter().map(|item| json!({ "wrapped": item["wrapped"] })).collect();
    let body = json!({ "items": items });
    let unwrapped = ask_json(&transcoder, "/v1/data-keys/unwrap", &body).await;
    let plain = ask_json(&operator, "/v1/data-keys/unwrap", &body).await;
    for (number, item) in issued.iter().enumerate() {
        let key = bytes(&plain["items"][number]["data_key"]["plaintext"]);
        assert_eq!(plain["items"][number]["data_key"].get("sealed"), None, "without attestation it is in plain");
        for released in [item, &unwrapped["items"][number]["data_key"]] {
            assert_eq!(released.get("plaintext"), None);
            let sealed = bytes(&released["sealed"]);
            assert_eq!(sealed.len(), 256);
            assert_eq!(**attestor.open(&sealed).unwrap(), *key);
            assert!(stranger.open(&sealed).is_none());
        }
    }

    let path = "/v1/keys/content-key-1/media-keys/1080p/0";
    let sealed = ask(&transcoder, Method::GET, path, &Value::Null).await;
    assert_eq!((sealed.headers()[SEALED_HEADER].len(), sealed.body().len()), (64, 256));
    let plain = ask(&operator, Method::GET, path, &Value::Null).await;
    assert!(!plain.headers().contains_key(SEALED_HEADER));
    assert_eq!(attestor.open(sealed.body()).unwrap().as_slice(), &plain.body()[..]);
    assert!(stranger.open(sealed.body()).is_none());
    world.check().intact();
}

#[tokio::test]
async fn who_shows_the_key_of_another_one_in_its_document_opens_nothing() {
    let world = world().await;
    let others = CallerKey::generate().unwrap().public_key().to_vec();
    let thief = Transcoder::on(world.hypervisor.launch(&image()))
        .that(move |request| AttestationRequest { public_key: Some(others.clone()), ..request });
    let thief = cloud(&world, thief);
    let not_sealed =
        |error: ClientError| assert!(matches!(error, ClientError::Session(SessionError::NotSealed(_))), "{error}");
    not_sealed(thief.client.issue_data_keys(&key_id(KEY), &IssueDataKeys::default()).await.map(|_| ()).unwrap_err());
    not_sealed(media_key(&thief).await.unwrap_err());
}
