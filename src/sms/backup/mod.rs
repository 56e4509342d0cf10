//! Backups: an archive of everything that the registry keeps, taken while it runs, and the way back.
//!
//! ```text
//!   gather:  hold removals of files and logs ─► snapshot of the store ─► which files its records need, and how long
//!            ─► removals go on, into a place of their own until the backup has ended
//!   write:   spear-backup.json │ records/… │ files/… logs/… │ damaged.json │ manifest.json   (a tar)
//!   check:   the same, byte for byte, as it comes: by the client that receives it, by `spear backup verify`
//!   restore: check, into a directory beside the target ─► fsync ─► one rename
//! ```
//! How it is consistent: the records are those of one revision. Bytes of a file are on disk before its record and
//! go after it, so at the moment of the snapshot every file that a record names is there, and none goes until the
//! list of them is made; what is removed later lies in `removed/` until the backup has ended. Files never change. Logs
//! only grow, by numbered lines: what is taken reaches as far as it did then, or a torn line further, which the
//! registry cuts when it opens a log. A log may be a little ahead of its record, as it is in a running registry.
//!
//! What is not in it: the token of the API (`token` in the data directory), and the log of changes. A restored
//! registry has a new log with the next revision, so that every reader with an old cursor is told to list again.

mod check;
mod format;
mod gather;
pub(crate) mod http;
mod registry;
mod removals;
mod restore;
mod write;

pub use check::{Checker, Nowhere, Receiver, Summary};
pub use format::{Damaged, Head};
pub use gather::{Attachment, Contents, Source, of_stopped};
pub(crate) use registry::Backups;
pub use registry::Registry;
pub(crate) use removals::Removals;
pub use restore::{Restore, Restored};
pub use write::{Sink, write};

#[cfg(test)]
mod tests;
