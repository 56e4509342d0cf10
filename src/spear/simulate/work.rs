//! The half of a node that works: follows its work list and reports executions that it only waits out.
//!
//! ```text
//!   list ─► watch ─► Set: wait for a place ─► get_work ─► running ─► pause ─► log, completed ─► Gone
//!     ▲       │ the stream ends, or the node had to register anew
//!     └───────┘
//! ```

use api::{AssignmentEvent, ExecutionReport, LogBatch};
use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use supervise::{Stop, backoff};
use tokio::sync::watch;
use types::{
    Assignment, AssignmentKind, ErrorKind, ExecutionId, ExecutionStatus, Fault, FileId, LogLine, LogStream, Reason,
};

use super::node::Node;

/// Executions at once; more wait on the list.
const AT_ONCE: usize = 8;
/// The first pause after a stream or a call that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest.
const SLOWEST: Duration = Duration::from_secs(7);
/// Where the registry's own files are.
const FILE_SCHEME: &str = "sms+file://";

/// What is known of an execution that the registry asks for.
enum Place {
    Waiting(u32),
    /// Told to stop by this.
    Running(Stop),
    /// Its end was told; the registry takes it off the list.
    Told,
}

type Running<'a> = FuturesUnordered<BoxFuture<'a, (ExecutionId, Result<(), Fault>)>>;

/// The work of a node.
#[derive(Default)]
struct Desk {
    asked: BTreeMap<ExecutionId, Place>,
}

impl Desk {
    /// Takes an assignment to note.
    fn set(&mut self, assignment: &Assignment) {
        let Some(id) = assignment.execution_id else { return };
        let place = self.asked.entry(id).or_insert(Place::Waiting(assignment.attempt));
        if assignment.kind == AssignmentKind::Cancel
            && let Place::Running(stop) = place
        {
            stop.cancel();
        }
    }

    /// A whole list: what is not on it is no longer asked for.
    fn replace(&mut self, list: &[Assignment]) {
        let listed: BTreeSet<ExecutionId> = list.iter().filter_map(|one| one.execution_id).collect();
        self.asked.retain(|id, place| matches!(place, Place::Running(_)) || listed.contains(id));
        list.iter().for_each(|assignment| self.set(assignment));
    }

    /// Begins what there is room for.
    fn begin<'a>(&mut self, node: &'a Node, running: &mut Running<'a>) {
        for (id, place) in &mut self.asked {
            if running.len() >= AT_ONCE {
                return;
            }
            let Place::Waiting(attempt) = *place else { continue };
            let (id, stop) = (*id, Stop::new());
            *place = Place::Running(stop.clone());
            running.push(Box::pin(async move { (id, node.execute(id, attempt, &stop).await) }));
        }
    }

    fn ended(&mut self, id: ExecutionId) {
        if let Some(place) = self.asked.get_mut(&id) {
            *place = Place::Told;
        }
    }
}

