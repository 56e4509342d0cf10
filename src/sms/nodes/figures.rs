//! What the registry measures of its nodes.

use std::sync::Arc;
use telemetry::{Counter, Metrics};
use types::Liveness;

use super::service::Service;

/// The figures of the nodes.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) heartbeats: Counter,
    pub(super) registrations: Counter,
    pub(super) silent: Counter,
    pub(super) removed: Counter,
    pub(super) pauses: Counter,
}

impl Service {
    /// Measures from now on.
    pub(crate) fn measure(self: &Arc<Self>, metrics: &Metrics) {
        let new = self.figures.fill(Figures {
            heartbeats: metrics.counter("spear_node_heartbeats_total", "Heartbeats taken."),
            registrations: metrics.counter("spear_node_registrations_total", "Registrations taken, repeated ones too."),
            silent: metrics.counter("spear_node_expirations_total", "Nodes that fell silent and were marked offline."),
            removed: metrics.counter("spear_node_removals_total", "Nodes removed after being offline for too long."),
            pauses: metrics.counter(
                "spear_node_clock_pauses_total",
                "Times that this process itself stood still, after which every node got its full time again.",
            ),
        });
        if !new {
            return;
        }
        let nodes = Arc::downgrade(self);
        metrics.sampled(
            "spear_nodes",
            "Nodes: online ones that take work, draining ones that take no new work, offline ones.",
            ["state"],
            move || nodes.upgrade().map(|nodes| nodes.by_state()).unwrap_or_default(),
        );
        let nodes = Arc::downgrade(self);
        metrics.read(
            "spear_node_heartbeat_age_seconds",
            "The longest that an online node has been silent.",
            move || Some(nodes.upgrade()?.longest_silence().as_secs_f64()),
        );
        let nodes = Arc::downgrade(self);
        metrics.read(
            "spear_node_brake_engaged",
            "1 while so many nodes are silent at once that nothing is removed and no work is taken away.",
            move || Some(f64::from(u8::from(nodes.upgrade()?.braked()))),
        );
    }

    fn by_state(&self) -> Vec<([String; 1], f64)> {
        let (mut online, mut draining, mut offline) = (0.0, 0.0, 0.0);
        for node in self.live().values() {
            let count = match node.liveness {
                Liveness::Offline => &mut offline,
                Liveness::Online if node.takes_work() => &mut online,
                Liveness::Online => &mut draining,
            };
            *count += 1.0;
        }
        let states = [("online", online), ("draining", draining), ("offline", offline)];
        states.map(|(state, count)| ([state.to_owned()], count)).into()
    }
}
