use std::{convert::Infallible, io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Service,
    operation::{Answer, Delivery, answer},
    signature::http_date,
};

type Body = BoxBody<Bytes, io::Error>;

/// KMS takes requests of at most some 20 KiB.
const MAX_REQUEST: usize = 64 * 1024;

/// Listens on loopback. Connections end with the task.
pub(super) async fn start(service: Arc<Service>, tls: Arc<ServerConfig>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port");
    let address = listener.local_addr().expect("a bound address");
    let acceptor = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        for number in 1.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            connections.spawn(serve(service.clone(), TlsAcceptor::from(tls.clone()), stream, number));
            while connections.try_join_next().is_some() {}
        }
    });
    (address, acceptor)
}

/// A peer that breaks off is no concern of ours.
async fn serve(service: Arc<Service>, tls: TlsAcceptor, stream: TcpStream, number: usize) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let respond = service_fn(move |request| respond(service.clone(), number, request));
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), respond).await);
}

async fn respond(service: Arc<Service>, number: usize, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST).collect().await.map_err(io::Error::other)?.to_bytes();
    let Answer { status, body, delivery } = answer(&service, number, &head.headers, &body);
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.1")
        .header("content-length", body.len())
        .header("date", http_date(service.clock.now()));
    let whole = |body: Vec<u8>| Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {}).boxed();
    let body = match delivery {
        Delivery::Whole => whole(body),
        Delivery::After(wait) => {
            tokio::time::sleep(wait).await;
            whole(body)
        }
        Delivery::Half => {
            let half = Bytes::copy_from_slice(&body[..body.len() / 2]);
            let frames = [Ok(Frame::data(half)), Err(io::Error::other("half is enough"))];
            StreamBody::new(stream::iter(frames)).boxed()
        }
        Delivery::Never => return Err(io::Error::other("no answer")),
    };
    response.body(body).map_err(io::Error::other)
}
