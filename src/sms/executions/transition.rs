//! The state machine: every change of an execution is an [`Event`] applied here, and nowhere else.
//!
//! ```text
//!   Place ─► has a node      Report ─► running, terminal      Cancel ─► asked for, or at once without a node
//!   Wait  ─► says why not    Move   ─► next attempt, no node   Lost   ─► lost
//! ```
//! An event that no longer fits (the race was lost) changes nothing. [`effects`] derives the assignment from the
//! record before and after, so that the two cannot disagree.

use api::ExecutionReport;
use store::{Batch, Error, Guard, Keyed, Op, encode};
use types::{Assignment, AssignmentKind, Execution, ExecutionStatus, Fault, NodeId, Progress, Reason, Timestamp};

/// Longest message kept of a report, bytes.
const MOST_MESSAGE: usize = 4096;
/// Longest name of a phase kept, bytes.
const MOST_PHASE: usize = 64;

/// What happens to an execution.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// A node was found.
    Place(NodeId),
    /// No node was found; why.
    Wait(&'a str),
    /// The node went away before it began: the next attempt may run elsewhere.
    Move { from: NodeId, message: &'a str },
    /// The node went away while it ran.
    Lost { from: NodeId, message: &'a str },
    /// Somebody wants it stopped.
    Cancel(&'a str),
    /// The node tells.
    Report(&'a ExecutionReport),
}

/// Did an event change anything?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The record is another now.
    Changed,
    /// It came too late, or said nothing new.
    Same,
}

/// Applies an event to a record.
///
/// # Errors
/// `STALE_ATTEMPT` for a report of another attempt or node; `EXECUTION_ENDED` when there is nothing to cancel.
pub(crate) fn apply(execution: &mut Execution, event: &Event<'_>, now: Timestamp) -> Result<Step, Fault> {
    let step = match event {
        Event::Place(node) => place(execution, *node),
        Event::Wait(message) => wait(execution, message),
        Event::Move { from, message } => leave(execution, *from, message, now),
        Event::Lost { from, message } => lost(execution, *from, message, now),
        Event::Cancel(message) => cancel(execution, message, now)?,
        Event::Report(report) => self::report(execution, report, now)?,
    };
    if step == Step::Changed {
        execution.updated_at = now;
    }
    Ok(step)
}

/// The one assignment of a status; refuses what the state machine does not allow.
fn become_status(execution: &mut Execution, next: ExecutionStatus) -> Step {
    if !execution.status.may_become(next) {
        return Step::Same;
    }
    execution.status = next;
    Step::Changed
}

fn place(execution: &mut Execution, node: NodeId) -> Step {
    if execution.status != ExecutionStatus::Pending || execution.node_uuid.is_some() {
        return Step::Same;
    }
    execution.node_uuid = Some(node);
    execution.reason = None;
    execution.message.clear();
    Step::Changed
}

fn wait(execution: &mut Execution, message: &str) -> Step {
    let waits = execution.status == ExecutionStatus::Pending && execution.node_uuid.is_none();
    if !waits || (execution.reason == Some(Reason::NoNode) && execution.message == message) {
        return Step::Same;
    }
    execution.reason = Some(Reason::NoNode);
    message.clone_into(&mut execution.message);
    Step::Changed
}

fn leave(execution: &mut Execution, from: NodeId, message: &str, now: Timestamp) -> Step {
    if execution.status != ExecutionStatus::Pending || execution.node_uuid != Some(from) {
        return Step::Same;
    }
    if execution.cancel_requested {
        return end(execution, ExecutionStatus::Cancelled, Reason::Cancelled, message, now);
    }
    execution.node_uuid = None;
    execution.attempt = execution.attempt.saturating_add(1);
    execution.reason = Some(Reason::NoNode);
    message.clone_into(&mut execution.message);
    Step::Changed
}

fn lost(execution: &mut Execution, from: NodeId, message: &str, now: Timestamp) -> Step {
    if execution.status != ExecutionStatus::Running || execution.node_uuid != Some(from) {
        return Step::Same;
    }
    end(execution, ExecutionStatus::Lost, Reason::NodeLost, message, now)
}

fn end(execution: &mut Execution, next: ExecutionStatus, reason: Reason, message: &str, now: Timestamp) -> Step {
    if become_status(execution, next) == Step::Same {
        return Step::Same;
    }
    execution.reason = Some(reason);
    message.clone_into(&mut execution.message);
    execution.completed_at = Some(now);
    execution.progress = None;
    Step::Changed
}

fn cancel(execution: &mut Execution, message: &str, now: Timestamp) -> Result<Step, Fault> {
    if execution.status.terminal() {
        let status = execution.status;
        return Err(Fault::conflict("EXECUTION_ENDED", format!("the execution has already ended: {status}")));
    }
    if execution.cancel_requested {
        return Ok(Step::Same);
    }
    execution.cancel_requested = true;
    if execution.node_uuid.is_none() {
        end(execution, ExecutionStatus::Cancelled, Reason::Cancelled, message, now);
    } else {
        message.clone_into(&mut execution.message);
    }
    Ok(Step::Changed)
}

fn report(execution: &mut Execution, report: &ExecutionReport, now: Timestamp) -> Result<Step, Fault> {
    if matches!(report.status, ExecutionStatus::Pending | ExecutionStatus::Lost) {
        let wrong = format!("a node reports running, completed, failed, cancelled or timeout, not {}", report.status);
        return Err(Fault::invalid_field("status", wrong));
    }
    if report.attempt != execution.attempt || Some(report.node_uuid) != execution.node_uuid {
        let message = format!(
            "the report is for attempt {} on node {}; the execution is at attempt {} on {}",
            report.attempt,
            report.node_uuid,
            execution.attempt,
            execution.node_uuid.map_or_else(|| "no node".to_owned(), |node| format!("node {node}")),
        );
        return Err(Fault::conflict("STALE_ATTEMPT", message));
    }
    if execution.status == ExecutionStatus::Running && report.status == ExecutionStatus::Running {
        return Ok(progress(execution, report));
    }
    if become_status(execution, report.status) == Step::Same {
        return Ok(Step::Same);
    }
    execution.reason = report.reason;
    execution.message = clipped(&report.message, MOST_MESSAGE);
    execution.progress = bounded(report);
    execution.started_at = report.started_at.or(execution.started_at);
    if report.status.terminal() {
        execution.completed_at = Some(report.completed_at.unwrap_or(now));
        execution.exit_code = report.exit_code;
        execution.usage = report.usage;
        execution.result_bytes = report.result.len() as u64;
        execution.progress = None;
    }
    // A failure may come before the beginning; these cannot.
    if matches!(report.status, ExecutionStatus::Running | ExecutionStatus::Completed) {
        execution.started_at.get_or_insert(now);
    }
    Ok(Step::Changed)
}

fn progress(execution: &mut Execution, report: &ExecutionReport) -> Step {
    let started = report.started_at.or(execution.started_at);
    let progress = bounded(report);
    if progress == execution.progress && started == execution.started_at {
        return Step::Same;
    }
    execution.progress = progress;
    execution.started_at = started;
    Step::Changed
}

/// The progress of a report, with a word of bounded length.
fn bounded(report: &ExecutionReport) -> Option<Progress> {
    report.progress.as_ref().map(|told| Progress { phase: clipped(&told.phase, MOST_PHASE), ..told.clone() })
}

fn clipped(message: &str, most: usize) -> String {
    let end = (0..=message.len().min(most)).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
    message.get(..end).unwrap_or_default().to_owned()
}

/// The assignment that a record calls for: none unless it is open and has a node.
fn assignment(execution: &Execution, now: Timestamp) -> Option<Assignment> {
    let node_uuid = execution.node_uuid.filter(|_| !execution.status.terminal())?;
    let kind = match (execution.cancel_requested, execution.first) {
        (true, _) => AssignmentKind::Cancel,
        (false, true) => AssignmentKind::Create,
        (false, false) => AssignmentKind::Run,
    };
    Some(Assignment {
        node_uuid,
        task_id: execution.task_id,
        execution_id: Some(execution.id),
        attempt: execution.attempt,
        kind,
        at: now,
    })
}

/// Adds to a batch what the change of a record means for its node.
pub(crate) fn effects(before: &Execution, after: &Execution, now: Timestamp, batch: &mut Batch) -> Result<(), Error> {
    let (had, has) = (assignment(before, now), assignment(after, now));
    if had == has {
        return Ok(());
    }
    if let Some(had) = &had
        && has.as_ref().is_none_or(|has| has.key() != had.key())
    {
        batch.ops.push(Op::Delete(had.key()));
    }
    if let Some(has) = &has {
        batch.ops.push(Op::Put(has.key(), encode(has)?));
    }
    Ok(())
}

/// Adds to a batch a new execution with what it means for its node.
pub(crate) fn creation(execution: &Execution, now: Timestamp, batch: &mut Batch) -> Result<(), Error> {
    batch.guards.push(Guard::Absent(execution.key()));
    batch.ops.push(Op::Put(execution.key(), encode(execution)?));
    if let Some(first) = assignment(execution, now) {
        batch.ops.push(Op::Put(first.key(), encode(&first)?));
    }
    Ok(())
}
