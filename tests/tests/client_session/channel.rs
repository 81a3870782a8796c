//! Who is at the other end, and what it gets to see.

use std::sync::{Arc, Mutex};

use client::{
    ErrorKind,
    session::{Attested, Connection, Session, SessionError, empty},
};
use http::Request;
use testkit::{
    clock::ManualClock,
    nsm::{MockHypervisor, MockImage},
};
use transcode_confidential::{
    attestation::{ImagePolicy, UserData},
    ids::{Epoch, LeafHash, LogId, Sequence},
    time::{Clock as _, SystemClock},
};

use crate::enclave::{ChannelKey, FakeLog, Script, Server, World, channel_documents, document, identity};

fn log() -> Arc<Mutex<FakeLog>> {
    Arc::new(Mutex::new(FakeLog::new(1)))
}

/// What a session says to a server that is not what it should be, which must not have seen any certificate.
async fn refused(world: &World, session: &Session, script: Script) -> SessionError {
    let server = Server::start(world, script).await;
    let error = session.connection().await.err().unwrap();
    assert_eq!((server.certificates(), server.requests()), (0, 0), "nothing of the client was shown: {error}");
    error
}

/// The name of the reason for which a document is refused.
fn reason(error: &SessionError) -> &'static str {
    let SessionError::Attestation(refusal) = error else { panic!("refused for another reason: {error}") };
    refusal.reason()
}

async fn ask(connection: &mut Connection<Attested>) -> Result<http::StatusCode, SessionError> {
    let request = Request::get("/v1/keys").body(empty()).unwrap();
    Ok(connection.send(request).await.map_err(|failed| failed.error)?.status())
}

#[tokio::test]
async fn an_enclave_attests_itself_and_then_gets_to_know_the_client() {
    let (world, log) = (World::new(), log());
    let server = Server::start(&world, Script::genuine(world.launch(), &log)).await;
    let mut connection = world.session().connection().await.unwrap();
    assert_eq!(connection.attestation().log_id(), LogId::new([1; 16]));
    assert_eq!(ask(&mut connection).await.unwrap(), 200);
    assert_eq!((server.connections(), server.certificates(), server.attestations()), (2, 1, 1));
}

#[tokio::test]
async fn a_connection_that_is_given_back_serves_again_and_many_share_one_attestation() {
    let (world, log) = (World::new(), log());
    let server = Server::start(&world, Script::genuine(world.launch(), &log)).await;
    let session = world.session();
    let (first, second) = tokio::join!(session.connection(), session.connection());
    for connection in [first, second] {
        let mut connection = connection.unwrap();
        ask(&mut connection).await.unwrap();
        session.give_back(connection);
    }
    ask(&mut session.connection().await.unwrap()).await.unwrap();
    assert_eq!((server.connections(), server.attestations(), server.requests()), (3, 1, 3));
}

#[tokio::test]
async fn a_man_in_the_middle_who_relays_a_genuine_attestation_is_refused() {
    let (world, log) = (World::new(), log());
    let genuine = ChannelKey::generate();
    let mut script = Script::genuine(world.launch(), &log);
    // The document is fresh, answers the nonce, and attests the enclave's key: but that is not the key of this connection.
    script.documents = channel_documents(world.launch(), genuine.spki(), &log);
    let error = refused(&world, &world.session(), script).await;
    assert!(matches!(error, SessionError::KeyNotAttested), "{error}");
}

#[tokio::test]
async fn a_man_in_the_middle_who_shows_the_enclaves_certificate_cannot_finish_the_handshake() {
    let (world, log) = (World::new(), log());
    let mut script = Script::genuine(world.launch(), &log);
    script.key = script.key.stolen_by(&ChannelKey::generate());
    let error = refused(&world, &world.session(), script).await;
    assert!(matches!(error, SessionError::Tls(_)), "{error}");
    assert_eq!(client::ClientError::from(error).kind(), ErrorKind::Verification);
}

#[tokio::test]
async fn a_document_that_answered_another_nonce_is_refused() {
    let (world, log) = (World::new(), log());
    let mut script = Script::genuine(world.launch(), &log);
    let fresh = channel_documents(world.launch(), script.key.spki(), &log);
    let replayed = fresh(&[7; 32]);
    script.documents = Box::new(move |_| replayed.clone());
    assert_eq!(reason(&refused(&world, &world.session(), script).await), "nonce-mismatch");
}

#[tokio::test]
async fn a_document_for_another_purpose_is_refused() {
    let (world, log) = (World::new(), log());
    let nsm = world.launch();
    let epoch =
        UserData::Epoch { log_id: LogId::new([1; 16]), epoch: Epoch(1), first: Sequence(0), previous: LeafHash::ZERO };
    for data in [epoch, UserData::Caller { log_id: LogId::new([1; 16]) }] {
        let mut script = Script::genuine(nsm.clone(), &log);
        let (nsm, spki) = (nsm.clone(), script.key.spki());
        script.documents = Box::new(move |nonce| document(&nsm, &spki, &data, nonce));
        assert_eq!(reason(&refused(&world, &world.session(), script).await), "wrong-purpose");
    }
}

