//! What went wrong, in the form that crosses every edge: REST, gRPC, events and logs.
//!
//! A [`Fault`] has a kind (which decides the status code in one table of `net`), a stable code for programs,
//! a message for people and, where the input is to blame, the fields and what is wrong with each.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Whose fault, and what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The input is wrong; the same call will fail again.
    Invalid,
    /// No or wrong credentials.
    Unauthenticated,
    /// Known, but not allowed.
    Denied,
    /// No such thing.
    NotFound,
    /// The thing is in another state than the call needs.
    Conflict,
    /// The input is over a limit.
    TooLarge,
    /// Busy or over a quota now; later it may work.
    Exhausted,
    /// The disk is full.
    StorageFull,
    /// A reader asked for changes that are no longer kept, or of another log: list again.
    OutOfRange,
    /// Something needed is away; try again.
    Unavailable,
    /// Time ran out.
    Deadline,
    /// This build or node cannot do it.
    Unsupported,
    /// A defect or a broken disk: the log has the cause.
    Internal,
}

impl ErrorKind {
    /// May the same call succeed later, unchanged?
    pub fn retry(self) -> bool {
        matches!(self, Self::Exhausted | Self::StorageFull | Self::Unavailable | Self::Deadline)
    }
}

/// One field of the input and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Name of the field as the caller wrote it (`executable.uri`).
    pub field: String,
    /// What is wrong, and what would be right.
    pub detail: String,
}

/// An error as the caller sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Fault {
    /// Decides status codes and whether to try again.
    pub kind: ErrorKind,
    /// Stable, upper-case, for programs: `TASK_NOT_FOUND`.
    pub code: Cow<'static, str>,
    /// One sentence for people.
    pub message: String,
    /// The fields to blame, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Fault {
    /// A fault of a kind with a code and a sentence.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code: Cow::Borrowed(code), message: message.into(), errors: Vec::new() }
    }

    /// The input is wrong as a whole.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, "INVALID_ARGUMENT", message)
    }

    /// One field of the input is wrong.
    pub fn invalid_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        let mut fault = Self::invalid(format!("{field}: {detail}"));
        fault.errors.push(FieldError { field, detail });
        fault
    }

    /// No such thing.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, code, message)
    }

    /// The thing is in another state than the call needs.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, code, message)
    }

    /// Something needed is away.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, "UNAVAILABLE", message)
    }

    /// A defect or a broken disk. The cause belongs into the log, not into this sentence.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, "INTERNAL", message)
    }

    /// Puts a name in front of the fields to blame (`executable` + `uri` = `executable.uri`).
    pub fn within(mut self, parent: &str) -> Self {
        for error in &mut self.errors {
            error.field = format!("{parent}.{}", error.field);
        }
        if !self.errors.is_empty() {
            self.message = format!("{parent}.{}", self.message);
        }
        self
    }
}
