//! A log as an endless reader sees it: what is there, then what comes, until nothing more can.

use futures_util::{Stream, stream};
use std::{sync::Arc, time::Duration};
use types::{ExecutionId, Fault, LogLine};

use super::Service;

/// Lines read at once.
const PAGE: usize = 500;
/// How long after the end a node may take to deliver the rest.
const REST: Duration = Duration::from_secs(30);

struct Follower {
    service: Arc<Service>,
    stopping: supervise::Stop,
    id: ExecutionId,
    after: u64,
    done: bool,
}

/// Pages of lines after a number; ends when the log is complete, its execution is removed or the process stops.
pub(crate) fn follow(
    service: Arc<Service>,
    stopping: supervise::Stop,
    id: ExecutionId,
    after: u64,
) -> impl Stream<Item = Result<Vec<LogLine>, Fault>> + Send + 'static {
    let follower = Follower { service, stopping, id, after, done: false };
    stream::unfold(follower, |mut follower| async move {
        if follower.done {
            return None;
        }
        match follower.next().await {
            Ok(lines) if lines.is_empty() => None,
            Ok(lines) => Some((Ok(lines), follower)),
            Err(fault) => {
                follower.done = true;
                Some((Err(fault), follower))
            }
        }
    })
}

impl Follower {
    /// The next lines; none at the end.
    async fn next(&mut self) -> Result<Vec<LogLine>, Fault> {
        let log = self.service.log(self.id);
        let mut moved = log.watch();
        loop {
            moved.mark_unchanged();
            // Before the lines are read, so that none can slip in between.
            let end = self.service.end_of(self.id);
            let (page, complete) = match self.service.read_logs(self.id, self.after, PAGE).await {
                Err(fault) if fault.kind == types::ErrorKind::NotFound => return Ok(Vec::new()),
                other => other?,
            };
            if let Some(last) = page.lines.last() {
                self.after = last.seq;
                return Ok(page.lines);
            }
            if complete {
                return Ok(Vec::new());
            }
            let ended = end.is_none();
            let rest = async {
                match end {
                    Some(end) => drop(end.await),
                    None => tokio::time::sleep(REST).await,
                }
            };
            tokio::select! {
                () = self.stopping.cancelled() => return Ok(Vec::new()),
                // Fails never: `log` keeps the sender.
                _ = moved.changed() => {}
                () = rest => if ended { return Ok(Vec::new()) },
            }
        }
    }
}
