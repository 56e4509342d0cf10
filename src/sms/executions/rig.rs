//! A registry in memory, with nodes and agents made of a few lines: for the tests of this crate.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use api::{AssignmentEvent, Control, Cursor, ExecutionReport, Registration};
use axum::body::Body;
use bus::Bus;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use store::{Memory, Store};
use supervise::{Budget, Phase, Supervisor};
use tempfile::TempDir;
use tower::ServiceExt;
use types::{
    Assignment, AssignmentKind, Executable, ExecutableType, Execution, ExecutionId, ExecutionStatus, NodeId, TaskId,
    TaskPriority, Timestamp, clock::ManualClock, node::RUNTIMES_KEY,
};

use crate::{Config, Deps, Sms, executions::NewRun, tasks::NewTask};

pub(crate) struct Rig {
    pub(crate) sms: Sms,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) supervisor: Supervisor,
    pub(crate) dir: Arc<TempDir>,
    engine: Arc<Memory>,
}

pub(crate) async fn rig() -> Rig {
    rig_with(Config::default()).await
}

pub(crate) async fn rig_with(config: Config) -> Rig {
    start(config, Arc::new(Memory::new()), Arc::new(TempDir::new().unwrap())).await
}

async fn start(config: Config, engine: Arc<Memory>, dir: Arc<TempDir>) -> Rig {
    let supervisor = Supervisor::new(Budget { total: Duration::from_secs(5) });
    let store = Store::start(engine.clone(), &supervisor.scope(Phase::Store, "store"));
    let bus = Bus::start(&store, &supervisor.scope(Phase::Bus, "bus"));
    let clock = Arc::new(ManualClock::new(Timestamp(1_732_186_800_000)));
    let process = net::Process::new(("sms", "test"), &[], &supervisor, &net::Readiness::new(), clock.clone());
    let deps =
        Deps { store, bus, clock: clock.clone(), data_dir: dir.path().to_owned(), process, config: config.into() };
    let sms = Sms::start(deps, &supervisor).await.unwrap();
    Rig { control: sms.control(), sms, clock, supervisor, dir, engine }
}

/// Waits for a level, with a deadline.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn wasm() -> Executable {
    Executable {
        kind: ExecutableType::Wasm,
        uri: "https://example.org/hello.wasm".into(),
        name: "hello".into(),
        checksum_sha256: String::new(),
        args: Vec::new(),
        env: [].into(),
    }
}

pub(crate) fn new_task(name: &str) -> NewTask {
    NewTask {
        name: name.into(),
        description: String::new(),
        priority: TaskPriority::Normal,
        node_uuid: None,
        endpoint: "http://127.0.0.1:8081/process".into(),
        version: "1".into(),
        capabilities: Vec::new(),
        metadata: [].into(),
        config: [].into(),
        executable: Some(wasm()),
    }
}

impl Rig {
    /// The same data, as a process finds it that starts after this one was killed.
    pub(crate) async fn restarted(&self, config: Config) -> Rig {
        start(config, self.engine.clone(), self.dir.clone()).await
    }

    pub(crate) async fn node(&self, runtimes: &str) -> NodeId {
        self.node_named(NodeId::new(), runtimes).await
    }

    pub(crate) async fn node_named(&self, id: NodeId, runtimes: &str) -> NodeId {
        let metadata = [(RUNTIMES_KEY.to_owned(), runtimes.to_owned())].into();
        let node = Registration { id, ip_address: "10.0.0.1".into(), port: 50052, http_port: 8081, metadata };
        self.control.register_node(node).await.unwrap();
        id
    }

    /// A task with its first execution.
    pub(crate) async fn task(&self, name: &str) -> (TaskId, ExecutionId) {
        self.register(new_task(name)).await
    }

    pub(crate) async fn register(&self, new: NewTask) -> (TaskId, ExecutionId) {
        let (seen, execution) = self.sms.tasks.register(new).await.unwrap();
        (seen.task.id, execution.unwrap().id)
    }

