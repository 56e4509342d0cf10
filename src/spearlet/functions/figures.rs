//! What a node measures of the calls that come to it.

use std::{sync::Arc, time::Duration};
use telemetry::{Counter, Counters, Histogram, Metrics, SHORT};
use types::{ExecutionStatus, Reason};

use super::Functions;

/// The figures of calls.
#[derive(Debug)]
pub(super) struct Figures {
    ended: Counters<2>,
    duration: Histogram,
    wait: Histogram,
    cold: Counter,
    pub(super) refused: Counter,
}

impl Figures {
    fn new(metrics: &Metrics) -> Self {
        let ended = metrics.counters(
            "spear_function_calls_total",
            "Calls of functions that ended on this node, by status and reason.",
            ["status", "reason"],
        );
        // There from the beginning, so that the first call is seen as a rise.
        ended.with([ExecutionStatus::Completed.as_str(), "none"]);
        Self {
            ended,
            duration: metrics.histogram(
                "spear_function_call_seconds",
                "Time from a call of a function to its end, waiting included.",
                SHORT,
            ),
            wait: metrics.histogram(
                "spear_function_queue_seconds",
                "Time that calls waited for a place and an instance.",
                SHORT,
            ),
            cold: metrics.counter("spear_function_cold_starts_total", "Calls that an instance had to be made for."),
            refused: metrics.counter("spear_function_refused_total", "Calls refused because everything was taken."),
        }
    }

    pub(super) fn waited(&self, time: Duration, cold: bool) {
        self.wait.took(time);
        if cold {
            self.cold.inc();
        }
    }

    pub(super) fn ended(&self, status: ExecutionStatus, reason: Option<Reason>, time: Duration) {
        self.ended.with([status.as_str(), reason.map_or("none", |reason| reason.as_str())]).inc();
        self.duration.took(time);
    }
}

impl Functions {
    /// Measures from now on.
    pub(crate) fn measure(self: &Arc<Self>, metrics: &Metrics) {
        if !self.figures.fill(Figures::new(metrics)) {
            return;
        }
        let functions = Arc::downgrade(self);
        metrics.sampled(
            "spear_function_calls_in_flight",
            "Calls of functions: under way, or waiting for a place.",
            ["state"],
            move || {
                let Some(functions) = functions.upgrade() else { return Vec::new() };
                let all = functions.all();
                let busy: usize = all.iter().map(|function| function.pool.busy()).sum();
                let waiting: usize = all.iter().map(|function| function.pool.waiting()).sum();
                [("running", busy), ("waiting", waiting)]
                    .map(|(state, count)| ([state.to_owned()], count as f64))
                    .into()
            },
        );
        let functions = Arc::downgrade(self);
        metrics.sampled(
            "spear_function_instances",
            "Instances of functions on this node, by what they do.",
            ["state"],
            move || {
                let Some(functions) = functions.upgrade() else { return Vec::new() };
                let all = functions.instances();
                let idle = all.iter().filter(|(_, view)| view.state == runtime::InstanceState::Idle).count();
                let states = [("idle", idle), ("busy", all.len() - idle)];
                states.map(|(state, count)| ([state.to_owned()], count as f64)).into()
            },
        );
        let functions = Arc::downgrade(self);
        metrics.read("spear_functions", "Functions that are ready on this node.", move || {
            Some(functions.upgrade()?.all().len() as f64)
        });
    }
}
