#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use api::ExecutionReport;
use bus::{Delivery, From};
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all};
use proptest::prelude::*;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use types::{
    AssignmentKind, Execution, ExecutionId, ExecutionStatus as S, LogLine, LogStream, NodeId, Reason, TaskId,
    TaskPriority, Timestamp, clock::ManualClock,
};

use super::{
    Filter, NewRun, follow,
    logs::Logs,
    lost::Silence,
    retention::Orphans,
    rig::{Rig, new_task, report, rig, rig_with, until},
    transition::{self, Event, Step},
};
use crate::Config;

fn fresh() -> Execution {
    Execution {
        id: ExecutionId::new(),
        task_id: TaskId::new(),
        node_uuid: None,
        attempt: 1,
        first: true,
        status: S::Pending,
        reason: None,
        message: String::new(),
        created_at: Timestamp(1),
        started_at: None,
        completed_at: None,
        updated_at: Timestamp(1),
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
    }
}

proptest! {
    // A file of failures would lie beside the crates and count as one of them.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any order of events: nothing leaves a terminal status but a late report leaves `lost`, an assignment
    /// exists exactly while the execution is open and has a node, and the attempt never goes back.
    #[test]
    fn no_order_of_events_breaks_the_state_machine(steps in proptest::collection::vec((0u8..10, any::<bool>(), 1u32..4), 1..40)) {
        let nodes = [NodeId::new(), NodeId::new()];
        let mut execution = fresh();
        let mut assigned = None;
        for (what, second, attempt) in steps {
            let node = nodes[usize::from(second)];
            let told = |status| report(execution.id, node, attempt, status);
            let reports = [told(S::Running), told(S::Completed), told(S::Failed), told(S::Cancelled), told(S::Timeout)];
            let event = match what {
                0 => Event::Place(node),
                1 => Event::Wait("no node"),
                2 => Event::Move { from: node, message: "gone" },
                3 => Event::Lost { from: node, message: "gone" },
                4 => Event::Cancel("enough"),
                other => Event::Report(&reports[usize::from(other) - 5]),
            };
            let before = execution.clone();
            let step = transition::apply(&mut execution, &event, Timestamp(2));
            if !matches!(step, Ok(Step::Changed)) {
                prop_assert_eq!(&before, &execution, "{:?} changed it without saying so", event);
                continue;
            }
            if before.status.terminal() {
                prop_assert_eq!(before.status, S::Lost);
                prop_assert!(matches!(event, Event::Report(_)) && execution.status.terminal());
            }
            prop_assert!(execution.attempt >= before.attempt);
            prop_assert_eq!(execution.completed_at.is_some(), execution.status.terminal());
            let mut batch = store::Batch::new();
            transition::effects(&before, &execution, Timestamp(2), &mut batch).unwrap();
            for op in batch.ops {
                match op {
                    store::Op::Put(key, _) => assigned = Some(key),
                    store::Op::Delete(key) => { if assigned.as_deref() == Some(&key) { assigned = None } },
                }
            }
            let wanted = execution.node_uuid.filter(|_| !execution.status.terminal());
            let key = wanted.map(|node| format!("assignment/{node}/{}", execution.id));
            prop_assert_eq!(&assigned, &key);
        }
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_reports_and_cancels_end_in_exactly_one_terminal_state() {
    let rig = Arc::new(rig().await);
    let node = rig.node("wasm").await;
    let mut dice = Dice(7);
    for round in 0..150 {
        let (_, id) = rig.task("race").await;
        let mut changes = rig.sms.bus.changes::<Execution>(From::After(rig.sms.bus.head()));
        let racers = (0..8).map(|_| {
            let (rig, what) = (rig.clone(), dice.roll(6));
            tokio::spawn(async move {
                let told = |status| report(id, node, 1, status);
                match what {
                    0 => rig.sms.executions.cancel(id, "").await.map(drop),
                    1 | 2 => rig.control.report_execution(told(S::Running)).await,
                    3 => rig.control.report_execution(told(S::Completed)).await,
                    4 => rig.control.report_execution(told(S::Failed)).await,
                    _ => rig.control.report_execution(told(S::Cancelled)).await,
                }
            })
        });
        for done in join_all(racers).await {
            if let Err(fault) = done.unwrap() {
                assert_eq!(fault.code, "EXECUTION_ENDED", "round {round}: {fault}");
            }
        }
        // Whatever happened, the node has the last word once; a repeat changes nothing.
        rig.control.report_execution(report(id, node, 1, S::Completed)).await.unwrap();
        rig.control.report_execution(report(id, node, 1, S::Failed)).await.unwrap();
        let last = rig.execution(id).await;
        assert!(last.status.terminal() && rig.work(node).await.is_empty(), "round {round}: {last:?}");
        let mut ended = Vec::new();
        while let Ok(Ok(Delivery::Set { now, .. })) =
            tokio::time::timeout(Duration::from_millis(1), changes.next()).await
        {
            if now.status.terminal() {
                ended.push(now.status);
            }
        }
        assert_eq!(ended, [last.status], "round {round}: one end, and it stays");
    }
}

#[tokio::test]
async fn a_report_of_an_older_attempt_or_another_node_is_refused() {
    let rig = rig().await;
    let first = rig.node("wasm").await;
    let (_, id) = rig.task("moving").await;
    assert_eq!(rig.execution(id).await.node_uuid, Some(first));
    rig.sms.nodes.delete(first).await.unwrap();
    let second = rig.node("wasm").await;
    until("it moves to the second node", async || rig.execution(id).await.node_uuid == Some(second)).await;
    assert_eq!(rig.execution(id).await.attempt, 2);
    assert!(rig.work(first).await.is_empty());
    for (node, attempt) in [(first, 1), (first, 2), (second, 1), (second, 3)] {
        let fault = rig.control.report_execution(report(id, node, attempt, S::Completed)).await.unwrap_err();
        assert_eq!(fault.code, "STALE_ATTEMPT", "{fault}");
    }
    rig.control.report_execution(report(id, second, 2, S::Completed)).await.unwrap();
    assert_eq!(rig.execution(id).await.status, S::Completed);
    let fault = rig.control.report_execution(report(ExecutionId::new(), second, 1, S::Running)).await.unwrap_err();
    assert_eq!(fault.code, "EXECUTION_NOT_FOUND");
    let fault = rig.control.report_execution(report(id, second, 2, S::Lost)).await.unwrap_err();
    assert_eq!(fault.errors[0].field, "status");
}

#[tokio::test]
async fn work_of_a_removed_node_is_lost_until_its_late_report() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    let (task, id) = rig.task("lost").await;
    rig.tell(id, S::Running).await;
    rig.sms.nodes.delete(node).await.unwrap();
    until("it is lost", async || rig.execution(id).await.status == S::Lost).await;
    let lost = rig.execution(id).await;
    assert_eq!((lost.reason, rig.work(node).await.len()), (Some(Reason::NodeLost), 0));
    rig.control.report_execution(report(id, node, 1, S::Running)).await.unwrap();
    assert_eq!(rig.execution(id).await.status, S::Lost, "running is no end");
    let late = ExecutionReport { result: Bytes::from("late"), ..report(id, node, 1, S::Completed) };
    rig.control.report_execution(late).await.unwrap();
    assert_eq!(rig.execution(id).await.status, S::Completed);
    assert_eq!(rig.sms.executions.result(id).await.unwrap(), "late");
    assert_eq!(rig.sms.tasks.get(task).unwrap().last.unwrap().status, S::Completed);
}

#[tokio::test]
async fn an_offline_node_keeps_its_work_for_the_time_allowed() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    let ((_, runs), (_, waits), (_, stops)) = (rig.task("a").await, rig.task("b").await, rig.task("c").await);
    rig.tell(runs, S::Running).await;
    rig.sms.executions.cancel(stops, "").await.unwrap();
    rig.sms.nodes.leave(node, "offline").await.unwrap();
    let mut silence = Silence::default();
    rig.sms.executions.give_up(&mut silence).await.unwrap();
    rig.clock.advance(Duration::from_secs(299));
    rig.sms.executions.give_up(&mut silence).await.unwrap();
    assert_eq!(rig.execution(runs).await.status, S::Running);
    assert_eq!(rig.execution(waits).await.node_uuid, Some(node));
    rig.clock.advance(Duration::from_secs(2));
    rig.sms.executions.give_up(&mut silence).await.unwrap();
    assert_eq!(rig.execution(runs).await.status, S::Lost);
    let waiting = rig.execution(waits).await;
    assert_eq!((waiting.status, waiting.node_uuid, waiting.attempt), (S::Pending, None, 2));
    assert_eq!(rig.execution(stops).await.status, S::Cancelled, "nobody is left to be asked");
}

