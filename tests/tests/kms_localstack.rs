//! The KMS client against a KMS that we did not write: LocalStack, started by `tests/peers/localstack`, which sets
//! `CONFIDENTIAL_LOCALSTACK` to its address. It honours `Recipient` on `Decrypt` and leaks plaintext elsewhere.
//!
//! LocalStack stands behind a TLS front of ours, because it has no certificate for the name of KMS. It seals with Python's
//! cryptography package and names the recipient by an invented issuer, where AWS names it by the hash of its key; the front
//! rewrites that one field, so that what is decrypted is theirs, and the refusal of theirs as it stands is tested too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that fails should fail loudly; one that is skipped says so, and is told by the environment"
)]

use std::{net::SocketAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cms::{
    content_info::ContentInfo,
    enveloped_data::{EnvelopedData, RecipientInfo},
};
use der::Decode;
use enclave_app::{
    kms::{KmsClient, KmsConfig, KmsError, KmsLimits, WrapContext},
    nsm::NsmHandle,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use testkit::{
    kms::{
        CountingDialer, IssuedCredentials, MockCredentials,
        authority::Authority,
        ber::{ContentShape, Parts},
    },
    nsm::{MockHypervisor, MockImage},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use transcode_confidential::{
    attestation::UnverifiedDocument,
    ids::{KeyVersion, LogId},
    time::SystemClock,
};

/// Whether the front gives replies the shape of AWS or lets them pass.
#[derive(Clone, Copy, PartialEq)]
enum Front {
    AsAws,
    AsItStands,
}

struct Peer {
    address: SocketAddr,
    key: String,
}

impl Peer {
    /// `None` where there is none.
    async fn find() -> Option<Self> {
        let Ok(address) = std::env::var("CONFIDENTIAL_LOCALSTACK") else {
            eprintln!("skipped: CONFIDENTIAL_LOCALSTACK is not set");
            return None;
        };
        let mut peer = Self { address: address.parse().unwrap(), key: String::new() };
        let made = peer.call("CreateKey", &json!({})).await;
        peer.key = made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
        Some(peer)
    }

    /// A call without a recipient, by no client of ours.
    async fn call(&self, operation: &str, body: &Value) -> Value {
        let scope = "Credential=test/20260101/eu-west-1/kms/aws4_request, SignedHeaders=host, Signature=none";
        let request = Request::post("/")
            .header("host", "kms.eu-west-1.amazonaws.com")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("TrentService.{operation}"))
            .header("authorization", format!("AWS4-HMAC-SHA256 {scope}"))
            .body(Full::new(Bytes::from(body.to_string())));
        let (status, reply) = forward(self.address, request.unwrap()).await;
        assert_eq!(status, 200, "{operation}: {}", String::from_utf8_lossy(&reply));
        serde_json::from_slice(&reply).unwrap()
    }

    /// A key that it made and told in the clear, and its wrapped form.
    async fn data_key(&self, context: &WrapContext) -> (Vec<u8>, Vec<u8>) {
        let request = json!({ "KeyId": self.key, "KeySpec": "AES_256", "EncryptionContext": context.pairs() });
        let made = self.call("GenerateDataKey", &request).await;
        let field = |name: &str| STANDARD.decode(made[name].as_str().unwrap()).unwrap();
        (field("Plaintext"), field("CiphertextBlob"))
    }

    /// The enclave's client, in front of it.
    async fn client(&self, front: Front) -> KmsClient {
        let authority = Authority::generate();
        let tls = TlsAcceptor::from(authority.server_config("kms.eu-west-1.amazonaws.com", 2020..2120));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, tls, self.address, front));
        let clock = Arc::new(SystemClock);
        let nsm = MockHypervisor::new(clock.clone()).launch(&MockImage::named("ours"));
        let credentials = IssuedCredentials {
            access_key_id: "test".to_owned(),
            secret_access_key: "test".to_owned(),
            session_token: "test".to_owned(),
            lifetime: std::time::Duration::from_secs(3600),
        };
        let config = KmsConfig {
            key: self.key.parse().unwrap(),
            roots: authority.roots(),
            dialer: Arc::new(CountingDialer::new(address)),
            credentials: Arc::new(MockCredentials::holding(credentials)),
            clock,
            documents: Arc::new(NsmHandle::start(nsm).unwrap()),
            limits: KmsLimits { total: std::time::Duration::from_secs(60), ..KmsLimits::default() },
        };
        KmsClient::new(config).unwrap()
    }
}

