//! Tasks, in islands that can be killed as a process can.

use std::{cell::RefCell, collections::HashMap, pin::Pin};

pub use shuttle::future::{JoinError, JoinHandle};
use shuttle::{current::TaskId, future::AbortHandle};

thread_local! {
    static ISLANDS: RefCell<Islands> = RefCell::default();
}

#[derive(Default)]
struct Islands {
    of: HashMap<TaskId, usize>,
    /// What ends the tasks of each.
    ends: Vec<Vec<AbortHandle>>,
}

/// Lets any other task go first.
pub fn turn() {
    shuttle::thread::yield_now();
}

/// As tokio's. A task is on the island of the task that spawns it.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let here = shuttle::current::me();
    let island = ISLANDS.with_borrow(|islands| islands.of.get(&here).copied());
    spawn_on(island, work)
}

fn spawn_on<F>(island: Option<usize>, work: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let task = shuttle::future::spawn(async move {
        if let Some(island) = island {
            ISLANDS.with_borrow_mut(|islands| islands.of.insert(shuttle::current::me(), island));
        }
        work.await
    });
    if let Some(island) = island {
        ISLANDS.with_borrow_mut(|islands| islands.ends[island].push(task.abort_handle()));
    }
    task
}

/// Tasks that end together.
#[derive(Debug, Clone, Copy)]
pub struct Island(usize);

impl Island {
    /// Without tasks.
    #[allow(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self(ISLANDS.with_borrow_mut(|islands| {
            islands.ends.push(Vec::new());
            islands.ends.len() - 1
        }))
    }

    /// Spawns a task on it.
    pub fn spawn<F>(self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        spawn_on(Some(self.0), work)
    }

    /// Ends every task of it, where each waits next.
    pub fn kill(self) {
        loop {
            let ends = ISLANDS.with_borrow_mut(|islands| std::mem::take(&mut islands.ends[self.0]));
            if ends.is_empty() {
                return;
            }
            ends.iter().for_each(AbortHandle::abort);
        }
    }
}

/// Forgets every island: a new play begins.
pub(crate) fn begin() {
    ISLANDS.with_borrow_mut(|islands| *islands = Islands::default());
}

/// As tokio's, as far as it is needed: gives what its tasks come to in the order in which they were spawned.
#[derive(Default)]
pub struct JoinSet<T>(Vec<Pin<Box<JoinHandle<T>>>>);

impl<T: Send + 'static> JoinSet<T> {
    /// Without tasks.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Spawns a task.
    pub fn spawn(&mut self, work: impl Future<Output = T> + Send + 'static) {
        self.0.push(Box::pin(spawn(work)));
    }

    /// Waits for a task; `None` where there is none.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        if self.0.is_empty() {
            return None;
        }
        let first = self.0.remove(0);
        Some(first.await)
    }
}
