//! Callers that are enclaves themselves: what their documents must be, and what they are granted.

use std::sync::{Arc, Mutex};

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rsa::{KeySize, PrivateDecryptingKey},
};
use client::{
    ClientError,
    session::{CallerAttestor, CallerDocument, SessionError},
};
use enclave_app::nsm::{AttestationRequest, Nsm as _};
use testkit::{
    nsm::{MockHypervisor, MockImage, MockNsm, Mode},
    world::{Caller, World, people::grant},
};
use transcode_confidential::{
    attestation::{Measurements, Purpose, UserData},
    audit::{AuditEventType, EventBody},
    ids::{Epoch, LogId},
    protocol::{
        api::ErrorCode,
        policy::{CallerImages, Operation},
    },
    time::SystemClock,
};

use crate::answers::code;

type Change = dyn Fn(AttestationRequest) -> AttestationRequest + Send + Sync;

/// A transcoder in an enclave of its own, which may lie.
struct Transcoder {
    nsm: Arc<MockNsm>,
    public_key: Vec<u8>,
    change: Box<Change>,
}

impl Transcoder {
    fn on(nsm: Arc<MockNsm>) -> Self {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let public_key: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        Self { nsm, public_key: public_key.as_ref().to_vec(), change: Box::new(|request| request) }
    }

    fn that(self, change: impl Fn(AttestationRequest) -> AttestationRequest + Send + Sync + 'static) -> Self {
        Self { change: Box::new(change), ..self }
    }
}

impl CallerAttestor for Transcoder {
    fn attest<'a>(&'a self, nonce: &'a [u8; 32], user_data: &'a [u8]) -> CallerDocument<'a> {
        let request = AttestationRequest {
            public_key: Some(self.public_key.clone()),
            user_data: Some(user_data.to_vec()),
            nonce: Some(nonce.to_vec()),
        };
        let document = self.nsm.attest((self.change)(request)).unwrap();
        Box::pin(async move { Ok(document) })
    }
}

/// Shows whatever document another one was given, on another connection.
struct Relay(Arc<Mutex<Option<Vec<u8>>>>);

impl CallerAttestor for Relay {
    fn attest<'a>(&'a self, _nonce: &'a [u8; 32], _user_data: &'a [u8]) -> CallerDocument<'a> {
        let document = self.0.lock().unwrap().clone().unwrap();
        Box::pin(async move { Ok(document) })
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
}

fn image() -> MockImage {
    MockImage::named("transcoder")
}

/// A world in which `cloud` may decrypt as an attested caller only.
async fn world() -> World {
    let mut world = World::start().await;
    let measurements = Measurements::new(vec![image().expected("transcoder")]).unwrap();
    let images = CallerImages::of(&measurements).unwrap();
    world
        .change_policy(|policy| {
            let mut attested = grant("cloud", "content-", &[Operation::Encrypt, Operation::Decrypt]);
            attested.caller = Some(images);
            policy.grants.push(attested);
        })
        .await;
    world.operator().generate("content-key-1").await.unwrap();
    world
}

fn cloud(world: &World, attestor: impl CallerAttestor + 'static) -> Caller {
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
