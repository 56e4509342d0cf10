//! `spear.v1.AgentService`: [`api::Control`] over the wire; the other end is `api::grpc::RemoteControl`.

use api::{
    AssignmentEvent, Control, Cursor, LogBatch, Registration, convert,
    proto::{
        sms,
        v1::{
            AppendLogsRequest, AppendLogsResponse, CancelExecutionRequest, CreateExecutionRequest,
            CreateExecutionResponse, Execution, GetExecutionRequest, GetTaskRequest, GetWorkRequest, GetWorkResponse,
            HeartbeatRequest, HeartbeatResponse, LeaveRequest, LeaveResponse, ListWorkRequest, ListWorkResponse,
            RegisterRequest, RegisterResponse, ReportExecutionRequest, ReportExecutionResponse, UpdateResourceRequest,
            UpdateResourceResponse, WatchWorkRequest, WorkEvent, agent_service_server::AgentService, work_event,
        },
    },
};
use futures_util::{StreamExt, stream::BoxStream};
use net::grpc::status;
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status};
use types::{Fault, NodeId, node::port};

use crate::Sms;

/// The service.
#[derive(Clone)]
pub struct Grpc {
    control: Arc<dyn Control>,
}

impl Grpc {
    /// For a registry.
    pub fn new(sms: &Sms) -> Self {
        Self { control: sms.control() }
    }
}

fn node(text: &str) -> Result<NodeId, Status> {
    text.parse().map_err(status)
}

fn millis(pause: Duration) -> u64 {
    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}

