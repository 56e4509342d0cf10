#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use api::{
    AssignmentEvent, Control, Cursor, ExecutionReport, LogBatch, NewExecution, Registration, grpc::RemoteControl,
};
use net::{Access, FetchRules, Fetcher, ServeOptions, Sockets, channel};
use std::sync::Arc;
use supervise::Phase;
use types::{
    AssignmentKind, ErrorKind, ExecutionId, ExecutionStatus as S, LogId, LogLine, LogStream, NodeId, TaskId,
    node::RUNTIMES_KEY,
};

use crate::executions::rig::{Rig, next_work, report, rig};

/// The registry as an agent in another process sees it.
async fn remote(rig: &Rig) -> Arc<dyn Control> {
    let listener = Sockets::bind("grpc", "grpc", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr().to_string();
    let scope = rig.supervisor.scope(Phase::Intake, "grpc");
    let (access, stopping) = (Access::loopback::<&str>([]), rig.supervisor.stopping());
    net::serve(listener, rig.sms.grpc().unwrap(), access, ServeOptions::default(), &scope, stopping);
    let channel = channel::connect(&addr, None, channel::ConnectOptions::default()).unwrap();
    let files = Fetcher::new(FetchRules::default()).unwrap();
    Arc::new(RemoteControl::new(channel, &addr, files, None))
}

fn registration(id: NodeId) -> Registration {
    let metadata = [(RUNTIMES_KEY.to_owned(), "wasm".to_owned()), ("name".to_owned(), "far".to_owned())].into();
    Registration { id, ip_address: "10.0.0.7".into(), port: 50052, http_port: 8081, metadata }
}

/// One life of a node, over whichever form of the contract.
async fn lives(rig: &Rig, control: &dyn Control) {
    let node = NodeId::new();
    let unknown = control.heartbeat(node, [].into()).await.unwrap_err();
    assert_eq!((unknown.kind, unknown.code.as_ref()), (ErrorKind::NotFound, "NODE_NOT_FOUND"));
    let registered = control.register_node(registration(node)).await.unwrap();
    assert_eq!(registered.log_id, rig.sms.bus.log_id());
    assert!(!registered.next_heartbeat.is_zero());
    control.heartbeat(node, [("cpu".to_owned(), "1%".to_owned())].into()).await.unwrap();
    control.update_resource(node, types::NodeResource { cpu_usage_percent: 12.5, ..Default::default() }).await.unwrap();
    let list = control.list_work(node).await.unwrap();
    assert!(list.assignments.is_empty());
    let mut events = control.watch_work(node, list.cursor).await.unwrap();

    let (task, _) =
        rig.register(crate::tasks::NewTask { node_uuid: Some(node), ..crate::executions::rig::new_task("far") }).await;
    let new = crate::executions::NewRun { input: "input".into(), timeout_ms: Some(5), ..Default::default() };
    let id = rig.run(task, &new).await.id;
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let AssignmentEvent::Set { assignment, .. } = next_work(&mut events).await else { panic!("nothing has ended") };
        assert_eq!((assignment.node_uuid, assignment.task_id, assignment.attempt), (node, task, 1));
        kinds.push(assignment.kind);
    }
    assert_eq!(kinds, [AssignmentKind::Create, AssignmentKind::Run]);
    assert_eq!(control.list_work(node).await.unwrap().assignments.len(), 2);
    let work = control.get_work(id).await.unwrap();
    assert_eq!(
        (work.input.as_ref(), work.execution.timeout_ms, work.task.name.as_str()),
        (&b"input"[..], Some(5), "far")
    );
    assert_eq!(control.get_task(task).await.unwrap().executable, work.task.executable);

    let line = |seq| LogLine {
        ts_ms: 1,
        seq,
        stream: LogStream::Stderr,
        level: "info".into(),
        message: "hi".into(),
        raw_base64: Some("aGkN".into()),
        unterminated: seq == 2,
    };
    let batch = |from: u64, finished| LogBatch {
        execution_id: id,
        attempt: 1,
        lines: vec![line(from), line(from + 1)],
        finished,
    };
    assert_eq!(control.append_logs(batch(1, false)).await.unwrap().next_seq, 3);
    let gap = control.append_logs(batch(9, false)).await.unwrap_err();
    assert_eq!(
        (gap.kind, gap.code.as_ref(), gap.errors[0].detail.as_str()),
        (ErrorKind::Conflict, "LOG_GAP", "expected 3")
    );
    let other = LogBatch { attempt: 2, ..batch(3, false) };
    assert_eq!(control.append_logs(other).await.unwrap_err().code, "STALE_ATTEMPT");
    control.append_logs(batch(3, true)).await.unwrap();
    let kept = rig.sms.executions.read_logs(id, 0, 10).await.unwrap().0.lines;
    assert_eq!(kept, [line(1), line(2), line(3), line(4)], "each line arrives as it was sent");

    let stale = control.report_execution(report(id, node, 2, S::Running)).await.unwrap_err();
    assert_eq!((stale.kind, stale.code.as_ref()), (ErrorKind::Conflict, "STALE_ATTEMPT"));
    control.report_execution(report(id, node, 1, S::Running)).await.unwrap();
    let done =
        ExecutionReport { result: vec![7; 6 << 20].into(), exit_code: Some(0), ..report(id, node, 1, S::Completed) };
    control.report_execution(done.clone()).await.unwrap();
    control.report_execution(done).await.unwrap();
    let AssignmentEvent::Gone { id: gone, .. } = next_work(&mut events).await else { panic!("it has ended") };
    assert_eq!(gone, id.to_string());
    let ended = rig.execution(id).await;
    assert_eq!((ended.status, ended.result_bytes, ended.exit_code), (S::Completed, 6 << 20, Some(0)));

    let foreign = Cursor { log_id: LogId::new(), rev: 0 };
    let lost = match control.watch_work(node, foreign).await {
        Err(fault) => fault,
        Ok(_) => panic!("a cursor of another log"),
    };
    assert_eq!(lost.kind, ErrorKind::OutOfRange);
    assert_eq!(control.get_work(ExecutionId::new()).await.unwrap_err().code, "EXECUTION_NOT_FOUND");
    on_behalf_of_a_caller(control, (task, id)).await;
    control.leave(node, "draining").await.unwrap();
    assert!(!rig.sms.nodes.get(node).unwrap().takes_work());
}