    /// Another run of a task.
    pub(crate) async fn run(&self, task: TaskId, new: &NewRun) -> Execution {
        self.sms.executions.run(task, new, None).await.unwrap().0
    }

    pub(crate) async fn execution(&self, id: ExecutionId) -> Execution {
        self.sms.executions.get(id).await.unwrap()
    }

    /// What is asked of a node.
    pub(crate) async fn work(&self, node: NodeId) -> Vec<Assignment> {
        self.control.list_work(node).await.unwrap().assignments
    }

    /// A report as the node of an execution would give it now.
    pub(crate) async fn report(&self, id: ExecutionId, status: ExecutionStatus) -> ExecutionReport {
        let execution = self.execution(id).await;
        report(id, execution.node_uuid.unwrap_or_default(), execution.attempt, status)
    }

    pub(crate) async fn tell(&self, id: ExecutionId, status: ExecutionStatus) {
        let report = self.report(id, status).await;
        self.control.report_execution(report).await.unwrap();
    }

    /// A request to the REST face: status, headers' `location`, and the body as JSON (null when it is none).
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let (status, _, body) = self.call_raw(method, path, body.map(|body| body.to_string())).await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(crate) async fn call_raw(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
    ) -> (u16, http::HeaderMap, Bytes) {
        self.call_with(method, path, &[], body).await
    }

    pub(crate) async fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> (u16, http::HeaderMap, Bytes) {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(body.map_or_else(Body::empty, Body::from)).unwrap();
        let response = self.sms.http().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (head.status.as_u16(), head.headers, body)
    }

    /// An agent that runs whatever it is given by echoing the input, until the registry stops.
    pub(crate) fn echo_agent(&self, node: NodeId) {
        let control = self.control.clone();
        self.supervisor.scope(Phase::Work, "agent").spawn_once("echo", async move {
            let list = control.list_work(node).await?;
            for assignment in list.assignments {
                echo(&*control, &assignment).await?;
            }
            let mut events = control.watch_work(node, list.cursor).await?;
            while let Some(event) = events.next().await {
                if let AssignmentEvent::Set { assignment, .. } = event? {
                    echo(&*control, &assignment).await?;
                }
            }
            Ok(())
        });
    }
}

async fn echo(control: &dyn Control, assignment: &Assignment) -> Result<(), types::Fault> {
    let Some(id) = assignment.execution_id else { return Ok(()) };
    let told = |status| report(id, assignment.node_uuid, assignment.attempt, status);
    if assignment.kind == AssignmentKind::Cancel {
        return control.report_execution(told(ExecutionStatus::Cancelled)).await;
    }
    control.report_execution(told(ExecutionStatus::Running)).await?;
    let work = control.get_work(id).await?;
    control.report_execution(ExecutionReport { result: work.input, ..told(ExecutionStatus::Completed) }).await
}

pub(crate) fn report(id: ExecutionId, node: NodeId, attempt: u32, status: ExecutionStatus) -> ExecutionReport {
    ExecutionReport {
        execution_id: id,
        attempt,
        node_uuid: node,
        status,
        reason: None,
        message: String::new(),
        started_at: None,
        completed_at: None,
        exit_code: (status == ExecutionStatus::Completed).then_some(0),
        usage: None,
        result: Bytes::new(),
        progress: None,
    }
}

/// The next event of a work list that is not [`AssignmentEvent::Idle`].
pub(crate) async fn next_work(
    events: &mut futures_util::stream::BoxStream<'static, Result<AssignmentEvent, types::Fault>>,
) -> AssignmentEvent {
    let work = async {
        loop {
            match events.next().await.expect("the stream goes on").unwrap() {
                AssignmentEvent::Idle { .. } => {}
                event => return event,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("an event comes")
}

pub(crate) fn cursor(rig: &Rig, rev: u64) -> Cursor {
    Cursor { log_id: rig.sms.bus.log_id(), rev }
}
