//! `spearlet.InvocationService`, `ExecutionService` and `InstanceService`, of the original's later versions. What fails
//! and how is as in `spearlet.FunctionService`.

use api::{
    proto::spearlet::{
        self as wire, execution_service_server::ExecutionService, execution_service_server::ExecutionServiceServer,
        instance_service_server::InstanceService, instance_service_server::InstanceServiceServer,
        invocation_service_server::InvocationService, invocation_service_server::InvocationServiceServer,
    },
    wire::timestamp,
};
use bytes::Bytes;
use net::{
    grpc::status,
    idempotency::{self, marked},
};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use types::Fault;

use super::{
    Faces,
    grpc::{MOST_MESSAGE, limit, page, parent},
    messages::wire_status,
    refusal::Refusal,
    seen::Seen,
    tasks::EXECUTIONS,
    view::Cancelled,
    wanted::Wanted,
};

/// Media type of an output.
const BYTES: &str = "application/octet-stream";

type Answer<T> = Result<Response<T>, Status>;

/// The three services.
#[derive(Clone)]
pub(crate) struct Later {
    faces: Arc<Faces>,
}

impl Later {
    /// For a node.
    pub(crate) fn new(faces: &Arc<Faces>) -> Self {
        Self { faces: faces.clone() }
    }

    /// Calls.
    pub(crate) fn invocations(&self) -> InvocationServiceServer<Self> {
        let service = InvocationServiceServer::new(self.clone());
        service.max_decoding_message_size(MOST_MESSAGE).max_encoding_message_size(usize::MAX)
    }

    /// Executions.
    pub(crate) fn executions(&self) -> ExecutionServiceServer<Self> {
        ExecutionServiceServer::new(self.clone()).max_encoding_message_size(usize::MAX)
    }

    /// Instances.
    pub(crate) fn instances(&self) -> InstanceServiceServer<Self> {
        InstanceServiceServer::new(self.clone())
    }
}

fn payload(seen: &Seen, wanted: bool) -> Option<wire::Payload> {
    let data = seen.output.clone().filter(|_| wanted)?;
    Some(wire::Payload { content_type: BYTES.to_owned(), data })
}

fn error(seen: &Seen) -> Option<wire::Error> {
    seen.error().map(|(code, message)| wire::Error { code, message })
}

fn instance(seen: &Seen) -> String {
    seen.instance.map(|id| id.to_string()).unwrap_or_default()
}

fn execution(seen: &Seen, output: bool) -> wire::Execution {
    wire::Execution {
        invocation_id: seen.execution.to_string(),
        execution_id: seen.execution.to_string(),
        task_id: seen.task.to_string(),
        function_name: seen.function(),
        instance_id: instance(seen),
        status: wire_status(seen.status).into(),
        output: payload(seen, output),
        error: error(seen),
        started_at: seen.began.map(timestamp),
        completed_at: seen.ended.map(timestamp),
    }
}

fn response(seen: &Seen, invocation: String) -> wire::InvokeResponse {
    wire::InvokeResponse {
        invocation_id: if invocation.is_empty() { seen.execution.to_string() } else { invocation },
        execution_id: seen.execution.to_string(),
        instance_id: instance(seen),
        status: wire_status(seen.status).into(),
        output: payload(seen, true),
        error: error(seen),
        started_at: seen.began.map(timestamp),
        completed_at: seen.ended.map(timestamp),
    }
}

