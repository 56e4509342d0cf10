//! The process-wide event bus.
//!
//! Two words, two guarantees. **Changes** are committed records: durable, ordered, replayable, and nobody
//! publishes them, because a committed change is the event. **Signals** may be missed and never block.
//!
//! ```text
//!   store ── head ──► tail task ──► one ring per prefix that somebody reads ──► readers (a position each)
//!                                        │ behind the ring: pages of the log
//!                                        └ behind the log: Lagged, as a value
//! ```
//! Invariants: every reader of a prefix sees its changes in the order of revisions, none twice, none left out
//! without `Lagged`; the publisher never waits for a reader; `cursor()` is the last revision handed out whole.

mod changes;
mod figures;
mod mirror;
mod ring;
mod signal;
mod tail;

pub use changes::{Changes, Delivery, From, RawChange, RawChanges, RawDelivery};
pub use mirror::{Mirror, OnChange};
pub use signal::{Signal, Signalled, Signals};
pub use tail::Bus;

/// The bus has stopped, or the store below it failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It has stopped.
    #[error("the event bus has stopped")]
    Closed,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

#[cfg(test)]
mod tests;