impl Node {
    /// Never ends. `up` moves with every registration: the list is read again then.
    pub(super) async fn keep_working(&self, mut up: watch::Receiver<u64>) {
        let (mut desk, mut running, mut tries) = (Desk::default(), Running::default(), 0u32);
        // Fails only when the other half has ended, and then nobody asks any more.
        drop(up.changed().await);
        loop {
            let before = self.clock.monotonic();
            if let Err(fault) = self.follow(&mut up, &mut desk, &mut running).await {
                self.figures.failed(&fault);
            }
            let long = self.clock.monotonic().saturating_sub(before) > SLOWEST;
            tries = if long { 0 } else { tries.saturating_add(1) };
            let pause = tokio::time::sleep(backoff(FIRST_PAUSE, SLOWEST, tries));
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    Some((id, ended)) = running.next(), if !running.is_empty() => self.note(&mut desk, id, ended),
                }
            }
        }
    }

    /// From a list to the end of its stream.
    async fn follow<'a>(
        &'a self,
        up: &mut watch::Receiver<u64>,
        desk: &mut Desk,
        running: &mut Running<'a>,
    ) -> Result<(), Fault> {
        up.mark_unchanged();
        let list = self.control.list_work(self.id).await?;
        desk.replace(&list.assignments);
        let mut events = self.control.watch_work(self.id, list.cursor).await?;
        self.figures.watched();
        loop {
            desk.begin(self, running);
            tokio::select! {
                Ok(()) = up.changed() => return Ok(()),
                Some((id, ended)) = running.next(), if !running.is_empty() => self.note(desk, id, ended),
                event = events.next() => match event.transpose()? {
                    Some(AssignmentEvent::Set { assignment, .. }) => desk.set(&assignment),
                    Some(AssignmentEvent::Gone { id, .. }) => {
                        id.parse().ok().and_then(|id: ExecutionId| desk.asked.remove(&id));
                    }
                    Some(AssignmentEvent::Idle { .. }) => self.figures.idled(),
                    None => return Ok(()),
                },
            }
        }
    }

    fn note(&self, desk: &mut Desk, id: ExecutionId, ended: Result<(), Fault>) {
        desk.ended(id);
        self.figures.executed(ended.is_ok());
        if let Err(fault) = ended {
            self.figures.failed(&fault);
        }
    }

    /// What a real node does with an execution, except for running it.
    async fn execute(&self, id: ExecutionId, attempt: u32, stop: &Stop) -> Result<(), Fault> {
        let work = self.insist(|| self.control.get_work(id)).await?;
        if self.plan.fetch
            && let Some(executable) = &work.task.executable
            && let Some(file) = executable.uri.strip_prefix(FILE_SCHEME)
        {
            let file: FileId = file.parse()?;
            let opened = self.control.open_file(file).await?;
            let read = opened.bytes.try_fold(0, async |sum, piece| Ok(sum + piece.len())).await;
            read.map_err(|error| Fault::unavailable(format!("file {file}: {error}")))?;
        }
        let now = || self.clock.wall();
        let mut report = ExecutionReport {
            execution_id: id,
            attempt,
            node_uuid: self.id,
            status: ExecutionStatus::Running,
            reason: None,
            message: String::new(),
            started_at: Some(now()),
            completed_at: None,
            exit_code: None,
            usage: None,
            result: Default::default(),
            progress: None,
        };
        self.insist(|| self.control.report_execution(report.clone())).await?;
        let whole = stop.run_until_cancelled(tokio::time::sleep(self.plan.run_time)).await.is_some();
        let line = LogLine {
            ts_ms: now().millis(),
            seq: 1,
            stream: LogStream::Stdout,
            level: "info".to_owned(),
            message: "simulated".to_owned(),
            raw_base64: None,
            unterminated: false,
        };
        let batch = LogBatch { execution_id: id, attempt, lines: vec![line], finished: true };
        self.insist(|| self.control.append_logs(batch.clone())).await?;
        report.completed_at = Some(now());
        if whole {
            (report.status, report.exit_code) = (ExecutionStatus::Completed, Some(0));
            report.result = b"simulated\n".as_slice().into();
        } else {
            (report.status, report.reason) = (ExecutionStatus::Cancelled, Some(Reason::Cancelled));
        }
        self.insist(|| self.control.report_execution(report.clone())).await
    }

    /// Repeats a call until the registry has answered, whatever it says then.
    async fn insist<T, F: Future<Output = Result<T, Fault>>>(&self, call: impl Fn() -> F) -> Result<T, Fault> {
        let mut tries = 0;
        loop {
            match call().await {
                Err(fault) if fault.kind.retry() || fault.kind == ErrorKind::Internal => {
                    self.figures.failed(&fault);
                }
                answered => return answered,
            }
            tokio::time::sleep(backoff(FIRST_PAUSE, SLOWEST, tries)).await;
            tries = tries.saturating_add(1);
        }
    }
}