#[tokio::test]
async fn work_goes_to_the_least_loaded_node_that_has_the_runtime() {
    let rig = rig().await;
    let (_other, busy, idle) = (rig.node("process").await, rig.node("wasm").await, rig.node("process, wasm").await);
    let load = |percent| types::NodeResource { cpu_usage_percent: percent, ..Default::default() };
    rig.control.update_resource(busy, load(90.0)).await.unwrap();
    rig.control.update_resource(idle, load(10.0)).await.unwrap();
    let mut placed = Vec::new();
    for _ in 0..4 {
        let (_, id) = rig.task("t").await;
        placed.push(rig.execution(id).await.node_uuid.unwrap());
    }
    assert_eq!(placed, [idle, busy, idle, busy], "first by open executions, then by load");
    let together = join_all((0..20).map(|_| rig.task("t"))).await;
    let mut on_idle = 0;
    for (_, id) in together {
        on_idle += usize::from(rig.execution(id).await.node_uuid == Some(idle));
    }
    assert_eq!(on_idle, 10, "those that are being placed count too");
}

#[tokio::test]
async fn without_a_node_it_waits_and_says_why_until_one_comes() {
    let rig = rig().await;
    let (_, low) = rig.task("low").await;
    let mut urgent = new_task("urgent");
    urgent.priority = TaskPriority::Urgent;
    let (_, urgent) = rig.register(urgent).await;
    let waiting = rig.execution(low).await;
    assert_eq!((waiting.status, waiting.reason), (S::Pending, Some(Reason::NoNode)));
    assert_eq!(waiting.message, "no node that is online and takes work has the runtime wasm");
    let node = rig.node("wasm").await;
    until("both are placed", async || rig.work(node).await.len() == 2).await;
    let placed = rig.execution(low).await;
    assert_eq!((placed.reason, placed.message.as_str()), (None, ""));
    let modified = async |id| {
        let key = format!("assignment/{node}/{id}");
        rig.sms.bus.store().get(&key).await.unwrap().unwrap().created
    };
    assert!(modified(urgent).await < modified(low).await, "the urgent goes first");
}

