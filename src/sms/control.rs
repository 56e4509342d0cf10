//! The registry as its agents see it, by method calls: for an agent in this process, and below the gRPC form.

use api::{
    AppendedLogs, AssignmentEvent, Control, Created, Cursor, ExecutionReport, FileStream, HeartbeatAck, LogBatch,
    NewExecution, Registered, Registration, WorkItem, WorkList,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use std::{collections::BTreeMap, sync::Arc};
use telemetry::trace;
use tracing::Instrument;
use types::{Execution, ExecutionId, Fault, FileId, NodeId, NodeResource, Task, TaskId};

use crate::{
    Sms, events,
    executions::{NewRun, idempotency::Key},
};

/// [`Control`] on the services themselves.
pub(crate) struct LocalControl {
    sms: Sms,
}

impl LocalControl {
    pub(crate) fn new(sms: Sms) -> Self {
        Self { sms }
    }

    /// A node may hear of a task before the live map shows it.
    async fn task(&self, id: TaskId) -> Result<Arc<Task>, Fault> {
        self.sms.executions.fresh_task(id).await?.ok_or_else(|| crate::tasks::unknown(id))
    }
}

#[async_trait]
impl Control for LocalControl {
    async fn register_node(&self, node: Registration) -> Result<Registered, Fault> {
        self.sms.nodes.register(node).await?;
        Ok(Registered { log_id: self.sms.bus.log_id(), next_heartbeat: self.sms.nodes.next_heartbeat() })
    }

    async fn heartbeat(&self, node: NodeId, health: BTreeMap<String, String>) -> Result<HeartbeatAck, Fault> {
        Ok(HeartbeatAck { next_heartbeat: self.sms.nodes.heartbeat(node, health).await? })
    }

    async fn update_resource(&self, node: NodeId, resource: NodeResource) -> Result<(), Fault> {
        self.sms.nodes.update_resource(node, resource).await
    }

    async fn leave(&self, node: NodeId, status: &str) -> Result<(), Fault> {
        self.sms.nodes.leave(node, status).await
    }

    async fn list_work(&self, node: NodeId) -> Result<WorkList, Fault> {
        events::list_work(&self.sms, node).await
    }

    async fn watch_work(
        &self,
        node: NodeId,
        after: Cursor,
    ) -> Result<BoxStream<'static, Result<AssignmentEvent, Fault>>, Fault> {
        events::watch_work(&self.sms, node, after).await
    }

    async fn get_task(&self, task: TaskId) -> Result<Task, Fault> {
        Ok(Task::clone(&*self.task(task).await?))
    }

    async fn get_work(&self, execution: ExecutionId) -> Result<WorkItem, Fault> {
        let execution = self.sms.executions.get(execution).await?;
        let task = Task::clone(&*self.task(execution.task_id).await?);
        let input = self.sms.executions.input(execution.id).await?;
        Ok(WorkItem { execution, task, input })
    }

    async fn report_execution(&self, report: ExecutionReport) -> Result<(), Fault> {
        self.sms.executions.report(&report).await
    }

    async fn append_logs(&self, batch: LogBatch) -> Result<AppendedLogs, Fault> {
        let LogBatch { execution_id, attempt, lines, finished } = batch;
        let reach = self.sms.executions.append_logs((execution_id, attempt), lines, finished).await?;
        Ok(AppendedLogs { next_seq: reach.next_seq })
    }

    async fn create_execution(&self, new: NewExecution) -> Result<Created, Fault> {
        let span = tracing::info_span!("create", task = %new.task_id);
        trace::adopt(&span, new.traceparent.as_deref());
        let timeout_ms = new.timeout.map(api::convert::millis_of);
        let key = new.idempotency_key.as_deref().map(Key::named);
        let run = NewRun { input: new.input, timeout_ms, first: false, wait: false, callback_url: new.callback_url };
        let (execution, replayed) = self.sms.executions.run(new.task_id, &run, key.as_ref()).instrument(span).await?;
        Ok(Created { execution, replayed })
    }

    async fn get_execution(&self, execution: ExecutionId) -> Result<(Execution, Bytes), Fault> {
        let execution = self.sms.executions.get(execution).await?;
        let result = match execution.result_bytes {
            0 => Bytes::new(),
            _ => self.sms.executions.result(execution.id).await?,
        };
        Ok((execution, result))
    }

    async fn cancel_execution(&self, execution: ExecutionId, reason: &str) -> Result<Execution, Fault> {
        self.sms.executions.cancel(execution, reason).await
    }

    async fn open_file(&self, file: FileId) -> Result<FileStream, Fault> {
        self.sms.files.open_stream(file).await
    }
}
