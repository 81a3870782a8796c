use std::{io, time::Duration};

use thiserror::Error;
use tokio::{net::lookup_host, time::timeout};
use transport::{ConnectError, Endpoint, Stream};

use crate::config::Target;

/// Most addresses that are tried.
const ADDRESSES: usize = 16;

/// Why a target could not be reached.
#[derive(Debug, Error)]
pub(super) enum DialError {
    #[error("the name does not resolve: {0}")]
    Name(io::Error),
    #[error("the name does not resolve in time")]
    NameTimedOut,
    #[error("the name has no address")]
    NoAddress,
    #[error("none of {tried} addresses answered, the last: {last}")]
    Address { tried: usize, last: ConnectError },
    #[error(transparent)]
    Override(ConnectError),
}

/// Connects to a target. The name is resolved anew each time, and each of its addresses is given `patience`.
pub(super) async fn dial(target: &Target, instead: Option<&Endpoint>, patience: Duration) -> Result<Stream, DialError> {
    if let Some(endpoint) = instead {
        return endpoint.connect(patience).await.map_err(DialError::Override);
    }
    let found = timeout(patience, lookup_host((target.host.as_str(), target.port))).await;
    let addresses = found.map_err(|_| DialError::NameTimedOut)?.map_err(DialError::Name)?;
    let endpoints = addresses.map(|address| Endpoint::Tcp { host: address.ip().to_string(), port: address.port() });
    first_that_answers(endpoints, patience).await
}

async fn first_that_answers(
    endpoints: impl Iterator<Item = Endpoint>,
    patience: Duration,
) -> Result<Stream, DialError> {
    let mut failed = None;
    for (before, endpoint) in endpoints.take(ADDRESSES).enumerate() {
        match endpoint.connect(patience).await {
            Ok(stream) => return Ok(stream),
            Err(last) => failed = Some((before + 1, last)),
        }
    }
    Err(failed.map_or(DialError::NoAddress, |(tried, last)| DialError::Address { tried, last }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(2);

    async fn free_and_taken() -> (Endpoint, transport::Listener) {
        let loopback = Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 };
        let free = loopback.bind().await.unwrap().endpoint().clone();
        (free, loopback.bind().await.unwrap())
    }

    #[tokio::test]
    async fn every_address_is_tried_until_one_answers() {
        let (dead, alive) = free_and_taken().await;
        let addresses = [dead.clone(), dead.clone(), alive.endpoint().clone()];
        assert!(first_that_answers(addresses.into_iter(), SOON).await.is_ok());
        let none = first_that_answers([dead.clone(), dead].into_iter(), SOON).await;
        assert!(matches!(none, Err(DialError::Address { tried: 2, .. })), "{none:?}");
        assert!(matches!(first_that_answers(std::iter::empty(), SOON).await, Err(DialError::NoAddress)));
    }

    #[tokio::test]
    async fn an_override_leads_elsewhere_and_a_name_to_where_it_resolves() {
        let (_, alive) = free_and_taken().await;
        let target: Target = "kms.example.invalid:443".parse().unwrap();
        assert!(dial(&target, Some(alive.endpoint()), SOON).await.is_ok());
        assert!(matches!(dial(&target, None, SOON).await, Err(DialError::Name(_) | DialError::NameTimedOut)));
        let Endpoint::Tcp { port, .. } = alive.endpoint() else { panic!("not TCP") };
        assert!(dial(&Target { host: "localhost".into(), port: *port }, None, SOON).await.is_ok());
    }
}
