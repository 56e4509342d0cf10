//! What is known of calls that came to this node itself: those under way, and the last ones that ended.
//!
//! In memory, and bounded: [`MOST`] of them, and [`MOST_BYTES`] of answers and log lines; the oldest go first.

use api::{Usage, invocation::Disposition};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio_util::sync::CancellationToken;
use types::{ExecutionId, ExecutionStatus, LogLine, Reason, TaskId, Timestamp};

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
pub(crate) struct Recent(Mutex<Inner>);

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// A call has begun.
    pub(super) fn begin(&self, execution: ExecutionId, running: Running) {
        self.lock().running.insert(execution, running);
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
        drop(gone);
    }

    /// How a call stands.
    pub(crate) fn get(&self, execution: ExecutionId) -> Option<State> {
        let inner = self.lock();
        let past = || inner.past.iter().rev().find(|past| past.execution == execution).cloned();
        let running = inner.running.get(&execution).cloned();
        running.map(State::Running).or_else(|| past().map(State::Ended))
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
