//! Which executions the node holds and where each stands. In memory only: `records` is what survives.
//!
//! ```text
//!   Arriving ──commit──► Queued ──place free──► Running ──commit──► Unreported ──acknowledged──► (done)
//!                           └──cancelled──► Ending ──commit──────────────▲
//! ```

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};
use tokio_util::sync::CancellationToken;
use types::{ExecutionId, LogId, TaskId, TaskPriority};

use super::records::Accepted;

/// Done marks kept.
pub(crate) const MOST_DONE: usize = 4096;

/// Why a running execution was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// Somebody cancelled it.
    Asked,
    /// The registry no longer wants it of this node.
    Withdrawn,
    /// The node stops.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its first commit is under way.
    Arriving,
    /// Waits for a place.
    Queued,
    /// Prepared or run.
    Running,
    /// Its last commit is under way, without its ever having run.
    Ending,
    /// Its result waits for the registry; nobody is at it.
    Unreported,
    /// Its result is being delivered.
    Delivering,
    /// Its result stays on disk until the next start.
    Parked,
}

/// What an execution is about, as its assignment said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) task: TaskId,
    pub(crate) priority: TaskPriority,
    /// The registry's log it came from.
    pub(crate) log_id: LogId,
}

pub(crate) struct Entry {
    pub(crate) attempt: u32,
    pub(crate) about: About,
    pub(crate) state: State,
    /// The number of the next log line the registry has not acknowledged.
    pub(crate) shipped: u64,
    order: u64,
    halt: CancellationToken,
    why: Option<Halt>,
}

/// An execution to run.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: ExecutionId,
    pub(crate) attempt: u32,
    pub(crate) about: About,
    /// Cancelled when it should end early; the book knows why.
    pub(crate) halt: CancellationToken,
}

pub(crate) struct Book {
    entries: BTreeMap<ExecutionId, Entry>,
    queue: BTreeSet<(Reverse<TaskPriority>, u64, ExecutionId)>,
    done: BTreeMap<ExecutionId, u32>,
    next_order: u64,
    running: usize,
    concurrency: usize,
    queue_limit: usize,
}

