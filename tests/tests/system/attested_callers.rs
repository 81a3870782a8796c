//! Callers that are enclaves themselves: what their documents must be, and what they are granted.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use client::{
    ClientError,
    session::{CallerAttestor, CallerDocument, CallerKey, RequestBody, SessionError, empty},
};
use enclave_app::nsm::{AttestationRequest, Nsm as _};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use testkit::{
    nsm::{MockHypervisor, MockImage, MockNsm, Mode},
    world::{Caller, World, people::grant},
};
use transcode_confidential::{
    attestation::{Measurements, Purpose, UserData, caller_nonce},
    audit::{AuditEventType, EventBody},
    ids::{Epoch, LogId},
    protocol::{
        api::{self, ApiError, CallerChallenge, ErrorCode},
        policy::{CallerImages, Operation},
    },
    time::SystemClock,
};
use zeroize::Zeroizing;

use crate::answers::code;

type Change = dyn Fn(AttestationRequest) -> AttestationRequest + Send + Sync;

/// A transcoder in an enclave of its own, which may lie.
pub(crate) struct Transcoder {
    nsm: Arc<MockNsm>,
    key: CallerKey,
    change: Box<Change>,
}

impl Transcoder {
    pub(crate) fn on(nsm: Arc<MockNsm>) -> Self {
        Self { nsm, key: CallerKey::generate().unwrap(), change: Box::new(|request| request) }
    }

    pub(crate) fn that(
        self,
        change: impl Fn(AttestationRequest) -> AttestationRequest + Send + Sync + 'static,
    ) -> Self {
        Self { change: Box::new(change), ..self }
    }
}

impl CallerAttestor for Transcoder {
    fn attest<'a>(&'a self, nonce: &'a [u8; 32], user_data: &'a [u8]) -> CallerDocument<'a> {
        let request = AttestationRequest {
            public_key: Some(self.key.public_key().to_vec()),
            user_data: Some(user_data.to_vec()),
            nonce: Some(nonce.to_vec()),
        };
        let document = self.nsm.attest((self.change)(request)).unwrap();
        Box::pin(async move { Ok(document) })
    }

    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.key.open(sealed)
    }
}

/// Shows whatever document another one was given, on another connection.
struct Relay(Arc<Mutex<Option<Vec<u8>>>>);

impl CallerAttestor for Relay {
    fn attest<'a>(&'a self, _nonce: &'a [u8; 32], _user_data: &'a [u8]) -> CallerDocument<'a> {
        let document = self.0.lock().unwrap().clone().unwrap();
        Box::pin(async move { Ok(document) })
    }

    fn open(&self, _sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        None
    }
}

/// Keeps the document that it makes.
struct Overheard(Transcoder, Arc<Mutex<Option<Vec<u8>>>>);

impl CallerAttestor for Overheard {
    fn attest<'a>(&'a self, nonce: &'a [u8; 32], user_data: &'a [u8]) -> CallerDocument<'a> {
        Box::pin(async move {
            let document = self.0.attest(nonce, user_data).await?;
            *self.1.lock().unwrap() = Some(document.clone());
            Ok(document)
        })
    }

    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.0.open(sealed)
    }
}

pub(crate) fn image() -> MockImage {
    MockImage::named("transcoder")
}

/// A world in which `cloud` may do this as an attested caller only.
pub(crate) async fn world_for(operations: &[Operation]) -> World {
    let mut world = World::start().await;
    let measurements = Measurements::new(vec![image().expected("transcoder")]).unwrap();
    let images = CallerImages::of(&measurements).unwrap();
    world
        .change_policy(|policy| {
            let mut attested = grant("cloud", "content-", operations);
            attested.caller = Some(images);
            policy.grants.push(attested);
        })
        .await;
    world.operator().generate("content-key-1").await.unwrap();
    world
}

async fn world() -> World {
    world_for(&[Operation::Encrypt, Operation::Decrypt]).await
}

pub(crate) fn cloud(world: &World, attestor: impl CallerAttestor + 'static) -> Caller {
    world.caller_with("cloud", |settings| settings.caller = Some(Arc::new(attestor)), None)
}

#[tokio::test]
async fn an_attested_caller_gets_what_only_such_are_granted_and_its_document_is_on_the_record() {
    let mut world = world().await;
    let transcoder = cloud(&world, Transcoder::on(world.hypervisor.launch(&image())));
    let message = transcoder.encrypt("content-key-1", b"frame").await.unwrap();
    assert_eq!(transcoder.decrypt(&message).await.unwrap(), b"frame");
    assert_eq!(transcoder.client.list_keys().await.unwrap().len(), 1);
    assert_eq!(code(transcoder.rotate("content-key-1").await), ErrorCode::Denied, "and nothing else");

    let plain = world.caller("cloud");
    assert_eq!(code(plain.decrypt(&message).await), ErrorCode::Denied, "the certificate alone is not enough");
    assert!(plain.client.list_keys().await.unwrap().is_empty());

    let verified = |event: &&transcode_confidential::audit::AuditEvent| {
        matches!(event.body, Some(EventBody::Attestation { purpose: Purpose::Caller, document: Some(_), .. }))
            && event.principal.as_deref() == Some("cloud")
    };
    let checked = world.check().intact();
    assert!(checked.of_type(AuditEventType::AttestationVerified).iter().copied().any(|event| verified(&event)));

    world.change_policy(|policy| policy.denied.push("cloud".parse().unwrap())).await;
    let error = transcoder.decrypt(&message).await.unwrap_err();
    assert_eq!(error.kind(), client::ErrorKind::Denied, "a denied one is cut off like any other: {error}");
}

