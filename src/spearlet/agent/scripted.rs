//! A registry in memory whose answers a test scripts: outages, resets, refusals. It applies reports by the rules
//! of the real one, so that a test sees what a client of the registry would see.

use api::{Control, control::*};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream, stream::BoxStream};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use types::*;

/// Everything the registry knows, and what it was told.
pub(crate) struct World {
    pub log_id: LogId,
    pub rev: u64,
    /// Revisions up to this one are no longer in the log.
    pub floor: u64,
    pub down: bool,
    /// Calls that an outage refused.
    pub refused: usize,
    pub nodes: BTreeMap<NodeId, Registration>,
    pub registrations: usize,
    pub heartbeats: usize,
    pub resources: Vec<NodeResource>,
    pub left: Vec<String>,
    pub tasks: BTreeMap<TaskId, Task>,
    pub executions: BTreeMap<ExecutionId, Execution>,
    pub inputs: BTreeMap<ExecutionId, Bytes>,
    pub results: BTreeMap<ExecutionId, Bytes>,
    pub logs: BTreeMap<ExecutionId, Vec<LogLine>>,
    pub finished_logs: Vec<ExecutionId>,
    pub assignments: BTreeMap<ExecutionId, Assignment>,
    pub events: Vec<AssignmentEvent>,
    pub files: BTreeMap<FileId, Bytes>,
    /// Terminal reports, refused ones among them.
    pub reports: Vec<ExecutionReport>,
    pub lists: usize,
    /// What agents asked for on behalf of their callers.
    pub created: Vec<NewExecution>,
    /// The next answers of a call, by its name, before the real one.
    pub script: BTreeMap<&'static str, VecDeque<Fault>>,
    pub next_heartbeat: Duration,
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scripted {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
}

impl Scripted {
    pub(crate) fn new() -> Self {
        let world = World {
            log_id: LogId::new(),
            rev: 10,
            floor: 0,
            down: false,
            refused: 0,
            nodes: BTreeMap::new(),
            registrations: 0,
            heartbeats: 0,
            resources: Vec::new(),
            left: Vec::new(),
            tasks: BTreeMap::new(),
            executions: BTreeMap::new(),
            inputs: BTreeMap::new(),
            results: BTreeMap::new(),
            logs: BTreeMap::new(),
            finished_logs: Vec::new(),
            assignments: BTreeMap::new(),
            events: Vec::new(),
            files: BTreeMap::new(),
            reports: Vec::new(),
            lists: 0,
            created: Vec::new(),
            script: BTreeMap::new(),
            next_heartbeat: Duration::from_millis(100),
        };
        Self { world: Arc::new(Mutex::new(world)), changed: watch::Sender::new(0) }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Changes the world and wakes who waits for that.
    pub(crate) fn alter<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let done = change(&mut self.world());
        self.changed.send_modify(|version| *version += 1);
        done
    }

