//! Ids are types: a task id cannot be passed where a node id is wanted, and each is a UUID by construction.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

use crate::fault::Fault;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, ordered by the time it was made (RFC 9562 version 7).
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Fault;

            /// Accepts the hyphenated form only: other spellings of one id would be other keys.
            fn from_str(text: &str) -> Result<Self, Fault> {
                match Uuid::try_parse(text) {
                    Ok(id) if text.len() == 36 => Ok(Self(id)),
                    _ => Err(Fault::invalid_field(
                        $field,
                        format!("{:?} is not a UUID of the form 93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8", clip(text)),
                    )),
                }
            }
        }
    };
}

/// The first characters of a text from outside, for an error message.
pub fn clip(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

id!(
    /// A node: one spearlet, or a machine registered by hand.
    NodeId,
    "node_uuid"
);
id!(
    /// A task: what to run, where and how.
    TaskId,
    "task_id"
);
id!(
    /// One run of a task.
    ExecutionId,
    "execution_id"
);
id!(
    /// A file uploaded to the registry; `sms+file://<id>`.
    FileId,
    "file_id"
);
id!(
    /// The change log of one data directory: made with it, so a cursor of another log is recognised.
    LogId,
    "log_id"
);
