#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use api::proto::sms::{
    GetTaskRequest, ListTasksRequest, RegisterTaskRequest, TaskExecutable, UnregisterTaskRequest,
    task_service_server::TaskService,
};
use serde_json::{Value, json};
use tonic::Request;
use types::{ExecutionStatus as S, NodeId, TaskId};

use super::grpc::Grpc;
use crate::executions::rig::{Rig, new_task, rig};

fn seed_body() -> Value {
    json!({
        "name": "image-processing-task",
        "description": "Process images using AI models",
        "node_uuid": "93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8",
        "endpoint": "http://127.0.0.1:8081/process",
        "version": "1.0.0",
        "capabilities": ["image-processing", "ai-inference"],
        "priority": "high",
        "executable": {
            "type": "wasm",
            "uri": "sms+file://93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8",
            "checksum_sha256": "",
            "args": ["--mode=fast"],
            "env": {"RUST_LOG": "info"}
        },
        "metadata": {"owner": "team-a"},
        "config": {"timeout": "30s"}
    })
}

/// The body with one member replaced; a path goes into `executable`.
fn with(path: &str, value: Value) -> Value {
    let mut body = seed_body();
    let (parent, name) = path.split_once('.').map_or((None, path), |(parent, name)| (Some(parent), name));
    let target = match parent {
        Some(parent) => &mut body[parent],
        None => &mut body,
    };
    target[name] = value;
    body
}

#[tokio::test]
async fn the_seeds_own_body_registers_a_task_that_waits_for_its_node() {
    let rig = rig().await;
    let (code, made) = rig.call("POST", "/api/v1/tasks", Some(seed_body())).await;
    assert_eq!((code, &made["success"], &made["message"]), (200, &json!(true), &json!("Task registered successfully")));
    let (code, task) = rig.call("GET", &format!("/api/v1/tasks/{}", made["task_id"].as_str().unwrap()), None).await;
    assert_eq!(code, 200);
    for (member, value) in [
        ("task_id", made["task_id"].clone()),
        ("name", json!("image-processing-task")),
        ("status", json!("registered")),
        ("priority", json!("high")),
        ("node_uuid", json!("93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8")),
        ("endpoint", json!("http://127.0.0.1:8081/process")),
        ("registered_at", json!(1_732_186_800)),
        ("config", json!({"timeout": "30s"})),
        ("result_uris", json!([])),
        ("last_result_status", json!("")),
        ("last_completed_at", json!(0)),
    ] {
        assert_eq!(task[member], value, "{member}");
    }
    assert_eq!(task["executable"]["args"], json!(["--mode=fast"]));
    let path = format!("/api/v1/executions/{}", made["execution_id"].as_str().unwrap());
    let (_, execution) = rig.call("GET", &path, None).await;
    assert_eq!((&execution["status"], &execution["reason"]), (&json!("pending"), &json!("no_node")));
    assert!(execution["message"].as_str().unwrap().contains("93f9a7ca"), "{execution}");
}

