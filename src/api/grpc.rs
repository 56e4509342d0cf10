//! [`Control`] over the wire: what an agent in a process of its own uses.
//!
//! Calls go through `spear.v1.AgentService`; files come over HTTP from the registry's gateway, as the
//! original's agents fetch them.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use std::{collections::BTreeMap, time::Duration};
use types::{Execution, ExecutionId, Fault, FileId, FileRecord, NodeId, NodeResource, Task, TaskId, Timestamp};

use net::{Credential, channel::Channel, client::Fetcher};

use crate::{
    control::{
        AppendedLogs, AssignmentEvent, Control, Created, Cursor, ExecutionReport, FileStream, HeartbeatAck, LogBatch,
        NewExecution, Registered, Registration, WorkItem, WorkList,
    },
    convert,
    proto::v1::{self, agent_service_client::AgentServiceClient},
};

/// Largest message of the agent protocol: a result with its envelope.
pub const MOST_MESSAGE: usize = 10 << 20;
/// How long one call may take; streams have no such limit.
const CALL: Duration = Duration::from_secs(15);

/// A registry at the other end of a channel.
#[derive(Clone)]
pub struct RemoteControl {
    client: AgentServiceClient<Channel>,
    files: Fetcher,
    /// `http://host:port` of the registry's gateway.
    http: String,
    credential: Credential,
}

impl RemoteControl {
    /// Over a channel that connects when it is used; `http_addr` is the `host:port` of the registry's gateway and
    /// `files` must be allowed to reach it.
    pub fn new(channel: Channel, http_addr: &str, files: Fetcher, credential: impl Into<Credential>) -> Self {
        let client = AgentServiceClient::new(channel)
            .max_decoding_message_size(MOST_MESSAGE)
            .max_encoding_message_size(MOST_MESSAGE);
        Self { client, files, http: format!("http://{http_addr}"), credential: credential.into() }
    }
}

/// A request that gives up in time.
fn call<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL);
    if let Some(Ok(parent)) = telemetry::trace::current().map(|text| text.parse()) {
        request.metadata_mut().insert(telemetry::trace::HEADER, parent);
    }
    request
}

async fn answer<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, Fault> {
    // The deadline sent with the request binds the server; this one binds a server that is silent.
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(net::grpc::fault(status)),
        Err(_) => Err(Fault::unavailable(format!("the registry did not answer within {CALL:?}"))),
    }
}

fn missing(what: &str) -> Fault {
    Fault::internal(format!("the registry's answer has no {what}"))
}

#[async_trait]
impl Control for RemoteControl {
    async fn register_node(&self, node: Registration) -> Result<Registered, Fault> {
        let request = v1::RegisterRequest {
            node_uuid: node.id.to_string(),
            ip_address: node.ip_address,
            port: u32::from(node.port),
            http_port: u32::from(node.http_port),
            metadata: node.metadata.into_iter().collect(),
        };
        let done = answer(self.client.clone().register(call(request))).await?;
        let next_heartbeat = Duration::from_millis(done.next_heartbeat_ms);
        Ok(Registered { log_id: done.log_id.parse()?, next_heartbeat })
    }

    async fn heartbeat(&self, node: NodeId, health: BTreeMap<String, String>) -> Result<HeartbeatAck, Fault> {
        let request = v1::HeartbeatRequest { node_uuid: node.to_string(), health: health.into_iter().collect() };
        let done = answer(self.client.clone().heartbeat(call(request))).await?;
        Ok(HeartbeatAck { next_heartbeat: Duration::from_millis(done.next_heartbeat_ms) })
    }

    async fn update_resource(&self, node: NodeId, resource: NodeResource) -> Result<(), Fault> {
        let resource = Some(convert::resource(node, &resource));
        let request = v1::UpdateResourceRequest { node_uuid: node.to_string(), resource };
        answer(self.client.clone().update_resource(call(request))).await?;
        Ok(())
    }

    async fn leave(&self, node: NodeId, status: &str) -> Result<(), Fault> {
        let request = v1::LeaveRequest { node_uuid: node.to_string(), status: status.to_owned() };
        answer(self.client.clone().leave(call(request))).await?;
        Ok(())
    }

    async fn list_work(&self, node: NodeId) -> Result<WorkList, Fault> {
        let request = v1::ListWorkRequest { node_uuid: node.to_string() };
        let done = answer(self.client.clone().list_work(call(request))).await?;
        Ok(WorkList {
            cursor: Cursor { log_id: done.log_id.parse()?, rev: done.rev },
            assignments: done.assignments.into_iter().map(convert::assignment_from).collect::<Result<_, _>>()?,
        })
    }

