//! A challenge is answered once, whatever comes of it.

use std::sync::{Arc, OnceLock};

use client::session::CallerKey;
use enclave_app::nsm::{AttestationRequest, Nsm as _};
use model::{
    callers::{CallerRefusal, CallerSession},
    runtime::{task, time::Played},
    stage::play,
};
use testkit::nsm::{MockHypervisor, MockImage};
use transcode_confidential::{
    attestation::{TrustRoot, UserData, caller_nonce},
    ids::LogId,
    time::Clock as _,
};

const LOG: LogId = LogId::new([7; 16]);
const EXPORTER: [u8; 32] = [1; 32];
const CHALLENGE: [u8; 32] = [2; 32];

/// A genuine answer to the challenge, and what it chains to.
fn answer() -> &'static (TrustRoot, Vec<u8>) {
    static ANSWER: OnceLock<(TrustRoot, Vec<u8>)> = OnceLock::new();
    ANSWER.get_or_init(|| {
        let hypervisor = MockHypervisor::new(Arc::new(Played));
        let request = AttestationRequest {
            public_key: Some(CallerKey::generate().unwrap().public_key().to_vec()),
            user_data: Some(UserData::Caller { log_id: LOG }.encode()),
            nonce: Some(caller_nonce(&EXPORTER, &CHALLENGE).as_bytes().to_vec()),
        };
        let document = hypervisor.launch(&MockImage::named("transcoder")).attest(request).unwrap();
        (hypervisor.trust_root(), document)
    })
}

#[test]
fn of_answers_to_one_challenge_that_come_at_once_one_is_looked_at() {
    play("answers that are none", 2000, || async {
        let session = Arc::new(CallerSession::new(Some(EXPORTER)));
        session.challenge(CHALLENGE);
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let session = Arc::clone(&session);
                task::spawn(async move { session.verify(b"whatever", &TrustRoot::aws(), LOG, Played.now()) })
            })
            .collect();
        let mut looked_at = 0;
        for caller in callers {
            looked_at += u32::from(!matches!(caller.await.unwrap(), Err(CallerRefusal::NoChallenge)));
        }
        assert_eq!(looked_at, 1);
    });
}

#[test]
fn of_the_same_right_answer_that_comes_at_once_one_is_accepted() {
    let _ = answer();
    play("one right answer, many times", 150, || async {
        let session = Arc::new(CallerSession::new(Some(EXPORTER)));
        session.challenge(CHALLENGE);
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let session = Arc::clone(&session);
                task::spawn(async move {
                    let (root, document) = answer();
                    let caller = session.verify(document, root, LOG, Played.now())?;
                    session.accept(caller);
                    Ok::<(), CallerRefusal>(())
                })
            })
            .collect();
        let mut accepted = 0;
        for caller in callers {
            match caller.await.unwrap() {
                Ok(()) => accepted += 1,
                Err(CallerRefusal::NoChallenge) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(accepted, 1);
        assert!(session.attested().is_some());
    });
}

#[test]
fn an_answer_to_a_challenge_that_another_has_replaced_is_refused() {
    let _ = answer();
    play("a challenge that is replaced", 300, || async {
        let session = Arc::new(CallerSession::new(Some(EXPORTER)));
        session.challenge(CHALLENGE);
        let replacing = Arc::clone(&session);
        let replaced = task::spawn(async move { replacing.challenge([3; 32]) });
        let answering: Vec<_> = (0..2)
            .map(|_| {
                let session = Arc::clone(&session);
                task::spawn(async move {
                    let (root, document) = answer();
                    session.verify(document, root, LOG, Played.now()).map(drop)
                })
            })
            .collect();
        let mut accepted = 0;
        for task in answering {
            accepted += u32::from(task.await.unwrap().is_ok());
        }
        let _ = replaced.await.unwrap();
        assert!(accepted <= 1, "never twice");
        let (root, document) = answer();
        assert!(session.verify(document, root, LOG, Played.now()).is_err(), "and never after the other challenge");
    });
}