    /// Waits until something holds; the test fails when it does not within 20 s.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&World) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !holds(&self.world()) {
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), waiting).await.is_err() {
            let world = self.world();
            panic!("did not come to: {what}; executions: {:#?} reports: {:#?}", world.executions, world.reports);
        }
    }

    pub(crate) async fn ended(&self, id: ExecutionId) -> Execution {
        self.until("ended", |world| world.executions.get(&id).is_some_and(|one| one.status.terminal())).await;
        self.world().executions[&id].clone()
    }

    pub(crate) fn result(&self, id: ExecutionId) -> String {
        String::from_utf8(self.world().results.get(&id).map(|bytes| bytes.to_vec()).unwrap_or_default()).unwrap()
    }

    pub(crate) fn log(&self, id: ExecutionId) -> Vec<String> {
        self.world()
            .logs
            .get(&id)
            .map(|lines| lines.iter().map(|line| line.message.clone()).collect())
            .unwrap_or_default()
    }

    /// Outage on or off; streams end with it.
    pub(crate) fn down(&self, down: bool) {
        self.alter(|world| world.down = down);
    }

    /// Everything is forgotten, as with an empty disk.
    pub(crate) fn wipe(&self) {
        let fresh = Self::new();
        let log_id = fresh.world().log_id;
        self.alter(|world| {
            world.log_id = log_id;
            (world.rev, world.floor) = (3, 0);
            world.nodes.clear();
            world.tasks.clear();
            world.executions.clear();
            world.assignments.clear();
            world.events.clear();
            world.files.clear();
            world.logs.clear();
            world.results.clear();
        });
    }

    /// The next call of a name fails.
    pub(crate) fn refuse(&self, call: &'static str, fault: Fault) {
        self.world().script.entry(call).or_default().push_back(fault);
    }

    /// A task whose executable is a fake program.
    pub(crate) fn task(&self, program: &str, change: impl FnOnce(&mut Task)) -> TaskId {
        let (id, file, bytes) = (TaskId::new(), FileId::new(), Bytes::from(program.to_owned()));
        let mut task = Task {
            id,
            name: program.to_owned(),
            description: String::new(),
            status: TaskStatus::Registered,
            priority: TaskPriority::Normal,
            node_uuid: None,
            endpoint: String::new(),
            version: String::new(),
            capabilities: Vec::new(),
            registered_at: Timestamp(0),
            last_heartbeat: Timestamp(0),
            metadata: BTreeMap::new(),
            config: BTreeMap::new(),
            executable: Some(Executable {
                kind: ExecutableType::Wasm,
                uri: format!("sms+file://{file}"),
                name: String::new(),
                checksum_sha256: String::new(),
                args: Vec::new(),
                env: BTreeMap::new(),
            }),
        };
        change(&mut task);
        self.alter(|world| {
            world.files.insert(file, bytes);
            world.tasks.insert(id, task);
        });
        id
    }

    /// A run of a task, assigned to a node.
    pub(crate) fn place(&self, node: NodeId, task: TaskId, input: &str) -> ExecutionId {
        self.place_with(node, task, input, |_| {})
    }

    pub(crate) fn place_with(
        &self,
        node: NodeId,
        task: TaskId,
        input: &str,
        change: impl FnOnce(&mut Execution),
    ) -> ExecutionId {
        let id = ExecutionId::new();
        let mut execution = Execution {
            id,
            task_id: task,
            node_uuid: Some(node),
            attempt: 1,
            first: true,
            status: ExecutionStatus::Pending,
            reason: None,
            message: String::new(),
            created_at: Timestamp(0),
            started_at: None,
            completed_at: None,
            updated_at: Timestamp(0),
            timeout_ms: None,
            exit_code: None,
            usage: None,
            result_bytes: 0,
            input_bytes: 0,
            progress: None,
            cancel_requested: false,
            traceparent: None,
            callback_url: None,
            remembered: None,
        };
        change(&mut execution);
        self.alter(|world| {
            world.inputs.insert(id, Bytes::from(input.to_owned()));
            let attempt = execution.attempt;
            world.executions.insert(id, execution);
            world.assign(node, id, task, attempt, AssignmentKind::Run);
        });
        id
    }

    pub(crate) fn cancel(&self, id: ExecutionId) {
        self.alter(|world| {
            let assignment = world.assignments[&id].clone();
            world.executions.get_mut(&id).unwrap().cancel_requested = true;
            world.assign(assignment.node_uuid, id, assignment.task_id, assignment.attempt, AssignmentKind::Cancel);
        });
    }

    /// The registry takes an execution off the node's list.
    pub(crate) fn withdraw(&self, id: ExecutionId, status: ExecutionStatus) {
        self.alter(|world| {
            world.executions.get_mut(&id).unwrap().status = status;
            world.unassign(id);
        });
    }

    /// A line to this registry that can be cut for good, as the end of a process does.
    pub(crate) fn line(&self) -> Arc<Line> {
        Arc::new(Line { registry: self.clone(), cut: AtomicBool::new(false) })
    }
}

impl World {
    pub(crate) fn assign(&mut self, node: NodeId, id: ExecutionId, task: TaskId, attempt: u32, kind: AssignmentKind) {
        self.rev += 1;
        let assignment =
            Assignment { node_uuid: node, task_id: task, execution_id: Some(id), attempt, kind, at: Timestamp(0) };
        self.assignments.insert(id, assignment.clone());
        self.events.push(AssignmentEvent::Set { rev: self.rev, assignment });
    }

    pub(crate) fn unassign(&mut self, id: ExecutionId) {
        self.rev += 1;
        self.assignments.remove(&id);
        self.events.push(AssignmentEvent::Gone { rev: self.rev, id: id.to_string() });
    }

    pub(crate) fn idle(&mut self) {
        self.rev += 1;
        self.events.push(AssignmentEvent::Idle { rev: self.rev });
    }

