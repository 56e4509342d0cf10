//! What a newcomer does: upload a module, create a task, see it run, over every interface.

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{Client, Daemon, PATIENCE, channel, guest, sample};
use api::proto::{
    sms::{SubscribeTaskEventsRequest, TaskEventKind, task_service_client::TaskServiceClient},
    v1::{self, execution_service_client::ExecutionServiceClient},
};

#[tokio::test]
async fn a_task_made_with_the_seeds_curl_line_runs_its_wasm_and_reports_result_and_log() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    let nodes =
        client.until("/api/v1/nodes", |nodes| nodes["nodes"].as_array().is_some_and(|all| !all.is_empty())).await;
    let node = nodes["nodes"][0]["uuid"].as_str().unwrap().to_owned();
    let uri = client.upload("hello.wasm", sample("hello")).await;
    assert!(uri.starts_with("sms+file://"));
    // The seed's own body, with this node and this file.
    let body = json!({
        "name": "image-processing-task",
        "description": "Process images using AI models",
        "node_uuid": node,
        "endpoint": "http://127.0.0.1:8081/process",
        "version": "1.0.0",
        "capabilities": ["image-processing", "ai-inference"],
        "priority": "high",
        "executable": {"type": "wasm", "uri": uri, "name": "hello.wasm", "args": [], "env": {}},
    });
    let (status, answer) = client.post("/api/v1/tasks", body).await;
    assert_eq!((status, &answer["success"]), (200, &json!(true)), "{answer}");
    let execution = answer["execution_id"].as_str().unwrap();
    let ended = client.ended(execution).await;
    assert_eq!((&ended["status"], &ended["exit_code"]), (&json!("completed"), &json!(0)), "{ended}");
    assert_eq!(ended["node_uuid"], json!(node));
    let log = client.text(&format!("/api/v1/executions/{execution}/logs?format=text")).await;
    assert!(log.contains("hello"), "{log}");
    let task = client.get(&format!("/api/v1/tasks/{}", answer["task_id"].as_str().unwrap())).await.1;
    assert_eq!((&task["status"], &task["last_result_status"]), (&json!("active"), &json!("completed")), "{task}");
}

#[tokio::test]
async fn a_task_is_run_again_with_an_input_and_a_synchronous_answer_over_rest_and_grpc() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    let uri = client.upload("echo.wasm", sample("echo")).await;
    let (task, first) = client.task("echo", &uri, json!({})).await;
    client.ended(&first).await;
    let run = format!("/api/v1/tasks/{task}/executions");
    let (status, answer) = client.post(&run, json!({"mode": "sync", "input": "ping\n"})).await;
    assert_eq!((status, &answer["status"]), (200, &json!("completed")), "{answer}");
    assert_eq!(answer["result"]["text"], json!("ping\n"), "{answer}");
    let response =
        client.http.post(format!("{}{run}", client.base)).json(&json!({"mode": "async"})).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let ended = client.until(&location, |answer| answer["status"] == json!("completed")).await;
    assert_eq!(ended["task_id"], json!(task));

    let mut grpc = ExecutionServiceClient::new(channel(daemon.address("sms/grpc")).await);
    let request = v1::RunTaskRequest { task_id: task.clone(), input: "pong".into(), wait: true, ..Default::default() };
    let ran = grpc.run_task(request).await.unwrap().into_inner();
    assert_eq!((ran.status(), &ran.result[..]), (v1::ExecutionStatus::Completed, &b"pong"[..]));
    let request = v1::ListExecutionsRequest { task_id: task, limit: 10, ..Default::default() };
    assert_eq!(grpc.list_executions(request).await.unwrap().into_inner().executions.len(), 4);
}