#[tokio::test]
async fn a_bound_task_waits_for_its_node_and_goes_nowhere_else() {
    let rig = rig().await;
    let bound = NodeId::new();
    rig.node("wasm").await;
    let (_, id) = rig.register(crate::tasks::NewTask { node_uuid: Some(bound), ..new_task("bound") }).await;
    let waiting = rig.execution(id).await;
    assert_eq!((waiting.node_uuid, waiting.reason), (None, Some(Reason::NoNode)));
    assert_eq!(waiting.message, format!("node {bound} is not registered"));
    rig.node_named(bound, "").await;
    until("its node has it", async || rig.work(bound).await.len() == 1).await;
    rig.sms.nodes.leave(bound, "offline").await.unwrap();
    let (task, _) = rig.register(crate::tasks::NewTask { node_uuid: Some(bound), ..new_task("bound") }).await;
    let second = rig.run(task, &NewRun::default()).await;
    assert_eq!(second.message, format!("node {bound} is offline"));
    rig.node_named(bound, "").await;
    until("it has all three", async || rig.work(bound).await.len() == 3).await;
}

#[tokio::test]
async fn cancelling_waits_for_nobody_where_there_is_nobody() {
    let rig = rig().await;
    let (_, waiting) = rig.task("waiting").await;
    let (code, body) = rig.call("POST", &format!("/api/v1/executions/{waiting}/cancel"), None).await;
    assert_eq!((code, &body["status"], &body["reason"]), (200, &json!("cancelled"), &json!("cancelled")));
    let node = rig.node("wasm").await;
    let (_, id) = rig.task("placed").await;
    let path = format!("/api/v1/executions/{id}/cancel");
    let (code, body) = rig.call("POST", &path, Some(json!({"reason": "enough"}))).await;
    assert_eq!((code, &body["status"], &body["cancel_requested"]), (200, &json!("pending"), &json!(true)));
    assert_eq!(rig.work(node).await[0].kind, AssignmentKind::Cancel);
    let (code, _) = rig.call("POST", &path, None).await;
    assert_eq!(code, 200, "asking again is harmless");
    rig.tell(id, S::Cancelled).await;
    assert!(rig.work(node).await.is_empty());
    let (code, body) = rig.call("POST", &path, None).await;
    assert_eq!((code, &body["code"]), (409, &json!("EXECUTION_ENDED")));
    assert!(body["detail"].as_str().unwrap().contains("cancelled"), "{body}");
    for (path, code) in [("nonsense", 400), (&ExecutionId::new().to_string(), 404)] {
        assert_eq!(rig.call("POST", &format!("/api/v1/executions/{path}/cancel"), None).await.0, code);
    }
}

