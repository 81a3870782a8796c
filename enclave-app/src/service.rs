//! The HTTP API inside attested TLS.
//!
//! | module | what it is |
//! |---|---|
//! | [`tls`] | the channel: TLS 1.3, a certificate key made at boot, client certificates where they are shown |
//! | `caller` | who is calling: the principal of the client certificate |
//! | `attested` | callers that are enclaves themselves answer a challenge |
//! | `failure` | refusals: the answer, the record, the request id |
//! | `evidence` | attestation, checkpoint, consistency, status, policy |
//! | `reading` | the durable events, page by page, and where they are in the tree |
//! | `keys`, `batch` | making, listing, rotating, changing keys, one or several |
//! | `once` | requests that may be sent again |
//! | `data_keys` | data keys for clients that work on their own cores |
//! | `log` | snapshots, legal holds, pruning |
//! | `memory`, `unproven` | what requests and strangers may take |
//! | `media` | media keys for packagers that encrypt by themselves |
//! | `reports` | work that transcoders report |
//! | `content`, `transfer` | encryption and decryption as streams |

mod attested;
mod batch;
mod caller;
mod content;
mod data_keys;
mod evidence;
mod failure;
mod keys;
mod log;
mod media;
mod memory;
mod once;
#[cfg(test)]
mod openapi;
mod rate;
mod reading;
mod reports;
mod shared;
pub mod tls;
mod transfer;
mod unproven;

use std::{sync::Arc, time::Duration};

use axum::{
    Router, middleware,
    routing::{get, post, put},
};
use hyper::{
    Request,
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    attestation::{CALLER_EXPORTER, TrustRoot},
    protocol::{api, metrics::Metric},
    signature::SigningKey,
    time::Timestamp,
};
use transport::{Drained, Listener, Stream};

use crate::{
    archive::Archive,
    callers::CallerSession,
    custody::{Change, Custody},
    entropy::EnclaveEntropy,
    grants::Grants,
    host::CurrentLink,
    ledger::RefusalMeter,
    metrics::Metrics,
};
use caller::Caller;
use failure::Failure;
use rate::Rate;
use tls::Channel;
use unproven::Unproven;

/// Time for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for the head of a request.
const REQUEST_HEAD: Duration = Duration::from_secs(15);
/// Largest head of a request, and piece of a body, in bytes.
const BUFFER: usize = 64 * 1024;
/// The same for whoever shows no certificate: the least that HTTP needs.
const STRANGER_BUFFER: usize = 8 * 1024;
/// How long a connection without a certificate may last.
const STRANGER_TIME: Duration = Duration::from_secs(30);
/// One connection in so many may be without a certificate.
const STRANGERS: usize = 8;
/// One connection in so many may be in its handshake.
const HANDSHAKES: usize = 2;
/// Reads of the log for clients at the same time. Each keeps one request to the parent under way.
pub const LOG_READS: usize = 2;
/// How long connections may go on after shutdown began.
const DRAIN: Duration = Duration::from_secs(10);

