//! The clients of a world.

use std::time::Duration;

use client::{
    Client,
    log_memory::LogMemory,
    session::{Identity, Session, Settings},
};
use transcode_confidential::ids::LogId;
use transport::Endpoint;

use super::{Caller, OPERATOR, RunningGateway, TRANSCODER, World, parent::Parent, wires};

impl World {
    /// May do everything.
    pub fn operator(&self) -> Caller {
        self.caller(OPERATOR)
    }

    /// May encrypt and decrypt with `content-` keys.
    pub fn transcoder(&self) -> Caller {
        self.caller(TRANSCODER)
    }

    /// A client with the identity `name`, with whatever was remembered under that name before.
    pub fn caller(&self, name: &str) -> Caller {
        self.caller_with(name, |_| {}, None)
    }

    /// As [`World::caller`], with settings that differ, and a log that is accepted in place of a known one.
    pub fn caller_with(&self, name: &str, change: impl FnOnce(&mut Settings), accept: Option<LogId>) -> Caller {
        let identity = Identity::from_pem(self.ca.identity_pem(name).as_bytes()).expect("a good identity");
        let mut settings = Settings::new(self.hypervisor.trust_root(), self.accepted_images(), Some(identity));
        settings.timeouts.response = Duration::from_secs(60);
        change(&mut settings);
        let session = Session::new(self.server(), settings);
        Caller::new(Client::new(session, self.memory(name), accept), self.acknowledged.clone())
    }

    /// A gateway that works for the identity `name`, on loopback, with settings that differ.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn gateway(&self, name: &str, change: impl FnOnce(&mut client::gateway::Settings)) -> RunningGateway {
        RunningGateway::start(self.caller(name).client, change).await
    }

    /// Where clients connect to.
    pub fn server(&self) -> Endpoint {
        match &self.parent {
            Parent::Scripted(_) => self.config.parent.listen.clone(),
            _ => wires::end(self.dir.path(), "relay", self.wires.is_some()),
        }
    }

    /// What the clients of an identity remember.
    pub fn memory(&self, name: &str) -> LogMemory {
        LogMemory::new(self.dir.path().join("clients").join(name))
    }
}