#[tokio::test]
async fn enclaves_in_debug_mode_of_other_images_and_under_other_roots_are_refused() {
    let (world, log) = (World::new(), log());
    let session = world.session();
    let debug = Script::genuine(world.launch_debug(), &log);
    assert_eq!(reason(&refused(&world, &session, debug).await), "debug-mode");
    let other_image = Script::genuine(world.hypervisor.launch(&MockImage::named("other")), &log);
    assert_eq!(reason(&refused(&world, &session, other_image).await), "unexpected-image");
    let other_root = MockHypervisor::new(Arc::new(SystemClock)).launch(&world.image);
    assert_eq!(reason(&refused(&world, &session, Script::genuine(other_root, &log)).await), "untrusted-root");
}

#[tokio::test]
async fn any_image_has_to_be_asked_for_and_debug_mode_is_refused_all_the_same() {
    let (world, log) = (World::new(), log());
    let mut settings = world.settings();
    settings.image = ImagePolicy::danger_any_image();
    let session = Session::new(world.endpoint(), settings);
    let debug = Script::genuine(world.launch_debug(), &log);
    assert_eq!(reason(&refused(&world, &session, debug).await), "debug-mode");
    let other = Script::genuine(world.hypervisor.launch(&MockImage::named("other")), &log);
    let _server = Server::start(&world, other).await;
    assert!(session.connection().await.is_ok());
}

#[tokio::test]
async fn what_is_no_document_and_what_is_none_at_all_is_refused() {
    let (world, log) = (World::new(), log());
    for documents in [b"hello".to_vec(), vec![], vec![0x84; 17 * 1024]] {
        let mut script = Script::genuine(world.launch(), &log);
        script.documents = Box::new(move |_| documents.clone());
        let error = client::ClientError::from(refused(&world, &world.session(), script).await);
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
    }
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let (world, log) = (World::new(), log());
    let mut script = Script::genuine(world.launch(), &log);
    script.versions = vec![&rustls::version::TLS12];
    let error = refused(&world, &world.session(), script).await;
    assert!(matches!(error, SessionError::Tls(_)), "{error}");
}

#[tokio::test]
async fn a_restarted_enclave_with_a_new_key_is_attested_anew_once() {
    let (world, log) = (World::new(), log());
    let session = world.session();
    let first = Server::start(&world, Script::genuine(world.launch(), &log)).await;
    session.give_back(session.connection().await.unwrap());
    drop(first);
    let second = Server::start(&world, Script::genuine(world.launch(), &log)).await;
    let mut connection = loop {
        // The idle connection may still look open; it fails at its first use at the latest.
        let mut connection = session.connection().await.unwrap();
        if ask(&mut connection).await.is_ok() {
            break connection;
        }
    };
    assert_eq!((second.attestations(), second.certificates()), (1, 1));
    ask(&mut connection).await.unwrap();
}

#[tokio::test]
async fn an_impostor_who_takes_over_the_address_later_sees_no_certificate() {
    let (world, log) = (World::new(), log());
    let session = world.session();
    let first = Server::start(&world, Script::genuine(world.launch(), &log)).await;
    drop(session.connection().await.unwrap());
    drop(first);
    let impostor = Script::genuine(MockHypervisor::new(Arc::new(SystemClock)).launch(&world.image), &log);
    assert_eq!(reason(&refused(&world, &session, impostor).await), "untrusted-root");
}

#[tokio::test]
async fn an_attestation_is_renewed_after_its_time() {
    let (world, log) = (World::new(), log());
    let server = Server::start(&world, Script::genuine(world.launch(), &log)).await;
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let mut settings = world.settings();
    settings.max_age = std::time::Duration::from_secs(20);
    settings.clock = clock.clone();
    let session = Session::new(world.endpoint(), settings);
    session.give_back(session.connection().await.unwrap());
    clock.advance(std::time::Duration::from_secs(19));
    session.give_back(session.connection().await.unwrap());
    assert_eq!(server.attestations(), 1);
    clock.advance(std::time::Duration::from_secs(1));
    let connection = session.connection().await.unwrap();
    assert_eq!((server.attestations(), server.certificates()), (2, 1), "the connection to the same key goes on");
    assert_eq!(connection.attestation().verified_at(), clock.now());
}

#[tokio::test]
async fn an_identity_of_another_authority_is_told_so() {
    let (world, log) = (World::new(), log());
    let server = Server::start(&world, Script::genuine(world.launch(), &log)).await;
    let mut settings = world.settings();
    settings.identity = Some(identity(&World::new().ca, "transcoder-1"));
    let session = Session::new(world.endpoint(), settings);
    let error = match session.connection().await {
        Ok(mut connection) => ask(&mut connection).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, SessionError::IdentityRefused { .. }), "{error}");
    assert_eq!(client::ClientError::from(error).kind(), ErrorKind::Denied);
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let world = World::new();
    let error = client::ClientError::from(world.session().connection().await.err().unwrap());
    assert_eq!((error.kind(), error.retryable()), (ErrorKind::Unavailable, true));
}

#[tokio::test]
async fn a_server_that_never_says_a_word_is_given_up_in_time() {
    let world = World::new();
    let _silent = world.endpoint().bind().await.unwrap();
    let mut settings = world.settings();
    settings.timeouts.handshake = std::time::Duration::from_millis(100);
    let error = Session::new(world.endpoint(), settings).connection().await.err().unwrap();
    assert!(matches!(error, SessionError::TimedOut { what: "TLS handshake", .. }), "{error}");
}

#[tokio::test]
async fn an_enclave_that_gives_no_document_now_is_unavailable() {
    let (world, log) = (World::new(), log());
    let mut script = Script::genuine(world.launch(), &log);
    script.busy = true;
    let error = client::ClientError::from(refused(&world, &world.session(), script).await);
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, Some("no-attestation")), "{error}");
}