#[tokio::test]
async fn what_happens_is_seen_on_the_event_stream_and_by_a_node_over_grpc() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    let events = client.http.get(format!("{}/api/v1/events", client.base)).send().await.unwrap();
    let mut events = events.bytes_stream();
    let (_, node) = client.get("/api/v1/nodes").await;
    let node = node["nodes"][0]["uuid"].as_str().unwrap().to_owned();
    let mut grpc = TaskServiceClient::new(channel(daemon.address("sms/grpc")).await);
    let request = SubscribeTaskEventsRequest { node_uuid: node, last_event_id: 0 };
    let answer = grpc.subscribe_task_events(request).await.unwrap();
    assert!(answer.metadata().contains_key("spear-log-id"));
    let mut task_events = answer.into_inner();

    let uri = client.upload("hello.wasm", sample("hello")).await;
    let (task, execution) = client.task("hello", &uri, json!({})).await;
    let event = tokio::time::timeout(PATIENCE, task_events.message()).await.unwrap().unwrap().unwrap();
    assert_eq!((event.kind(), &event.task_id, event.execution_id()), (TaskEventKind::Create, &task, &*execution));

    let mut seen = String::new();
    let complete = |seen: &str| {
        seen.contains("event: file.created") && seen.contains("event: task.created") && seen.contains("\"completed\"")
    };
    while !complete(&seen) {
        let piece = tokio::time::timeout(PATIENCE, events.next()).await.expect(&seen).unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(&piece));
    }
    // Ids of the stream are `<log_id>:<rev>`; a reader that comes back misses nothing and repeats nothing.
    let ids = changes(&seen);
    let (first, second) = (&ids[0], &ids[1]);
    let again = client.http.get(format!("{}/api/v1/events", client.base)).header("last-event-id", first);
    let mut again = again.send().await.unwrap().bytes_stream();
    let mut rest = String::new();
    while changes(&rest).is_empty() {
        let piece = tokio::time::timeout(PATIENCE, again.next()).await.expect(&rest).unwrap().unwrap();
        rest.push_str(&String::from_utf8_lossy(&piece));
    }
    assert_eq!(&changes(&rest)[0], second, "{rest}");
}

/// The ids of the events that tell a change.
fn changes(stream: &str) -> Vec<String> {
    let events = stream.split_inclusive("\n\n").filter(|event| event.ends_with("\n\n"));
    let told = events.filter(|event| !event.contains("event: bookmark"));
    told.filter_map(|event| event.lines().find_map(|line| line.strip_prefix("id: ")).map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_log_is_followed_while_the_guest_runs() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    // Writes a line, then sleeps for a minute.
    let slow = guest(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "\10\00\00\00\08\00\00\00")
          (data (i32.const 16) "started\n")
          (data (i32.const 80) "\01\00\00\00\00\00\00\00\00\58\47\f8\0d\00\00\00")
          (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 160)))))"#,
    );
    let uri = client.upload("slow.wasm", slow).await;
    let (_, execution) = client.task("slow", &uri, json!({})).await;
    let path = format!("{}/api/v1/executions/{execution}/logs?follow=true", client.base);
    let mut lines = client.http.get(path).send().await.unwrap().bytes_stream();
    let mut seen = String::new();
    while !seen.contains("started") {
        let piece = tokio::time::timeout(PATIENCE, lines.next()).await.expect(&seen).unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(&piece));
    }
    let now = client.get(&format!("/api/v1/executions/{execution}")).await.1;
    assert_eq!(now["status"], json!("running"), "the line came while it ran");
    let (status, answer) = client.post(&format!("/api/v1/executions/{execution}/cancel"), json!({})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(client.ended(&execution).await["status"], json!("cancelled"));
    // The stream ends with the execution.
    tokio::time::timeout(PATIENCE, async { while lines.next().await.is_some() {} }).await.unwrap();
}

#[tokio::test]
async fn a_task_without_a_node_waits_and_says_why_until_one_comes() {
    let dir = tempfile::tempdir().unwrap();
    let sms = Daemon::start(dir.path(), "sms");
    let client = Client::new(&sms.sms());
    let uri = client.upload("hello.wasm", sample("hello")).await;
    let (_, execution) = client.task("hello", &uri, json!({})).await;
    let now: Value = client.get(&format!("/api/v1/executions/{execution}")).await.1;
    assert_eq!((&now["status"], &now["reason"]), (&json!("pending"), &json!("no_node")), "{now}");
    let mut args = crate::support::serve("spearlet");
    args.extend(["--sms-addr".into(), sms.address("sms/grpc").to_string()]);
    args.extend(["--sms-http-addr".into(), sms.address("sms/http").to_string(), "--auto-register".into()]);
    let _agent = Daemon::start_with(dir.path(), args);
    assert_eq!(client.ended(&execution).await["status"], json!("completed"));
}
