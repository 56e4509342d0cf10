//! Where each kind of record lives in the store.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Assignment, Callback, Execution, FileRecord, Node, Remembered, Task};

/// A type of record: where its records live and what names one.
pub trait Keyed: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// `task/`, with the slash.
    const PREFIX: &'static str;

    /// The rest of the key.
    fn id(&self) -> String;

    /// The whole key.
    fn key(&self) -> String {
        format!("{}{}", Self::PREFIX, self.id())
    }
}

macro_rules! keyed {
    ($($record:ty, $prefix:literal;)+) => {
        $(impl Keyed for $record {
            const PREFIX: &'static str = $prefix;

            fn id(&self) -> String {
                self.id.to_string()
            }
        })+
    };
}

keyed! {
    Node, "node/";
    Task, "task/";
    Execution, "execution/";
    FileRecord, "file/";
    Callback, "callback/";
    Remembered, "idempotency/";
}

impl Keyed for Assignment {
    const PREFIX: &'static str = "assignment/";

    /// Under the node's own prefix, so that a node reads nothing but its own work.
    fn id(&self) -> String {
        match self.execution_id {
            Some(execution) => format!("{}/{execution}", self.node_uuid),
            None => format!("{}/{}", self.node_uuid, self.task_id),
        }
    }
}
