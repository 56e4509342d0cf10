//! What a node measures of its link to the registry.

use std::sync::Arc;
use telemetry::{Counter, Metrics};

use super::{Agent, connect::Link};

/// The figures of the link.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(super) reconnects: Counter,
    pub(super) failures: Counter,
    pub(super) registrations: Counter,
}

impl Agent {
    /// Measures from now on.
    pub(crate) fn measure(self: &Arc<Self>, metrics: &Metrics) {
        let new = self.figures.fill(Figures {
            reconnects: metrics.counter("spear_agent_reconnects_total", "Times that a lost registry was found again."),
            failures: metrics
                .counter("spear_agent_contact_failures_total", "Contacts that the registry did not answer."),
            registrations: metrics.counter("spear_agent_registrations_total", "Registrations that the registry took."),
        });
        if !new {
            return;
        }
        let link = self.link.clone();
        metrics.read(
            "spear_agent_registry_connected",
            "1 when the last heartbeat was answered; absent when no registry is wanted.",
            move || match &*link.borrow() {
                Link::Alone => None,
                Link::Up => Some(1.0),
                Link::Connecting { .. } | Link::Lost { .. } | Link::Away { .. } | Link::Refused { .. } => Some(0.0),
            },
        );
    }
}
