//! The words of Spear: ids, records, state machines and kinds of error.
//!
//! No I/O and no async. Everything here is plain data that the store keeps, the wire carries and the
//! console shows; the one rule is that a value of these types is valid: parsing happens at the edge.

pub mod artifact;
pub mod callback;
pub mod clock;
pub mod execution;
pub mod fault;
pub mod file;
pub mod id;
pub mod idempotency;
pub mod keyed;
pub mod node;
pub mod task;
pub mod usage;

pub use callback::{Callback, CallbackStatus};
pub use clock::{Clock, SystemClock, Timestamp};
pub use execution::{Assignment, AssignmentKind, Execution, ExecutionStatus, LogLine, LogStream, Progress, Reason};
pub use fault::{ErrorKind, Fault, FieldError};
pub use file::FileRecord;
pub use id::{ExecutionId, FileId, LogId, NodeId, TaskId};
pub use idempotency::Remembered;
pub use keyed::Keyed;
pub use node::{Liveness, Node, NodeResource};
pub use task::{Executable, ExecutableType, Task, TaskPriority, TaskStatus};
pub use usage::Usage;

#[cfg(test)]
mod tests;
