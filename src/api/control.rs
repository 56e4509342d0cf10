//! What a registry offers to its agents. Implemented by `sms` itself and by [`crate::grpc::RemoteControl`].

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use std::{collections::BTreeMap, time::Duration};
use types::{
    Assignment, Execution, ExecutionId, ExecutionStatus, Fault, FileId, FileRecord, LogId, LogLine, NodeId,
    NodeResource, Progress, Reason, Task, TaskId, Timestamp, Usage,
};

/// A position in a registry's change log. A reader of another log is told to list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which log.
    pub log_id: LogId,
    /// The last revision that was handled whole.
    pub rev: u64,
}

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its id.
    pub id: NodeId,
    /// Address under which others reach it.
    pub ip_address: String,
    /// Its gRPC port.
    pub port: u16,
    /// Its HTTP port, 0 when unknown.
    pub http_port: u16,
    /// Labels, with `name` and `spear.runtimes` among them.
    pub metadata: BTreeMap<String, String>,
}

/// The answer to a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The registry's change log.
    pub log_id: LogId,
    /// When to send the first heartbeat.
    pub next_heartbeat: Duration,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatAck {
    /// When to send the next one: the registry sets the pace.
    pub next_heartbeat: Duration,
}

/// One change of a node's work list, with the revision that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssignmentEvent {
    /// Do this.
    Set {
        /// The revision.
        rev: u64,
        /// What.
        assignment: Assignment,
    },
    /// The registry no longer asks for it: ended, or taken away.
    Gone {
        /// The revision.
        rev: u64,
        /// The execution, or the task where there was none.
        id: String,
    },
    /// Nothing for this node up to this revision; keeps cursors moving and streams alive.
    Idle {
        /// The revision.
        rev: u64,
    },
}

/// A node's whole work list at one moment.
#[derive(Clone, Debug)]
pub struct WorkList {
    /// Follow from here.
    pub cursor: Cursor,
    /// Everything the registry asks of the node.
    pub assignments: Vec<Assignment>,
}

/// Everything a node needs to run one execution.
#[derive(Clone, Debug)]
pub struct WorkItem {
    /// The run.
    pub execution: Execution,
    /// Its task.
    pub task: Task,
    /// Its input.
    pub input: Bytes,
}

/// What a node tells of an execution. Applied at most once per attempt and state; repeating is harmless.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecutionReport {
    /// Which.
    pub execution_id: ExecutionId,
    /// Which attempt; a report for another is refused with `STALE_ATTEMPT`.
    pub attempt: u32,
    /// By whom.
    pub node_uuid: NodeId,
    /// `running` or a terminal status.
    pub status: ExecutionStatus,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// In a sentence.
    pub message: String,
    /// When the guest began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// What the guest returned.
    pub exit_code: Option<i32>,
    /// What it used, if it began.
    pub usage: Option<Usage>,
    /// Its standard output, with a terminal status.
    pub result: Bytes,
    /// How far preparation has come, while running.
    pub progress: Option<Progress>,
}

/// Lines of an execution's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBatch {
    /// Whose.
    pub execution_id: ExecutionId,
    /// Which attempt wrote them; those of another are refused with `STALE_ATTEMPT`.
    pub attempt: u32,
    /// Lines with rising numbers; those the registry has are skipped.
    pub lines: Vec<LogLine>,
    /// Are these the last?
    pub finished: bool,
}

/// What the registry has of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedLogs {
    /// The number it expects next.
    pub next_seq: u64,
}

/// A run that an agent asks for, on behalf of who called it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewExecution {
    /// Of what.
    pub task_id: TaskId,
    /// Standard input of the guest.
    pub input: Bytes,
    /// Its time limit; none: the task's, else that of the node that runs it.
    pub timeout: Option<Duration>,
    /// As the caller gave it: one execution is made of all requests with this key.
    pub idempotency_key: Option<String>,
    /// Told of the end.
    pub callback_url: Option<String>,
    /// W3C trace context of the caller.
    pub traceparent: Option<String>,
}

/// What became of a [`NewExecution`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The run.
    pub execution: Execution,
    /// Made by an earlier request with this key.
    pub replayed: bool,
}

/// A file's record and its bytes.
pub struct FileStream {
    /// What is known of it.
    pub record: FileRecord,
    /// Its bytes.
    pub bytes: BoxStream<'static, std::io::Result<Bytes>>,
}

/// A registry as an agent sees it.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Registers a node, or takes it up again under the id it kept.
    async fn register_node(&self, node: Registration) -> Result<Registered, Fault>;

    /// Says that a node lives. `NODE_NOT_FOUND`: register again.
    async fn heartbeat(&self, node: NodeId, health: BTreeMap<String, String>) -> Result<HeartbeatAck, Fault>;

    /// Tells a node's load.
    async fn update_resource(&self, node: NodeId, resource: NodeResource) -> Result<(), Fault>;

    /// Says that a node stops (`draining`) or has stopped (`offline`).
    async fn leave(&self, node: NodeId, status: &str) -> Result<(), Fault>;

    /// Everything asked of a node now.
    async fn list_work(&self, node: NodeId) -> Result<WorkList, Fault>;

    /// Changes of a node's work list after a cursor, for as long as the stream is read. Ends with kind
    /// `OutOfRange` when the log does not reach back that far or is another: list again.
    async fn watch_work(
        &self,
        node: NodeId,
        after: Cursor,
    ) -> Result<BoxStream<'static, Result<AssignmentEvent, Fault>>, Fault>;

    /// A task.
    async fn get_task(&self, task: TaskId) -> Result<Task, Fault>;

    /// An execution with its task and input.
    async fn get_work(&self, execution: ExecutionId) -> Result<WorkItem, Fault>;

    /// Tells how an execution stands.
    async fn report_execution(&self, report: ExecutionReport) -> Result<(), Fault>;

    /// Delivers lines of a log; they are on disk when this returns.
    async fn append_logs(&self, batch: LogBatch) -> Result<AppendedLogs, Fault>;

    /// Runs a task, on whichever node the registry chooses. On disk when this returns.
    async fn create_execution(&self, new: NewExecution) -> Result<Created, Fault>;

    /// An execution with its result, which is empty before it has one.
    async fn get_execution(&self, execution: ExecutionId) -> Result<(Execution, Bytes), Fault>;

    /// Asks for an execution to stop. `EXECUTION_ENDED`: it has already.
    async fn cancel_execution(&self, execution: ExecutionId, reason: &str) -> Result<Execution, Fault>;

    /// A file of the registry.
    async fn open_file(&self, file: FileId) -> Result<FileStream, Fault>;
}