#[tokio::test]
async fn a_synchronous_run_answers_with_the_result_and_an_asynchronous_one_with_a_place() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    rig.echo_agent(node);
    let (task, first) = rig.task("echo").await;
    let path = format!("/api/v1/tasks/{task}/executions");
    let (code, body) = rig.call("POST", &path, Some(json!({"mode": "sync", "input": "hé"}))).await;
    assert_eq!((code, &body["status"], &body["result"]["text"]), (200, &json!("completed"), &json!("hé")), "{body}");
    assert_eq!((&body["result"]["size"], &body["input_bytes"], &body["first"]), (&json!(3), &json!(3), &json!(false)));
    let raw = json!({"mode": "sync", "input_base64": "/wA="});
    let (_, body) = rig.call("POST", &path, Some(raw)).await;
    assert_eq!(body["result"]["base64"], json!("/wA="));
    let uri = body["result"]["uri"].as_str().unwrap();
    assert_eq!(rig.call_raw("GET", uri, None).await.2.as_ref(), [0xff, 0]);
    let (code, headers, body) = rig.call_raw("POST", &path, None).await;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let place = format!("/api/v1/executions/{}", body["execution_id"].as_str().unwrap());
    assert_eq!((code, headers["location"].to_str().unwrap()), (202, place.as_str()));
    until("the first has ended too", async || rig.execution(first).await.status == S::Completed).await;
    let (code, listed) = rig.call("GET", &path, None).await;
    assert_eq!((code, listed["executions"].as_array().unwrap().len()), (200, 4));
    let (_, shown) = rig.call("GET", &format!("/api/v1/tasks/{task}"), None).await;
    assert_eq!((&shown["status"], &shown["last_result_status"]), (&json!("active"), &json!("completed")));
}

