//! The original's task events, made of a node's assignments.

use api::proto::sms::{TaskEvent, TaskEventKind};
use futures_util::{Stream, StreamExt, stream};
use std::time::Duration;
use store::{Rev, decode};
use types::{Assignment, AssignmentKind, Fault, Keyed, LogId, NodeId};

use super::reader::{Read, Reader, continues, out_of_range};
use crate::Sms;

/// A quiet stream needs no words of its own: the connection's pings keep it alive.
const IDLE: Duration = Duration::from_secs(60);

fn event(rev: Rev, assignment: &Assignment) -> TaskEvent {
    let kind = match assignment.kind {
        AssignmentKind::Create => TaskEventKind::Create,
        AssignmentKind::Run => TaskEventKind::Update,
        AssignmentKind::Cancel => TaskEventKind::Cancel,
    };
    TaskEvent {
        event_id: i64::try_from(rev).unwrap_or(i64::MAX),
        ts: assignment.at.seconds(),
        node_uuid: assignment.node_uuid.to_string(),
        task_id: assignment.task_id.to_string(),
        kind: kind.into(),
        execution_id: assignment.execution_id.map(|id| id.to_string()),
    }
}

/// Events of a node after one, then live. After 0: what is asked of the node now, then live.
///
/// # Errors
/// `OUT_OF_RANGE` when the log is another, does not reach back that far or not yet that far.
pub(crate) async fn task_events(
    sms: &Sms,
    node: NodeId,
    log_id: Option<LogId>,
    after: Rev,
) -> Result<impl Stream<Item = Result<TaskEvent, Fault>> + Send + use<>, Fault> {
    let (bus, stopping) = (&sms.bus, sms.stopping.clone());
    let own = bus.log_id();
    let prefix = format!("{}{node}/", Assignment::PREFIX);
    let (now, from) = if after == 0 && log_id.is_none_or(|id| id == own) {
        let (mut listed, mut broken) = (Vec::new(), None);
        let rev = bus
            .store()
            .scan(&prefix, |record| match decode::<Assignment>(&record.key, &record.value) {
                Ok(assignment) => listed.push(event(record.modified, &assignment)),
                Err(error) => broken = Some(error),
            })
            .await?;
        if let Some(error) = broken {
            return Err(error.into());
        }
        // Those newer than the first page come again from the log.
        listed.retain(|event| u64::try_from(event.event_id).is_ok_and(|id| id <= rev));
        listed.sort_by_key(|event| event.event_id);
        (listed, rev)
    } else if continues(bus, log_id.unwrap_or(own), after).await? {
        (Vec::new(), after)
    } else {
        return Err(out_of_range(bus).await);
    };
    let live = Reader::new(bus, &prefix, from, IDLE).follow(bus, stopping).flat_map(|read| stream::iter(events(read)));
    Ok(stream::iter(now.into_iter().map(Ok)).chain(live))
}

fn events(read: Result<Read, Fault>) -> Vec<Result<TaskEvent, Fault>> {
    match read {
        Ok(Read::Revision { rev, changes }) => changes
            .iter()
            .filter_map(|change| {
                let value = change.value.as_ref()?;
                let assignment = decode::<Assignment>(&change.key, value);
                Some(assignment.map(|assignment| event(rev, &assignment)).map_err(Fault::from))
            })
            .collect(),
        Ok(Read::Idle { .. } | Read::Lagged) => Vec::new(),
        Err(fault) => vec![Err(fault)],
    }
}
