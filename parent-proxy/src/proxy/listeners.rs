use transport::{BindError, Endpoint, Listener};

use super::Addresses;
use crate::config::Config;

/// Everything that the proxy listens on.
pub(super) struct Listeners {
    pub(super) relay: Vec<Listener>,
    pub(super) egress: Option<Listener>,
    pub(super) host: Option<Listener>,
    pub(super) admin: Option<Listener>,
}

impl Listeners {
    /// Binds all or none.
    pub(super) async fn bind(config: &Config) -> Result<(Self, Addresses), BindError> {
        let mut relay = Vec::new();
        for endpoint in config.relay.iter().flat_map(|relay| &relay.listen) {
            relay.push(endpoint.bind().await?);
        }
        let egress = bind(config.egress.as_ref().map(|egress| &egress.listen)).await?;
        let host = bind(config.host.as_ref().map(|host| &host.listen)).await?;
        let admin = bind(config.admin.as_ref().map(|admin| &admin.listen)).await?;
        let address = |listener: &Option<Listener>| listener.as_ref().map(|listener| listener.endpoint().clone());
        let addresses = Addresses {
            relay: relay.iter().map(|listener| listener.endpoint().clone()).collect(),
            egress: address(&egress),
            host: address(&host),
            admin: address(&admin),
        };
        Ok((Self { relay, egress, host, admin }, addresses))
    }
}

async fn bind(endpoint: Option<&Endpoint>) -> Result<Option<Listener>, BindError> {
    match endpoint {
        Some(endpoint) => endpoint.bind().await.map(Some),
        None => Ok(None),
    }
}
