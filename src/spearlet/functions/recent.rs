//! What is known of calls that came to this node itself: those under way, and the last ones that ended.
//!
//! In memory, and bounded: [`MOST`] of them, and [`MOST_BYTES`] of answers and log lines; the oldest go first.

use api::invocation::Disposition;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use types::{ExecutionId, ExecutionStatus, LogLine, Reason, TaskId, Timestamp, Usage};

/// Ended calls that are remembered.
const MOST: usize = 1024;
/// Bytes of their answers and logs together.
const MOST_BYTES: usize = 32 << 20;
/// Bytes of one answer that is remembered.
pub(crate) const MOST_ANSWER: usize = 64 << 10;

/// A call that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) task: TaskId,
    pub(crate) name: Arc<str>,
    pub(crate) begun: Timestamp,
    pub(crate) cancel: CancellationToken,
}

/// A call that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) execution: ExecutionId,
    pub(crate) task: TaskId,
    pub(crate) name: Arc<str>,
    pub(crate) begun: Timestamp,
    pub(crate) ended: Timestamp,
    pub(crate) status: ExecutionStatus,
    pub(crate) reason: Option<Reason>,
    pub(crate) message: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) disposition: Disposition,
    pub(crate) usage: Usage,
    /// Its answer; none when it was streamed or longer than [`MOST_ANSWER`].
    pub(crate) answer: Option<Bytes>,
    pub(crate) logs: Vec<LogLine>,
}

impl Past {
    fn bytes(&self) -> usize {
        let lines: usize = self.logs.iter().map(|line| line.message.len() + 128).sum();
        self.answer.as_ref().map_or(0, Bytes::len) + lines + self.message.len()
    }
}

/// How a call stands.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Running(Running),
    Ended(Arc<Past>),
}

#[derive(Default)]
struct Inner {
    running: BTreeMap<ExecutionId, Running>,
    past: VecDeque<Arc<Past>>,
    bytes: usize,
}

/// The calls.
#[derive(Default)]
pub(crate) struct Recent {
    inner: Mutex<Inner>,
    /// One of them has ended.
    ended: Notify,
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// A call begins; false: another of this id is under way.
    pub(super) fn begin(&self, execution: ExecutionId, running: Running) -> bool {
        match self.lock().running.entry(execution) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(running);
                true
            }
        }
    }

    /// A call has ended.
    pub(super) fn end(&self, past: Past) {
        let bytes = past.bytes();
        let mut gone = Vec::new();
        let mut inner = self.lock();
        inner.running.remove(&past.execution);
        inner.bytes += bytes;
        inner.past.push_back(Arc::new(past));
        while inner.past.len() > MOST || inner.bytes > MOST_BYTES {
            let Some(oldest) = inner.past.pop_front() else { break };
            inner.bytes = inner.bytes.saturating_sub(oldest.bytes());
            gone.push(oldest);
        }
        drop(inner);
        self.ended.notify_waiters();
        drop(gone);
    }

    /// Waits until a call has ended, at most so long, and says how it stands then.
    pub(crate) async fn ended(&self, execution: ExecutionId, patience: Duration) -> Option<State> {
        let ending = async {
            loop {
                let ended = self.ended.notified();
                if !matches!(self.get(execution), Some(State::Running(_))) {
                    return;
                }
                ended.await;
            }
        };
        // How it stands is the answer in both cases.
        drop(tokio::time::timeout(patience, ending).await);
        self.get(execution)
    }

    /// Forgets the calls of a task that have ended; how many.
    pub(crate) fn forget(&self, task: TaskId) -> usize {
        let mut inner = self.lock();
        let (gone, kept): (VecDeque<_>, VecDeque<_>) = inner.past.drain(..).partition(|past| past.task == task);
        inner.past = kept;
        inner.bytes = inner.past.iter().map(|past| past.bytes()).sum();
        drop(inner);
        gone.len()
    }

    /// How a call stands.
    pub(crate) fn get(&self, execution: ExecutionId) -> Option<State> {
        let inner = self.lock();
        let past = || inner.past.iter().rev().find(|past| past.execution == execution).cloned();
        let running = inner.running.get(&execution).cloned();
        running.map(State::Running).or_else(|| past().map(State::Ended))
    }

    /// Calls under way.
    pub(crate) fn running(&self) -> usize {
        self.lock().running.len()
    }

    /// All that is known, the newest first.
    pub(crate) fn all(&self) -> Vec<(ExecutionId, State)> {
        let inner = self.lock();
        let running = inner.running.iter().rev().map(|(id, running)| (*id, State::Running(running.clone())));
        let past = inner.past.iter().rev().map(|past| (past.execution, State::Ended(past.clone())));
        running.chain(past).collect()
    }

    /// Asks a call to end; none: it is not known, false: it has ended.
    pub(crate) fn cancel(&self, execution: ExecutionId) -> Option<bool> {
        match self.get(execution)? {
            State::Running(running) => {
                running.cancel.cancel();
                Some(true)
            }
            State::Ended(_) => Some(false),
        }
    }
}
