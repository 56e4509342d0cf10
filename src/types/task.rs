//! Tasks: what to run, where and how.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{NodeId, TaskId, Timestamp};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal, $tag:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every word there is.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The value of a word, in any case.
            pub fn from_word(word: &str) -> Option<Self> {
                $(if word.eq_ignore_ascii_case($word) { return Some(Self::$variant); })+
                None
            }

            /// Its number in the protocol buffers.
            pub fn tag(self) -> i32 {
                match self { $(Self::$variant => $tag,)+ }
            }

            /// The value of a number in the protocol buffers.
            pub fn from_tag(tag: i32) -> Option<Self> {
                $(if tag == $tag { return Some(Self::$variant); })+
                None
            }
        }
    };
}

words!(
    /// Where a task stands.
    TaskStatus {
        /// Not said.
        Unknown = "unknown", 0;
        /// Known, never run.
        Registered = "registered", 1;
        /// It has run or runs.
        Active = "active", 2;
        /// Switched off.
        Inactive = "inactive", 3;
        /// Removed.
        Unregistered = "unregistered", 4;
    }
);

words!(
    /// Which task goes first where tasks wait.
    TaskPriority {
        /// Not said.
        Unknown = "unknown", 0;
        /// Behind the others.
        Low = "low", 1;
        /// The usual one.
        Normal = "normal", 2;
        /// Before the usual.
        High = "high", 3;
        /// Before all.
        Urgent = "urgent", 4;
    }
);

words!(
    /// What kind of thing an executable is, hence which runtime it needs.
    ExecutableType {
        /// Not said.
        Unknown = "unknown", 0;
        /// A native program.
        Binary = "binary", 1;
        /// A script with its interpreter.
        Script = "script", 2;
        /// A container image.
        Container = "container", 3;
        /// A WebAssembly module.
        Wasm = "wasm", 4;
        /// A command on the node.
        Process = "process", 5;
    }
);

impl ExecutableType {
    /// The runtime that runs it: `wasm`, `process` or `container`.
    pub fn runtime(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Container => "container",
            Self::Binary | Self::Script | Self::Process | Self::Unknown => "process",
        }
    }
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executable {
    /// Kind.
    #[serde(rename = "type")]
    pub kind: ExecutableType,
    /// Where it is: `sms+file://<id>`, `https://…`, `s3://…`.
    pub uri: String,
    /// Name for people and `argv[0]`.
    #[serde(default)]
    pub name: String,
    /// Its sha256 in hexadecimal, empty when not pinned.
    #[serde(default)]
    pub checksum_sha256: String,
    /// Arguments after `argv[0]`.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment of the guest; nothing is inherited.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// A registered task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Name for people; need not be unique.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// Its priority.
    pub priority: TaskPriority,
    /// The node it is bound to; none: the registry chooses one per execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_uuid: Option<NodeId>,
    /// Free text.
    #[serde(default)]
    pub endpoint: String,
    /// Free text.
    #[serde(default)]
    pub version: String,
    /// Free words.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// When something of it was last heard.
    pub last_heartbeat: Timestamp,
    /// Free labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Settings: `timeout_ms`, `memory_bytes`, … read by the node.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// What to run; none: the task is an entry in the registry only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<Executable>,
}