#[tokio::test]
async fn a_run_that_takes_longer_than_the_wait_goes_on_without_its_caller() {
    let rig = rig_with(Config { sync_wait: Duration::from_millis(30), ..Config::default() }).await;
    let node = rig.node("wasm").await;
    let (task, _) = rig.task("slow").await;
    let path = format!("/api/v1/tasks/{task}/executions");
    let body = json!({"mode": "sync", "timeout_ms": 1}).to_string();
    let (code, headers, body) = rig.call_raw("POST", &path, Some(body)).await;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, &body["status"]), (202, &json!("pending")));
    let id: ExecutionId = headers["location"].to_str().unwrap().rsplit('/').next().unwrap().parse().unwrap();
    assert!(!rig.execution(id).await.cancel_requested);
    rig.control.report_execution(report(id, node, 1, S::Timeout)).await.unwrap();
    assert_eq!(rig.execution(id).await.status, S::Timeout);
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_nothing() {
    let rig = Arc::new(rig().await);
    let node = rig.node("wasm").await;
    let (task, first) = rig.task("t").await;
    let caller = tokio::spawn({
        let rig = rig.clone();
        let path = format!("/api/v1/tasks/{task}/executions");
        async move { rig.call("POST", &path, Some(json!({"mode": "sync"}))).await }
    });
    until("the run is there", async || rig.work(node).await.len() == 2).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    let second = rig.work(node).await.into_iter().filter_map(|one| one.execution_id).find(|id| *id != first).unwrap();
    assert!(!rig.execution(second).await.cancel_requested);
    rig.tell(second, S::Completed).await;
    assert_eq!(rig.execution(second).await.status, S::Completed);
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_the_field() {
    let rig = rig().await;
    let (task, id) = rig.task("t").await;
    let path = format!("/api/v1/tasks/{task}/executions");
    for (body, code, field) in [
        (json!({"mode": "later"}), 400, "mode"),
        (json!({"input": "a", "input_base64": "YQ=="}), 400, "input_base64"),
        (json!({"input_base64": "%"}), 400, "input_base64"),
        (json!({"timeout_ms": 0}), 400, "timeout_ms"),
        (json!({"timeout_ms": -1}), 400, "timeout_ms"),
        (json!({"timeout_ms": 86_400_001}), 400, "timeout_ms"),
        (json!({"input": 1}), 422, "input"),
    ] {
        let (got, problem) = rig.call("POST", &path, Some(body.clone())).await;
        assert_eq!((got, &problem["errors"][0]["field"]), (code, &json!(field)), "{body} {problem}");
    }
    assert_eq!(rig.call_raw("POST", &path, Some("{".into())).await.0, 400);
    let entry = crate::tasks::NewTask { executable: None, ..new_task("entry") };
    let entry = rig.sms.tasks.register(entry).await.unwrap().0.task.id;
    let (code, problem) = rig.call("POST", &format!("/api/v1/tasks/{entry}/executions"), None).await;
    assert_eq!((code, &problem["code"]), (409, &json!("TASK_NOT_RUNNABLE")));
    let (code, problem) = rig.call("POST", &format!("/api/v1/tasks/{}/executions", TaskId::new()), None).await;
    assert_eq!((code, &problem["code"]), (404, &json!("TASK_NOT_FOUND")));
    let (code, problem) = rig.call("GET", &format!("/api/v1/executions/{id}/result"), None).await;
    assert_eq!((code, &problem["code"]), (409, &json!("EXECUTION_NOT_ENDED")));
    let big =
        ExecutionReport { result: vec![0; store::MOST_VALUE + 1].into(), ..report(id, NodeId::new(), 1, S::Completed) };
    assert_eq!(rig.control.report_execution(big).await.unwrap_err().code, "RESULT_TOO_LARGE");
}

#[tokio::test]
async fn lists_are_filtered_ordered_and_paged_by_a_cursor() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    let (task, first) = rig.task("many").await;
    let mut ids = vec![first.to_string()];
    for _ in 0..6 {
        ids.push(rig.run(task, &NewRun::default()).await.id.to_string());
    }
    rig.task("other").await;
    rig.tell(first, S::Completed).await;
    let (mut seen, mut path) = (Vec::new(), format!("/api/v1/executions?task_id={task}&limit=3"));
    loop {
        let (code, page) = rig.call("GET", &path, None).await;
        assert_eq!(code, 200, "{page}");
        seen.extend(
            page["executions"].as_array().unwrap().iter().map(|one| one["execution_id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/executions?task_id={task}&limit=3&cursor={next}");
    }
    assert_eq!(seen, ids);
    let count = async |query: &str| {
        let (code, page) = rig.call("GET", &format!("/api/v1/executions?{query}"), None).await;
        assert_eq!(code, 200, "{page}");
        page["executions"].as_array().unwrap().len()
    };
    assert_eq!(count("status=completed").await, 1);
    assert_eq!(count(&format!("status=PENDING&node_uuid={node}")).await, 7);
    assert_eq!(count(&format!("node_uuid={}", NodeId::new())).await, 0);
    for (query, field) in [
        ("status=done", "status"),
        ("task_id=x", "task_id"),
        ("node_uuid=x", "node_uuid"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=x", "cursor"),
    ] {
        let (code, problem) = rig.call("GET", &format!("/api/v1/executions?{query}"), None).await;
        assert_eq!((code, &problem["errors"][0]["field"]), (400, &json!(field)), "{problem}");
    }
}

#[tokio::test]
async fn the_oldest_ended_executions_go_with_everything_of_theirs() {
    let rig = rig_with(Config { executions_kept_per_task: 2, ..Config::default() }).await;
    rig.node("wasm").await;
    let (task, first) = rig.task("kept").await;
    let mut ids = vec![first];
    for _ in 0..4 {
        let new = NewRun { input: Bytes::from("in"), ..NewRun::default() };
        ids.push(rig.run(task, &new).await.id);
    }
    for id in &ids[..4] {
        rig.sms.executions.append_logs((*id, 1), vec![line(1, "x")], true).await.unwrap();
        let told = ExecutionReport { result: Bytes::from("out"), ..rig.report(*id, S::Completed).await };
        rig.control.report_execution(told).await.unwrap();
    }
    rig.sms.executions.remove_old(&mut Orphans::default()).await.unwrap();
    let left = rig.sms.executions.list(&Filter::default(), None, 100).await.unwrap().0;
    assert_eq!(left.iter().map(|one| one.id).collect::<Vec<_>>(), ids[2..]);
    let store = rig.sms.bus.store();
    for (prefix, many) in [("execution/", 3), ("input/", 3), ("result/", 2)] {
        assert_eq!(store.list(prefix, None, 100).await.unwrap().records.len(), many, "{prefix}");
    }
    let mut files: Vec<_> =
        std::fs::read_dir(rig.dir.path().join("logs")).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ids[2..4].iter().map(|id| format!("{id}.ndjson").into()).collect::<Vec<std::ffi::OsString>>());
    let (code, _) = rig.call("GET", &format!("/api/v1/executions/{first}"), None).await;
    assert_eq!(code, 404);
    assert_eq!(
        rig.sms.executions.append_logs((first, 1), vec![line(2, "x")], false).await.unwrap_err().code,
        "EXECUTION_NOT_FOUND"
    );
}

#[tokio::test]
async fn executions_of_a_removed_task_are_cancelled_and_go_after_an_hour() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    let (task, running) = rig.task("going").await;
    rig.tell(running, S::Running).await;
    rig.sms.tasks.remove(task, "clean-up").await.unwrap();
    assert_eq!(rig.work(node).await[0].kind, AssignmentKind::Cancel);
    rig.tell(running, S::Cancelled).await;
    let mut orphans = Orphans::default();
    rig.sms.executions.remove_old(&mut orphans).await.unwrap();
    assert_eq!(rig.execution(running).await.status, S::Cancelled, "it can still be read");
    rig.clock.advance(Duration::from_secs(3600));
    rig.sms.executions.remove_old(&mut orphans).await.unwrap();
    assert_eq!(rig.sms.executions.get(running).await.unwrap_err().code, "EXECUTION_NOT_FOUND");
}

#[tokio::test]
async fn everything_is_there_again_after_a_stop_at_any_moment() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    let (task, done) = rig.task("kept").await;
    rig.sms.executions.append_logs((done, 1), vec![line(1, "one")], true).await.unwrap();
    rig.tell(done, S::Completed).await;
    let open = rig.run(task, &NewRun { input: Bytes::from("in"), ..NewRun::default() }).await;
    // A removal that a stop cut short between the task and its executions.
    let (cut, abandoned) = rig.task("cut").await;
    rig.sms.bus.store().commit(store::Batch::new().delete(format!("task/{cut}"))).await.unwrap();
    let stray = rig.dir.path().join("logs").join(format!("{}.ndjson", ExecutionId::new()));
    std::fs::write(&stray, "").unwrap();
    let again = rig.restarted(Config::default()).await;
    assert_eq!(again.sms.tasks.get(task).unwrap().status, types::TaskStatus::Active);
    assert_eq!(again.sms.tasks.get(task).unwrap().last.unwrap().id, done);
    assert_eq!(again.sms.executions.input(open.id).await.unwrap(), "in");
    assert_eq!(again.sms.executions.read_logs(done, 0, 10).await.unwrap().0.lines.len(), 1);
    assert!(again.execution(abandoned).await.cancel_requested);
    assert_eq!(again.work(node).await.len(), 2);
    assert!(!stray.exists(), "a log without an execution is removed");
}

