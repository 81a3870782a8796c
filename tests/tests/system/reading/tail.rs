//! `audit tail`, over whatever happens to the log meanwhile.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use testkit::world::World;
use transcode_confidential::audit::AuditEventType;

use super::written;
use crate::desk::Desk;

/// Takes what is printed until it is told to be gone, as `head` does.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<(Vec<u8>, bool)>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.0.lock().unwrap();
        if pipe.1 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        pipe.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pipe {
    async fn until(&self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let text = String::from_utf8_lossy(&self.0.lock().unwrap().0).into_owned();
            if wanted(&text) {
                return text;
            }
            assert!(tokio::time::Instant::now() < deadline, "it never comes: {text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_tail_follows_the_log_over_restarts_line_by_line_and_ends_when_nobody_reads() {
    let mut world = written().await;
    let desk = Desk::of(&world, "operator");
    let (code, out, err) = desk.say(&["audit", "tail", "-n", "3"]).await;
    assert_eq!((code, out.lines().count()), (0, 3), "{out}{err}");
    let pipe = Pipe::default();
    let args = desk.args(&["audit", "tail", "-f", "--json", "--type", "key-used", "-n", "0"]);
    let mut out = pipe.clone();
    let tailing = std::thread::spawn(move || client::cli::run_with(args, &mut out, &mut Vec::new()).code());
    let operator = world.operator();
    let use_it = async |count: usize| {
        for _ in 0..count {
            while operator.encrypt("content-key-1", b"frame").await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    // Until the tail has begun, what is used may be before its begin.
    while pipe.0.lock().unwrap().0.is_empty() {
        use_it(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.restart_enclave().await;
    use_it(2).await;
    let last = world.acknowledged.receipts().iter().map(|receipt| receipt.sequence.0).max().unwrap();
    let text = pipe.until(|text| text.contains(&format!("\"sequence\":{last},"))).await;
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let first = lines.next().unwrap();
    let begin = first["sequence"].as_u64().unwrap();
    let mut sequences = vec![begin];
    sequences.extend(lines.map(|event| event["sequence"].as_u64().unwrap()));
    let stored = world.check_until(|checked| checked.events.len() as u64 > last).await.events;
    let expected = stored
        .iter()
        .filter(|event| event.event_type == AuditEventType::KeyUsed && (begin..=last).contains(&event.sequence.0));
    assert_eq!(sequences, expected.map(|event| event.sequence.0).collect::<Vec<_>>(), "no gap, and nothing twice");
    pipe.0.lock().unwrap().1 = true;
    while !tailing.is_finished() {
        use_it(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(tailing.join().unwrap(), 0);
}

#[tokio::test]
async fn a_tail_goes_on_while_the_segments_that_it_reads_are_closed_and_packed() {
    let mut world = written().await;
    world.stop_proxy().await;
    let often = "[store]\nsegment_age = \"1s\"\npack_after = \"1s\"\n";
    world.configure_proxy(|text| text.replace("[store]\n", often));
    world.start_proxy().await;
    let desk = Desk::of(&world, "operator");
    let operator = world.operator();
    let pipe = Pipe::default();
    // From the first event on: what it reads at first is packed while it reads, and what it reads later had been written just now.
    let args = desk.args(&["audit", "tail", "-f", "--json", "--after", "0"]);
    let mut out = pipe.clone();
    let tailing = std::thread::spawn(move || client::cli::run_with(args, &mut out, &mut Vec::new()).code());
    let packed = |world: &World| {
        let entries = std::fs::read_dir(world.segments_dir()).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".seg.gz")).count()
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while packed(&world) < 4 {
        assert!(tokio::time::Instant::now() < deadline, "nothing is packed");
        // The enclave may not have found the proxy again yet.
        let _ = operator.encrypt("content-key-1", b"frame").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let last = world.acknowledged.receipts().iter().map(|receipt| receipt.sequence.0).max().unwrap();
    let text = pipe.until(|text| text.contains(&format!("\"sequence\":{last},"))).await;
    let sequences = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["sequence"].as_u64().unwrap());
    let sequences: Vec<u64> = sequences.take_while(|sequence| *sequence <= last).collect();
    assert_eq!(sequences, (1..=last).collect::<Vec<_>>(), "no gap, and nothing twice");
    pipe.0.lock().unwrap().1 = true;
    while !tailing.is_finished() {
        let _ = operator.encrypt("content-key-1", b"frame").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(tailing.join().unwrap(), 0);
}
