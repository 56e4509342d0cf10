//! Everything durable: records with revisions, and the log of their changes.
//!
//! ```text
//!   Table<R> ──┐                 one queue, one committer            one engine transaction
//!   Lease    ──┼─► Store::commit ═══════════════════════► commit_many ═════════════════════► disk, then ack
//!   services ──┘   (guards + ops)   up to 256 batches      (memory, redb)                    └─► head moves
//! ```
//! Invariants: a batch is applied whole or not at all; each applied batch has its own revision, gapless and
//! rising; its changes enter the log in the same transaction; nothing is acknowledged before it is on disk; a
//! refused batch uses no revision and harms no neighbour.

mod batch;
mod commit;
pub mod conformance;
mod directory;
mod engine;
mod error;
mod figures;
pub mod kv;
mod lease;
mod memory;
pub mod redb;
pub mod retention;
mod table;

pub use batch::{Batch, Change, ChangeItem, Conflict, Guard, MOST_KEY, MOST_VALUE, Op, Record, Rev};
pub use commit::Store;
pub use directory::DataDir;
pub use engine::{Engine, Page, Snapshot};
pub use error::Error;
pub use figures::Space;
pub use lease::{Claim, Held, Lease};
pub use memory::Memory;
pub use redb::{Redb, Reserve};
pub use retention::Retention;
pub use table::{Table, Versioned, decode, encode};
pub use types::Keyed;

/// The example is written as a program of its own, and run by a test.
#[cfg(test)]
extern crate self as store;

#[cfg(test)]
mod tests;
