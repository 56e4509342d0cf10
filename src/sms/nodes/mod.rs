//! Nodes: who is registered, who lives, how loaded each is.
//!
//! ```text
//!   register · update · delete ─► store ─► change ─► mirror ─► every read
//!   heartbeat ─► pulses (memory) ─ sweep ─► online → offline → removed      only transitions are committed
//!   load      ─► memory, gone with the process: agents send it again
//! ```

mod figures;
pub mod grpc;
mod home;
pub mod http;
mod liveness;
mod records;
mod service;
mod stats;
mod sweep;
mod touched;
pub(crate) mod views;

pub use records::NodeBeat;
pub use service::Service;
pub use stats::ClusterStats;
pub(crate) use touched::Touched;

#[cfg(test)]
mod tests;