#[tokio::test]
async fn a_task_that_makes_no_sense_is_refused_with_the_field() {
    let rig = rig().await;
    let long = "x".repeat(300);
    let many: Vec<_> = (0..300).map(|at| at.to_string()).collect();
    for (path, value, code, field) in [
        ("name", json!("  "), 400, "name"),
        ("name", json!(long), 400, "name"),
        ("name", Value::Null, 422, "name"),
        ("endpoint", json!(1), 422, "endpoint"),
        ("node_uuid", json!("node-1"), 400, "node_uuid"),
        ("capabilities", json!(many), 400, "capabilities"),
        ("metadata", json!({"": "x"}), 400, "metadata"),
        ("metadata", json!({"a": 1}), 422, "metadata.a"),
        ("config", json!({"a": "x".repeat(9000)}), 400, "config.a"),
        ("executable.type", json!("wasi"), 400, "executable.type"),
        ("executable.type", json!("unknown"), 400, "executable.type"),
        ("executable.uri", json!("ftp://x/y"), 400, "executable.uri"),
        ("executable.uri", json!("sms+file://hello"), 400, "executable.uri"),
        ("executable.checksum_sha256", json!("abc"), 400, "executable.checksum_sha256"),
        ("executable.env", json!({"A=B": "x"}), 400, "executable.env"),
        ("executable.args", json!(["a\u{0}b"]), 400, "executable.args[0]"),
    ] {
        let (got, problem) = rig.call("POST", "/api/v1/tasks", Some(with(path, value))).await;
        assert_eq!((got, &problem["errors"][0]["field"]), (code, &json!(field)), "{problem}");
        assert_eq!((&problem["success"], problem["message"].is_string()), (&json!(false), true));
    }
    assert_eq!(rig.call("GET", "/api/v1/tasks", None).await.1["total_count"], json!(0));
    // What the seed lets pass, passes.
    for (path, value) in [
        ("priority", json!("whatever")),
        ("node_uuid", json!("")),
        ("executable.type", json!("WASM")),
        ("executable.checksum_sha256", json!("A".repeat(64))),
        ("something_else", json!(1)),
        ("executable", Value::Null),
    ] {
        assert_eq!(rig.call("POST", "/api/v1/tasks", Some(with(path, value))).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn a_task_brings_the_input_of_its_first_execution() {
    let rig = rig().await;
    rig.node("wasm").await;
    let body = |more: Value| {
        let mut body = json!({"name": "reads", "endpoint": "", "version": "",
            "executable": {"type": "wasm", "uri": "https://example.org/x.wasm"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some(body)
    };
    let long = "x".repeat(3 << 20);
    for (more, input) in [
        (json!({"input": "text"}), "text"),
        (json!({"input_base64": "dGV4dA=="}), "text"),
        (json!({"input": long}), long.as_str()),
        (json!({}), ""),
    ] {
        let (code, answer) = rig.call("POST", "/api/v1/tasks", body(more)).await;
        assert_eq!(code, 200, "{answer}");
        let id = answer["execution_id"].as_str().unwrap().parse().unwrap();
        assert_eq!(rig.control.get_work(id).await.unwrap().input, input);
    }
    for (more, code, field) in [
        (json!({"input": "a", "input_base64": "YQ=="}), 400, "input_base64"),
        (json!({"input_base64": "?"}), 400, "input_base64"),
        (json!({"input": "a", "executable": null}), 400, "input"),
    ] {
        let (got, problem) = rig.call("POST", "/api/v1/tasks", body(more)).await;
        assert_eq!((got, &problem["errors"][0]["field"]), (code, &json!(field)), "{problem}");
    }
    let (code, problem) = rig.call("POST", "/api/v1/tasks", body(json!({"input": "x".repeat(9 << 20)}))).await;
    assert_eq!((code, &problem["code"]), (413, &json!("INPUT_TOO_LARGE")), "{problem}");
}

#[tokio::test]
async fn lists_count_what_the_filter_lets_through() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    let (_, ran) = rig.task("one").await;
    rig.task("two").await;
    for priority in ["low", "low", "high"] {
        let body =
            json!({"name": "n", "endpoint": "", "version": "", "priority": priority, "node_uuid": node.to_string()});
        rig.call("POST", "/api/v1/tasks", Some(body)).await;
    }
    rig.tell(ran, S::Running).await;
    let list = async |query: &str| {
        let (code, list) = rig.call("GET", &format!("/api/v1/tasks?{query}"), None).await;
        assert_eq!(code, 200, "{list}");
        (list["tasks"].as_array().unwrap().len(), list["total_count"].as_u64().unwrap())
    };
    assert_eq!(list("").await, (5, 5));
    assert_eq!(list("priority=low&limit=1").await, (1, 2));
    assert_eq!(list("status=ACTIVE").await, (1, 1));
    assert_eq!(list("status=registered&priority=normal").await, (1, 1));
    assert_eq!(list(&format!("node_uuid={node}&offset=2")).await, (1, 3));
    let (_, first) = rig.call("GET", "/api/v1/tasks?limit=2", None).await;
    let next = first["next_cursor"].as_str().unwrap();
    let (_, second) = rig.call("GET", &format!("/api/v1/tasks?limit=2&cursor={next}"), None).await;
    let (_, all) = rig.call("GET", "/api/v1/tasks", None).await;
    assert_eq!(second["tasks"][0], all["tasks"][2], "in the order of registration");
    for (query, field) in [
        ("status=done", "status"),
        ("priority=soon", "priority"),
        ("node_uuid=x", "node_uuid"),
        ("limit=0", "limit"),
        ("offset=-1", "offset"),
        ("cursor=zz", "cursor"),
    ] {
        let (code, problem) = rig.call("GET", &format!("/api/v1/tasks?{query}"), None).await;
        assert_eq!((code, &problem["errors"][0]["field"]), (400, &json!(field)), "{problem}");
    }
    let (_, problem) = rig.call("GET", "/api/v1/tasks?status=done", None).await;
    assert!(problem["detail"].as_str().unwrap().contains("registered, active, inactive"), "{problem}");
}

#[tokio::test]
async fn a_task_is_removed_once_with_or_without_a_body() {
    let rig = rig().await;
    for body in [None, Some("{}".to_owned()), Some(json!({"reason": "old"}).to_string())] {
        let (task, waiting) = rig.task("t").await;
        let path = format!("/api/v1/tasks/{task}");
        let (code, _, answer) = rig.call_raw("DELETE", &path, body.clone()).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((code, &answer["message"]), (200, &json!("Task unregistered successfully")));
        assert_eq!(rig.execution(waiting).await.status, S::Cancelled);
        for method in ["DELETE", "GET"] {
            let (code, problem) = rig.call(method, &path, None).await;
            assert_eq!((code, &problem["error"]), (404, &json!("TASK_NOT_FOUND")));
        }
    }
    assert_eq!(rig.call("DELETE", &format!("/api/v1/tasks/{}", TaskId::new()), None).await.0, 404);
    assert_eq!(rig.call("DELETE", "/api/v1/tasks/x", None).await.0, 400);
    let (task, _) = rig.task("t").await;
    assert_eq!(rig.call_raw("DELETE", &format!("/api/v1/tasks/{task}"), Some("{".into())).await.0, 400);
}

#[tokio::test]
async fn a_task_without_an_executable_is_told_to_its_node_until_it_is_removed() {
    let rig = rig().await;
    let node = rig.node("").await;
    let entry =
        crate::tasks::NewTask { executable: None, node_uuid: Some(node), ..crate::executions::rig::new_task("entry") };
    let task = rig.sms.tasks.register(entry).await.unwrap().0.task.id;
    let work = rig.work(node).await;
    assert_eq!((work.len(), work[0].task_id, work[0].execution_id), (1, task, None));
    rig.sms.tasks.remove(task, "").await.unwrap();
    assert!(rig.work(node).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_and_a_removal_at_once_leave_nothing_running() {
    let rig = std::sync::Arc::new(rig().await);
    rig.node("wasm").await;
    let store = rig.sms.bus.store();
    for _ in 0..60 {
        let (task, _) = rig.task("t").await;
        let mut changes = rig.sms.bus.changes::<types::Task>(bus::From::After(rig.sms.bus.head()));
        let runs = (0..4).map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move { rig.sms.executions.run(task, &crate::executions::NewRun::default(), None).await })
        });
        let runs: Vec<_> = runs.collect();
        rig.sms.tasks.remove(task, "").await.unwrap();
        let bus::Delivery::Gone { rev: removed, .. } = changes.next().await.unwrap() else { panic!("it was removed") };
        for run in runs {
            match run.await.unwrap() {
                Ok((execution, _)) => {
                    let record = store.get(&format!("execution/{}", execution.id)).await.unwrap().unwrap();
                    assert!(record.created < removed, "made at {} of a task removed at {removed}", record.created);
                    rig.sms.executions.cancel_abandoned().await.unwrap();
                    assert!(rig.execution(execution.id).await.cancel_requested);
                }
                Err(fault) => assert_eq!(fault.code, "TASK_NOT_FOUND"),
            }
        }
    }
}

fn grpc(rig: &Rig) -> Grpc {
    Grpc::new(&rig.sms)
}

#[tokio::test]
async fn grpc_answers_with_the_originals_codes() {
    let rig = rig().await;
    let service = grpc(&rig);
    let request = RegisterTaskRequest {
        name: "t".into(),
        executable: Some(TaskExecutable { r#type: 4, uri: "https://x/y".into(), ..TaskExecutable::default() }),
        ..RegisterTaskRequest::default()
    };
    let made = service.register_task(Request::new(request.clone())).await.unwrap().into_inner();
    assert!(made.success && made.task.unwrap().description == "Task: t");
    for (request, field) in [
        (RegisterTaskRequest { name: String::new(), ..request.clone() }, "name"),
        (RegisterTaskRequest { priority: 9, ..request.clone() }, "priority"),
        (RegisterTaskRequest { node_uuid: "x".into(), ..request.clone() }, "node_uuid"),
    ] {
        let status = service.register_task(Request::new(request)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert_eq!(net::grpc::fault(status).errors[0].field, field);
    }
    let list = |status_filter, limit| ListTasksRequest {
        status_filter,
        priority_filter: -1,
        limit,
        ..ListTasksRequest::default()
    };
    for (wanted, many) in [(-1, 1), (0, 1), (1, 1), (2, 0)] {
        let found = service.list_tasks(Request::new(list(wanted, 0))).await.unwrap().into_inner();
        assert_eq!((found.tasks.len(), found.total_count), (many, i32::try_from(many).unwrap()), "{wanted}");
    }
    assert_eq!(service.list_tasks(Request::new(list(17, 0))).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let get = |task_id: String| service.get_task(Request::new(GetTaskRequest { task_id }));
    assert!(get(made.task_id.clone()).await.unwrap().into_inner().found);
    assert!(!get(TaskId::new().to_string()).await.unwrap().into_inner().found);
    assert_eq!(get("x".into()).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let remove = |task_id: String| {
        service.unregister_task(Request::new(UnregisterTaskRequest { task_id, reason: String::new() }))
    };
    assert!(remove(made.task_id.clone()).await.unwrap().into_inner().success);
    assert_eq!(remove(made.task_id).await.unwrap_err().code(), tonic::Code::NotFound);
    assert_eq!(remove(NodeId::new().to_string()).await.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_faster_than_the_live_map_gets_its_work() {
    let rig = rig().await;
    rig.node("wasm").await;
    let store = rig.sms.bus.store();
    for _ in 0..200 {
        let task = new_task("t").into_task(types::Timestamp(1)).unwrap();
        let mut batch = store::Batch::new().put(store::Keyed::key(&task), store::encode(&task).unwrap());
        let run = crate::executions::NewRun::default();
        let (execution, _reserved) = rig.sms.executions.draft(&task, (&run, None), &mut batch).unwrap();
        store.commit(batch).await.unwrap();
        // As an agent does that hears of it from the change log, as soon as the map could.
        assert_eq!(rig.control.get_work(execution.id).await.unwrap().task, task);
        assert_eq!(rig.control.get_task(task.id).await.unwrap(), task);
    }
}
