//! Why the process ends before anybody asked it to, and the exit code that says so.

use std::fmt::Display;
use types::{ErrorKind, Fault};

/// The end of the process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Stopped {
    /// 1 something failed, 2 usage or configuration, 3 not found, 4 not allowed in, 5 the thing is in another state,
    /// 69 unavailable, 74 the disk failed, 75 in use or try again, 124 time ran out, 130 interrupted; what a guest
    /// ended with, where a command says so.
    pub code: u8,
    /// One line: what happened and what to do. Empty when everything has been said.
    pub message: String,
}

impl Stopped {
    fn new(code: u8, message: impl Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// A part failed.
    pub fn failed(message: impl Display) -> Self {
        Self::new(1, message)
    }

    /// The command line or the configuration is wrong.
    pub fn usage(message: impl Display) -> Self {
        Self::new(2, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Display) -> Self {
        Self::new(3, message)
    }

    /// Nobody answers.
    pub fn unavailable(message: impl Display) -> Self {
        Self::new(69, message)
    }

    /// Time ran out while something was waited for.
    pub fn timeout(message: impl Display) -> Self {
        Self::new(124, message)
    }

    /// Ctrl-C.
    pub fn interrupted() -> Self {
        Self::quietly(130)
    }

    /// Everything has been said, and this is the code.
    pub fn quietly(code: u8) -> Self {
        Self::new(code, "")
    }

    /// What a server that was asked refused, or that none was there; see [`Fault`].
    pub fn refused(kind: ErrorKind, message: impl Display) -> Self {
        let code = match kind {
            ErrorKind::Invalid => 2,
            ErrorKind::NotFound => 3,
            ErrorKind::Unauthenticated | ErrorKind::Denied => 4,
            ErrorKind::Conflict => 5,
            ErrorKind::Unavailable => 69,
            ErrorKind::StorageFull | ErrorKind::Exhausted => 75,
            ErrorKind::Deadline => 124,
            ErrorKind::TooLarge | ErrorKind::OutOfRange | ErrorKind::Unsupported | ErrorKind::Internal => 1,
        };
        Self::new(code, message)
    }

    /// The disk failed while the process ran.
    pub fn disk(message: impl Display) -> Self {
        Self::new(74, message)
    }

    /// A socket could not be bound: in use is worth another try, anything else is a setting.
    pub fn bind(error: net::BindError) -> Self {
        let code = if error.kind() == ErrorKind::Conflict { 75 } else { 2 };
        Self::new(code, error)
    }

    /// A store could not be opened.
    pub fn store(error: store::Error) -> Self {
        let code = match &error {
            store::Error::InUse { .. } | store::Error::Full { .. } => 75,
            store::Error::Corrupt { .. } | store::Error::Failed { .. } => 74,
            _ => 2,
        };
        Self::new(code, error)
    }

    /// A data directory could not be taken; `setting` names it.
    pub fn directory(error: store::Error, setting: &str) -> Self {
        let stopped = Self::store(error);
        Self { message: format!("{} (setting {setting})", stopped.message), ..stopped }
    }

    /// A part did not start.
    pub fn fault(fault: Fault) -> Self {
        let code = match (fault.kind, &*fault.code) {
            (ErrorKind::StorageFull, _) | (_, "NODE_ID_IN_USE") => 75,
            (_, "STORAGE_FAILED" | "STORAGE_CORRUPT") => 74,
            (_, "NODE_IDENTITY_DAMAGED" | "NODE_IDENTITY_UNWRITABLE") => 2,
            _ => 1,
        };
        Self::new(code, fault)
    }
}
