use tokio::{runtime::Runtime, task::JoinHandle};

/// A runtime of its own for one part of the world, so that the part can die as a process does: in the middle of anything.
pub(super) struct Island(Option<Runtime>);

impl Island {
    pub(super) fn new(name: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build();
        Self(Some(runtime.expect("threads")))
    }

    pub(super) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.as_ref().expect("it lives").spawn(work)
    }

    /// Ends every task where it stands, and returns when none runs any more.
    pub(super) async fn kill(mut self) {
        let runtime = self.0.take().expect("it lives");
        let killed = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(std::time::Duration::from_secs(5)));
        killed.await.expect("no panic while tasks are dropped");
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
