//! `spearlet.FunctionService`, of the original's first versions.
//!
//! A guest that ends badly is an answer with `success: false`; what kept it from being called, its deadline, and what it
//! refuses to be called with are statuses.

use api::{
    proto::spearlet::{self as wire, function_service_server::FunctionService},
    wire::value,
};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use net::{
    grpc::status,
    idempotency::{self, marked},
};
use std::{collections::HashMap, sync::Arc};
use telemetry::trace;
use tonic::{Request, Response, Status, metadata::MetadataMap};
use types::{ErrorKind, Fault, TaskId};

use super::{
    super::Function,
    Faces, MOST_INPUT,
    idempotency::Answered,
    messages::{info, pieces, result, signed, small, wire_status},
    refusal::Refusal,
    seen::Seen,
    tasks::{EXECUTIONS, TASKS, not_here},
    view::{status_url, task_word},
    wanted::Wanted,
    watching::counts,
};

/// Bytes of a message beyond those of its input.
const SLACK: usize = 64 << 10;
/// Largest request.
pub(super) const MOST_MESSAGE: usize = MOST_INPUT + SLACK;
/// Tasks in the list of the most active.
const MOST_ACTIVE: usize = 10;

type Answer<T> = Result<Response<T>, Status>;

/// The service.
#[derive(Clone)]
pub(crate) struct Grpc {
    faces: Arc<Faces>,
}

impl Grpc {
    /// For a node.
    pub(crate) fn server(faces: &Arc<Faces>) -> wire::function_service_server::FunctionServiceServer<Self> {
        let service = wire::function_service_server::FunctionServiceServer::new(Self { faces: faces.clone() });
        service.max_decoding_message_size(MOST_MESSAGE).max_encoding_message_size(usize::MAX)
    }
}

/// What is wanted by a call.
struct Asked {
    wanted: Wanted,
    key: Option<String>,
    mode: wire::ExecutionMode,
}

impl Asked {
    fn of(faces: &Faces, request: Request<wire::InvokeFunctionRequest>) -> Result<Self, Fault> {
        let (metadata, _, request) = request.into_parts();
        let (key, traceparent) = (idempotency::key(metadata.as_ref())?, parent(&metadata));
        let mode = request.execution_mode();
        if request.invocation_type() == wire::InvocationType::NewTask {
            let message =
                "invocation_type: a node makes no tasks; register it at the registry and call it by its task_id";
            return Err(Fault::new(ErrorKind::Unsupported, "NEW_TASK_UNSUPPORTED", message));
        }
        let task = match request.task_id.as_str() {
            "" => faces.named(&request.task_name)?,
            id => id.parse()?,
        };
        let (input, args) = parameters(request.parameters)?;
        let context = request.context.unwrap_or_default();
        let timeout_ms = u64::try_from(context.timeout_ms)
            .map_err(|_| Fault::invalid_field("context.timeout_ms", format!("{} is negative", context.timeout_ms)))?;
        let mut metadata: std::collections::BTreeMap<_, _> = request.invocation_metadata.into_iter().collect();
        if !context.user_id.is_empty() {
            metadata.entry("user_id".to_owned()).or_insert(context.user_id);
        }
        let wanted = Wanted {
            task,
            function: request.function_name,
            args,
            input,
            content_type: String::new(),
            env: context.environment.into_iter().collect(),
            headers: context.headers.into_iter().collect(),
            metadata,
            timeout_ms: Some(timeout_ms),
            session: context.session_id,
            execution: context.execution_id,
            fresh: request.force_new_instance,
            callback_url: None,
            traceparent,
        };
        Ok(Self { wanted, key, mode })
    }
}

