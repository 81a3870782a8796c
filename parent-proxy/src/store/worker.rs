//! The one thread that owns the store. Whoever wants something of it holds a [`StoreHandle`].

use std::{io, thread};

use tokio::sync::{mpsc, oneshot};
use transcode_confidential::protocol::host::HostError;

use super::{Batch, Durable, Store};

/// Requests that wait for the store.
const QUEUE: usize = 256;

/// The way to the store's thread. The thread ends, and closes the store, when it is told to or the last handle is gone.
#[derive(Debug, Clone)]
pub(crate) struct StoreHandle(mpsc::Sender<Work>);

/// The answer to a batch, once it is due. Batches are answered in the order in which they were handed in.
pub(crate) type Ticket = oneshot::Receiver<Result<Durable, HostError>>;

enum Work {
    Append(Batch, oneshot::Sender<Result<Durable, HostError>>),
    Other(Box<dyn FnOnce(&mut Store) + Send>),
    Stop,
}

impl StoreHandle {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system gives none.
    pub(crate) fn start(store: Store) -> io::Result<(Self, thread::JoinHandle<()>)> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || work(store, receiver))?;
        Ok((Self(sender), thread))
    }

    /// Hands a batch in; waits only while the queue is full.
    pub(crate) async fn append(&self, batch: Batch) -> Result<Ticket, HostError> {
        let (answer, ticket) = oneshot::channel();
        self.0.send(Work::Append(batch, answer)).await.map_err(|_| HostError::StorageFailed)?;
        Ok(ticket)
    }

    /// Does something with the store, after everything that was handed in before.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        action: impl FnOnce(&mut Store) -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, HostError> {
        let (answer, result) = oneshot::channel();
        let action = move |store: &mut Store| {
            // Who asked may have gone.
            let _ = answer.send(action(store));
        };
        self.0.send(Work::Other(Box::new(action))).await.map_err(|_| HostError::StorageFailed)?;
        result.await.map_err(|_| HostError::StorageFailed)?
    }

    /// Requests that wait for the thread.
    pub(crate) fn waiting(&self) -> u64 {
        self.0.max_capacity().saturating_sub(self.0.capacity()) as u64
    }

    /// Ends the thread and closes the store, after everything that was handed in before.
    pub(crate) async fn stop(&self) {
        // Where the thread has ended there is nothing to end.
        let _ = self.0.send(Work::Stop).await;
    }
}

fn work(mut store: Store, mut queue: mpsc::Receiver<Work>) {
    let mut next = None;
    while let Some(work) = next.take().or_else(|| queue.blocking_recv()) {
        match work {
            Work::Stop => return,
            Work::Other(action) => action(&mut store),
            Work::Append(batch, answer) => {
                // Everything that waits by now shares one write and one sync, as far as it can.
                let (mut batches, mut answers) = (vec![batch], vec![answer]);
                while next.is_none() {
                    match queue.try_recv() {
                        Ok(Work::Append(batch, answer)) => {
                            batches.push(batch);
                            answers.push(answer);
                        }
                        Ok(other) => next = Some(other),
                        Err(_) => break,
                    }
                }
                let mut answers = answers.into_iter();
                store.append(&batches, |result| {
                    if let Some(answer) = answers.next() {
                        let _ = answer.send(result);
                    }
                });
            }
        }
    }
}
