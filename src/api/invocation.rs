//! One call shape for every runtime and every trigger.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use std::{collections::BTreeMap, fmt, io, pin::Pin, time::Duration};
use tokio_util::sync::CancellationToken;

/// A stream of bytes into or out of a guest.
pub type Body = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A body that is one piece of memory.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    let bytes = bytes.into();
    stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed()
}

/// A call of a function.
pub struct Invocation {
    /// `argv[1..]` of a command.
    pub args: Vec<String>,
    /// Environment of the guest; nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// Standard input of a command.
    pub body: Body,
    /// Wall-clock time the guest may take, host calls included.
    pub deadline: Duration,
    /// Cancelled when the caller no longer wants the answer.
    pub cancel: CancellationToken,
}

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation").field("args", &self.args).field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// What a guest that ended by itself left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit code; 0 is success.
    pub exit_code: i32,
    /// Its standard output, whole.
    pub result: Bytes,
    /// What it used.
    pub usage: Usage,
}

/// What a call used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Wall-clock time in the guest.
    pub wall: Duration,
    /// Largest size of its memories, bytes.
    pub peak_memory_bytes: u64,
}