#[tonic::async_trait]
impl InvocationService for Later {
    async fn invoke(&self, request: Request<wire::InvokeRequest>) -> Answer<wire::InvokeResponse> {
        let (metadata, _, request) = request.into_parts();
        let (key, traceparent) = (idempotency::key(metadata.as_ref()).map_err(status)?, parent(&metadata));
        let (mode, invocation) = (request.mode(), request.invocation_id);
        let input = request.input.unwrap_or_default();
        let wanted = Wanted {
            task: request.task_id.parse().map_err(status)?,
            function: request.function_name,
            args: Vec::new(),
            input: input.data,
            content_type: input.content_type,
            env: request.environment.into_iter().collect(),
            headers: request.headers.into_iter().collect(),
            metadata: request.metadata.into_iter().collect(),
            timeout_ms: Some(request.timeout_ms),
            session: request.session_id,
            execution: request.execution_id,
            fresh: request.force_new_instance,
            callback_url: None,
            traceparent,
        };
        match mode {
            wire::ExecutionMode::Unknown | wire::ExecutionMode::Sync => {}
            wire::ExecutionMode::Async => {
                let created = self.faces.durable(wanted.durable(key).map_err(status)?).await.map_err(status)?;
                let seen = Seen::of_record(created.execution, Bytes::new());
                return Ok(marked(response(&seen, invocation), created.replayed));
            }
            wire::ExecutionMode::Stream => {
                let wrong = "STREAM is answered by spearlet.FunctionService/StreamFunction";
                return Err(status(Fault::invalid_field("mode", wrong)));
            }
        }
        let task = wanted.task;
        let answered = self.faces.called_by(wanted, key).await?;
        let seen = self.faces.answer(task, &answered).await.map_err(Refusal::grpc)?;
        Ok(marked(response(&seen, invocation), answered.replayed))
    }
}

#[tonic::async_trait]
impl ExecutionService for Later {
    async fn get_execution(&self, request: Request<wire::GetExecutionRequest>) -> Answer<wire::Execution> {
        let wire::GetExecutionRequest { execution_id, include_output } = request.into_inner();
        let seen = self.faces.look(execution_id.parse().map_err(status)?).await.map_err(status)?;
        Ok(Response::new(execution(&seen, include_output)))
    }

    async fn terminate_execution(
        &self,
        request: Request<wire::TerminateExecutionRequest>,
    ) -> Answer<wire::TerminateExecutionResponse> {
        let wire::TerminateExecutionRequest { execution_id, reason } = request.into_inner();
        let id = execution_id.parse().map_err(status)?;
        let (asked, seen) = self.faces.cancel(id, &reason).await.map_err(status)?;
        let (final_status, message) = (wire_status(seen.status).into(), Cancelled::new(asked, &seen).message);
        Ok(Response::new(wire::TerminateExecutionResponse { success: asked, final_status, message }))
    }

    async fn list_executions(
        &self,
        request: Request<wire::ListNodeExecutionsRequest>,
    ) -> Answer<wire::ListNodeExecutionsResponse> {
        let wire::ListNodeExecutionsRequest { task_id, invocation_id, limit: most, page_token } = request.into_inner();
        let most = limit(most.into(), EXECUTIONS).map_err(status)?;
        let task = (!task_id.is_empty()).then(|| task_id.parse()).transpose().map_err(status)?;
        let mut all = self.faces.calls(task);
        // An invocation is one execution, and both have one id.
        all.retain(|seen| invocation_id.is_empty() || seen.execution.to_string() == invocation_id);
        let (page, next) = page(all, (&page_token, most), |seen| seen.execution.to_string()).map_err(status)?;
        Ok(Response::new(wire::ListNodeExecutionsResponse {
            executions: page.iter().map(|seen| execution(seen, false)).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }
}

#[tonic::async_trait]
impl InstanceService for Later {
    async fn destroy_instance(
        &self,
        request: Request<wire::DestroyInstanceRequest>,
    ) -> Answer<wire::DestroyInstanceResponse> {
        let wire::DestroyInstanceRequest { instance_id, reason } = request.into_inner();
        let message = self.faces.kill(&instance_id).map_err(status)?.to_owned();
        tracing::info!(instance = instance_id, reason = types::id::clip(&reason), "instance destroyed by request");
        Ok(Response::new(wire::DestroyInstanceResponse { success: true, message }))
    }
}
