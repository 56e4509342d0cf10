//! Why a call did nothing.

use types::Fault;

/// A wish that the rules refuse; the sentences are those of the original.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A key must have at least one byte.
    #[error("Object key must not be empty")]
    EmptyKey,
    /// Over the size limit.
    #[error("Object size {size} exceeds the maximum of {limit} bytes")]
    TooLarge {
        /// Its bytes.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Over the limit for all objects together.
    #[error("The object store is full: {bytes} bytes would be kept, {limit} are allowed")]
    Full {
        /// Bytes with the new object.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Over the number of objects, or over what their names and metadata may take.
    #[error("The object store is full: it has {objects} objects with their metadata, at most {limit} are allowed")]
    TooMany {
        /// Objects there are.
        objects: usize,
        /// Objects allowed.
        limit: usize,
    },
    /// Written already, and not to be overwritten.
    #[error("Object already exists and overwrite is false")]
    Exists,
    /// No such object.
    #[error("Object not found")]
    NotFound,
    /// Cannot unpin.
    #[error("Object is not pinned")]
    NotPinned,
    /// Cannot delete.
    #[error("Cannot delete pinned object without force flag")]
    Pinned,
}

/// Why a call did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The rules refuse it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The input is malformed, or the disk failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Fault(error.into())
    }
}
