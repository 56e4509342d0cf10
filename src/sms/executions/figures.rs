//! What the registry measures of executions.

use std::sync::Arc;
use telemetry::{Counter, Counters, Histogram, Histograms, LONG, Metrics};
use types::{Execution, ExecutionStatus, Timestamp};

use super::Service;

/// The figures of executions.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) created: Counter,
    pub(super) replayed: Counter,
    pub(super) callbacks: Counters<1>,
    finished: Counters<2>,
    queued: Histogram,
    ran: Histograms<1>,
}

impl Figures {
    /// An execution has moved on from a status.
    pub(super) fn moved(&self, before: &Execution, after: &Execution) {
        if before.started_at.is_none()
            && let Some(started) = after.started_at
        {
            self.queued.observe(seconds(after.created_at, started));
        }
        if after.status == before.status || !after.status.terminal() {
            return;
        }
        let reason = after.reason.map_or("none", |reason| reason.as_str());
        self.finished.with([after.status.as_str(), reason]).inc();
        if let (Some(started), Some(ended)) = (after.started_at, after.completed_at) {
            self.ran.with([after.status.as_str()]).observe(seconds(started, ended));
        }
    }
}

/// By the clocks of two machines, perhaps: never less than nothing.
fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.millis().saturating_sub(from.millis()).max(0) as f64 / 1000.0
}

impl Service {
    /// Measures from now on.
    pub(crate) fn measure(self: &Arc<Self>, metrics: &Metrics) {
        let callbacks = metrics.counters(
            "spear_callbacks_total",
            "Tries to tell somebody of the end of an execution, by what came of them.",
            ["outcome"],
        );
        // Alerts look at these before anything has happened.
        for outcome in ["delivered", "retried", "failed"] {
            callbacks.with([outcome]);
        }
        let new = self.figures.fill(Figures {
            created: metrics.counter("spear_executions_created_total", "Executions asked for."),
            replayed: metrics.counter(
                "spear_executions_replayed_total",
                "Requests answered with what an earlier one of the same idempotency key had made.",
            ),
            callbacks,
            finished: metrics.counters(
                "spear_executions_finished_total",
                "Executions that ended; one that was lost and then reported counts twice.",
                ["status", "reason"],
            ),
            queued: metrics.histogram(
                "spear_execution_queue_seconds",
                "Time from the asking for an execution to its beginning on a node.",
                LONG,
            ),
            ran: metrics.histograms(
                "spear_execution_duration_seconds",
                "Time from the beginning of an execution on a node to its end.",
                ["status"],
                LONG,
            ),
        });
        if !new {
            return;
        }
        let service = Arc::downgrade(self);
        metrics.sampled("spear_executions", "Executions that are kept, by status.", ["status"], move || {
            let Some(service) = service.upgrade() else { return Vec::new() };
            let counts = service.index.counts();
            let all = ExecutionStatus::ALL.into_iter().zip(counts);
            all.map(|(status, count)| ([status.as_str().to_owned()], count as f64)).collect()
        });
        let service = Arc::downgrade(self);
        metrics.read(
            "spear_execution_pending_age_seconds",
            "How long the oldest pending execution has waited.",
            move || {
                let service = service.upgrade()?;
                let now = service.clock.wall();
                Some(service.index.oldest_pending().map_or(0.0, |created| seconds(created, now)))
            },
        );
        let service = Arc::downgrade(self);
        metrics.read("spear_executions_unplaced", "Pending executions for which no node was found.", move || {
            Some(service.upgrade()?.index.unplaced_count() as f64)
        });
        let service = Arc::downgrade(self);
        metrics.read("spear_callbacks_pending", "Ends of executions that are still to be told.", move || {
            Some(service.upgrade()?.callbacks.waiting() as f64)
        });
        let service = Arc::downgrade(self);
        metrics.read("spear_tasks", "Tasks that are registered.", move || {
            Some(service.upgrade()?.tasks.read().len() as f64)
        });
    }
}
