//! One thread serves the device; callers wait their turn without blocking, the urgent ones first.
//!
//! The device makes one document at a time. Without an order of its own, a crowd of
//! clients asking for documents would delay the calls to KMS that hold up everybody's work. Each priority has its own
//! few places, so a crowd can fill only its own.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use tokio::{sync::oneshot, time::Instant};
use transcode_confidential::protocol::metrics::Metric;

use super::{AttestationRequest, Nsm, NsmError};
use crate::metrics::Metrics;

/// Requests of one priority that may wait. Who would have to wait for more than that is better told at once.
const PLACES: usize = 64;

/// Who is served first. Of one priority, who came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A call to KMS, which holds up work on content.
    Kms,
    /// Opening or confirming an epoch, and the clock.
    Epoch,
    /// A client that asks for evidence.
    Client,
}

impl Priority {
    /// Its name among the figures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kms => "kms",
            Self::Epoch => "epoch",
            Self::Client => "client",
        }
    }
}

/// The asynchronous front of a device. When the last clone is dropped, the thread ends after what was asked already.
#[derive(Clone)]
pub struct NsmHandle {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    _open: Arc<CloseOnDrop>,
}

impl NsmHandle {
    /// Starts the thread that serves `nsm`.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(nsm: impl Nsm) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let open = Arc::new(CloseOnDrop(Arc::clone(&shared)));
        let served = Arc::clone(&shared);
        thread::Builder::new().name("nsm".to_owned()).spawn(move || {
            // Whatever ends this thread, nobody may wait for it afterwards.
            let _ended = AbandonOnDrop(Arc::clone(&served));
            while let Some(Job { request, answer }) = served.next() {
                let document = nsm.attest(request);
                // The caller may have given up meanwhile.
                let _ = answer.send(document);
            }
        })?;
        Ok(Self { shared, metrics: Arc::default(), _open: open })
    }

    /// The same device, counted with what else the enclave counts.
    #[must_use]
    pub fn counting(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// How many of a priority wait.
    pub fn waiting(&self, priority: Priority) -> u64 {
        self.shared.lock().of(priority).len() as u64
    }

    /// A fresh document. Dropping the future before its turn takes the request out of the queue.
    ///
    /// # Errors
    /// [`NsmError::FieldTooLong`], [`NsmError::Busy`] where too many wait, [`NsmError::Stopped`] where the thread has ended,
    /// and whatever the device refuses.
    pub async fn attest(&self, priority: Priority, request: AttestationRequest) -> Result<Vec<u8>, NsmError> {
        request.check_limits()?;
        let (answer, document) = oneshot::channel();
        let begun = Instant::now();
        let pushed = self.shared.push(priority, Job { request, answer });
        if pushed == Err(NsmError::Busy) {
            self.metrics.count(Metric::NsmBusy, &[priority.name()]);
        }
        pushed?;
        let document = document.await.unwrap_or(Err(NsmError::Stopped));
        self.metrics.observe(Metric::NsmSeconds, &[], begun.elapsed());
        if document.is_err() {
            self.metrics.count(Metric::NsmFailures, &[]);
        }
        document
    }
}

impl fmt::Debug for NsmHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NsmHandle")
    }
}

struct Job {
    request: AttestationRequest,
    answer: oneshot::Sender<Result<Vec<u8>, NsmError>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    kms: VecDeque<Job>,
    epoch: VecDeque<Job>,
    client: VecDeque<Job>,
    closed: bool,
}

impl Waiting {
    const fn of(&mut self, priority: Priority) -> &mut VecDeque<Job> {
        match priority {
            Priority::Kms => &mut self.kms,
            Priority::Epoch => &mut self.epoch,
            Priority::Client => &mut self.client,
        }
    }

    fn pop(&mut self) -> Option<Job> {
        self.kms.pop_front().or_else(|| self.epoch.pop_front()).or_else(|| self.client.pop_front())
    }
}

impl Shared {
    fn push(&self, priority: Priority, job: Job) -> Result<(), NsmError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(NsmError::Stopped);
        }
        let jobs = waiting.of(priority);
        jobs.retain(|job| !job.answer.is_closed());
        if jobs.len() >= PLACES {
            return Err(NsmError::Busy);
        }
        jobs.push_back(job);
        self.changed.notify_one();
        Ok(())
    }

    /// The most urgent job that somebody still waits for; `None` when no more can come.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            match waiting.pop() {
                Some(job) if job.answer.is_closed() => {}
                Some(job) => return Some(job),
                None if waiting.closed => return None,
                None => waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn close(&self) -> MutexGuard<'_, Waiting> {
        let mut waiting = self.lock();
        waiting.closed = true;
        self.changed.notify_one();
        waiting
    }

    /// No code that holds the lock can leave the queue half changed, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        drop(self.0.close());
    }
}

