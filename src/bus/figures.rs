//! What a bus measures of itself.

use std::sync::Arc;
use telemetry::{Counter, Metrics};

use crate::Bus;

/// The figures of one bus.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Readers that were told to list again.
    pub(crate) lagged: Counter,
    /// Pages of the log read by readers behind the ring.
    pub(crate) behind: Counter,
}

impl Bus {
    /// Measures from now on, under a name: `sms`.
    pub fn measure(&self, metrics: &Metrics, name: &'static str) {
        let figures = Figures {
            lagged: metrics
                .counters(
                    "spear_bus_readers_lagged_total",
                    "Readers that fell behind the change log and had to list again.",
                    ["bus"],
                )
                .with([name]),
            behind: metrics
                .counters(
                    "spear_bus_log_pages_total",
                    "Pages of the change log read for readers that fell behind the ring in memory.",
                    ["bus"],
                )
                .with([name]),
        };
        if !self.inner.figures.fill(figures) {
            return;
        }
        let inner = Arc::downgrade(&self.inner);
        metrics.sampled(
            "spear_bus_lag_revisions",
            "Committed revisions that readers of the event bus cannot see yet.",
            ["bus"],
            move || {
                let Some(inner) = inner.upgrade() else { return Vec::new() };
                let tail = *inner.tail.borrow();
                let lag = inner.store.head().borrow().saturating_sub(tail);
                vec![([name.to_owned()], lag as f64)]
            },
        );
        let inner = Arc::downgrade(&self.inner);
        metrics.sampled(
            "spear_bus_followed_prefixes",
            "Prefixes of keys, each mostly a kind of record, that somebody follows.",
            ["bus"],
            move || inner.upgrade().map(|inner| vec![([name.to_owned()], inner.followed() as f64)]).unwrap_or_default(),
        );
    }
}