/// What an agent asks for when it is called asynchronously.
async fn on_behalf_of_a_caller(control: &dyn Control, (task, ended): (TaskId, ExecutionId)) {
    let new = NewExecution {
        task_id: task,
        input: "in".into(),
        timeout: Some(std::time::Duration::from_micros(1)),
        idempotency_key: None,
        callback_url: None,
        traceparent: None,
    };
    let made = control.create_execution(new.clone()).await.unwrap();
    assert!(!made.replayed);
    let id = made.execution.id;
    assert_eq!((made.execution.task_id, made.execution.timeout_ms), (task, Some(1)), "the shortest there is");
    assert_eq!(control.get_work(id).await.unwrap().input, "in");
    let (seen, result) = control.get_execution(id).await.unwrap();
    assert_eq!((seen.id, seen.status, result.len()), (id, S::Pending, 0));
    let (seen, result) = control.get_execution(ended).await.unwrap();
    assert_eq!((seen.status, result.len()), (S::Completed, 6 << 20));
    assert!(control.cancel_execution(id, "enough").await.unwrap().cancel_requested);
    let over = control.cancel_execution(ended, "").await.unwrap_err();
    assert_eq!((over.kind, over.code.as_ref()), (ErrorKind::Conflict, "EXECUTION_ENDED"));
    let unknown = NewExecution { task_id: TaskId::new(), ..new };
    assert_eq!(control.create_execution(unknown).await.unwrap_err().code, "TASK_NOT_FOUND");
    assert_eq!(control.get_execution(ExecutionId::new()).await.unwrap_err().code, "EXECUTION_NOT_FOUND");
}

#[tokio::test]
async fn an_agent_in_this_process_lives_by_the_contract() {
    let rig = rig().await;
    lives(&rig, &*rig.control).await;
}

#[tokio::test]
async fn an_agent_in_another_process_sees_the_very_same() {
    let rig = rig().await;
    lives(&rig, &*remote(&rig).await).await;
}
