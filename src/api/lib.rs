//! The contracts between the parts: what a registry offers ([`Control`]), what a call looks like
//! ([`Invocation`], [`Outcome`]), and the gRPC forms of both.
//!
//! ```text
//!   --role all:       spearlet ──── Arc<dyn Control> ───► sms            (a method call)
//!   --role spearlet:  spearlet ──── grpc::RemoteControl ══► sms/…/grpc.rs (the same trait over the wire)
//! ```

pub mod codec;
pub mod control;
pub mod convert;
pub mod grpc;
pub mod invocation;
pub mod proto;
pub mod wire;

pub use control::{
    AppendedLogs, AssignmentEvent, Control, Created, Cursor, ExecutionReport, FileStream, HeartbeatAck, LogBatch,
    NewExecution, Registered, Registration, WorkItem, WorkList,
};
pub use invocation::{Body, Disposition, End, Ended, Head, Invocation, InvokeError, Invoker, Outcome, ReplyHead};
