use transcode_confidential::{
    ids::Sequence,
    protocol::api::{self, HoldInfo, HoldList, HoldRequest, LogMaintained, PruneRequest},
};

use super::{Call, Client, answer};
use crate::error::ClientError;

impl Client {
    /// Has the whole state of the log written down: a boot can begin there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn snapshot_log(&self) -> Result<LogMaintained, ClientError> {
        self.maintain(Call::post(api::SNAPSHOT.into(), &serde_json::json!({}))?).await
    }

    /// Gives up events that a snapshot stands for and that the retention policy need not keep, none from `up_to` on.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] under a legal hold, and where there is nothing to give up; any other [`ClientError`].
    pub async fn prune_log(&self, up_to: Option<Sequence>) -> Result<LogMaintained, ClientError> {
        self.maintain(Call::post(api::PRUNE.into(), &PruneRequest { up_to })?).await
    }

    /// The legal holds in force.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn holds(&self) -> Result<Vec<HoldInfo>, ClientError> {
        self.call(Call::get(api::HOLDS.into())).await.map(|list: HoldList| list.holds)
    }

    /// Places a legal hold: nothing is pruned before it is lifted.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] where it is in force; any other [`ClientError`].
    pub async fn place_hold(&self, name: &str) -> Result<LogMaintained, ClientError> {
        self.maintain(Call::post(api::HOLDS.into(), &HoldRequest { name: name.to_owned() })?).await
    }

    /// Lifts a legal hold.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] where it is not in force; any other [`ClientError`].
    pub async fn lift_hold(&self, name: &str) -> Result<LogMaintained, ClientError> {
        self.maintain(Call::post(api::LIFT_HOLD.into(), &HoldRequest { name: name.to_owned() })?).await
    }

    /// It counts as done when its receipt verifies.
    async fn maintain(&self, call: Call) -> Result<LogMaintained, ClientError> {
        let (body, view) = self.exchange(&call).await?;
        let done: LogMaintained = answer::json(&body)?;
        self.keep_receipt(&view, &done.receipt.0).await?;
        Ok(done)
    }
}
