//! Group commit: who is told that his event is durable, and when.

use std::{cell::Cell, rc::Rc};

use model::{
    host::{Parent, Weather},
    ledger::{LedgerError, LedgerFatal},
    runtime::{task, time},
    stage::{Core, play},
};
use shuttle::rand::{Rng as _, thread_rng};
use transcode_confidential::audit::{AuditEventType, EventDraft, Receipt};

fn event(number: usize) -> EventDraft {
    EventDraft::new(AuditEventType::ContentProcessed, format!("event {number}"))
}

/// Puts an event on the record and, once it is told that it is durable, looks whether it is.
async fn append(core: Core, number: usize) -> Result<Receipt, LedgerError> {
    let recorded = core.ledger().record(event(number).into()).await?;
    let (event, receipt) = recorded.persisted().await?;
    let (_, durable) = core.parent.durable().expect("something is durable");
    assert!(durable.size > event.sequence.0, "event {} was acknowledged, {} are durable", event.sequence, durable.size);
    assert_eq!(core.parent.leaves()[event.sequence.0 as usize], receipt.leaf);
    assert!(core.ledger().persisted().size > event.sequence.0, "the watermark comes first");
    assert_eq!(receipt.verify(&core.epoch_key.public_key()), Ok(()));
    Ok(receipt)
}

/// Lets time pass now and then until told to stop.
async fn clock(stop: Rc<Cell<bool>>) {
    while !stop.get() {
        if thread_rng().gen_range(0..8) == 0 {
            time::pass_to_next();
        }
        shuttle::future::yield_now().await;
    }
}

#[test]
fn whoever_waits_is_woken_and_nobody_before_his_event_is_durable() {
    // No time passes: what is not woken by somebody waits for ever, and is found.
    play("appends without a clock", 3000, || async {
        let (core, _authority, writing) = Core::start(2).await;
        let appending: Vec<_> = (0..4).map(|number| core.island.spawn(append(core.clone(), number))).collect();
        let mut receipts = Vec::new();
        for task in appending {
            receipts.push(task.await.unwrap().expect("the parent is well"));
        }
        let record = core.end(writing).await;
        assert_eq!(record.events.len(), 4);
        record.holds_all(&receipts);
    });
}

#[test]
fn what_was_placed_before_the_end_is_written_before_the_end() {
    play("events at the end", 3000, || async {
        let (core, _authority, writing) = Core::start(8).await;
        let placing = core.clone();
        let placed = core.island.spawn(async move {
            // Nobody waits for it.
            let recorded = placing.ledger().decide_at_once(|_, _| Ok(event(0).into())).unwrap();
            placing.ledger().close();
            recorded.event.hash
        });
        let placed = placed.await.unwrap();
        let record = core.end(writing).await;
        assert!(record.events.iter().any(|event| event.hash == placed));
    });
}

#[test]
fn what_was_sealed_is_sent_again_until_it_is_durable_and_never_withdrawn() {
    play("appends over connections that break", 1500, || async {
        let (core, _authority, writing) = Core::start(64).await;
        let stop = Rc::new(Cell::new(false));
        let ticking = shuttle::future::spawn_local(clock(Rc::clone(&stop)));
        core.parent.weather(Weather { cuts: 30, slow: 10, ..Weather::default() });
        let appending: Vec<_> = (0..5).map(|number| core.island.spawn(append(core.clone(), number))).collect();
        let mut receipts = Vec::new();
        for task in appending {
            // Whoever ran out of patience knows nothing; his event is in the log all the same, once.
            receipts.extend(task.await.unwrap());
        }
        core.parent.weather(Weather::default());
        let placed = core.ledger().placed_size();
        let record = core.end(writing).await;
        stop.set(true);
        ticking.await.unwrap();
        assert_eq!(record.events.len() as u64, placed, "everything that was placed is there once");
        record.holds_all(&receipts);
    });
}