fn line(seq: u64, message: &str) -> LogLine {
    let (level, message) = ("info".into(), message.into());
    LogLine { ts_ms: 5, seq, stream: LogStream::Stdout, level, message, raw_base64: None, unterminated: false }
}

fn lines(range: std::ops::RangeInclusive<u64>) -> Vec<LogLine> {
    range.map(|seq| line(seq, &format!("line {seq}"))).collect()
}

fn open_logs(dir: &std::path::Path, most: u64) -> Arc<Logs> {
    let config = Config { execution_log_max_bytes: most, ..Config::default() };
    Arc::new(Logs::open(dir.to_owned(), config.into(), Arc::new(ManualClock::new(Timestamp(9)))).unwrap())
}

#[tokio::test]
async fn lines_that_come_again_are_skipped_and_a_gap_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (logs, id) = (open_logs(dir.path(), 1 << 20), ExecutionId::new());
    assert_eq!(logs.append((id, 1), lines(1..=3), false).await.unwrap().1.next_seq, 4);
    let (added, reach) = logs.append((id, 1), lines(2..=5), false).await.unwrap();
    assert_eq!((added.len(), reach.next_seq), (2, 6));
    let fault = logs.append((id, 1), lines(7..=8), false).await.unwrap_err();
    assert_eq!((fault.code.as_ref(), fault.errors[0].detail.as_str()), ("LOG_GAP", "expected 6"));
    assert!(logs.append((id, 1), Vec::new(), true).await.unwrap().1.finished);
    assert!(logs.append((id, 1), lines(4..=5), true).await.unwrap().0.is_empty(), "a repeat of the end is harmless");
    assert_eq!(logs.append((id, 1), lines(6..=6), false).await.unwrap_err().code, "LOG_FINISHED");
    let page = logs.page(id, 0, 100).await.unwrap();
    assert_eq!(page.lines, lines(1..=5));
    for wrong in [line(0, ""), line(6, &"x".repeat(70_000)), LogLine { level: "l".repeat(40), ..line(6, "") }] {
        assert!(
            logs.append((ExecutionId::new(), 1), vec![wrong], false).await.unwrap_err().errors[0]
                .field
                .starts_with("lines[0].")
        );
    }
}

#[tokio::test]
async fn lines_of_an_attempt_that_another_has_followed_are_refused() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    let (_, id) = rig.task("moved").await;
    let service = &rig.sms.executions;
    service.append_logs((id, 1), lines(1..=2), false).await.unwrap();
    assert_eq!(service.append_logs((id, 2), lines(3..=3), false).await.unwrap_err().code, "STALE_ATTEMPT");
    service.apply(id, &Event::Move { from: node, message: "the node went away" }).await.unwrap();
    // The first node comes back: neither lines nor the end of its log may come between those of the second.
    for (lines, finished) in [(lines(3..=4), false), (Vec::new(), true)] {
        assert_eq!(service.append_logs((id, 1), lines, finished).await.unwrap_err().code, "STALE_ATTEMPT");
    }
    assert_eq!(service.append_logs((id, 2), Vec::new(), false).await.unwrap().next_seq, 3);
    service.append_logs((id, 2), vec![line(3, "second")], true).await.unwrap();
    let kept = service.read_logs(id, 0, 10).await.unwrap().0.lines;
    assert_eq!(kept, [line(1, "line 1"), line(2, "line 2"), line(3, "second")]);
}

#[tokio::test]
async fn once_an_attempt_has_asked_where_a_log_stands_an_earlier_one_adds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (logs, id) = (open_logs(dir.path(), 1 << 20), ExecutionId::new());
    logs.append((id, 1), lines(1..=2), false).await.unwrap();
    assert_eq!(logs.append((id, 2), Vec::new(), false).await.unwrap().1.next_seq, 3);
    assert_eq!(logs.append((id, 1), lines(3..=3), false).await.unwrap_err().code, "STALE_ATTEMPT");
    assert_eq!(logs.append((id, 2), lines(3..=3), false).await.unwrap().1.next_seq, 4);
}

