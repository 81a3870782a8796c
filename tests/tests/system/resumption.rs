//! The enclave's end of TLS, asked by a client that would take less than ours does.

use rustls::{ClientConnection, HandshakeKind};
use testkit::world::{RawTls, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How the handshake went, after one request and its answer.
async fn ask(world: &World, client: &RawTls) -> std::io::Result<Option<HandshakeKind>> {
    let mut tls = client.connect(&world.server()).await?;
    tls.write_all(b"GET /v1/attestation HTTP/1.1\r\nhost: enclave\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    let connection: &ClientConnection = tls.get_ref().1;
    assert_eq!(connection.tls13_tickets_received(), 0);
    assert!(!connection.is_early_data_accepted());
    Ok(connection.handshake_kind())
}

#[tokio::test]
async fn no_connection_resumes_another_and_none_is_of_tls_1_2() {
    let world = World::start().await;
    let willing = RawTls::of_version(&rustls::version::TLS13);
    for _ in 0..3 {
        assert_eq!(ask(&world, &willing).await.unwrap(), Some(HandshakeKind::Full));
    }
    assert!(ask(&world, &RawTls::of_version(&rustls::version::TLS12)).await.is_err());
    world.check().intact();
}
