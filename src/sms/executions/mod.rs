//! Executions: runs of tasks, from being asked for to their result, log and removal.
//!
//! ```text
//!   run ──► service ──► transition (the one place that changes a status) ──► one batch:
//!                          ▲   ▲   ▲                                         record + assignment (+ result)
//!        agent's reports ──┘   │   └── lost: nodes that stayed away
//!        cancel ───────────────┘       placer: a node for those that wait
//!   keys:  a request that is sent again finds what it made     callbacks: who wants to be told of an end is told
//!   index: every execution in brief, in memory, following the change log      retention: the oldest go
//!   logs:  one file of lines per execution, on disk before it is acknowledged
//! ```
//! Invariants: a terminal status never changes, except that `lost` yields to the late report of its attempt;
//! an execution has an assignment exactly while it is open and has a node; a revision changes at most one
//! assignment of a node, so that a node's cursor never stands inside a revision.

pub(crate) mod callbacks;
mod creation;
mod figures;
mod follow;
pub mod grpc;
pub mod http;
pub(crate) mod idempotency;
pub(crate) mod index;
mod line;
pub(crate) mod logs;
pub(crate) mod logs_http;
mod lost;
mod placer;
mod records;
mod retention;
mod service;
mod transition;
pub(crate) mod view;

pub(crate) use index::{Filter, LastRun};
pub use logs::Appended;
pub(crate) use records::{MOST_INPUT, NewRun};
pub use service::{Deps, Service};

#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;
