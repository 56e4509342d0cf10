//! What the runtime measures of itself.

use std::sync::Arc;
use telemetry::{Counters, Gauge, Histograms, LONG, Metrics};

use crate::Wasm;

/// The figures of the runtime.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Time of a compiling child.
    pub(crate) compile: Histograms<1>,
    /// Where modules came from.
    pub(crate) modules: Counters<1>,
    /// Compilations that failed.
    pub(crate) failures: Counters<1>,
    /// Memory of running guests.
    pub(crate) memory: Gauge,
}

impl Figures {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let modules = metrics.counters(
            "spear_wasm_modules_total",
            "Modules asked for, by where they were found: memory, disk, or compiled anew.",
            ["source"],
        );
        for source in ["memory", "disk", "compiled"] {
            modules.with([source]);
        }
        Self {
            compile: metrics.histograms(
                "spear_wasm_compile_seconds",
                "Time to compile a module in its child, by compiler.",
                ["compiler"],
                LONG,
            ),
            modules,
            failures: metrics.counters(
                "spear_wasm_compile_failures_total",
                "Modules that could not be made ready, by reason.",
                ["reason"],
            ),
            memory: metrics.gauge(
                "spear_wasm_guest_memory_bytes",
                "Memories and tables of the guests that run or wait for a call.",
            ),
        }
    }
}

impl Wasm {
    /// What is known without being counted.
    pub(crate) fn sample(&self, metrics: &Metrics) {
        let shared = Arc::downgrade(&self.shared);
        metrics.read("spear_wasm_guests", "Guests that run.", move || {
            let shared = shared.upgrade()?;
            Some(shared.concurrency.saturating_sub(shared.places.available_permits()) as f64)
        });
        let most = self.shared.concurrency as f64;
        metrics.read("spear_wasm_guests_limit", "Guests that may run at once.", move || Some(most));
    }
}