impl Book {
    pub(crate) fn new(concurrency: usize, queue_limit: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            queue: BTreeSet::new(),
            done: BTreeMap::new(),
            next_order: 0,
            running: 0,
            concurrency: concurrency.max(1),
            queue_limit,
        }
    }

    /// Another length of the queue; what is in it stays.
    pub(crate) fn limit_queue(&mut self, queue_limit: usize) {
        self.queue_limit = queue_limit;
    }

    pub(crate) fn get(&self, id: ExecutionId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// The last attempt that is over, if its mark is still kept.
    pub(crate) fn done(&self, id: ExecutionId) -> Option<u32> {
        self.done.get(&id).copied()
    }

    /// May one more be held?
    pub(crate) fn fits(&self) -> bool {
        self.entries.len() < self.concurrency.saturating_add(self.queue_limit)
    }

    /// Is it time to look for work that was left with the registry?
    pub(crate) fn room(&self) -> bool {
        self.fits() && self.queue.len() <= self.queue_limit / 2
    }

    pub(crate) fn running(&self) -> usize {
        self.running
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many wait, run, and have a result that the registry does not have yet.
    pub(crate) fn held_by_state(&self) -> (usize, usize, usize) {
        let ended = |state| matches!(state, State::Unreported | State::Delivering | State::Parked);
        let outbox = self.entries.values().filter(|entry| ended(entry.state)).count();
        (self.queue.len(), self.running, outbox)
    }

    /// No result waits for the registry, but for those that were given up.
    pub(crate) fn flushed(&self) -> bool {
        !self.entries.values().any(|entry| matches!(entry.state, State::Unreported | State::Delivering))
    }

    /// What waits or runs.
    pub(crate) fn held(&self) -> BTreeSet<ExecutionId> {
        let held = |state| matches!(state, State::Queued | State::Running);
        self.entries.iter().filter(|(_, entry)| held(entry.state)).map(|(id, _)| *id).collect()
    }

    /// Takes in an execution in a state; a later attempt replaces an earlier one that waits.
    pub(crate) fn insert(&mut self, id: ExecutionId, attempt: u32, mut about: About, state: State) {
        self.unqueue(id);
        // A priority nobody named is the usual one.
        if about.priority == TaskPriority::Unknown {
            about.priority = TaskPriority::Normal;
        }
        let order = self.next_order;
        self.next_order += 1;
        let halt = CancellationToken::new();
        self.entries.insert(id, Entry { attempt, about, state, shipped: 1, order, halt, why: None });
        self.set(id, state);
    }

    /// Moves an execution to another state.
    pub(crate) fn set(&mut self, id: ExecutionId, state: State) {
        self.unqueue(id);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.state == State::Running && state != State::Running {
            self.running = self.running.saturating_sub(1);
        }
        if entry.state != State::Running && state == State::Running {
            self.running += 1;
        }
        entry.state = state;
        if state == State::Queued {
            self.queue.insert((Reverse(entry.about.priority), entry.order, id));
        }
    }

    fn unqueue(&mut self, id: ExecutionId) {
        if let Some(entry) = self.entries.get(&id)
            && entry.state == State::Queued
        {
            self.queue.remove(&(Reverse(entry.about.priority), entry.order, id));
        }
    }

    /// Forgets an execution altogether.
    pub(crate) fn remove(&mut self, id: ExecutionId) {
        // Leaves the queue and gives up its place first.
        self.set(id, State::Ending);
        self.entries.remove(&id);
    }

    /// The next execution to run, urgent ones first, if a place is free.
    pub(crate) fn start_next(&mut self) -> Option<Job> {
        if self.running >= self.concurrency {
            return None;
        }
        let (_, _, id) = self.queue.first().copied()?;
        self.set(id, State::Running);
        let entry = self.entries.get(&id)?;
        Some(Job { id, attempt: entry.attempt, about: entry.about, halt: entry.halt.clone() })
    }

    /// The next result to deliver, if fewer than `most` are under way.
    pub(crate) fn deliver_next(&mut self, most: usize) -> Option<ExecutionId> {
        if self.delivering() >= most {
            return None;
        }
        let id = self.entries.iter().find(|(_, entry)| entry.state == State::Unreported).map(|(id, _)| *id)?;
        self.set(id, State::Delivering);
        Some(id)
    }

    /// Results that are being delivered.
    pub(crate) fn delivering(&self) -> usize {
        self.entries.values().filter(|entry| entry.state == State::Delivering).count()
    }

    /// Remembers how much of a log the registry has.
    pub(crate) fn shipped(&mut self, id: ExecutionId, next_seq: u64) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.shipped = next_seq;
        }
    }

    /// Asks a running execution to end; the first reason counts.
    pub(crate) fn halt(&mut self, id: ExecutionId, why: Halt) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.state == State::Running
        {
            entry.why.get_or_insert(why);
            entry.halt.cancel();
        }
    }

    /// Why an execution was asked to end, if it was.
    pub(crate) fn halted(&self, id: ExecutionId) -> Option<Halt> {
        self.entries.get(&id).and_then(|entry| entry.why)
    }

    /// Marks an attempt as over; returns a mark that has become too old to keep.
    pub(crate) fn mark_done(&mut self, id: ExecutionId, attempt: u32) -> Option<ExecutionId> {
        self.done.insert(id, attempt);
        // Ids are ordered by the time they were made.
        (self.done.len() > MOST_DONE).then(|| self.done.pop_first()).flatten().map(|(id, _)| id)
    }
}

impl Job {
    /// Its record in the inbox.
    pub(crate) fn accepted(&self) -> Accepted {
        Accepted {
            execution_id: self.id,
            attempt: self.attempt,
            task_id: self.about.task,
            priority: self.about.priority,
            log_id: self.about.log_id,
            started_at: None,
        }
    }
}
