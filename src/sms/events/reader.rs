//! Reads the change log revision by revision, and says when nothing happens.

use bus::{Bus, RawChange, RawChanges, RawDelivery};
use futures_util::{FutureExt, Stream, stream};
use std::time::Duration;
use store::Rev;
use supervise::Stop;
use types::{ErrorKind, Fault, LogId};

/// How long a position just ahead of us is waited for: a reader may have seen a commit before the head moved.
const AHEAD: Duration = Duration::from_secs(1);

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// All changes of one revision under the prefix.
    Revision {
        /// The revision.
        rev: Rev,
        /// Its changes, in order; never empty.
        changes: Vec<RawChange>,
    },
    /// Nothing for a while; everything up to here was handed out.
    Idle {
        /// The revision.
        rev: Rev,
    },
    /// The log no longer reaches back to this reader.
    Lagged,
}

/// Follows the changes under a prefix.
pub(crate) struct Reader {
    raw: RawChanges,
    idle: Duration,
}

impl Reader {
    /// After a revision; says [`Read::Idle`] whenever `idle` passes without a change.
    pub(crate) fn new(bus: &Bus, prefix: &str, after: Rev, idle: Duration) -> Self {
        Self { raw: bus.raw(prefix, bus::From::After(after)), idle }
    }

    /// Goes on after another revision.
    pub(crate) fn seek(&mut self, rev: Rev) {
        self.raw.seek(rev);
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Result<Read, bus::Error> {
        let first = match tokio::time::timeout(self.idle, self.raw.next()).await {
            Ok(first) => first?,
            // Looked once more, so that the position is as far as the bus is now.
            Err(_) => match self.raw.next().now_or_never() {
                Some(first) => first?,
                None => return Ok(Read::Idle { rev: self.raw.cursor() }),
            },
        };
        let RawDelivery::Change(first) = first else { return Ok(Read::Lagged) };
        let (rev, mut changes) = (first.rev, vec![first]);
        // The rest of a revision is at hand: this does not wait.
        while self.raw.cursor() < rev {
            match self.raw.next().await? {
                RawDelivery::Change(more) => changes.push(more),
                RawDelivery::Lagged { .. } => return Ok(Read::Lagged),
            }
        }
        Ok(Read::Revision { rev, changes })
    }

    /// As a stream that ends when the process stops, and after the fault of a reader that lags.
    pub(crate) fn follow(self, bus: &Bus, stopping: Stop) -> impl Stream<Item = Result<Read, Fault>> + Send + use<> {
        let state = Some((self, bus.clone(), stopping));
        stream::unfold(state, |state| async move {
            let (mut reader, bus, stopping) = state?;
            let read = tokio::select! {
                () = stopping.cancelled() => return None,
                read = reader.next() => read,
            };
            match read {
                Ok(Read::Lagged) => Some((Err(out_of_range(&bus).await), None)),
                Ok(read) => Some((Ok(read), Some((reader, bus, stopping)))),
                Err(bus::Error::Closed) => None,
                Err(error) => Some((Err(crate::bus_fault(error)), None)),
            }
        })
    }
}

/// Can a reader go on after a revision of a log?
pub(crate) async fn continues(bus: &Bus, log_id: LogId, after: Rev) -> Result<bool, Fault> {
    if log_id != bus.log_id() {
        return Ok(false);
    }
    let mut head = bus.store().head();
    let reached = head.wait_for(|head| *head >= after);
    // Running out of time and a closed store both mean that it is not there.
    let there = matches!(tokio::time::timeout(AHEAD, reached).await, Ok(Ok(_)));
    Ok(there && after >= bus.store().floor().await?)
}

/// The fault of a position that cannot be continued.
pub(crate) async fn out_of_range(bus: &Bus) -> Fault {
    let oldest = bus.store().floor().await.map_or(0, |floor| floor.saturating_add(1));
    let (head, log_id) = (bus.head(), bus.log_id());
    let message = format!("this position cannot be continued: log_id={log_id} oldest={oldest} head={head}; list again");
    Fault::new(ErrorKind::OutOfRange, "OUT_OF_RANGE", message)
}