    async fn watch_work(
        &self,
        node: NodeId,
        after: Cursor,
    ) -> Result<BoxStream<'static, Result<AssignmentEvent, Fault>>, Fault> {
        let request = v1::WatchWorkRequest {
            node_uuid: node.to_string(),
            log_id: after.log_id.to_string(),
            after_rev: after.rev,
        };
        let stream = answer(self.client.clone().watch_work(tonic::Request::new(request))).await?;
        Ok(stream.map_err(net::grpc::fault).and_then(async |event| assignment_event(event)).boxed())
    }

    async fn get_task(&self, task: TaskId) -> Result<Task, Fault> {
        let request = v1::GetTaskRequest { task_id: task.to_string() };
        convert::task_from(answer(self.client.clone().get_task(call(request))).await?)
    }

    async fn get_work(&self, execution: ExecutionId) -> Result<WorkItem, Fault> {
        let request = v1::GetWorkRequest { execution_id: execution.to_string() };
        let done = answer(self.client.clone().get_work(call(request))).await?;
        Ok(WorkItem {
            execution: convert::execution_from(done.execution.ok_or_else(|| missing("execution"))?)?,
            task: convert::task_from(done.task.ok_or_else(|| missing("task"))?)?,
            input: done.input,
        })
    }

    async fn report_execution(&self, report: ExecutionReport) -> Result<(), Fault> {
        answer(self.client.clone().report_execution(call(convert::report(report)))).await?;
        Ok(())
    }

    async fn append_logs(&self, batch: LogBatch) -> Result<AppendedLogs, Fault> {
        let request = v1::AppendLogsRequest {
            execution_id: batch.execution_id.to_string(),
            attempt: batch.attempt,
            lines: batch.lines.iter().map(convert::log_line).collect(),
            finished: batch.finished,
        };
        let done = answer(self.client.clone().append_logs(call(request))).await?;
        Ok(AppendedLogs { next_seq: done.next_seq })
    }

    async fn create_execution(&self, new: NewExecution) -> Result<Created, Fault> {
        let request = v1::CreateExecutionRequest {
            task_id: new.task_id.to_string(),
            input: new.input,
            timeout_ms: new.timeout.map_or(0, convert::millis_of),
            idempotency_key: new.idempotency_key.unwrap_or_default(),
            callback_url: new.callback_url.unwrap_or_default(),
            traceparent: new.traceparent.unwrap_or_default(),
        };
        let done = answer(self.client.clone().create_execution(call(request))).await?;
        let execution = convert::execution_from(done.execution.ok_or_else(|| missing("execution"))?)?;
        Ok(Created { execution, replayed: done.replayed })
    }

    async fn get_execution(&self, execution: ExecutionId) -> Result<(Execution, Bytes), Fault> {
        let request = v1::GetExecutionRequest { execution_id: execution.to_string() };
        let mut found = answer(self.client.clone().get_execution(call(request))).await?;
        let result = std::mem::take(&mut found.result);
        Ok((convert::execution_from(found)?, result))
    }

    async fn cancel_execution(&self, execution: ExecutionId, reason: &str) -> Result<Execution, Fault> {
        let request = v1::CancelExecutionRequest { execution_id: execution.to_string(), reason: reason.to_owned() };
        convert::execution_from(answer(self.client.clone().cancel_execution(call(request))).await?)
    }

    async fn open_file(&self, file: FileId) -> Result<FileStream, Fault> {
        let url = format!("{}/api/v1/files/{file}", self.http);
        let download = self.files.get(&url, self.credential.get().as_ref()).await?;
        // The gateway's ETag is the file's sha256: what arrives can be checked against what was uploaded.
        let sha256 = download.etag.as_deref().map(|etag| etag.trim_matches('"').to_owned()).unwrap_or_default();
        let record = FileRecord {
            id: file,
            name: String::new(),
            content_type: String::new(),
            len: download.total_bytes.unwrap_or_default(),
            sha256,
            created_at: Timestamp::default(),
        };
        Ok(FileStream { record, bytes: download.bytes })
    }
}

fn assignment_event(event: v1::WorkEvent) -> Result<AssignmentEvent, Fault> {
    let rev = event.rev;
    Ok(match event.change {
        Some(v1::work_event::Change::Set(assignment)) => {
            AssignmentEvent::Set { rev, assignment: convert::assignment_from(assignment)? }
        }
        Some(v1::work_event::Change::Gone(id)) => AssignmentEvent::Gone { rev, id },
        None => AssignmentEvent::Idle { rev },
    })
}
