//! No version is used beyond its limit, however callers and rotations interleave.

use model::{
    custody::CustodyError,
    runtime::task,
    stage::{Core, OPERATOR, TRANSCODER, play},
};
use transcode_confidential::{keys::KeyError, protocol::policy::Operation};

const LIMIT: u64 = 3;

#[test]
fn of_callers_that_use_a_key_at_once_none_gets_a_use_beyond_the_limit() {
    play("uses of one version", 1500, || async {
        let (core, _authority, writing) = Core::start(64).await;
        let using = core.clone();
        let used = core.island.spawn(async move {
            using.generate("film", LIMIT).await.unwrap();
            let callers: Vec<_> = (0..4).map(|_| task::spawn(use_twice(using.clone()))).collect();
            let mut granted = Vec::new();
            for caller in callers {
                granted.extend(caller.await.unwrap());
            }
            granted
        });
        let granted = used.await.unwrap();
        let record = core.end(writing).await;
        let uses = record.uses("film");
        assert!(uses.values().all(|uses| *uses <= LIMIT), "{uses:?}");
        for (version, receipt) in &granted {
            assert_eq!(record.holds(receipt).key_version, Some(*version));
            let told = granted.iter().filter(|(other, _)| other == version).count() as u64;
            assert!(told <= uses[version], "{told} were told of a use of version {version}: {uses:?}");
        }
        assert!(granted.len() as u64 >= LIMIT.min(8), "the allowance was there: {granted:?}");
    });
}

async fn use_twice(
    core: Core,
) -> Vec<(transcode_confidential::ids::KeyVersion, transcode_confidential::audit::Receipt)> {
    let permit = core.permit(TRANSCODER, Operation::Encrypt, "film");
    let mut granted = Vec::new();
    for _ in 0..2 {
        match core.encrypt(&permit).await {
            Ok(grant) => granted.push((grant.version, grant.receipt.clone())),
            Err(CustodyError::Key(KeyError::RotationDue)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    granted
}

#[test]
fn of_rotations_that_are_asked_for_at_once_each_makes_the_version_that_follows() {
    play("rotations of one key", 500, || async {
        let (core, _authority, writing) = Core::start(64).await;
        let rotating = core.clone();
        let rotated = core.island.spawn(async move {
            rotating.generate("film", LIMIT).await.unwrap();
            let core = rotating.clone();
            let user = task::spawn(use_twice(core));
            let callers: Vec<_> = (0..3)
                .map(|_| {
                    let core = rotating.clone();
                    task::spawn(async move { core.rotate("film").await })
                })
                .collect();
            let mut rotated = 0;
            for caller in callers {
                match caller.await.unwrap() {
                    Ok(_) => rotated += 1,
                    Err(CustodyError::InProgress) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            user.await.unwrap();
            rotated
        });
        let rotated = rotated.await.unwrap();
        let record = core.end(writing).await;
        let key = record.fold.keys().key(&model::stage::id("film")).unwrap();
        let versions: Vec<u32> = key.versions.iter().map(|version| version.version.0).collect();
        assert_eq!(versions, (1..=1 + rotated).collect::<Vec<u32>>());
        assert_eq!(
            key.versions.iter().filter(|version| Some(version.version) == key.active().map(|a| a.version)).count(),
            1
        );
    });
}

#[test]
fn a_key_that_two_callers_make_at_once_is_made_once() {
    play("one key made twice", 500, || async {
        let (core, _authority, writing) = Core::start(64).await;
        let makers: Vec<_> = (0..3)
            .map(|_| {
                let core = core.clone();
                core.island.spawn(async move { core.generate("film", LIMIT).await.map(|changed| changed.receipt) })
            })
            .collect();
        let mut made = Vec::new();
        for maker in makers {
            match maker.await.unwrap() {
                Ok(receipt) => made.push(receipt),
                Err(CustodyError::InProgress | CustodyError::Key(KeyError::Exists)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(made.len(), 1);
        let permit = core.permit(OPERATOR, Operation::Encrypt, "film");
        assert!(core.encrypt(&permit).await.is_ok(), "and can be used");
        core.end(writing).await.holds(&made[0]);
    });
}
