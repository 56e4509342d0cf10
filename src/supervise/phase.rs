//! The order in which the process stops.

use std::time::Duration;

/// What a task belongs to; phases stop in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Listeners and triggers: nothing new comes in.
    Intake,
    /// Running calls and executions.
    Work,
    /// Results, logs and the last word to the registry.
    Report,
    /// The tail of the change log.
    Bus,
    /// The store: flushed and closed last, and never abandoned.
    Store,
}

impl Phase {
    /// All, in the order of stopping.
    pub const ALL: [Self; 5] = [Self::Intake, Self::Work, Self::Report, Self::Bus, Self::Store];

    /// As people read it: `intake`, `work`, `report`, `bus`, `store`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Work => "work",
            Self::Report => "report",
            Self::Bus => "bus",
            Self::Store => "store",
        }
    }
}

/// How long each phase may take to stop.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// For everything; the store gets what the others leave.
    pub total: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { total: Duration::from_secs(20) }
    }
}

impl Budget {
    /// The share of a phase; the store's is what is left, and it is waited for in any case.
    pub fn share(&self, phase: Phase) -> Duration {
        let tenths = match phase {
            Phase::Intake => 2,
            Phase::Work => 12,
            Phase::Report => 3,
            Phase::Bus => 1,
            Phase::Store => 2,
        };
        self.total * tenths / 20
    }
}