    fn apply(&mut self, report: ExecutionReport) -> Result<(), Fault> {
        if report.status.terminal() {
            self.reports.push(report.clone());
        }
        let id = report.execution_id;
        let Some(now) = self.executions.get_mut(&id) else {
            return Err(Fault::not_found("EXECUTION_NOT_FOUND", "no such execution"));
        };
        if now.attempt != report.attempt {
            return Err(Fault::conflict("STALE_ATTEMPT", "another attempt"));
        }
        if !now.status.may_become(report.status) {
            if now.status == report.status {
                return Ok(());
            }
            return Err(Fault::conflict("EXECUTION_ENDED", format!("it is {}", now.status)));
        }
        (now.status, now.reason, now.message) = (report.status, report.reason, report.message);
        (now.started_at, now.exit_code, now.usage) = (report.started_at, report.exit_code, report.usage);
        if report.progress.is_some() {
            now.progress = report.progress;
        }
        if report.status.terminal() {
            self.results.insert(id, report.result);
            self.unassign(id);
        }
        Ok(())
    }
}

/// One process's line to the registry.
pub(crate) struct Line {
    registry: Scripted,
    cut: AtomicBool,
}

impl Line {
    /// Nothing comes through from now on: calls never return.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    async fn call<T>(&self, name: &'static str, act: impl FnOnce(&mut World) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.cut.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        self.registry.alter(|world| {
            if world.down {
                world.refused += 1;
                return Err(Fault::unavailable("connection refused"));
            }
            match world.script.get_mut(name).and_then(VecDeque::pop_front) {
                Some(fault) => Err(fault),
                None => act(world),
            }
        })
    }
}

fn known(world: &World, node: NodeId) -> Result<(), Fault> {
    match world.nodes.contains_key(&node) {
        true => Ok(()),
        false => Err(Fault::not_found("NODE_NOT_FOUND", "no such node")),
    }
}

#[async_trait]
impl Control for Line {
    async fn register_node(&self, node: Registration) -> Result<Registered, Fault> {
        self.call("register_node", |world| {
            world.registrations += 1;
            world.nodes.insert(node.id, node);
            Ok(Registered { log_id: world.log_id, next_heartbeat: world.next_heartbeat })
        })
        .await
    }

    async fn heartbeat(&self, node: NodeId, _health: BTreeMap<String, String>) -> Result<HeartbeatAck, Fault> {
        self.call("heartbeat", |world| {
            known(world, node)?;
            world.heartbeats += 1;
            Ok(HeartbeatAck { next_heartbeat: world.next_heartbeat })
        })
        .await
    }

    async fn update_resource(&self, node: NodeId, resource: NodeResource) -> Result<(), Fault> {
        self.call("update_resource", |world| {
            known(world, node)?;
            world.resources.push(resource);
            Ok(())
        })
        .await
    }

    async fn leave(&self, _node: NodeId, status: &str) -> Result<(), Fault> {
        self.call("leave", |world| {
            world.left.push(status.to_owned());
            Ok(())
        })
        .await
    }

    async fn list_work(&self, node: NodeId) -> Result<WorkList, Fault> {
        self.call("list_work", |world| {
            known(world, node)?;
            world.lists += 1;
            let cursor = Cursor { log_id: world.log_id, rev: world.rev };
            Ok(WorkList { cursor, assignments: world.assignments.values().cloned().collect() })
        })
        .await
    }

