//! Why the process ends before anybody asked it to, and the exit code that says so.

use std::fmt::Display;
use types::{ErrorKind, Fault};

/// The end of the process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Stopped {
    /// 1 a part failed, 2 usage or configuration, 74 the disk failed, 75 in use or try again.
    pub code: u8,
    /// One line: what happened and what to do.
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

    /// A part did not start.
    pub fn fault(fault: Fault) -> Self {
        let code = match fault.kind {
            ErrorKind::StorageFull => 75,
            _ => 1,
        };
        Self::new(code, fault)
    }
}