#[tokio::test]
async fn pages_of_a_long_log_are_read_from_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let (logs, id) = (open_logs(dir.path(), 1 << 20), ExecutionId::new());
    for from in (1..=1000).step_by(50) {
        logs.append((id, 1), lines(from..=from + 49), false).await.unwrap();
    }
    for logs in [logs, open_logs(dir.path(), 1 << 20)] {
        for (after, limit) in [(0, 10), (127, 2), (128, 3), (999, 5), (640, 129)] {
            let page = logs.page(id, after, limit).await.unwrap();
            let last = (after + limit as u64).min(1000);
            assert_eq!((page.lines, page.end), (lines(after + 1..=last), last == 1000));
        }
        assert!(logs.page(id, 5000, 10).await.unwrap().lines.is_empty());
    }
}

#[tokio::test]
async fn a_torn_end_is_cut_and_damage_before_it_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let id = ExecutionId::new();
    open_logs(dir.path(), 1 << 20).append((id, 1), lines(1..=4), false).await.unwrap();
    let path = dir.path().join(format!("{id}.ndjson"));
    let whole = std::fs::read(&path).unwrap();
    let fourth = whole.split_inclusive(|byte| *byte == b'\n').take(3).map(<[u8]>::len).sum::<usize>();
    for cut in fourth + 1..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let logs = open_logs(dir.path(), 1 << 20);
        assert_eq!(logs.page(id, 0, 10).await.unwrap().lines, lines(1..=3), "cut at {cut}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), fourth as u64);
        assert_eq!(logs.append((id, 1), lines(3..=5), false).await.unwrap().1.next_seq, 6);
        assert_eq!(open_logs(dir.path(), 1 << 20).page(id, 0, 10).await.unwrap().lines, lines(1..=5));
    }
    let mut damaged = whole.clone();
    damaged[fourth / 2] = b'\n';
    std::fs::write(&path, &damaged).unwrap();
    let fault = open_logs(dir.path(), 1 << 20).page(id, 0, 10).await.unwrap_err();
    assert_eq!(fault.code, "LOG_CORRUPT");
    assert_eq!(std::fs::read(&path).unwrap(), damaged, "left as it is");
}

#[tokio::test]
async fn a_log_over_its_limit_says_so_and_drops_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (logs, id) = (open_logs(dir.path(), 4096), ExecutionId::new());
    for from in (1..=200).step_by(10) {
        assert_eq!(logs.append((id, 1), lines(from..=from + 9), false).await.unwrap().1.next_seq, from + 10);
    }
    let page = logs.page(id, 0, 1000).await.unwrap();
    let last = page.lines.last().unwrap();
    assert!(page.reach.truncated && page.lines.len() < 60);
    assert_eq!((last.stream, last.seq), (LogStream::System, page.lines.len() as u64));
    assert!(last.message.contains("limit of 4096 bytes"), "{}", last.message);
    assert!(std::fs::metadata(dir.path().join(format!("{id}.ndjson"))).unwrap().len() <= 4096);
    let again = open_logs(dir.path(), 4096);
    assert!(
        again.append((id, 1), lines(300..=301), true).await.unwrap().1.finished,
        "a gap in what is dropped is no loss"
    );
    assert_eq!(open_logs(dir.path(), 4096).page(id, 0, 1000).await.unwrap().lines.len(), page.lines.len());
}

#[tokio::test]
async fn a_follower_gets_each_line_once_and_ends_with_the_log() {
    let rig = rig().await;
    rig.node("wasm").await;
    let (_, id) = rig.task("talks").await;
    let service = rig.sms.executions.clone();
    service.append_logs((id, 1), lines(1..=3), false).await.unwrap();
    let mut follower = Box::pin(follow::follow(service.clone(), rig.sms.stopping.clone(), id, 1));
    assert_eq!(follower.next().await.unwrap().unwrap(), lines(2..=3));
    service.append_logs((id, 1), lines(3..=5), false).await.unwrap();
    assert_eq!(follower.next().await.unwrap().unwrap(), lines(4..=5));
    rig.tell(id, S::Completed).await;
    // The node delivers the rest after its report.
    service.append_logs((id, 1), lines(6..=6), true).await.unwrap();
    assert_eq!(follower.next().await.unwrap().unwrap(), lines(6..=6));
    assert!(follower.next().await.is_none());
    let (code, page) = rig.call("GET", &format!("/api/v1/executions/{id}/logs?limit=4"), None).await;
    assert_eq!((code, &page["next_cursor"], &page["completed"]), (200, &json!("4"), &json!(false)));
    let (_, page) = rig.call("GET", &format!("/api/v1/executions/{id}/logs?cursor=4"), None).await;
    assert_eq!((&page["lines"][1]["message"], &page["completed"]), (&json!("line 6"), &json!(true)));
}

