//! What can go wrong with a store, and what the caller can do about it.

use std::path::PathBuf;
use types::{ErrorKind, Fault};

use crate::{Conflict, Rev};

/// An error of the store. A variant is a decision the caller can take.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A guard did not hold: read again and decide again.
    #[error("{0}")]
    Conflict(Conflict),
    /// The log no longer reaches back that far: list again.
    #[error("the change log begins after revision {floor}")]
    Trimmed {
        /// Revisions up to this one are no longer kept.
        floor: Rev,
    },
    /// The disk is full; nothing was written, reading goes on.
    #[error("{path} has no space left: {detail}", path = path.display())]
    Full {
        /// Where.
        path: PathBuf,
        /// How much is left and wanted.
        detail: String,
    },
    /// The bytes on disk are not those that were written.
    #[error("{path} is damaged: {detail}", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Another process has it.
    #[error("{path} is in use by pid {pid}", path = path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
        /// By whom.
        pid: String,
    },
    /// The path holds something that is not ours; it is left untouched.
    #[error("{path} is not a store of Spear: {detail}", path = path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The directory cannot be made, read or written: an administrator must act.
    #[error("{path}: {detail}", path = path.display())]
    Unusable {
        /// Which directory or file.
        path: PathBuf,
        /// What was tried and the system's answer.
        detail: String,
    },
    /// Written by a version this one cannot read.
    #[error("{path} was written by format {found}, this program reads up to {known}", path = path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// The moment that was being read is gone.
    #[error("the store had to be opened again while it was read; begin again")]
    SnapshotGone,
    /// A key or value over its limit.
    #[error("{0}")]
    TooLarge(String),
    /// A value that does not decode as its type.
    #[error("{key} does not decode: {detail}")]
    Decode {
        /// Which record.
        key: String,
        /// Why.
        detail: String,
    },
    /// The disk failed: whether the write happened is unknown, and the process must end.
    #[error("{path}: {detail}", path = path.display())]
    Failed {
        /// Which file.
        path: PathBuf,
        /// The error of the system.
        detail: String,
    },
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// For status codes.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Trimmed { .. } => ErrorKind::OutOfRange,
            Self::Full { .. } => ErrorKind::StorageFull,
            Self::TooLarge(_) => ErrorKind::TooLarge,
            Self::Closed | Self::SnapshotGone | Self::InUse { .. } | Self::Failed { .. } | Self::Unusable { .. } => {
                ErrorKind::Unavailable
            }
            Self::Corrupt { .. } | Self::Foreign { .. } | Self::Version { .. } | Self::Decode { .. } => {
                ErrorKind::Internal
            }
        }
    }
}

impl From<Conflict> for Error {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Conflict(_) => "CONFLICT",
            Error::Trimmed { .. } => "TRIMMED",
            Error::Full { .. } => "STORAGE_FULL",
            Error::Corrupt { .. } | Error::Decode { .. } => "STORAGE_CORRUPT",
            Error::TooLarge(_) => "TOO_LARGE",
            _ => "STORAGE_FAILED",
        };
        Fault::new(error.kind(), code, error.to_string())
    }
}
