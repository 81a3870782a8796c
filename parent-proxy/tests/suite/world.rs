//! A running proxy with an echoing enclave behind it, on sockets of its own.

use std::{path::Path, sync::Arc};

use parent_proxy::{Dependencies, Proxy, config::Config, start};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;
use transport::{Endpoint, Limits, Stream, serve};

use crate::enclave::SOON;

pub(crate) struct World {
    pub(crate) proxy: Option<Proxy>,
    pub(crate) directory: TempDir,
    pub(crate) shutdown: CancellationToken,
}

impl World {
    /// Starts a proxy; `$DIR` in the configuration is the world's directory, and `enclave` is given.
    pub(crate) async fn start(config: &str) -> Self {
        Self::with(config, Dependencies::system()).await
    }

    pub(crate) async fn with(config: &str, dependencies: Dependencies) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let config = parse(config, directory.path());
        let proxy = start(config, dependencies, shutdown.clone()).await.unwrap();
        Self { proxy: Some(proxy), directory, shutdown }
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().unwrap()
    }

    pub(crate) fn relay(&self) -> Endpoint {
        self.proxy().addresses().relay[0].clone()
    }

    pub(crate) fn host(&self) -> Endpoint {
        self.proxy().addresses().host.clone().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Stops the proxy and starts another one on the same directory.
    pub(crate) async fn restart(&mut self, config: &str) {
        self.stop().await;
        self.shutdown = CancellationToken::new();
        let config = parse(config, self.directory.path());
        self.proxy = Some(start(config, Dependencies::system(), self.shutdown.clone()).await.unwrap());
    }

    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        self.proxy.take().unwrap().drained().await;
    }
}

pub(crate) fn parse(config: &str, directory: &Path) -> Config {
    let config = format!("enclave = \"unix:$DIR/enclave\"\ndrain = \"300ms\"\n{config}");
    Config::parse(&config.replace("$DIR", directory.to_str().unwrap()), "test").unwrap()
}

/// Serves connections that send back what they get, half-close included.
pub(crate) async fn echo(endpoint: &Endpoint) -> Endpoint {
    served(endpoint, |mut stream: Stream| async move {
        let mut buffer = vec![0; 65536];
        loop {
            match tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            }
        }
        let _ = stream.shutdown().await;
    })
    .await
}

/// Serves connections until the test's runtime ends.
pub(crate) async fn served<H, F>(endpoint: &Endpoint, handler: H) -> Endpoint
where
    H: Fn(Stream) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = endpoint.bind().await.unwrap();
    let bound = listener.endpoint().clone();
    let handler = Arc::new(handler);
    tokio::spawn(serve(listener, Limits::new(20_000, SOON), CancellationToken::new(), move |stream| handler(stream)));
    bound
}

pub(crate) fn unix(path: std::path::PathBuf) -> Endpoint {
    Endpoint::Unix(path)
}
