//! Input without measure: to every route, in every place that an input has, and to every parser; and floods of what is refused.

use std::time::Duration;

use testkit::world::{OPERATOR, RawTls, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use transcode_confidential::audit::{AuditEventType, EventBody};
use transport::Endpoint;

/// Every operation of the API: method, path with its parameters filled in, and whether it takes a body.
fn routes() -> Vec<(String, String, bool)> {
    let file: serde_json::Value = serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
    let mut routes = Vec::new();
    for (path, item) in file["paths"].as_object().unwrap() {
        let mut path = path.clone();
        for (parameter, value) in
            [("{id}", "content-key-9"), ("{version}", "1"), ("{content}", "film"), ("{period}", "1")]
        {
            path = path.replace(parameter, value);
        }
        assert!(!path.contains('{'), "{path}");
        for (method, operation) in item.as_object().unwrap() {
            routes.push((method.to_uppercase(), path.clone(), operation["requestBody"].is_object()));
        }
    }
    assert!(routes.len() > 25);
    routes
}

/// The status of what comes back; `None` where the connection just ends.
async fn status(tls: &RawTls, server: &Endpoint, request: &[u8]) -> Option<u16> {
    let mut stream = tls.connect(server).await.unwrap();
    let (mut answers, mut requests) = tokio::io::split(&mut stream);
    // Whoever refuses a request need not read all of it.
    let sending = async {
        let _ = requests.write_all(request).await;
        let _ = requests.flush().await;
        std::future::pending::<()>().await;
    };
    let mut answer = [0; 64];
    let mut read = 0;
    let reading = async {
        while read < 12 {
            match answers.read(&mut answer[read..]).await {
                Ok(count) if count > 0 => read += count,
                _ => return None,
            }
        }
        std::str::from_utf8(&answer[9..12]).unwrap().parse().ok()
    };
    tokio::select! {
        status = tokio::time::timeout(Duration::from_secs(120), reading) => status.expect("it hangs"),
        () = sending => unreachable!("it waits for ever"),
    }
}

fn request(method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn nested(open: &str, close: &str, depth: usize) -> Vec<u8> {
    format!("{}{}", open.repeat(depth), close.repeat(depth)).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_takes_more_than_its_measure_or_more_than_so_deep() {
    let world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let tls = world.raw_tls(Some(OPERATOR));
    let (server, long) = (world.server(), "x".repeat(300_000));
    let cbor = {
        let mut deep = vec![0x81; 20_000];
        deep.push(0);
        deep
    };
    let bodies: [(&str, Vec<u8>); 7] = [
        ("deep JSON lists", nested("[", "]", 20_000)),
        ("deep JSON objects", nested("{\"a\":", "}", 10_000)),
        ("a JSON list where an object is needed", b"[{}]".to_vec()),
        ("a long JSON string", format!("{{\"id\":\"{long}\"}}").into_bytes()),
        ("deep CBOR", cbor),
        ("one byte more than any body may have", vec![b' '; 300_000]),
        ("a number beyond all numbers", format!("{{\"max_uses\":{}}}", "9".repeat(10_000)).into_bytes()),
    ];
    let mut cases = 0;
    for (method, path, takes_body) in routes() {
        let mut requests = vec![
            ("a long query", request(&method, &format!("{path}?{long}"), "", b"")),
            ("a long path", request(&method, &format!("{path}/{long}"), "", b"")),
            ("a long header", request(&method, &path, &format!("x-long: {long}\r\n"), b"")),
            ("many headers", request(&method, &path, &"x: y\r\n".repeat(5000), b"")),
            ("a query with a thousand parts", request(&method, &format!("{path}?{}", "a=b&".repeat(1000)), "", b"")),
        ];
        if takes_body {
            requests.extend(bodies.iter().map(|(what, body)| (*what, request(&method, &path, "", body))));
        }
        for (what, request) in requests {
            let found = status(&tls, &server, &request).await;
            // What looks at neither query nor unknown headers need not mind them.
            let harmless = !takes_body && what == "a query with a thousand parts" && found == Some(200);
            let refused = found.is_none_or(|status| (400..500).contains(&status));
            assert!(refused || harmless, "{method} {path}, {what}: {found:?}");
            cases += 1;
        }
    }
    println!("{cases} requests beyond measure, all refused by their kind");
    let message = operator.encrypt("content-key-1", b"frame").await.unwrap();
    assert_eq!(operator.decrypt(&message).await.unwrap(), b"frame");
    world.check().intact();
}

#[test]
fn no_parser_follows_an_input_into_its_depth() {
    use testkit::fuzzing::{TARGETS, run};
    // Half the stack that threads have: who recurses with the input does not survive this.
    let deep = std::thread::Builder::new().stack_size(1024 * 1024).spawn(|| {
        let mut cases = 0;
        let shapes: [(&[u8], &[u8]); 9] = [
            (b"[", b"]"),
            (b"{\"a\":", b"}"),
            (&[0x81], &[]),
            (&[0x9f], &[0xff]),
            (&[0xa1, 0x00], &[]),
            (&[0xbf, 0x00], &[0xff]),
            (&[0xd2], &[]),
            // DER and BER.
            (&[0x30, 0x80], &[0, 0]),
            (&[0x24, 0x80], &[0, 0]),
        ];
        for target in TARGETS {
            for (open, close) in shapes {
                for lead in 0..4_u8 {
                    // As long as the longest input that all of them take.
                    let depth = 30_000 / open.len();
                    run(target.name, &[&[lead][..], &open.repeat(depth), &close.repeat(depth)].concat());
                    run(target.name, &[open.repeat(depth), close.repeat(depth)].concat());
                    cases += 2;
                }
            }
        }
        println!("{cases} deep inputs to {} parsers", TARGETS.len());
    });
    deep.unwrap().join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_of_every_kind_is_counted_and_fills_no_disk() {
    const EACH: usize = 400;
    let mut world = World::start().await;
    world.operator().generate("content-key-1").await.unwrap();
    let before = world.segments().values().map(Vec::len).sum::<usize>();
    let server = world.server();
    let floods: [(Option<&str>, Vec<u8>, u16); 4] = [
        (None, request("GET", "/v1/status", "", b""), 401),
        (Some("stranger"), request("GET", "/v1/keys/content-key-1", "", b""), 403),
        (Some(OPERATOR), request("POST", "/v1/keys", "", b"{"), 400),
        (Some(OPERATOR), request("POST", "/v1/decrypt", "", b"no message"), 400),
    ];
    for (identity, request, expected) in &floods {
        let tls = world.raw_tls(*identity);
        // One connection for many, as whoever floods would do.
        let mut stream = tls.connect(&server).await.unwrap();
        let kept = String::from_utf8(request.clone()).unwrap().replace("connection: close\r\n", "");
        let mut sent = 0;
        while sent < EACH {
            if stream.write_all(kept.as_bytes()).await.is_err() {
                stream = tls.connect(&server).await.unwrap();
                continue;
            }
            let mut answer = vec![0; 4096];
            let count = stream.read(&mut answer).await.unwrap_or(0);
            if count < 12 {
                stream = tls.connect(&server).await.unwrap();
                continue;
            }
            assert_eq!(&answer[9..12], expected.to_string().as_bytes());
            sent += 1;
        }
    }
    world.stop_enclave().await.unwrap();
    let checked = world.check().intact();
    let refused = checked.events.iter().filter_map(|event| match event.body {
        Some(EventBody::Refused { count, .. }) => Some(count),
        _ => None,
    });
    let counts: Vec<u64> = refused.collect();
    let grown = world.segments().values().map(Vec::len).sum::<usize>() - before;
    let all = floods.len() * EACH;
    println!("{all} refusals, {} events, {grown} bytes of log", counts.len());
    assert_eq!(counts.iter().sum::<u64>() as usize, all, "each is counted");
    assert!(counts.len() < 100 && grown < 100_000, "{} events, {grown} bytes", counts.len());
    assert!(!checked.of_type(AuditEventType::UnauthorizedAccess).is_empty());
}