#[tokio::test]
async fn every_other_document_is_refused_and_on_the_record() {
    let world = world().await;
    let nsm = || world.hypervisor.launch(&image());
    let log_id = world.serving().log_id;
    let user_data = |data: UserData| {
        move |request: AttestationRequest| AttestationRequest { user_data: Some(data.encode()), ..request }
    };
    let stranger = MockHypervisor::new(Arc::new(SystemClock));
    let liars: Vec<(&str, Transcoder)> = vec![
        ("another image", Transcoder::on(world.hypervisor.launch(&MockImage::named("other")))),
        ("debug mode", Transcoder::on(world.hypervisor.launch_in(Mode::Debug, &image()))),
        ("another root", Transcoder::on(stranger.launch(&image()))),
        (
            "another nonce",
            Transcoder::on(nsm()).that(|request| AttestationRequest { nonce: Some(vec![7; 32]), ..request }),
        ),
        ("no nonce", Transcoder::on(nsm()).that(|request| AttestationRequest { nonce: None, ..request })),
        ("no purpose", Transcoder::on(nsm()).that(|request| AttestationRequest { user_data: None, ..request })),
        ("another purpose", Transcoder::on(nsm()).that(user_data(UserData::Channel { log_id, epoch: Epoch(1) }))),
        ("another log", Transcoder::on(nsm()).that(user_data(UserData::Caller { log_id: LogId::new([9; 16]) }))),
        ("no key", Transcoder::on(nsm()).that(|request| AttestationRequest { public_key: None, ..request })),
        (
            "a key that is none",
            Transcoder::on(nsm()).that(|request| AttestationRequest { public_key: Some(vec![1; 300]), ..request }),
        ),
    ];
    let count = liars.len();
    for (what, liar) in liars {
        let error = cloud(&world, liar).client.list_keys().await.unwrap_err();
        assert!(matches!(error, ClientError::Session(SessionError::CallerNotAttested(_))), "{what}: {error}");
    }
    let failed = |checked: &testkit::world::Checked| {
        let of_caller =
            |event: &&transcode_confidential::audit::AuditEvent| event.principal.as_deref() == Some("cloud");
        checked.of_type(AuditEventType::AttestationFailed).iter().copied().filter(of_caller).count()
    };
    world.check_until(|checked| failed(checked) >= count).await.intact();
}

#[tokio::test]
async fn a_document_of_another_session_answers_nothing() {
    let world = world().await;
    let overheard = Arc::new(Mutex::new(None));
    let honest = cloud(&world, Overheard(Transcoder::on(world.hypervisor.launch(&image())), Arc::clone(&overheard)));
    honest.client.list_keys().await.unwrap();
    // Genuine, fresh, of the right image, purpose and log; made a moment ago for another connection.
    let error = cloud(&world, Relay(overheard)).client.list_keys().await.unwrap_err();
    assert!(matches!(error, ClientError::Session(SessionError::CallerNotAttested(_))), "{error}");
    world.check().intact();
}

#[tokio::test]
async fn a_document_for_another_session_is_refused_even_where_it_answers_this_ones_challenge() {
    let world = world().await;
    // Whoever stands between a caller and the enclave may hand on the challenge of its own session.
    let session = world.caller("cloud").client.session().clone();
    let timeouts = session.settings().timeouts.clone();
    let mut connection = session.connection().await.unwrap();
    let ask = Request::post(api::CALLER_CHALLENGE).body(empty()).unwrap();
    let asked = connection.fetch(ask, 1 << 16, &timeouts).await.unwrap();
    let CallerChallenge { challenge } = serde_json::from_slice(asked.body()).unwrap();
    let nonce = caller_nonce(&[9; 32], challenge.as_bytes());
    let user_data = UserData::Caller { log_id: world.serving().log_id }.encode();
    let transcoder = Transcoder::on(world.hypervisor.launch(&image()));
    let document = Bytes::from(transcoder.attest(nonce.as_bytes(), &user_data).await.unwrap());
    let body: RequestBody = Full::new(document).map_err(|never| match never {}).boxed_unsync();
    let answer = connection.fetch(Request::put(api::CALLER).body(body).unwrap(), 1 << 16, &timeouts).await.unwrap();
    let refused: ApiError = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(refused.code, ErrorCode::CallerRefused);
    world.check().intact();
}