    async fn watch_work(
        &self,
        node: NodeId,
        after: Cursor,
    ) -> Result<BoxStream<'static, Result<AssignmentEvent, Fault>>, Fault> {
        let log_id = self
            .call("watch_work", |world| {
                known(world, node)?;
                if after.log_id != world.log_id || after.rev < world.floor {
                    return Err(Fault::new(ErrorKind::OutOfRange, "LOG", "list again"));
                }
                Ok(world.log_id)
            })
            .await?;
        let (registry, changed) = (self.registry.clone(), self.registry.changed.subscribe());
        let events = stream::unfold(
            (registry, changed, after.rev, false),
            move |(registry, mut changed, rev, over)| async move {
                if over {
                    return None;
                }
                loop {
                    let next = {
                        let world = registry.world();
                        if world.down {
                            return Some((
                                Err(Fault::unavailable("connection reset")),
                                (registry.clone(), changed, rev, true),
                            ));
                        }
                        if world.log_id != log_id {
                            let fault = Fault::new(ErrorKind::OutOfRange, "LOG", "list again");
                            return Some((Err(fault), (registry.clone(), changed, rev, true)));
                        }
                        world.events.iter().find(|event| revision(event) > rev).cloned()
                    };
                    if let Some(event) = next {
                        let now = revision(&event);
                        return Some((Ok(event), (registry, changed, now, false)));
                    }
                    changed.changed().await.ok()?;
                }
            },
        );
        Ok(events.boxed())
    }

    async fn get_task(&self, task: TaskId) -> Result<Task, Fault> {
        self.call("get_task", |world| {
            world.tasks.get(&task).cloned().ok_or_else(|| Fault::not_found("TASK_NOT_FOUND", "no such task"))
        })
        .await
    }

    async fn get_work(&self, execution: ExecutionId) -> Result<WorkItem, Fault> {
        self.call("get_work", |world| {
            let missing = || Fault::not_found("EXECUTION_NOT_FOUND", "no such execution");
            let found = world.executions.get(&execution).cloned().ok_or_else(missing)?;
            let task = world.tasks.get(&found.task_id).cloned().ok_or_else(missing)?;
            let input = world.inputs.get(&execution).cloned().unwrap_or_default();
            Ok(WorkItem { execution: found, task, input })
        })
        .await
    }

    async fn report_execution(&self, report: ExecutionReport) -> Result<(), Fault> {
        self.call("report_execution", |world| world.apply(report)).await
    }

    async fn append_logs(&self, batch: LogBatch) -> Result<AppendedLogs, Fault> {
        self.call("append_logs", |world| {
            assert!(batch.lines.len() <= 500, "a batch is bounded");
            let id = batch.execution_id;
            let Some(now) = world.executions.get(&id) else {
                return Err(Fault::not_found("EXECUTION_NOT_FOUND", "no such execution"));
            };
            if now.attempt != batch.attempt {
                return Err(Fault::conflict("STALE_ATTEMPT", "another attempt"));
            }
            let kept = world.logs.entry(id).or_default();
            for line in batch.lines {
                if line.seq == kept.last().map_or(1, |last| last.seq + 1) {
                    kept.push(line);
                }
            }
            let next_seq = kept.last().map_or(1, |last| last.seq + 1);
            if batch.finished {
                world.finished_logs.push(id);
            }
            Ok(AppendedLogs { next_seq })
        })
        .await
    }

    async fn create_execution(&self, new: NewExecution) -> Result<Created, Fault> {
        self.call("create_execution", |world| {
            if !world.tasks.contains_key(&new.task_id) {
                return Err(Fault::not_found("TASK_NOT_FOUND", "no such task"));
            }
            let execution = api::convert::execution_from(api::proto::v1::Execution {
                execution_id: ExecutionId::new().to_string(),
                task_id: new.task_id.to_string(),
                attempt: 1,
                status: api::proto::v1::ExecutionStatus::Pending.into(),
                timeout_ms: new.timeout.map(api::convert::millis_of),
                input_bytes: new.input.len() as u64,
                traceparent: new.traceparent.clone().unwrap_or_default(),
                ..Default::default()
            })?;
            world.inputs.insert(execution.id, new.input.clone());
            world.executions.insert(execution.id, execution.clone());
            world.created.push(new);
            Ok(Created { execution, replayed: false })
        })
        .await
    }

    async fn get_execution(&self, execution: ExecutionId) -> Result<(Execution, Bytes), Fault> {
        self.call("get_execution", |world| {
            let missing = || Fault::not_found("EXECUTION_NOT_FOUND", "no such execution");
            let found = world.executions.get(&execution).cloned().ok_or_else(missing)?;
            Ok((found, world.results.get(&execution).cloned().unwrap_or_default()))
        })
        .await
    }

    async fn cancel_execution(&self, execution: ExecutionId, reason: &str) -> Result<Execution, Fault> {
        self.call("cancel_execution", |world| {
            let missing = || Fault::not_found("EXECUTION_NOT_FOUND", "no such execution");
            let found = world.executions.get_mut(&execution).ok_or_else(missing)?;
            if found.status.terminal() {
                return Err(Fault::conflict("EXECUTION_ENDED", format!("it is {}", found.status)));
            }
            (found.status, found.message) = (ExecutionStatus::Cancelled, reason.to_owned());
            Ok(found.clone())
        })
        .await
    }

    async fn open_file(&self, file: FileId) -> Result<FileStream, Fault> {
        self.call("open_file", |world| {
            let missing = || Fault::not_found("FILE_NOT_FOUND", "no such file");
            let bytes = world.files.get(&file).cloned().ok_or_else(missing)?;
            let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            let record = FileRecord {
                id: file,
                name: "program".to_owned(),
                content_type: String::new(),
                len: bytes.len() as u64,
                sha256,
                created_at: Timestamp(0),
            };
            Ok(FileStream { record, bytes: stream::iter([Ok(bytes)]).boxed() })
        })
        .await
    }
}

fn revision(event: &AssignmentEvent) -> u64 {
    match event {
        AssignmentEvent::Set { rev, .. } | AssignmentEvent::Gone { rev, .. } | AssignmentEvent::Idle { rev } => *rev,
    }
}
