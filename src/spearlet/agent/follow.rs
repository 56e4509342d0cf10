//! Follows the registry's work list.
//!
//! ```text
//!   no cursor │ another log │ log trimmed │ work left behind ──► list ──► reconcile ──┐
//!   cursor of the same log ──────────────────────────────────────────────► watch ◄────┘
//!   events ──► ONE local commit {inbox, cursor} ──► executor acts
//! ```
//! The cursor is the last revision that was handled *whole*: a revision may hold several changes, so an event of
//! revision r moves it to r-1, and only a later event or an idle one to r. What is delivered twice because of that
//! is recognised by the executor.

use api::{
    Control,
    control::{AssignmentEvent, Cursor},
};
use futures_util::{StreamExt, stream::BoxStream};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::{Batch, Store, Table, encode};
use supervise::{Scope, Stop, TaskResult, backoff};
use tokio::sync::watch;
use types::{Assignment, AssignmentKind, Clock, ErrorKind, ExecutionId, Fault, Keyed, NodeId};

use super::{
    connect::{ANSWER, LONG_ANSWER, Link, SLOWEST, within},
    cursor::Position,
};
use crate::executor::{Change, Executor};

/// Events taken into one local commit.
const TOGETHER: usize = 64;
/// A stream that says nothing for longer is taken for dead: registries send idle events far more often.
const SILENCE: Duration = Duration::from_secs(60);
/// Idle events reach the disk no more often.
const IDLE_PACE: Duration = Duration::from_secs(1);
/// Work left with the registry is looked for this often even when nothing seems to have changed here.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The first pause after a stream ended.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

type Events = BoxStream<'static, Result<AssignmentEvent, Fault>>;

/// Follows one node's work list.
pub(crate) struct Follow {
    pub(crate) node: NodeId,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) executor: Arc<Executor>,
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) resync: watch::Receiver<u64>,
    /// The committed revision, for the exported file.
    pub(crate) revision: watch::Sender<Option<u64>>,
    pub(crate) scope: Scope,
}

/// Why one round of watching ended.
enum Round {
    /// The list must be read before going on.
    List,
    /// The stream ended.
    Ended,
}

/// What one run of [`Follow`] carries from round to round.
struct State {
    position: Option<Position>,
    /// What is on disk, and since when (monotonic).
    saved: (Option<Position>, Duration),
    resync: watch::Receiver<u64>,
    /// Cuts every wait for the registry, and no commit.
    stop: Stop,
}

impl State {
    /// An answer of the registry, unless told to stop first.
    async fn ask<T>(
        &self,
        limit: Duration,
        what: &str,
        answer: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let stopping = || Err(Fault::unavailable("the node stops"));
        self.stop.run_until_cancelled(within(limit, what, answer)).await.unwrap_or_else(stopping)
    }
}

