//! Which image may do what: KMS, clients and successors each decide for themselves.

use client::{ClientError, session::SessionError};
use enclave_app::{Fatal, boot::BootError};
use testkit::{
    nsm::{MockHypervisor, MockImage, Mode},
    world::{Plan, World},
};
use transcode_confidential::{
    attestation::{ImagePolicy, PcrIndex},
    audit::verify::Verdict,
    ids::Epoch,
};

#[tokio::test]
async fn kms_refuses_an_enclave_of_another_image_and_the_cause_is_told() {
    let mut world = World::without_enclave(Plan::default()).await;
    let other = MockImage::named("other");
    let fatal = world.launch(&other).await.unwrap_err();
    let text = fatal.to_string();
    let Fatal::Boot(BootError::Kms(error)) = fatal else { panic!("{text}") };
    assert_eq!(error.cause(), "attestation-condition");
    assert!(text.contains(&other.identity[0].to_string()), "the PCRs that were presented: {text}");
    assert!(error.next_step().contains("PCRs"), "{}", error.next_step());
    assert!(world.segments().is_empty(), "no epoch was opened");
    let refused = world.kms.requests();
    assert!(refused.iter().all(|request| request.error.is_some()), "{refused:?}");
}

#[tokio::test]
async fn a_debug_enclave_does_not_boot() {
    let mut world = World::without_enclave(Plan::default()).await;
    let image = world.image().clone();
    let fatal = world.launch_with(&image, Mode::Debug, |_| {}).await.unwrap_err();
    assert!(matches!(fatal, Fatal::Boot(BootError::DebugMode)), "{fatal}");
    assert!(world.kms.requests().is_empty());
}

/// Attestation as a new client of a world sees it.
async fn refusal(world: &World, change: impl FnOnce(&mut client::session::Settings)) -> &'static str {
    let caller = world.caller_with("operator", change, None);
    let error = caller.client.log().await.unwrap_err();
    match error {
        ClientError::Session(SessionError::Attestation(refusal)) => refusal.reason(),
        ClientError::Session(SessionError::KeyNotAttested) => "key-not-attested",
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_client_refuses_every_document_but_that_of_the_enclave_that_it_means() {
    let world = World::start().await;
    assert!(world.operator().client.log().await.is_ok());
    let other: ImagePolicy = MockImage::named("other").measurements("other").into();
    assert_eq!(refusal(&world, |settings| settings.image = other).await, "unexpected-image");
    let foreign = MockHypervisor::new(std::sync::Arc::new(transcode_confidential::time::SystemClock)).trust_root();
    assert_eq!(refusal(&world, |settings| settings.root = foreign).await, "untrusted-root");

    world.nsm().tamper(|draft| {
        for (index, value) in &mut draft.pcrs {
            if PcrIndex::OF_IMAGE.iter().any(|pcr| u64::from(pcr.get()) == *index) {
                value.fill(0);
            }
        }
    });
    assert_eq!(refusal(&world, |_| {}).await, "debug-mode");
    assert_eq!(refusal(&world, |settings| settings.image = ImagePolicy::danger_any_image()).await, "debug-mode");

    world.nsm().tamper(|draft| draft.nonce = Some(vec![9; 32]));
    assert_eq!(refusal(&world, |_| {}).await, "nonce-mismatch");
    world.nsm().tamper(|draft| draft.timestamp = draft.timestamp.minus(std::time::Duration::from_secs(600)));
    assert_eq!(refusal(&world, |_| {}).await, "too-old");
    world.nsm().tamper(|draft| draft.public_key = Some(vec![4; 91]));
    assert_eq!(refusal(&world, |_| {}).await, "key-not-attested");
    world.nsm().tamper(|draft| draft.user_data = Some(vec![0xa0]));
    assert_eq!(refusal(&world, |_| {}).await, "purpose-unreadable");
    world.nsm().tamper(|_| {});
    assert!(world.operator().client.log().await.is_ok());
}

#[tokio::test]
async fn the_epochs_of_another_image_are_refused_unless_it_is_a_named_predecessor() {
    let (old, new) = (MockImage::named("enclave"), MockImage::named("enclave 2"));
    let mut world = World::with(Plan { kms_images: vec![old.clone(), new.clone()], ..Plan::default() }).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let message = operator.encrypt("content-key-1", b"frame").await.unwrap();
    world.stop_enclave().await.unwrap();

    let fatal = world.launch(&new).await.unwrap_err();
    let Fatal::Boot(BootError::Log(report)) = fatal else { panic!("{fatal}") };
    assert_eq!((report.verdict, report.events), (Verdict::Tampered, 0));
    assert!(report.first_bad.unwrap().what.contains("unexpected-image"));

    let [pcr0, pcr1, pcr2] = old.identity.map(|value| value.to_string());
    let predecessor = enclave_app::config::Predecessor { label: "1.0".into(), pcr0, pcr1, pcr2 };
    let named = |config: &mut enclave_app::config::Config| config.predecessors.push(predecessor);
    world.launch_with(&new, Mode::Production, named).await.unwrap();
    assert_eq!(world.serving().epoch, Epoch(2));
    world.accept_image(&new);
    assert_eq!(world.operator().decrypt(&message).await.unwrap(), b"frame");
    let checked = world.check().intact();
    assert_eq!(checked.report.epochs.len(), 2);
    world.stop_enclave().await.unwrap();

    // There is no way back: the old image knows nothing of a successor.
    assert!(matches!(world.launch(&old).await, Err(Fatal::Boot(BootError::Log(_)))));
}
