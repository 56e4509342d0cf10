//! What a node measures of its executions.

use std::sync::Arc;
use telemetry::{Counter, Counters, Histogram, Histograms, LONG, Metrics};

use super::{Executor, records::Ending};

/// The figures of the executor.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) accepted: Counter,
    ended: Counters<2>,
    ran: Histograms<1>,
    pub(super) fetch: Histogram,
    pub(super) prepare: Histogram,
    pub(super) run: Histogram,
    pub(super) deliveries: Counters<1>,
}

impl Figures {
    fn new(metrics: &Metrics) -> Self {
        let phases = metrics.histograms(
            "spear_agent_phase_seconds",
            "Time that executions spent in a phase: fetch, compile, run.",
            ["phase"],
            LONG,
        );
        let deliveries = metrics.counters(
            "spear_agent_deliveries_total",
            "Tries to deliver a result to the registry: acknowledged, refused for good, or failed for now.",
            ["outcome"],
        );
        for outcome in ["acknowledged", "refused", "failed"] {
            deliveries.with([outcome]);
        }
        Self {
            accepted: metrics.counter("spear_agent_executions_accepted_total", "Executions taken from the registry."),
            ended: metrics.counters(
                "spear_agent_executions_finished_total",
                "Executions that ended on this node, by status and reason.",
                ["status", "reason"],
            ),
            ran: metrics.histograms(
                "spear_agent_execution_duration_seconds",
                "Time from the beginning of an execution on this node to its end, fetching and compiling included.",
                ["status"],
                LONG,
            ),
            fetch: phases.with(["fetch"]),
            prepare: phases.with(["compile"]),
            run: phases.with(["run"]),
            deliveries,
        }
    }

    pub(super) fn ended(&self, ending: &Ending) {
        let (status, reason) = (ending.status.as_str(), ending.reason.map_or("none", |reason| reason.as_str()));
        self.ended.with([status, reason]).inc();
        if let Some(started) = ending.started_at {
            let took = ending.completed_at.millis().saturating_sub(started.millis()).max(0);
            self.ran.with([status]).observe(took as f64 / 1000.0);
        }
    }
}

impl Executor {
    /// Measures from now on.
    pub(crate) fn measure(self: &Arc<Self>, metrics: &Metrics) {
        if !self.figures.fill(Figures::new(metrics)) {
            return;
        }
        let executor = Arc::downgrade(self);
        metrics.sampled(
            "spear_agent_executions",
            "Executions that this node holds: waiting, running, or ended with a result to deliver.",
            ["state"],
            move || {
                let Some(executor) = executor.upgrade() else { return Vec::new() };
                let (waiting, running, outbox) = executor.book().held_by_state();
                let states = [("waiting", waiting), ("running", running), ("outbox", outbox)];
                states.map(|(state, count)| ([state.to_owned()], count as f64)).into()
            },
        );
        let most = self.config.get().concurrency as f64;
        metrics.read("spear_agent_executions_limit", "Executions that may run at once.", move || Some(most));
    }
}
