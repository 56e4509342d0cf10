//! What goes on beside a run: its log is shipped, and the registry hears that it runs and how far it is.
//!
//! Both go on until they are dropped with the run's end; whatever they did not get through is delivered then.

use api::control::ExecutionReport;
use bytes::Bytes;
use runtime::LogSink;
use std::{convert::Infallible, future::pending, time::Duration};
use tokio::sync::watch;
use types::{ExecutionStatus, Progress, Timestamp};

use super::{
    Executor,
    book::Job,
    logs::{Shipped, Shipper},
    records::unwanted,
};
use crate::agent::connect::{LONG_ANSWER, within};

/// Progress is told and logged no more often.
const TELL_PACE: Duration = Duration::from_secs(1);
/// A run shorter than this is heard of when it has ended.
const TELL_DELAY: Duration = Duration::from_millis(20);
/// Log lines are gathered this long before they are shipped.
const SHIP_PACE: Duration = Duration::from_millis(100);

impl Executor {
    /// Ships the log while the execution runs.
    pub(super) async fn ship(&self, job: &Job, first_seq: u64, mut unsent: watch::Receiver<()>) -> Infallible {
        let Ok(registry) = self.registry() else { return pending().await };
        let mut shipper = Shipper::new(&self.logs, (job.id, job.attempt), first_seq);
        let (mut tries, mut caught_up) = (0, true);
        loop {
            if caught_up && unsent.changed().await.is_err() {
                return pending().await;
            }
            tokio::time::sleep(SHIP_PACE).await;
            match shipper.step(&**registry, false).await {
                Ok(Shipped::Stuck) => return pending().await,
                Ok(shipped) => {
                    (caught_up, tries) = (shipped == Shipped::All, 0);
                    self.book().shipped(job.id, shipper.next_seq());
                }
                Err(fault) if unwanted(&fault) => return pending().await,
                Err(_) => {
                    caught_up = false;
                    self.pause(tries).await;
                    tries += 1;
                }
            }
        }
    }

    /// Tells the registry that it runs, and how far it is.
    pub(super) async fn tell(
        &self,
        job: &Job,
        begun: Timestamp,
        sink: &LogSink,
        mut told: watch::Receiver<Option<Progress>>,
    ) -> Infallible {
        let Ok(registry) = self.registry() else { return pending().await };
        let (mut tries, mut told_before) = (0, false);
        tokio::time::sleep(TELL_DELAY).await;
        loop {
            let progress = told.borrow_and_update().clone();
            let report = running(self, job, begun, progress.clone());
            match within(LONG_ANSWER, "report", registry.report_execution(report)).await {
                Ok(()) => tries = 0,
                Err(fault) if unwanted(&fault) => {
                    self.check(job.id, None).await;
                    return pending().await;
                }
                Err(_) => {
                    self.pause(tries).await;
                    tries += 1;
                    continue;
                }
            }
            // Only what takes longer than a beat is worth a line.
            if let Some(Progress { phase, done_bytes, total_bytes }) = progress
                && told_before
                && done_bytes > 0
                && total_bytes != Some(done_bytes)
            {
                let of = total_bytes.map(|total| format!(" of {total}")).unwrap_or_default();
                sink.system("info", format!("{phase}: {done_bytes}{of} bytes"));
            }
            told_before = true;
            tokio::time::sleep(TELL_PACE).await;
            if told.changed().await.is_err() {
                return pending().await;
            }
        }
    }
}

fn running(executor: &Executor, job: &Job, begun: Timestamp, progress: Option<Progress>) -> ExecutionReport {
    ExecutionReport {
        execution_id: job.id,
        attempt: job.attempt,
        node_uuid: executor.node,
        status: ExecutionStatus::Running,
        reason: None,
        message: String::new(),
        started_at: Some(begun),
        completed_at: None,
        exit_code: None,
        usage: None,
        result: Bytes::new(),
        progress,
    }
}
