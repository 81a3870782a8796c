//! tokio's own channels: they need no runtime, and are one step each, with a turn of the scheduler before it.

pub use real_tokio::sync::{
    Mutex, OnceCell, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, SemaphorePermit, TryAcquireError, mpsc,
};

/// As tokio's.
#[derive(Debug, Default)]
pub struct Notify(real_tokio::sync::Notify);

impl Notify {
    /// Nobody is told yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes whoever waits, or whoever comes next.
    pub fn notify_one(&self) {
        super::task::turn();
        self.0.notify_one();
    }

    /// Waits to be told.
    pub async fn notified(&self) {
        self.0.notified().await;
    }
}

/// As tokio's.
pub mod watch {
    use real_tokio::sync::watch;
    pub use real_tokio::sync::watch::{Receiver, Ref, error};

    use crate::runtime::task;

    /// The sending end.
    #[derive(Debug)]
    pub struct Sender<T>(watch::Sender<T>);

    /// Both ends.
    pub fn channel<T>(first: T) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = watch::channel(first);
        (Sender(sender), receiver)
    }

    impl<T> Sender<T> {
        /// Without receivers.
        pub fn new(first: T) -> Self {
            Self(watch::Sender::new(first))
        }

        /// Looks.
        pub fn borrow(&self) -> Ref<'_, T> {
            task::turn();
            self.0.borrow()
        }

        /// Changes it, and gives what it was.
        pub fn send_replace(&self, value: T) -> T {
            task::turn();
            self.0.send_replace(value)
        }

        /// Changes it, perhaps.
        pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
            task::turn();
            self.0.send_if_modified(modify)
        }

        /// Another receiver.
        pub fn subscribe(&self) -> Receiver<T> {
            task::turn();
            self.0.subscribe()
        }
    }
}

/// As tokio's.
pub mod oneshot {
    pub use real_tokio::sync::oneshot::{Receiver, error};

    /// The sending end.
    #[derive(Debug)]
    pub struct Sender<T>(real_tokio::sync::oneshot::Sender<T>);

    /// Both ends.
    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = real_tokio::sync::oneshot::channel();
        (Sender(sender), receiver)
    }

    impl<T> Sender<T> {
        /// Sends.
        ///
        /// # Errors
        /// The value, where nobody waits for it.
        pub fn send(self, value: T) -> Result<(), T> {
            crate::runtime::task::turn();
            self.0.send(value)
        }
    }
}