struct AbandonOnDrop(Arc<Shared>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        let mut waiting = self.0.close();
        while waiting.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver, SyncSender, sync_channel},
        time::Duration,
    };

    use transcode_confidential::attestation::{PcrIndex, PcrValue};

    use super::{super::PcrState, *};

    /// Answers with the request's `user_data`, one call for each word that the test sends.
    struct Stepwise {
        steps: Mutex<Receiver<()>>,
        started: SyncSender<()>,
    }

    impl Nsm for Stepwise {
        fn attest(&self, request: AttestationRequest) -> Result<Vec<u8>, NsmError> {
            let _ = self.started.send(());
            self.steps.lock().unwrap().recv().map_err(|_| NsmError::NoDevice)?;
            assert_ne!(request.user_data.as_deref(), Some(b"panic".as_slice()), "asked to panic");
            Ok(request.user_data.unwrap_or_default())
        }

        fn describe_pcr(&self, _: PcrIndex) -> Result<PcrState, NsmError> {
            Err(NsmError::NoDevice)
        }

        fn extend_pcr(&self, _: PcrIndex, _: &[u8]) -> Result<PcrValue, NsmError> {
            Err(NsmError::NoDevice)
        }

        fn lock_pcr(&self, _: PcrIndex) -> Result<(), NsmError> {
            Err(NsmError::NoDevice)
        }

        fn random(&self, _: &mut [u8]) -> Result<(), NsmError> {
            Err(NsmError::NoDevice)
        }
    }

    struct Bench {
        handle: NsmHandle,
        step: SyncSender<()>,
        started: Receiver<()>,
    }

    fn bench() -> Bench {
        let (step, steps) = sync_channel(1000);
        let (start, started) = sync_channel(1000);
        let handle = NsmHandle::start(Stepwise { steps: Mutex::new(steps), started: start }).unwrap();
        Bench { handle, step, started }
    }

    type Answer = tokio::task::JoinHandle<Result<Vec<u8>, NsmError>>;

    /// Asks and returns once the request is in the queue.
    async fn ask(handle: &NsmHandle, priority: Priority, user_data: &[u8]) -> Answer {
        let request = AttestationRequest { user_data: Some(user_data.to_vec()), ..Default::default() };
        let asking = handle.clone();
        let answer = tokio::spawn(async move { asking.attest(priority, request).await });
        tokio::task::yield_now().await;
        answer
    }

    /// Occupies the device, so that whatever comes next has to wait.
    async fn occupy(bench: &Bench) -> Answer {
        let first = ask(&bench.handle, Priority::Client, b"first").await;
        bench.started.recv_timeout(Duration::from_secs(10)).unwrap();
        first
    }

    #[tokio::test]
    async fn the_urgent_pass_those_who_came_before_them() {
        let bench = bench();
        let mut answers = vec![occupy(&bench).await];
        for (priority, name) in [
            (Priority::Client, b"client 1".as_slice()),
            (Priority::Client, b"client 2"),
            (Priority::Epoch, b"epoch"),
            (Priority::Kms, b"kms 1"),
            (Priority::Kms, b"kms 2"),
        ] {
            answers.push(ask(&bench.handle, priority, name).await);
        }
        let mut order = Vec::new();
        for _ in 0..answers.len() {
            bench.step.send(()).unwrap();
            let (answer, index, _) = futures_util::future::select_all(&mut answers).await;
            order.push(String::from_utf8(answer.unwrap().unwrap()).unwrap());
            drop(answers.remove(index));
        }
        assert_eq!(order, ["first", "kms 1", "kms 2", "epoch", "client 1", "client 2"]);
    }

    #[tokio::test]
    async fn a_crowd_of_one_priority_fills_only_its_own_places() {
        let bench = bench();
        let _first = occupy(&bench).await;
        let mut crowd = Vec::new();
        for _ in 0..PLACES {
            crowd.push(ask(&bench.handle, Priority::Client, b"client").await);
        }
        let one_too_many = ask(&bench.handle, Priority::Client, b"client").await;
        assert_eq!(one_too_many.await.unwrap(), Err(NsmError::Busy));
        let urgent = ask(&bench.handle, Priority::Kms, b"kms").await;
        bench.step.send(()).unwrap();
        bench.step.send(()).unwrap();
        assert_eq!(urgent.await.unwrap().unwrap(), b"kms");
    }

    #[tokio::test]
    async fn who_gives_up_makes_room_and_costs_the_device_nothing() {
        let bench = bench();
        let _first = occupy(&bench).await;
        let mut crowd = Vec::new();
        for _ in 0..PLACES {
            crowd.push(ask(&bench.handle, Priority::Client, b"gone").await);
        }
        for gone in &crowd {
            gone.abort();
        }
        for gone in crowd {
            assert!(gone.await.unwrap_err().is_cancelled());
        }
        let last = ask(&bench.handle, Priority::Client, b"last").await;
        bench.step.send(()).unwrap();
        bench.step.send(()).unwrap();
        assert_eq!(last.await.unwrap().unwrap(), b"last");
    }

    #[tokio::test]
    async fn what_is_too_long_never_reaches_the_device() {
        let bench = bench();
        let answer = ask(&bench.handle, Priority::Kms, &[0; 513]).await.await.unwrap();
        assert_eq!(answer, Err(NsmError::FieldTooLong { name: "user_data", length: 513, max: 512 }));
        assert!(bench.started.try_recv().is_err());
    }

    #[tokio::test]
    async fn if_the_thread_dies_nobody_waits_for_ever() {
        let bench = bench();
        let fatal = ask(&bench.handle, Priority::Kms, b"panic").await;
        bench.started.recv_timeout(Duration::from_secs(10)).unwrap();
        let waiting = ask(&bench.handle, Priority::Client, b"waiting").await;
        bench.step.send(()).unwrap();
        assert_eq!(fatal.await.unwrap(), Err(NsmError::Stopped));
        assert_eq!(waiting.await.unwrap(), Err(NsmError::Stopped));
        let after = ask(&bench.handle, Priority::Kms, b"after").await;
        assert_eq!(after.await.unwrap(), Err(NsmError::Stopped));
    }

    #[tokio::test]
    async fn the_thread_ends_with_the_last_handle() {
        let Bench { handle, step, started } = bench();
        drop((handle.clone(), handle));
        let ended = tokio::task::spawn_blocking(move || started.recv());
        assert!(tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap().is_err());
        drop(step);
    }
}