#[test]
fn while_the_parent_is_gone_nobody_is_told_that_his_event_is_durable() {
    play("a parent that goes", 700, || async {
        let (core, _authority, writing) = Core::start(3).await;
        let stop = Rc::new(Cell::new(false));
        let ticking = shuttle::future::spawn_local(clock(Rc::clone(&stop)));
        let before: Vec<_> = (0..2).map(|number| core.island.spawn(append(core.clone(), number))).collect();
        task::turn();
        core.parent.weather(Weather { gone: true, ..Weather::default() });
        let durable = core.parent.durable().map_or(0, |(_, durable)| durable.size);
        let meanwhile: Vec<_> = (2..5).map(|number| core.island.spawn(append(core.clone(), number))).collect();
        let mut told = 0;
        for task in before.into_iter().chain(meanwhile) {
            match task.await.unwrap() {
                Ok(_) => told += 1,
                Err(LedgerError::Unavailable) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(told <= durable, "{told} were told, {durable} are durable");
        assert_eq!(core.parent.durable().map_or(0, |(_, durable)| durable.size), durable);
        // And when it is back, it goes on.
        core.parent.weather(Weather::default());
        let again = loop {
            match core.island.spawn(append(core.clone(), 5)).await.unwrap() {
                Ok(receipt) => break receipt,
                Err(LedgerError::Unavailable) => {}
                Err(error) => panic!("{error}"),
            }
        };
        let record = core.end(writing).await;
        stop.set(true);
        ticking.await.unwrap();
        let _ = record.holds(&again);
    });
}

#[test]
fn a_disk_without_room_tells_nobody_and_loses_nothing() {
    play("a full disk", 500, || async {
        let (core, _authority, writing) = Core::start(64).await;
        let stop = Rc::new(Cell::new(false));
        let ticking = shuttle::future::spawn_local(clock(Rc::clone(&stop)));
        core.parent.weather(Weather { full: true, ..Weather::default() });
        let appending: Vec<_> = (0..3).map(|number| core.island.spawn(append(core.clone(), number))).collect();
        for task in appending {
            assert!(matches!(task.await.unwrap(), Err(LedgerError::Unavailable)));
        }
        let placed = core.ledger().placed_size();
        assert!(core.parent.durable().is_none());
        core.parent.weather(Weather::default());
        let record = core.end(writing).await;
        stop.set(true);
        ticking.await.unwrap();
        assert_eq!(record.events.len() as u64, placed);
    });
}

#[test]
fn a_parent_that_forgot_what_it_acknowledged_ends_the_writer_and_every_wait() {
    play("a parent that forgets", 500, || async {
        let (core, _authority, writing) = Core::start(64).await;
        core.island.spawn(append(core.clone(), 0)).await.unwrap().unwrap();
        let stop = Rc::new(Cell::new(false));
        let ticking = shuttle::future::spawn_local(clock(Rc::clone(&stop)));
        core.parent.weather(Weather { forgetful: true, ..Weather::default() });
        let parent = Parent::of_this_play();
        // Where so much time passes that the writer connects anew, it finds out by itself.
        while !writing.is_finished() && core.island.spawn(append_unseen(core.clone(), 1)).await.unwrap().is_err() {}
        let later: Vec<_> = (2..4).map(|number| core.island.spawn(append_unseen(core.clone(), number))).collect();
        parent.weather(Weather::default());
        parent.disconnect();
        assert_eq!(writing.await.unwrap(), Err(LedgerFatal::StoreWentBack));
        for task in later {
            let _ = task.await.unwrap();
        }
        assert_eq!(append_unseen(core.clone(), 9).await, Err(LedgerError::Unavailable), "nothing more is recorded");
        stop.set(true);
        ticking.await.unwrap();
        core.island.kill();
    });
}

async fn append_unseen(core: Core, number: usize) -> Result<(), LedgerError> {
    core.ledger().record(event(number).into()).await?.persisted().await.map(drop)
}