#[tokio::test]
async fn logs_are_served_as_events_and_as_text() {
    let rig = rig().await;
    rig.node("wasm").await;
    let (_, id) = rig.task("talks").await;
    rig.sms.executions.append_logs((id, 1), lines(1..=2), true).await.unwrap();
    rig.tell(id, S::Completed).await;
    let path = format!("/api/v1/executions/{id}/logs");
    let text = |body: Bytes| String::from_utf8(body.to_vec()).unwrap();
    let (code, headers, body) = rig.call_raw("GET", &format!("{path}?follow=true&cursor=1"), None).await;
    assert_eq!((code, headers["content-type"].to_str().unwrap()), (200, "text/event-stream"));
    let body = text(body);
    assert!(body.contains("id: 2") && body.contains("event: line") && !body.contains("line 1"), "{body}");
    assert!(body.contains("event: end") && body.contains("\"status\":\"completed\""), "{body}");
    for query in ["format=text", "format=text&follow=true"] {
        let (_, headers, body) = rig.call_raw("GET", &format!("{path}?{query}"), None).await;
        assert!(headers["content-type"].to_str().unwrap().starts_with("text/plain"));
        assert_eq!(text(body).lines().nth(1).unwrap(), "1970-01-01T00:00:00.005Z\tstdout\tinfo\tline 2");
    }
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=2001", "limit"),
        ("cursor=x", "cursor"),
        ("follow=maybe", "follow"),
        ("format=xml", "format"),
    ] {
        let (code, problem) = rig.call("GET", &format!("{path}?{query}"), None).await;
        assert_eq!((code, &problem["errors"][0]["field"]), (400, &json!(field)));
    }
    assert_eq!(rig.call("GET", &format!("/api/v1/executions/{}/logs", ExecutionId::new()), None).await.0, 404);
}

#[tokio::test]
async fn the_end_of_a_followed_log_tells_the_last_status() {
    let rig = Arc::new(rig().await);
    rig.node("wasm").await;
    let (_, id) = rig.task("talks").await;
    rig.tell(id, S::Running).await;
    // As a node does it: the rest of the log, then the report.
    rig.sms.executions.append_logs((id, 1), lines(1..=1), true).await.unwrap();
    let reader = rig.clone();
    let read = tokio::spawn(async move {
        reader.call_raw("GET", &format!("/api/v1/executions/{id}/logs?follow=true"), None).await.2
    });
    until("a follower waits for the report", async || rig.sms.executions.index.waited_for(id)).await;
    rig.tell(id, S::Failed).await;
    let body = read.await.unwrap();
    assert!(String::from_utf8_lossy(&body).contains(r#""status":"failed""#), "{body:?}");
}

#[tokio::test]
async fn a_report_wakes_exactly_those_who_wait_for_it() {
    let rig = Arc::new(rig().await);
    rig.node("wasm").await;
    let ((_, one), (_, other)) = (rig.task("one").await, rig.task("other").await);
    let waiting = |id| {
        let rig = rig.clone();
        tokio::spawn(async move { rig.sms.executions.ended(id, Duration::from_secs(20)).await.unwrap().status })
    };
    let (first, second, never) = (waiting(one), waiting(one), waiting(other));
    rig.tell(one, S::Failed).await;
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (S::Failed, S::Failed));
    assert!(!never.is_finished());
    never.abort();
}

/// Progress is shown and does not touch the node's work list.
#[tokio::test]
async fn progress_is_shown_without_a_new_assignment() {
    let rig: Rig = rig().await;
    let node = rig.node("wasm").await;
    let (_, id) = rig.task("big").await;
    let before = rig.sms.bus.store().list(&format!("assignment/{node}/"), None, 9).await.unwrap().records;
    for done_bytes in [1, 2] {
        let progress = types::Progress { phase: "fetch".into(), done_bytes, total_bytes: Some(3) };
        let told = ExecutionReport { progress: Some(progress), ..report(id, node, 1, S::Running) };
        rig.control.report_execution(told.clone()).await.unwrap();
        let head = *rig.sms.bus.store().head().borrow();
        rig.control.report_execution(told).await.unwrap();
        assert_eq!(*rig.sms.bus.store().head().borrow(), head, "a repeat writes nothing");
    }
    let (_, shown) = rig.call("GET", &format!("/api/v1/executions/{id}"), None).await;
    assert_eq!(shown["progress"], json!({"phase": "fetch", "done_bytes": 2, "total_bytes": 3}));
    assert_eq!(rig.sms.bus.store().list(&format!("assignment/{node}/"), None, 9).await.unwrap().records, before);
}
