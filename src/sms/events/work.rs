//! A node's work list: its assignments now, and their changes.

use api::{AssignmentEvent, Cursor, WorkList};
use futures_util::{StreamExt, stream, stream::BoxStream};
use std::time::Duration;
use store::decode;
use types::{Assignment, Fault, Keyed, NodeId};

use super::reader::{Read, Reader, continues, out_of_range};
use crate::Sms;

/// Pace of [`AssignmentEvent::Idle`]: agents give a stream up after 60 s of silence, and with thousands of them each
/// such event is a good part of all that the registry sends.
const IDLE: Duration = Duration::from_secs(15);

fn prefix(node: NodeId) -> String {
    format!("{}{node}/", Assignment::PREFIX)
}

/// Everything asked of a node now.
pub(crate) async fn list_work(sms: &Sms, node: NodeId) -> Result<WorkList, Fault> {
    let (mut assignments, mut broken) = (Vec::new(), None);
    let rev = sms
        .bus
        .store()
        .scan(&prefix(node), |record| match decode::<Assignment>(&record.key, &record.value) {
            Ok(assignment) => assignments.push(assignment),
            Err(error) => broken = Some(error),
        })
        .await?;
    match broken {
        Some(error) => Err(error.into()),
        None => Ok(WorkList { cursor: Cursor { log_id: sms.bus.log_id(), rev }, assignments }),
    }
}

/// Changes of a node's work list after a cursor.
///
/// # Errors
/// `OUT_OF_RANGE`: list again.
pub(crate) async fn watch_work(
    sms: &Sms,
    node: NodeId,
    after: Cursor,
) -> Result<BoxStream<'static, Result<AssignmentEvent, Fault>>, Fault> {
    let bus = &sms.bus;
    if !continues(bus, after.log_id, after.rev).await? {
        return Err(out_of_range(bus).await);
    }
    let prefix = prefix(node);
    let reader = Reader::new(bus, &prefix, after.rev, IDLE);
    Ok(reader.follow(bus, sms.stopping.clone()).flat_map(move |read| stream::iter(events(&prefix, read))).boxed())
}

fn events(prefix: &str, read: Result<Read, Fault>) -> Vec<Result<AssignmentEvent, Fault>> {
    let (rev, changes) = match read {
        Ok(Read::Revision { rev, changes }) => (rev, changes),
        Ok(Read::Idle { rev }) => return vec![Ok(AssignmentEvent::Idle { rev })],
        Ok(Read::Lagged) => return Vec::new(),
        Err(fault) => return vec![Err(fault)],
    };
    let last = changes.len();
    let one = |(at, change): (usize, bus::RawChange)| {
        // A cursor stored before the last change of a revision must lead back to all of it.
        let rev = if at + 1 == last { rev } else { rev.saturating_sub(1) };
        match change.value {
            Some(value) => {
                let assignment = decode::<Assignment>(&change.key, &value).map_err(Fault::from)?;
                Ok(AssignmentEvent::Set { rev, assignment })
            }
            None => {
                let id = change.key.strip_prefix(prefix).unwrap_or(&change.key).to_owned();
                Ok(AssignmentEvent::Gone { rev, id })
            }
        }
    };
    changes.into_iter().enumerate().map(one).collect()
}