/// Everything that a request can reach.
pub struct Service {
    /// The keys and the log.
    pub custody: Arc<Custody>,
    /// The policy in force.
    pub grants: Arc<Grants>,
    /// Counted refusals.
    pub refusals: Arc<RefusalMeter>,
    /// Snapshots, legal holds, pruning.
    pub archive: Arc<Archive>,
    /// The parent.
    pub link: CurrentLink,
    /// Signs checkpoints.
    pub log_key: Arc<SigningKey>,
    /// Signs checkpoints too.
    pub epoch_key: Arc<SigningKey>,
    /// Randomness.
    pub entropy: Arc<EnclaveEntropy>,
    /// The channel.
    pub channel: Channel,
    /// The enclave, as the NSM names it.
    pub enclave_id: String,
    /// When the epoch was opened.
    pub booted_at: Timestamp,
    /// Attestation documents for strangers that want one each, all together.
    pub attestation_rate: Rate,
    /// The same for whoever shows a certificate: no stranger can use it up.
    pub known_attestation_rate: Rate,
    /// The root that documents of callers must lead to: the one of our own.
    pub attestation_root: TrustRoot,
    /// Documents for clients that share them.
    pub shared_documents: SharedDocuments,
    /// Documents of callers, all together.
    pub caller_rate: Rate,
    /// Requests with an idempotency key that are being answered.
    pub turns: Turns,
    /// How long a request waits for its event to be durable.
    pub audit_wait: Duration,
    /// Reads of the log on behalf of clients, at the same time.
    pub log_reads: Semaphore,
    /// Client connections at the same time.
    pub connections: usize,
    /// What requests keep in memory.
    pub memory: RequestMemory,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

pub use {
    memory::{BODY_MEMORY, RequestMemory, STREAM_MEMORY},
    once::Turns,
    rate::Rate as RequestRate,
    shared::SharedDocuments,
};

/// Serves clients until `shutdown`, then drains.
pub async fn serve(service: Arc<Service>, listener: Listener, shutdown: CancellationToken) -> Drained {
    let acceptor = TlsAcceptor::from(Arc::clone(&service.channel.config));
    let router = router(Arc::clone(&service));
    let limits = transport::Limits::new(service.connections, DRAIN);
    let crowd = Crowd {
        handshakes: Unproven::new(service.connections / HANDSHAKES),
        strangers: Unproven::new(service.connections / STRANGERS),
    };
    let metrics = Arc::clone(&service.metrics);
    transport::serve(listener, limits, shutdown.clone(), move |stream| {
        connection(stream, acceptor.clone(), router.clone(), crowd.clone(), Arc::clone(&metrics), shutdown.clone())
    })
    .await
}

/// Connections that nobody has proven anything on. Where there are too many, the oldest goes.
#[derive(Clone)]
struct Crowd {
    handshakes: Arc<Unproven>,
    strangers: Arc<Unproven>,
}

async fn connection(
    stream: Stream,
    acceptor: TlsAcceptor,
    router: Router,
    crowd: Crowd,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) {
    let beginning = crowd.handshakes.enter();
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)) => handshake,
        () = beginning.given_up() => return metrics.count(Metric::StrangersRefused, &[]),
    };
    drop(beginning);
    let tls = match handshake {
        Ok(Ok(tls)) => tls,
        failed => {
            metrics.count(Metric::HandshakesFailed, &[]);
            return match failed {
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                _ => tracing::debug!("TLS handshake took too long"),
            };
        }
    };
    let certificates = tls.get_ref().1.peer_certificates();
    let exporter = tls.get_ref().1.export_keying_material([0; 32], CALLER_EXPORTER, None).ok();
    let caller = caller::Peer::of(certificates.and_then(<[_]>::first), CallerSession::new(exporter));
    // Whoever shows no certificate gets what it takes to attest us, and no more: of places, of time, of memory.
    let stranger = caller.principal().is_none();
    let place = stranger.then(|| crowd.strangers.enter());
    let given_up = async {
        match &place {
            Some(place) => place.given_up().await,
            None => std::future::pending().await,
        }
    };
    let certificate = if stranger { "none" } else { "shown" };
    metrics.count(Metric::Connections, &[certificate]);
    let _open = metrics.hold(Metric::ConnectionsOpen, certificate);
    // The router is shared; what is known of the peer goes with each request.
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        router.call(request)
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST_HEAD);
    http.max_buf_size(if stranger { STRANGER_BUFFER } else { BUFFER });
    let connection = http.serve_connection(TokioIo::new(tls), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tokio::time::sleep(STRANGER_TIME), if stranger => return,
        () = given_up => return metrics.count(Metric::StrangersRefused, &[]),
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

fn router(service: Arc<Service>) -> Router {
    routes().layer(middleware::from_fn_with_state(Arc::clone(&service), failure::finish)).with_state(service)
}

fn routes() -> Router<Arc<Service>> {
    let key = format!("{}/{{id}}", api::KEYS);
    let change = |change| {
        post(move |state, caller, id, repeatable, body| keys::change_whole(change, state, caller, id, repeatable, body))
    };
    Router::new()
        .route(api::ATTESTATION, get(evidence::attestation))
        .route(api::CHECKPOINT, get(evidence::checkpoint))
        .route(api::CONSISTENCY, get(evidence::consistency))
        .route(api::INCLUSION, get(reading::inclusion))
        .route(api::RECEIPT, get(reading::receipt))
        .route(api::LOG, get(reading::page))
        .route(api::STATUS, get(evidence::status))
        .route(api::POLICY, put(evidence::policy))
        .route(api::SNAPSHOT, post(log::snapshot))
        .route(api::PRUNE, post(log::prune))
        .route(api::HOLDS, get(log::holds).post(log::place_hold))
        .route(api::LIFT_HOLD, post(log::lift_hold))
        .route(api::KEYS, get(keys::list).post(keys::create))
        .route(&key, get(keys::show))
        .route(&format!("{key}/rotate"), post(keys::rotate))
        .route(&format!("{key}/revoke"), change(Change::Revoke))
        .route(&format!("{key}/suspend"), change(Change::Suspend))
        .route(&format!("{key}/resume"), change(Change::Resume))
        .route(&format!("{key}/destroy"), change(Change::Destroy))
        .route(&format!("{key}/versions/{{version}}/destroy"), post(keys::destroy_version))
        .route(&format!("{key}/decrypt-from"), post(keys::decrypt_from))
        .route(api::CALLER_CHALLENGE, post(attested::challenge))
        .route(api::CALLER, put(attested::attest))
        .route(api::BATCH, post(batch::batch))
        .route(&format!("{key}/encrypt"), post(content::encrypt))
        .route(&format!("{key}/data-keys"), post(data_keys::issue))
        .route(&format!("{}/{{content}}/report", api::CONTENT), post(reports::report))
        .route(api::UNWRAP_DATA_KEYS, post(data_keys::unwrap))
        .route(&format!("{key}/media-keys/{{content}}/{{period}}"), get(media::derive).post(media::derive))
        .route(api::DECRYPT, post(content::decrypt))
        .route(api::REWRAP, post(content::rewrap))
        .fallback(failure::no_such_route)
        .method_not_allowed_fallback(failure::no_such_route)
}

#[cfg(test)]
mod tests {
    use transcode_confidential::protocol::metrics::CATALOGUE;

    use super::*;

    #[test]
    fn every_route_has_figures_of_its_own() {
        // The router has no list of its routes but this one.
        let text = format!("{:?}", routes());
        let paths: Vec<&str> = text.split('"').filter(|part| part.starts_with("/v1/")).collect();
        assert!(paths.len() >= 10 && paths.contains(&api::STATUS), "{text}");
        let known = CATALOGUE[Metric::RequestSeconds as usize].labels[0].values;
        for path in paths {
            let named = known.iter().any(|route| route.split(' ').nth(1) == Some(path));
            assert!(named, "{path} is missing among the routes in protocol/metrics/catalogue.rs");
        }
    }
}
