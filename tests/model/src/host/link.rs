use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use transcode_confidential::protocol::host::{Reply, Request, Welcome};
use transport::Endpoint;

use super::{
    HostFailure, Parent,
    parent::{Connection, Fate},
};
use crate::runtime::{
    sync::{mpsc, oneshot},
    task,
    time::timeout,
};

/// As in the enclave: how long the parent may take to answer anything.
const REPLY_PATIENCE: Duration = Duration::from_secs(20);
/// As in the enclave: requests that may wait to be written.
const QUEUE: usize = 64;

/// As [`enclave_app::host::HostLink`], without bytes in between.
pub struct HostLink {
    requests: mpsc::Sender<(Arc<Request>, oneshot::Sender<Reply>)>,
    closed: CancellationToken,
}

impl HostLink {
    /// Connects to the parent of this play.
    ///
    /// # Errors
    /// [`HostFailure`].
    pub async fn open(
        _endpoint: &Endpoint,
        session: [u8; 16],
        _timeout: Duration,
        _stop: &CancellationToken,
    ) -> Result<(Self, Welcome), HostFailure> {
        task::turn();
        let (connection, welcome) = Parent::of_this_play().greet(session)?;
        let (requests, queue) = mpsc::channel(QUEUE);
        let closed = CancellationToken::new();
        task::spawn(carry(connection, queue, closed.clone()));
        Ok((Self { requests, closed }, welcome))
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`HostFailure`].
    pub async fn call(&self, request: Request) -> Result<Reply, HostFailure> {
        let answer = self.send(request).await?;
        match timeout(REPLY_PATIENCE, answer).await {
            Ok(Ok(Reply::Failed(error))) => Err(error.into()),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(HostFailure::Ended),
            Err(_) => {
                self.closed.cancel();
                Err(HostFailure::TimedOut)
            }
        }
    }

    /// Asks; the answer comes later, and answers come in the order of the questions.
    ///
    /// # Errors
    /// [`HostFailure::Ended`].
    pub async fn send(&self, request: impl Into<Arc<Request>>) -> Result<oneshot::Receiver<Reply>, HostFailure> {
        task::turn();
        let (answer, receiver) = oneshot::channel();
        self.requests.send((request.into(), answer)).await.map_err(|_| HostFailure::Ended)?;
        Ok(receiver)
    }

    /// Ends when the connection does.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }
}

impl Drop for HostLink {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// Carries requests to the parent and answers back, until either side has enough.
async fn carry(
    connection: Connection,
    mut queue: mpsc::Receiver<(Arc<Request>, oneshot::Sender<Reply>)>,
    closed: CancellationToken,
) {
    let end = connection.end.clone();
    let _closed = closed.clone().drop_guard();
    let mut staged = Vec::new();
    loop {
        let next = tokio::select! {
            biased;
            () = closed.cancelled() => return,
            () = end.cancelled() => return,
            next = queue.recv() => next,
        };
        let Some((request, answer)) = next else { return };
        let answered = async {
            connection.dawdle().await;
            task::turn();
            connection.take_in(Arc::unwrap_or_clone(request), &mut staged)
        };
        let fate = tokio::select! {
            biased;
            () = closed.cancelled() => return,
            () = end.cancelled() => return,
            fate = answered => fate,
        };
        match fate {
            Fate::Answered(reply) => drop(answer.send(reply)),
            Fate::Cut => return,
        }
    }
}