#[tonic::async_trait]
impl AgentService for Grpc {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let RegisterRequest { node_uuid, ip_address, port: grpc, http_port, metadata } = request.into_inner();
        let registration = Registration {
            id: node(&node_uuid)?,
            ip_address,
            port: port("port", i64::from(grpc)).map_err(status)?,
            http_port: port("http_port", i64::from(http_port)).map_err(status)?,
            metadata: metadata.into_iter().collect(),
        };
        let done = self.control.register_node(registration).await.map_err(status)?;
        let next_heartbeat_ms = millis(done.next_heartbeat);
        Ok(Response::new(RegisterResponse { log_id: done.log_id.to_string(), next_heartbeat_ms }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        let HeartbeatRequest { node_uuid, health } = request.into_inner();
        let health = health.into_iter().collect();
        let done = self.control.heartbeat(node(&node_uuid)?, health).await.map_err(status)?;
        Ok(Response::new(HeartbeatResponse { next_heartbeat_ms: millis(done.next_heartbeat) }))
    }

    async fn update_resource(
        &self,
        request: Request<UpdateResourceRequest>,
    ) -> Result<Response<UpdateResourceResponse>, Status> {
        let UpdateResourceRequest { node_uuid, resource } = request.into_inner();
        let resource = resource.ok_or_else(|| status(Fault::invalid_field("resource", "is missing")))?;
        let resource = convert::resource_from(resource);
        self.control.update_resource(node(&node_uuid)?, resource).await.map_err(status)?;
        Ok(Response::new(UpdateResourceResponse {}))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        let LeaveRequest { node_uuid, status: word } = request.into_inner();
        self.control.leave(node(&node_uuid)?, &word).await.map_err(status)?;
        Ok(Response::new(LeaveResponse {}))
    }

    async fn list_work(&self, request: Request<ListWorkRequest>) -> Result<Response<ListWorkResponse>, Status> {
        let list = self.control.list_work(node(&request.into_inner().node_uuid)?).await.map_err(status)?;
        Ok(Response::new(ListWorkResponse {
            log_id: list.cursor.log_id.to_string(),
            rev: list.cursor.rev,
            assignments: list.assignments.iter().map(convert::assignment).collect(),
        }))
    }

    type WatchWorkStream = BoxStream<'static, Result<WorkEvent, Status>>;

    async fn watch_work(&self, request: Request<WatchWorkRequest>) -> Result<Response<Self::WatchWorkStream>, Status> {
        let WatchWorkRequest { node_uuid, log_id, after_rev } = request.into_inner();
        let after = Cursor { log_id: log_id.parse().map_err(status)?, rev: after_rev };
        let events = self.control.watch_work(node(&node_uuid)?, after).await.map_err(status)?;
        Ok(Response::new(events.map(|event| event.map(|event| wire(&event)).map_err(status)).boxed()))
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Result<Response<sms::Task>, Status> {
        let id = request.into_inner().task_id.parse().map_err(status)?;
        let task = self.control.get_task(id).await.map_err(status)?;
        Ok(Response::new(convert::task(&task)))
    }

    async fn get_work(&self, request: Request<GetWorkRequest>) -> Result<Response<GetWorkResponse>, Status> {
        let id = request.into_inner().execution_id.parse().map_err(status)?;
        let work = self.control.get_work(id).await.map_err(status)?;
        Ok(Response::new(GetWorkResponse {
            execution: Some(convert::execution(&work.execution)),
            task: Some(convert::task(&work.task)),
            input: work.input,
        }))
    }

    async fn report_execution(
        &self,
        request: Request<ReportExecutionRequest>,
    ) -> Result<Response<ReportExecutionResponse>, Status> {
        let report = convert::report_from(request.into_inner()).map_err(status)?;
        self.control.report_execution(report).await.map_err(status)?;
        Ok(Response::new(ReportExecutionResponse {}))
    }

    async fn append_logs(&self, request: Request<AppendLogsRequest>) -> Result<Response<AppendLogsResponse>, Status> {
        let AppendLogsRequest { execution_id, lines, finished, attempt } = request.into_inner();
        let batch = LogBatch {
            execution_id: execution_id.parse().map_err(status)?,
            attempt,
            lines: lines.into_iter().map(convert::log_line_from).collect::<Result<_, _>>().map_err(status)?,
            finished,
        };
        let done = self.control.append_logs(batch).await.map_err(status)?;
        Ok(Response::new(AppendLogsResponse { next_seq: done.next_seq }))
    }

    async fn create_execution(
        &self,
        request: Request<CreateExecutionRequest>,
    ) -> Result<Response<CreateExecutionResponse>, Status> {
        let new = convert::new_execution_from(request.into_inner()).map_err(status)?;
        let done = self.control.create_execution(new).await.map_err(status)?;
        let execution = Some(convert::execution(&done.execution));
        Ok(Response::new(CreateExecutionResponse { execution, replayed: done.replayed }))
    }

    async fn get_execution(&self, request: Request<GetExecutionRequest>) -> Result<Response<Execution>, Status> {
        let id = request.into_inner().execution_id.parse().map_err(status)?;
        let (execution, result) = self.control.get_execution(id).await.map_err(status)?;
        Ok(Response::new(Execution { result, ..convert::execution(&execution) }))
    }

    async fn cancel_execution(&self, request: Request<CancelExecutionRequest>) -> Result<Response<Execution>, Status> {
        let CancelExecutionRequest { execution_id, reason } = request.into_inner();
        let id = execution_id.parse().map_err(status)?;
        let execution = self.control.cancel_execution(id, &reason).await.map_err(status)?;
        Ok(Response::new(convert::execution(&execution)))
    }
}

fn wire(event: &AssignmentEvent) -> WorkEvent {
    match event {
        AssignmentEvent::Set { rev, assignment } => {
            WorkEvent { rev: *rev, change: Some(work_event::Change::Set(convert::assignment(assignment))) }
        }
        AssignmentEvent::Gone { rev, id } => {
            WorkEvent { rev: *rev, change: Some(work_event::Change::Gone(id.clone())) }
        }
        AssignmentEvent::Idle { rev } => WorkEvent { rev: *rev, change: None },
    }
}
