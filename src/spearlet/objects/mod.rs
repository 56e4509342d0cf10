//! A small object store of the node's own: named bytes with reference counts, pins and free metadata.
//!
//! ```text
//!   put:  blob to a new file ► fsync ► rename ► fsync dir ► record committed ► index ► old blob removed
//!   get:  index ► blob ► length and sha256 compared ► bytes
//! ```
//! Invariants: an object is visible only once its bytes and its record are on disk; bytes that are not those
//! of the record are an error, never an answer; a blob without a record is removed at the next start; changes
//! of one key happen one after the other, and one that has begun ends even if its caller goes away. All
//! records stay in memory too (their size is bounded), because lists are ordered by key and files are not
//! named by it: a key may contain anything.

mod blobs;
mod error;
pub mod grpc;
pub mod http;
mod index;
mod records;
mod service;

pub use error::{Error, Refusal};
pub use records::ObjectRecord;
pub use service::{Found, Listed, Put, Service, Stats};

/// Where objects are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// In memory; gone with the process.
    Memory,
    /// On disk.
    #[default]
    Disk,
}

/// Settings of the object store.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where.
    pub backend: Backend,
    /// Bytes of the largest object.
    pub max_object_size: u64,
    /// Bytes of all objects.
    pub max_total_bytes: u64,
    /// Number of objects.
    pub max_objects: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { backend: Backend::Disk, max_object_size: 64 << 20, max_total_bytes: 1 << 30, max_objects: 100_000 }
    }
}

/// Bytes of the longest key.
pub const MOST_KEY: usize = 1024;
/// Bytes of the largest metadata of one object, names and values together.
pub const MOST_METADATA: usize = 16 << 10;
/// Objects in one page of a list.
pub const MOST_LISTED: usize = 1000;

#[cfg(test)]
mod tests;