/// The trace of a call.
pub(super) fn parent(metadata: &MetadataMap) -> Option<String> {
    metadata.get(trace::HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The parameter named `input` is standard input; all others are arguments, in their order.
fn parameters(all: Vec<wire::FunctionParameter>) -> Result<(Bytes, Vec<String>), Fault> {
    let (mut input, mut args) = (None, Vec::new());
    for (index, parameter) in all.into_iter().enumerate() {
        let field = format!("parameters[{index}]");
        let given = parameter.value.as_ref().map(value).transpose().map_err(|fault| fault.within(&field))?;
        let given = match given {
            Some(given) => given,
            None if parameter.required => {
                let wrong = format!("{:?} is required and has none", types::id::clip(&parameter.name));
                return Err(Fault::invalid_field(format!("{field}.value"), wrong));
            }
            None => continue,
        };
        if parameter.name != "input" {
            let text = String::from_utf8(given.to_vec())
                .map_err(|_| Fault::invalid_field(format!("{field}.value"), "is an argument and not UTF-8"))?;
            args.push(text);
        } else if input.replace(given).is_some() {
            return Err(Fault::invalid_field(format!("{field}.name"), "input is given twice"));
        }
    }
    Ok((input.unwrap_or_default(), args))
}

impl Faces {
    /// The task of a name, where one of this node has it.
    fn named(&self, name: &str) -> Result<TaskId, Fault> {
        if name.is_empty() {
            return Err(Fault::invalid_field("task_id", "is missing"));
        }
        let found = self.functions().into_iter().rev().find(|function| &*function.name == name);
        let missing = || {
            let name = types::id::clip(name);
            Fault::not_found(
                "TASK_NOT_FOUND",
                format!("no task {name:?} is loaded on this node; call it by its task_id"),
            )
        };
        found.map(|function| function.task.id).ok_or_else(missing)
    }

    /// Calls a function as one of the gRPC interfaces wants it.
    pub(super) async fn called_by(self: &Arc<Self>, wanted: Wanted, key: Option<String>) -> Result<Answered, Status> {
        let (task, call) = (wanted.task, wanted.call(self).map_err(status)?);
        match key {
            Some(key) => self.once(task, &key, call).await.map_err(status),
            None => Ok(self.whole(task, call).await),
        }
    }
}

impl Grpc {
    fn task(&self, function: &Function, details: bool) -> wire::TaskInfo {
        let executable = &function.manifest.executable;
        let spec = || wire::ArtifactSpec {
            artifact_id: function.prepared.artifact.digest.clone(),
            artifact_type: executable.kind.as_str().to_owned(),
            location: executable.uri.clone(),
            version: function.task.version.clone(),
            checksum: executable.checksum_sha256.clone(),
            metadata: HashMap::from([("description".to_owned(), self.faces.functions.describe(function))]),
        };
        let last = self.faces.calls(Some(function.task.id)).into_iter().next();
        wire::TaskInfo {
            task_id: function.task.id.to_string(),
            task_name: function.name.to_string(),
            artifact_spec: details.then(spec),
            created_at: function.task.registered_at.seconds(),
            updated_at: self.faces.called(function).seconds(),
            execution_count: small(function.tally.read().calls),
            last_status: last.map_or(wire::ExecutionStatus::Unknown, |seen| wire_status(seen.status)).into(),
            metadata: match details {
                true => function.task.metadata.clone().into_iter().collect(),
                false => HashMap::new(),
            },
        }
    }

    async fn asynchronous(&self, asked: Asked) -> Answer<wire::InvokeFunctionResponse> {
        let new = asked.wanted.durable(asked.key).map_err(status)?;
        let created = self.faces.durable(new).await.map_err(status)?;
        let seen = Seen::of_record(created.execution, Bytes::new());
        Ok(marked(
            wire::InvokeFunctionResponse {
                success: true,
                message: "kept by the registry".to_owned(),
                execution_id: seen.execution.to_string(),
                task_id: seen.task.to_string(),
                instance_id: String::new(),
                result: Some(result(&seen, false)),
                status_endpoint: status_url(seen.execution),
                estimated_completion_ms: 0,
            },
            created.replayed,
        ))
    }
}

/// The size of a page.
pub(super) fn limit(asked: i64, (usual, most): (usize, usize)) -> Result<usize, Fault> {
    match usize::try_from(asked) {
        Ok(0) => Ok(usual),
        Ok(limit) if limit <= most => Ok(limit),
        _ => Err(Fault::invalid_field("limit", format!("is {asked}; 0 or 1 to {most} are wanted"))),
    }
}

/// What comes behind a mark, a page of it, and the mark of the next one.
pub(super) fn page<T>(
    all: Vec<T>,
    (after, limit): (&str, usize),
    id: impl Fn(&T) -> String,
) -> Result<(Vec<T>, Option<String>), Fault> {
    let from = match after {
        "" => 0,
        after => {
            let gone = || Fault::invalid_field("start_after", "is gone, or did not come from a list: begin again");
            all.iter().position(|one| id(one) == after).ok_or_else(gone)? + 1
        }
    };
    let more = all.len() > from + limit;
    let page: Vec<T> = all.into_iter().skip(from).take(limit).collect();
    let next = page.last().filter(|_| more).map(&id);
    Ok((page, next))
}

#[tonic::async_trait]
impl FunctionService for Grpc {
    async fn invoke_function(
        &self,
        request: Request<wire::InvokeFunctionRequest>,
    ) -> Answer<wire::InvokeFunctionResponse> {
        let asked = Asked::of(&self.faces, request).map_err(status)?;
        match asked.mode {
            wire::ExecutionMode::Async => return self.asynchronous(asked).await,
            wire::ExecutionMode::Stream => {
                return Err(Status::invalid_argument("execution_mode: a streamed answer is given by StreamFunction"));
            }
            wire::ExecutionMode::Unknown | wire::ExecutionMode::Sync => {}
        }
        let task = asked.wanted.task;
        let answered = self.faces.called_by(asked.wanted, asked.key).await?;
        let seen = self.faces.answer(task, &answered).await.map_err(Refusal::grpc)?;
        let error = seen.error();
        let response = wire::InvokeFunctionResponse {
            success: error.is_none(),
            message: error.map_or_else(|| "completed".to_owned(), |(_, message)| message),
            execution_id: seen.execution.to_string(),
            task_id: task.to_string(),
            instance_id: seen.instance.map(|id| id.to_string()).unwrap_or_default(),
            result: Some(result(&seen, true)),
            status_endpoint: status_url(seen.execution),
            estimated_completion_ms: 0,
        };
        Ok(marked(response, answered.replayed))
    }

    type StreamFunctionStream = BoxStream<'static, Result<wire::StreamExecutionResult, Status>>;

    async fn stream_function(
        &self,
        request: Request<wire::InvokeFunctionRequest>,
    ) -> Answer<Self::StreamFunctionStream> {
        let asked = Asked::of(&self.faces, request).map_err(status)?;
        if asked.mode == wire::ExecutionMode::Async || asked.key.is_some() {
            let message = "a streamed answer is given at once and to one: leave out idempotency-key and ASYNC";
            return Err(Status::invalid_argument(message));
        }
        let (task, call) = (asked.wanted.task, asked.wanted.call(&self.faces).map_err(status)?);
        let (guard, execution) = (call.cancel.clone().drop_guard(), call.execution.unwrap_or_default());
        match self.faces.streamed(task, call).await {
            Ok(outcome) => Ok(Response::new(pieces(outcome, guard))),
            Err(error) => Err(self.faces.refusal(task, execution, &error).await.grpc()),
        }
    }

    async fn get_execution_status(
        &self,
        request: Request<wire::GetExecutionStatusRequest>,
    ) -> Answer<wire::GetExecutionStatusResponse> {
        let wire::GetExecutionStatusRequest { execution_id, include_result, include_logs } = request.into_inner();
        let found = self.faces.look(execution_id.parse().map_err(status)?).await;
        let seen = match found {
            Ok(seen) => seen,
            Err(fault) if fault.kind == ErrorKind::NotFound => {
                let message = fault.message;
                return Ok(Response::new(wire::GetExecutionStatusResponse { message, ..Default::default() }));
            }
            Err(fault) => return Err(status(fault)),
        };
        let logs = seen.logs.iter().filter(|_| include_logs).map(|line| line.message.clone());
        Ok(Response::new(wire::GetExecutionStatusResponse {
            found: true,
            result: Some(result(&seen, include_result)),
            logs: logs.collect(),
            message: seen.message.clone(),
        }))
    }

    async fn cancel_execution(
        &self,
        request: Request<wire::CancelExecutionRequest>,
    ) -> Answer<wire::CancelExecutionResponse> {
        let wire::CancelExecutionRequest { execution_id, reason, force: _ } = request.into_inner();
        let execution = execution_id.parse().map_err(status)?;
        let (asked, seen) = self.faces.cancel(execution, &reason).await.map_err(status)?;
        let told = super::view::Cancelled::new(asked, &seen);
        let final_status = wire_status(seen.status).into();
        Ok(Response::new(wire::CancelExecutionResponse { success: asked, message: told.message, final_status }))
    }

    async fn list_tasks(&self, request: Request<wire::ListTasksRequest>) -> Answer<wire::ListTasksResponse> {
        let wire::ListTasksRequest { prefix, limit: most, start_after, include_details } = request.into_inner();
        let most = limit(most.into(), TASKS).map_err(status)?;
        let mut all = self.faces.functions();
        all.retain(|function| function.name.starts_with(&prefix));
        let (page, next) = page(all, (&start_after, most), |function| function.task.id.to_string()).map_err(status)?;
        Ok(Response::new(wire::ListTasksResponse {
            tasks: page.iter().map(|function| self.task(function, include_details)).collect(),
            has_more: next.is_some(),
            next_start_after: next.unwrap_or_default(),
        }))
    }

    async fn get_task(&self, request: Request<wire::GetTaskRequest>) -> Answer<wire::GetTaskResponse> {
        let wire::GetTaskRequest { task_id, include_executions, execution_limit } = request.into_inner();
        let task: TaskId = task_id.parse().map_err(status)?;
        let most = limit(execution_limit.into(), EXECUTIONS).map_err(status)?;
        let Some(function) = self.faces.function(task) else {
            let message = not_here(task).message;
            return Ok(Response::new(wire::GetTaskResponse { message, ..Default::default() }));
        };
        let executions = match include_executions {
            true => self.faces.calls(Some(task)).iter().take(most).map(info).collect(),
            false => Vec::new(),
        };
        let message = task_word(&function).to_owned();
        let task = Some(self.task(&function, true));
        Ok(Response::new(wire::GetTaskResponse { found: true, task, executions, message }))
    }

    async fn delete_task(&self, request: Request<wire::DeleteTaskRequest>) -> Answer<wire::DeleteTaskResponse> {
        let wire::DeleteTaskRequest { task_id, force, cleanup_executions } = request.into_inner();
        let task: TaskId = task_id.parse().map_err(status)?;
        let gone = self.faces.unload(task, force);
        let cleaned = if cleanup_executions { self.faces.functions.recent().forget(task) } else { 0 };
        let (deleted, message) = match gone {
            Ok(()) => (true, "unloaded from this node; the registry keeps it".to_owned()),
            Err(fault) => (false, fault.message),
        };
        let cleaned_executions = small(cleaned);
        Ok(Response::new(wire::DeleteTaskResponse { success: deleted, message, deleted, cleaned_executions }))
    }

    async fn list_executions(
        &self,
        request: Request<wire::ListExecutionsRequest>,
    ) -> Answer<wire::ListExecutionsResponse> {
        let request = request.into_inner();
        let task = (!request.task_id.is_empty()).then(|| request.task_id.parse()).transpose().map_err(status)?;
        let most = limit(request.limit.into(), EXECUTIONS).map_err(status)?;
        let wanted = wire::ExecutionStatus::try_from(request.status_filter).map_err(|_| {
            let wrong = format!("{} is no number of a status", request.status_filter);
            status(Fault::invalid_field("status_filter", wrong))
        })?;
        let mut all = self.faces.calls(task);
        all.retain(|seen| wanted == wire::ExecutionStatus::Unknown || wanted == wire_status(seen.status));
        let (page, next) =
            page(all, (&request.start_after, most), |seen| seen.execution.to_string()).map_err(status)?;
        Ok(Response::new(wire::ListExecutionsResponse {
            executions: page.iter().map(info).collect(),
            has_more: next.is_some(),
            next_start_after: next.unwrap_or_default(),
        }))
    }

    async fn get_health(&self, request: Request<wire::GetHealthRequest>) -> Answer<wire::GetHealthResponse> {
        let (reason, stats) = (self.faces.degraded(), self.faces.stats());
        let details = || wire::HealthDetails {
            active_tasks: small(self.faces.functions().iter().filter(|one| task_word(one) == "active").count()),
            running_executions: small(stats.active_executions),
            pending_executions: small(stats.pending_executions),
            total_memory_used: signed(stats.memory_bytes),
            total_executions: signed(stats.total_executions),
            system_info: HashMap::from([
                ("runtimes".to_owned(), self.faces.functions.runtimes.kinds().join(",")),
                ("os".to_owned(), std::env::consts::OS.to_owned()),
                ("arch".to_owned(), std::env::consts::ARCH.to_owned()),
            ]),
        };
        Ok(Response::new(wire::GetHealthResponse {
            status: if reason.is_none() { "healthy" } else { "degraded" }.to_owned(),
            message: reason.unwrap_or_default(),
            uptime_seconds: signed(self.faces.uptime().as_secs()),
            details: request.into_inner().include_details.then(details),
        }))
    }

    async fn get_stats(&self, request: Request<wire::GetStatsRequest>) -> Answer<wire::GetStatsResponse> {
        let wire::GetStatsRequest { include_task_stats, include_execution_stats, .. } = request.into_inner();
        let (stats, machine, functions) = (self.faces.stats(), self.faces.machine().await, self.faces.functions());
        let (kinds, calls) = counts(&functions);
        let tasks = || {
            let active = functions.iter().filter(|function| task_word(function) == "active").count();
            let mut most = functions.clone();
            most.sort_by_key(|function| std::cmp::Reverse(function.tally.read().calls));
            wire::TaskStats {
                active_tasks: small(active),
                idle_tasks: small(functions.len() - active),
                tasks_by_type: kinds.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
                most_active_tasks: most.iter().take(MOST_ACTIVE).map(|function| self.task(function, false)).collect(),
            }
        };
        let executions = || wire::ExecutionStats {
            running_executions: small(stats.active_executions),
            pending_executions: small(stats.pending_executions),
            completed_executions: small(stats.successful_executions),
            failed_executions: small(stats.failed_executions),
            average_execution_time_ms: stats.average_response_time_ms,
            success_rate_percent: match stats.total_executions {
                0 => 0.0,
                all => stats.successful_executions as f64 * 100.0 / all as f64,
            },
            executions_by_function: calls.into_iter().collect(),
        };
        Ok(Response::new(wire::GetStatsResponse {
            service_stats: Some(wire::ServiceStats {
                uptime_seconds: signed(self.faces.uptime().as_secs()),
                total_tasks: small(stats.task_count),
                total_executions: small(stats.total_executions),
                total_memory_used: signed(stats.memory_bytes),
                cpu_usage_percent: machine.cpu_usage_percent,
                memory_usage_percent: machine.memory_usage_percent,
            }),
            task_stats: include_task_stats.then(tasks),
            execution_stats: include_execution_stats.then(executions),
        }))
    }
}