impl Follow {
    /// Runs until told to stop; faults are logged and tried again.
    pub(crate) async fn run(&self, stop: &Stop) -> TaskResult {
        let position = Table::<Position>::new(&self.store).get(&Position::ID).await?.map(|found| found.record);
        self.revision.send_replace(position.map(|position| position.rev));
        let now = self.clock.monotonic();
        let mut state = State { position, saved: (position, now), resync: self.resync.clone(), stop: stop.clone() };
        let mut tries = 0u32;
        while stop.run_until_cancelled(self.up()).await == Some(true) {
            let seen = state.position;
            let ended = self.follow(&mut state).await;
            if state.position != seen {
                tries = 0;
            }
            match ended {
                _ if stop.is_cancelled() => break,
                Ok(()) => tracing::debug!("the work list's stream ended; following it again"),
                Err(fault) if tries == 0 => tracing::warn!(error = %fault, "cannot follow the work list; trying again"),
                Err(fault) => tracing::debug!(error = %fault, tries, "cannot follow the work list"),
            }
            let pause = backoff(FIRST_PAUSE, SLOWEST, tries);
            tries = tries.saturating_add(1);
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        self.save(&mut state).await?;
        Ok(())
    }

    /// Waits until the node is registered; false when the presence task is gone.
    async fn up(&self) -> bool {
        self.link.clone().wait_for(|link| *link == Link::Up).await.is_ok()
    }

    /// Waits until another agent has this node's id: its work is not for us any more.
    async fn refused(&self) {
        let mut link = self.link.clone();
        if link.wait_for(|link| matches!(link, Link::Refused { .. })).await.is_err() {
            // The presence task is gone; the process stops.
            std::future::pending().await
        }
    }

    async fn follow(&self, state: &mut State) -> Result<(), Fault> {
        loop {
            let position = match state.position {
                Some(position) if !position.relist => position,
                _ => self.list(state).await?,
            };
            let after = Cursor { log_id: position.log_id, rev: position.rev };
            let opened = state.ask(ANSWER, "watch", self.control.watch_work(self.node, after)).await;
            let ended = match opened {
                Ok(events) => self.watch(state, events).await,
                Err(fault) => Err(fault),
            };
            match ended {
                Ok(Round::Ended) => return Ok(()),
                Ok(Round::List) => {
                    self.list(state).await?;
                }
                Err(fault) if fault.kind == ErrorKind::OutOfRange => {
                    tracing::info!(error = %fault, "the cursor is no longer valid; listing the work");
                    self.list(state).await?;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Handles a stream of events until it ends or the list must be read.
    async fn watch(&self, state: &mut State, events: Events) -> Result<Round, Fault> {
        let mut events = events.ready_chunks(TOGETHER);
        let mut book = self.executor.changes();
        loop {
            let relist = state.position.is_some_and(|position| position.relist);
            let chunk = tokio::select! {
                biased;
                () = state.stop.cancelled() => return Ok(Round::Ended),
                () = self.refused() => return Ok(Round::Ended),
                _ = state.resync.changed() => return Ok(Round::List),
                () = self.room(&mut book), if relist => {
                    let before = state.position;
                    let now = self.list(state).await?;
                    if before.is_some_and(|before| before.log_id != now.log_id) {
                        // The stream is of the old log.
                        return Ok(Round::Ended);
                    }
                    continue;
                }
                chunk = tokio::time::timeout(SILENCE, events.next()) => chunk,
            };
            match chunk {
                Ok(Some(chunk)) => self.take(state, chunk).await?,
                Ok(None) => return Ok(Round::Ended),
                Err(_) => return Err(Fault::unavailable(format!("the work list said nothing for {SILENCE:?}"))),
            }
        }
    }

    /// Waits until work that was left behind may fit, judged anew whenever something changed here.
    async fn room(&self, book: &mut watch::Receiver<u64>) {
        drop(tokio::time::timeout(LOOK_AGAIN, book.changed()).await);
        self.executor.room().await;
    }

    /// Events that arrived together: one commit, then action.
    async fn take(&self, state: &mut State, chunk: Vec<Result<AssignmentEvent, Fault>>) -> Result<(), Fault> {
        let Some(mut position) = state.position else { return Ok(()) };
        let (mut changes, mut broken) = (Vec::new(), None);
        for event in chunk {
            let event = match event {
                Ok(event) => event,
                Err(fault) => {
                    broken = Some(fault);
                    break;
                }
            };
            let (AssignmentEvent::Set { rev, .. } | AssignmentEvent::Gone { rev, .. } | AssignmentEvent::Idle { rev }) =
                event;
            // What a listing has shown already.
            if rev <= position.rev {
                continue;
            }
            position.rev = if matches!(event, AssignmentEvent::Idle { .. }) { rev } else { rev - 1 };
            match event {
                AssignmentEvent::Set { assignment, .. } => changes.extend(self.change(assignment)),
                AssignmentEvent::Gone { id, .. } => changes.extend(id.parse().ok().map(Change::Gone)),
                AssignmentEvent::Idle { .. } => {}
            }
        }
        if changes.is_empty() {
            self.idle(state, position).await?;
        } else {
            self.commit(state, changes, position, false).await?;
        }
        broken.map_or(Ok(()), Err)
    }

    /// What an assignment asks of the executor; nothing where the task has nothing to run.
    fn change(&self, assignment: Assignment) -> Option<Change> {
        if assignment.node_uuid != self.node {
            tracing::warn!(node = %assignment.node_uuid, "the registry sent work of another node; ignored");
            return None;
        }
        let Some(id) = assignment.execution_id else {
            tracing::debug!(task = %assignment.task_id, "told of a task with nothing to run");
            return None;
        };
        let (attempt, task) = (assignment.attempt, assignment.task_id);
        Some(match assignment.kind {
            AssignmentKind::Create | AssignmentKind::Run => Change::Run { id, attempt, task },
            AssignmentKind::Cancel => Change::Cancel { id, attempt, task },
        })
    }

    /// The cursor moves in memory at once, on disk now and then.
    async fn idle(&self, state: &mut State, position: Position) -> Result<(), Fault> {
        state.position = Some(position);
        if self.clock.monotonic().saturating_sub(state.saved.1) >= IDLE_PACE { self.save(state).await } else { Ok(()) }
    }

    async fn save(&self, state: &mut State) -> Result<(), Fault> {
        let Some(position) = state.position.filter(|_| state.position != state.saved.0) else { return Ok(()) };
        self.store.commit(Batch::new().put(position.key(), encode(&position)?)).await?;
        self.saved(state, position);
        Ok(())
    }

    /// The position is on disk.
    fn saved(&self, state: &mut State, position: Position) {
        state.position = Some(position);
        state.saved = (Some(position), self.clock.monotonic());
        self.revision.send_replace(Some(position.rev));
    }

    /// Reads the whole list and makes this node agree with it.
    async fn list(&self, state: &mut State) -> Result<Position, Fault> {
        state.resync.mark_unchanged();
        let list = state.ask(LONG_ANSWER, "work list", self.control.list_work(self.node)).await?;
        let wanted: BTreeSet<ExecutionId> = list.assignments.iter().filter_map(|one| one.execution_id).collect();
        let mut changes: Vec<Change> = self.executor.held().difference(&wanted).copied().map(Change::Gone).collect();
        changes.extend(list.assignments.into_iter().filter_map(|one| self.change(one)));
        tracing::info!(log_id = %list.cursor.log_id, rev = list.cursor.rev, assignments = wanted.len(), "listed the work");
        let position = Position { log_id: list.cursor.log_id, rev: list.cursor.rev, relist: false };
        let renewed = state.position.is_some_and(|before| before.log_id != position.log_id);
        self.commit(state, changes, position, renewed).await
    }

    /// One commit of the changes and the cursor, then action.
    async fn commit(
        &self,
        state: &mut State,
        changes: Vec<Change>,
        mut position: Position,
        renewed: bool,
    ) -> Result<Position, Fault> {
        let doubtful = self.executor.take(changes, &mut position, renewed).await?;
        self.saved(state, position);
        for id in doubtful {
            let executor = self.executor.clone();
            self.scope.spawn_once("check", async move {
                executor.check(id, Some(position.log_id)).await;
                Ok(())
            });
        }
        Ok(position)
    }
}
