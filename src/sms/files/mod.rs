//! Files that users upload: bytes on disk beside the store, and a record of each in it.
//!
//! ```text
//!   POST ─► <id>.part ─ hashed while it comes ─► fsync ─► rename to <id> ─► fsync of the directory ─► record ─► 200
//!   GET  ─► record ─► <id>: seen whole and right by this process? else hash it first ─► bytes, hashed again
//! ```
//! Invariants: a record is only ever written after its bytes are on disk; a file without a record is nobody's and
//! goes at the next start; names on disk are ids that we made, so no path from outside reaches the disk; bytes
//! that are not those that were uploaded are refused, never served as if they were.

pub mod http;
mod read;
mod records;
mod service;
mod sweep;
mod upload;

pub use service::Service;

#[cfg(test)]
mod tests;
