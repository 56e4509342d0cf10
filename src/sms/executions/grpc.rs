//! `spear.v1.ExecutionService`: what REST offers, over gRPC.

use api::{
    convert,
    proto::v1::{
        CancelExecutionRequest, Execution, GetExecutionRequest, ListExecutionsRequest, ListExecutionsResponse, LogLine,
        ReadLogsRequest, RunTaskRequest, execution_service_server::ExecutionService,
    },
};
use futures_util::{StreamExt, stream, stream::BoxStream};
use net::{grpc::status, idempotency::marked};
use tonic::{Request, Response, Status};
use types::{ExecutionId, TaskId};

use super::{
    Filter, NewRun,
    follow::follow,
    http::{cursor_after, position},
    idempotency::Key,
};
use crate::{Sms, page::limit_of};

/// Executions of a page when the request says 0.
const LIMIT: usize = 100;
/// Lines of one page while reading without following.
const LINES: usize = 500;

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

    fn wire(&self, execution: &types::Execution) -> Execution {
        let callback = self.sms.executions.callback(execution);
        Execution { callback: callback.map(|callback| convert::callback(&callback)), ..convert::execution(execution) }
    }

    async fn with_result(&self, execution: &types::Execution) -> Result<Execution, Status> {
        let mut wire = self.wire(execution);
        if execution.result_bytes > 0 {
            wire.result = self.sms.executions.result(execution.id).await.map_err(status)?;
        }
        Ok(wire)
    }
}

fn execution_id(text: &str) -> Result<ExecutionId, Status> {
    text.parse().map_err(status)
}

#[tonic::async_trait]
impl ExecutionService for Grpc {
    async fn run_task(&self, request: Request<RunTaskRequest>) -> Result<Response<Execution>, Status> {
        let key = Key::of(request.metadata().as_ref()).map_err(status)?;
        let RunTaskRequest { task_id, input, timeout_ms, wait, callback_url } = request.into_inner();
        let task: TaskId = task_id.parse().map_err(status)?;
        let (timeout_ms, callback_url) = ((timeout_ms > 0).then_some(timeout_ms), Some(callback_url));
        let callback_url = callback_url.filter(|url| !url.is_empty());
        let new = NewRun { input, timeout_ms, first: false, wait, callback_url };
        let (execution, replayed) = self.sms.executions.run(task, &new, key.as_ref()).await.map_err(status)?;
        if !wait {
            return Ok(marked(self.wire(&execution), replayed));
        }
        let ended = self.sms.wait_for_end(&execution).await.map_err(status)?;
        Ok(marked(self.with_result(&ended).await?, replayed))
    }

    async fn get_execution(&self, request: Request<GetExecutionRequest>) -> Result<Response<Execution>, Status> {
        let id = execution_id(&request.into_inner().execution_id)?;
        let execution = self.sms.executions.get(id).await.map_err(status)?;
        Ok(Response::new(self.with_result(&execution).await?))
    }

    async fn list_executions(
        &self,
        request: Request<ListExecutionsRequest>,
    ) -> Result<Response<ListExecutionsResponse>, Status> {
        let request = request.into_inner();
        let task_id = (!request.task_id.is_empty()).then(|| request.task_id.parse()).transpose();
        let filter = Filter {
            task_id: task_id.map_err(status)?,
            node_uuid: crate::tasks::optional_node(Some(&request.node_uuid)).map_err(status)?,
            status: convert::status_from(request.status).map_err(status)?,
        };
        let limit = (request.limit > 0).then_some(i64::from(request.limit));
        let limit = limit_of(limit, LIMIT).map_err(status)?;
        let after = position(Some(&request.cursor)).map_err(status)?;
        let (found, next) = self.sms.executions.list(&filter, after, limit).await.map_err(status)?;
        Ok(Response::new(ListExecutionsResponse {
            executions: found.iter().map(|execution| self.wire(execution)).collect(),
            next_cursor: next.map(cursor_after).unwrap_or_default(),
        }))
    }

    async fn cancel_execution(&self, request: Request<CancelExecutionRequest>) -> Result<Response<Execution>, Status> {
        let CancelExecutionRequest { execution_id: id, reason } = request.into_inner();
        let execution = self.sms.executions.cancel(execution_id(&id)?, &reason).await.map_err(status)?;
        Ok(Response::new(self.wire(&execution)))
    }

    type ReadLogsStream = BoxStream<'static, Result<LogLine, Status>>;

    async fn read_logs(&self, request: Request<ReadLogsRequest>) -> Result<Response<Self::ReadLogsStream>, Status> {
        let ReadLogsRequest { execution_id: id, after_seq, follow: endless } = request.into_inner();
        let id = execution_id(&id)?;
        self.sms.executions.brief(id).map_err(status)?;
        let pages = if endless {
            follow(self.sms.executions.clone(), self.sms.stopping.clone(), id, after_seq).boxed()
        } else {
            pages(&self.sms, id, after_seq)
        };
        let lines = pages.flat_map(|page| {
            let lines: Vec<_> = match page {
                Ok(lines) => lines.iter().map(|line| Ok(convert::log_line(line))).collect(),
                Err(fault) => vec![Err(status(fault))],
            };
            stream::iter(lines)
        });
        Ok(Response::new(lines.boxed()))
    }
}

/// What is there now, in pages.
fn pages(sms: &Sms, id: ExecutionId, after: u64) -> BoxStream<'static, Result<Vec<types::LogLine>, types::Fault>> {
    let executions = sms.executions.clone();
    stream::unfold(Some(after), move |after| {
        let executions = executions.clone();
        async move {
            let after = after?;
            match executions.read_logs(id, after, LINES).await {
                Ok((page, _)) => {
                    let next = page.lines.last().map(|line| line.seq).filter(|_| !page.end);
                    Some((Ok(page.lines), next))
                }
                Err(fault) => Some((Err(fault), None)),
            }
        }
    })
    .boxed()
}