fn context(version: u32) -> WrapContext {
    WrapContext::content_key(LogId::new([7; 16]), "content-key-1".parse().unwrap(), KeyVersion(version))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_wrapped_and_sealed_opens_and_only_in_its_context() {
    let Some(peer) = Peer::find().await else { return };
    let client = peer.client(Front::AsAws).await;
    let (plaintext, wrapped) = peer.data_key(&context(1)).await;
    assert_eq!(client.decrypt(&wrapped, &context(1)).await.unwrap().expose().as_slice(), plaintext);
    assert_eq!(client.decrypt(&wrapped, &context(2)).await.unwrap_err(), KmsError::WrappedKeyRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_in_which_it_leaks_plaintext_is_refused() {
    let Some(peer) = Peer::find().await else { return };
    let client = peer.client(Front::AsAws).await;
    assert_eq!(client.generate_data_key(&context(1)).await.unwrap_err(), KmsError::PlaintextReply);
    assert_eq!(client.generate_random(32).await.unwrap_err(), KmsError::PlaintextReply);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_is_not_named_by_our_key_is_refused() {
    let Some(peer) = Peer::find().await else { return };
    let client = peer.client(Front::AsItStands).await;
    let (_, wrapped) = peer.data_key(&context(1)).await;
    assert_eq!(client.decrypt(&wrapped, &context(1)).await.unwrap_err().cause(), "envelope");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_errors_have_their_causes() {
    let Some(peer) = Peer::find().await else { return };
    let client = peer.client(Front::AsAws).await;
    let (_, wrapped) = peer.data_key(&context(1)).await;
    peer.call("DisableKey", &json!({ "KeyId": peer.key })).await;
    assert_eq!(client.decrypt(&wrapped, &context(1)).await.unwrap_err().cause(), "key-unusable");
    peer.call("ScheduleKeyDeletion", &json!({ "KeyId": peer.key, "PendingWindowInDays": 7 })).await;
    assert_eq!(client.decrypt(&wrapped, &context(1)).await.unwrap_err().cause(), "key-unusable");
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, peer: SocketAddr, front: Front) {
    while let Ok((stream, _)) = listener.accept().await {
        let tls = tls.clone();
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let relay = service_fn(move |request| relay(request, peer, front));
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), relay).await);
        });
    }
}

async fn relay(request: Request<Incoming>, peer: SocketAddr, front: Front) -> http::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let (status, mut reply) = forward(peer, Request::from_parts(head, Full::new(body.clone()))).await;
    if front == Front::AsAws {
        reply = as_aws(&body, &reply).unwrap_or(reply);
    }
    Response::builder().status(status).header("content-type", "application/x-amz-json-1.1").body(Full::new(reply))
}

async fn forward(peer: SocketAddr, request: Request<Full<Bytes>>) -> (u16, Bytes) {
    let stream = TcpStream::connect(peer).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let reply = sender.send_request(request).await.unwrap();
    (reply.status().as_u16(), reply.into_body().collect().await.unwrap().to_bytes())
}

/// The same encrypted key, IV and ciphertext in an envelope of AWS's shape; `None` where nothing is sealed.
fn as_aws(request: &[u8], reply: &[u8]) -> Option<Bytes> {
    let request: Value = serde_json::from_slice(request).ok()?;
    let mut reply: Value = serde_json::from_slice(reply).ok()?;
    let sealed = STANDARD.decode(reply.get("CiphertextForRecipient")?.as_str()?).ok()?;
    let document = STANDARD.decode(request["Recipient"]["AttestationDocument"].as_str()?).ok()?;
    let document = UnverifiedDocument::parse(&document).ok()?;
    let outer = ContentInfo::from_ber(&sealed).ok()?;
    let inner: EnvelopedData = outer.content.decode_as_encoding(der::EncodingRules::Ber).ok()?;
    let [RecipientInfo::Ktri(recipient)] = inner.recip_infos.0.as_slice() else { return None };
    let iv = inner.encrypted_content.content_enc_alg.parameters.as_ref()?.value();
    let content = inner.encrypted_content.encrypted_content.as_ref()?.as_bytes();
    let public_key = document.unverified_claims().public_key()?;
    let parts = Parts::new(public_key, recipient.enc_key.as_bytes().to_vec(), iv, content);
    reply["CiphertextForRecipient"] = STANDARD.encode(parts.encode(ContentShape::Constructed)).into();
    Some(Bytes::from(reply.to_string()))
}
