//! `sms.TaskService`, as the original SPEAR speaks it.

use api::{
    convert,
    proto::sms::{
        GetTaskRequest, GetTaskResponse, ListTasksRequest, ListTasksResponse, RegisterTaskRequest,
        RegisterTaskResponse, SubscribeTaskEventsRequest, Task, TaskEvent, UnregisterTaskRequest,
        UnregisterTaskResponse, task_service_server::TaskService,
    },
};
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use net::{grpc::status, idempotency::marked};
use tonic::{Request, Response, Status, metadata::MetadataValue};
use types::{Fault, NodeId, TaskId, TaskPriority, TaskStatus};

use super::{
    records::{NewTask, Seen},
    service::Wanted,
};
use crate::{
    Sms, events,
    executions::{NewRun, idempotency::Key},
    page::Page,
};

/// Tasks of a page when the request says 0 or less.
const LIMIT: usize = 100;
/// Metadata that names the change log whose revisions the event ids are.
pub const LOG_ID: &str = "spear-log-id";

/// The service.
#[derive(Clone)]
pub struct Grpc {
    sms: Sms,
}

impl Grpc {
    /// For a registry.
    pub fn new(sms: &Sms) -> Self {
        Self { sms: sms.clone() }
    }
}

fn wire(seen: &Seen) -> Task {
    let (last_result_uri, last_result_status) = seen.last_result();
    let mut task = convert::task(&seen.task);
    task.status = seen.status.tag();
    task.last_heartbeat = task.last_heartbeat.max(seen.last_completed_at());
    task.result_uris = seen.result_uris();
    task.last_result_uri = last_result_uri;
    task.last_result_status = last_result_status;
    task.last_completed_at = seen.last_completed_at();
    task.last_result_metadata = seen.last_metadata().into_iter().collect();
    task
}

/// A number of an enum; 0 and -1 mean any.
fn filter<T>(field: &str, tag: i32, from: fn(i32) -> Option<T>) -> Result<Option<T>, Fault> {
    match tag {
        -1 | 0 => Ok(None),
        tag => from(tag).map(Some).ok_or_else(|| Fault::invalid_field(field, format!("{tag} is not a known number"))),
    }
}

fn task_id(text: &str) -> Result<TaskId, Status> {
    text.parse().map_err(status)
}

fn new_task(request: RegisterTaskRequest) -> Result<NewTask, Fault> {
    let priority = TaskPriority::from_tag(request.priority)
        .ok_or_else(|| Fault::invalid_field("priority", format!("{} is not a TaskPriority", request.priority)))?;
    Ok(NewTask {
        name: request.name,
        description: request.description,
        priority,
        node_uuid: super::optional_node(Some(&request.node_uuid))?,
        endpoint: request.endpoint,
        version: request.version,
        capabilities: request.capabilities,
        metadata: request.metadata.into_iter().collect(),
        config: request.config.into_iter().collect(),
        executable: request.executable.map(convert::executable_from).transpose()?,
    })
}

#[tonic::async_trait]
impl TaskService for Grpc {
    async fn register_task(
        &self,
        request: Request<RegisterTaskRequest>,
    ) -> Result<Response<RegisterTaskResponse>, Status> {
        let key = Key::of(request.metadata().as_ref()).map_err(status)?;
        let new = new_task(request.into_inner()).map_err(status)?;
        let made = self.sms.tasks.register_with(new, NewRun::default(), key.as_ref()).await.map_err(status)?;
        let answer = RegisterTaskResponse {
            success: true,
            message: "Task registered successfully".to_owned(),
            task_id: made.task.to_string(),
            // Gone, where an earlier request made it and it was removed since.
            task: self.sms.tasks.get(made.task).ok().as_ref().map(wire),
        };
        Ok(marked(answer, made.replayed))
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        let request = request.into_inner();
        let wanted = Wanted {
            node_uuid: super::optional_node(Some(&request.node_uuid)).map_err(status)?,
            status: filter("status_filter", request.status_filter, TaskStatus::from_tag).map_err(status)?,
            priority: filter("priority_filter", request.priority_filter, TaskPriority::from_tag).map_err(status)?,
        };
        let limit = (request.limit > 0).then_some(i64::from(request.limit));
        let page = Page::parse("tasks", (limit, Some(i64::from(request.offset)), None), LIMIT).map_err(status)?;
        let cut = self.sms.tasks.list(wanted, &page).map_err(status)?;
        Ok(Response::new(ListTasksResponse {
            tasks: cut.items.iter().map(wire).collect(),
            total_count: i32::try_from(cut.total).unwrap_or(i32::MAX),
        }))
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Result<Response<GetTaskResponse>, Status> {
        let id = task_id(&request.into_inner().task_id)?;
        let task = self.sms.tasks.get(id).ok().map(|seen| wire(&seen));
        Ok(Response::new(GetTaskResponse { found: task.is_some(), task }))
    }

    async fn unregister_task(
        &self,
        request: Request<UnregisterTaskRequest>,
    ) -> Result<Response<UnregisterTaskResponse>, Status> {
        let UnregisterTaskRequest { task_id: id, reason } = request.into_inner();
        self.sms.tasks.remove(task_id(&id)?, &reason).await.map_err(status)?;
        Ok(Response::new(UnregisterTaskResponse {
            success: true,
            message: "Task unregistered successfully".to_owned(),
            task_id: id,
        }))
    }

    type SubscribeTaskEventsStream = BoxStream<'static, Result<TaskEvent, Status>>;

    async fn subscribe_task_events(
        &self,
        request: Request<SubscribeTaskEventsRequest>,
    ) -> Result<Response<Self::SubscribeTaskEventsStream>, Status> {
        let log_id = match request.metadata().get(LOG_ID) {
            Some(value) => {
                let text = value.to_str().unwrap_or_default();
                Some(text.parse().map_err(|_| status(Fault::invalid_field(LOG_ID, "is not the id of a log")))?)
            }
            None => None,
        };
        let SubscribeTaskEventsRequest { node_uuid, last_event_id } = request.into_inner();
        let node: NodeId = node_uuid
            .parse()
            .map_err(|_| status(Fault::invalid_field("node_uuid", "is not a UUID; a subscription is for one node")))?;
        let after = u64::try_from(last_event_id).unwrap_or(0);
        let events = events::task_events(&self.sms, node, log_id, after).await.map_err(status)?;
        let mut response = Response::new(events.map_err(status).boxed());
        let log_id = MetadataValue::try_from(self.sms.bus.log_id().to_string());
        response.metadata_mut().insert(LOG_ID, log_id.expect("a UUID is a metadata value"));
        Ok(response)
    }
}
