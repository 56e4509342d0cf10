//! Calls that the registry keeps.

use super::*;
use serde_json::json;
use types::{ErrorKind, ExecutionStatus, Fault, FieldError};

#[tokio::test]
async fn an_asynchronous_call_is_made_at_the_registry_and_looked_at_here() {
    let node = Node::new().await;
    let task = node.task("echo");
    let request = node.raw(task, "").header("prefer", "respond-async, wait=10").header("spear-timeout-ms", "1500");
    let request = request.header("idempotency-key", "\"k\"").header("spear-callback-url", "https://example.org/done");
    let response = request.body("input").send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(header(&response, "preference-applied"), "respond-async");
    let location = header(&response, "location").to_owned();
    let execution = header(&response, "spear-execution").to_owned();
    assert_eq!(location, format!("/functions/executions/{execution}"));
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["status"], &body["status_url"]), (&json!("PENDING"), &json!(location)), "{body}");
    {
        let world = node.registry.world();
        let new = &world.created[0];
        assert_eq!(
            (new.task_id, &new.input[..], new.timeout),
            (task, &b"input"[..], Some(Duration::from_millis(1500)))
        );
        assert_eq!(new.idempotency_key.as_deref(), Some("k"));
        assert_eq!(new.callback_url.as_deref(), Some("https://example.org/done"));
    }
    assert_eq!(node.stage.calls(), 0, "it is the registry's to give to a node");
    let id: types::ExecutionId = execution.parse().unwrap();
    node.registry.alter(|world| {
        let one = world.executions.get_mut(&id).unwrap();
        (one.status, one.exit_code) = (ExecutionStatus::Completed, Some(0));
        world.results.insert(id, "output".into());
    });
    let (_, seen) = node.get(&format!("{location}?include_output=true")).await;
    assert_eq!((&seen["status"], &seen["output_base64"]), (&json!("COMPLETED"), &json!("b3V0cHV0")), "{seen}");
    node.stop().await;
}

#[tokio::test]
async fn the_same_by_the_originals_json_and_it_can_be_cancelled() {
    let node = Node::new().await;
    let task = node.task("echo");
    let body =
        json!({"task_id": task, "mode": "async", "invocation_id": "mine", "input_base64": "aW4=", "timeout_ms": 7});
    let response = node.post("/functions/execute").json(&body).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let location = header(&response, "location").to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["invocation_id"], &body["success"]), (&json!("mine"), &json!(true)), "{body}");
    let (status, body) = answer(node.post(&format!("{location}/cancel")).json(&json!({"reason": "enough"}))).await;
    assert_eq!((status, &body["final_status"]), (200, &json!("TERMINATED")), "{body}");
    let (_, seen) = node.get(&location).await;
    assert_eq!((&seen["status"], &seen["error"]["message"]), (&json!("TERMINATED"), &json!("enough")), "{seen}");
    let (_, body) = answer(node.post(&format!("{location}/cancel"))).await;
    assert_eq!(body["success"], false, "{body}");
    node.stop().await;
}

#[tokio::test]
async fn what_an_asynchronous_call_cannot_have_is_named() {
    let node = Node::new().await;
    let task = node.task("echo");
    for (field, value) in [
        ("function_name", json!("add")),
        ("args", json!(["1"])),
        ("environment", json!({"A": "1"})),
        ("headers", json!({"a": "1"})),
        ("metadata", json!({"a": "1"})),
        ("execution_id", json!(types::ExecutionId::new())),
    ] {
        let mut body = json!({"task_id": task, "mode": "async"});
        body[field] = value;
        let (status, body) = answer(node.post("/functions/execute").json(&body)).await;
        assert_eq!((status, &body["code"]), (422, &json!("ASYNC_UNSUPPORTED")), "{body}");
        assert_eq!(body["errors"][0]["field"], field, "{body}");
    }
    let (status, body) = answer(node.raw(task, "?arg=1").header("prefer", "respond-async")).await;
    assert_eq!((status, &body["errors"][0]["field"]), (422, &json!("arg")), "{body}");
    let (status, body) = answer(node.raw(task, "").header("spear-callback-url", "https://example.org")).await;
    assert_eq!((status, &body["errors"][0]["field"]), (400, &json!("Spear-Callback-Url")), "{body}");
    assert!(node.registry.world().created.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn what_the_registry_refuses_to_run_is_422_here_as_it_is_there() {
    let node = Node::new().await;
    let task = node.task("echo");
    let url = "http://127.0.0.1:9/done";
    let body = json!({"task_id": task, "mode": "async", "callback_url": url});
    for (kind, code, field) in [
        (ErrorKind::Denied, "CALLBACK_REFUSED", "callback_url"),
        (ErrorKind::Invalid, "IDEMPOTENCY_KEY_REUSED", "Idempotency-Key"),
    ] {
        let raw = || node.raw(task, "").header("prefer", "respond-async").header("spear-callback-url", url);
        for request in [raw(), node.post("/functions/execute").json(&body)] {
            let mut fault = Fault::new(kind, code, "no");
            fault.errors.push(FieldError { field: field.to_owned(), detail: "no".to_owned() });
            node.registry.refuse("create_execution", fault);
            let (status, refused) = answer(request).await;
            assert_eq!((status, &refused["code"]), (422, &json!(code)), "{refused}");
            assert_eq!(refused["errors"][0]["field"], field, "{refused}");
        }
    }
    node.registry.refuse("create_execution", Fault::new(ErrorKind::Denied, "DENIED", "no"));
    assert_eq!(answer(node.raw(task, "").header("prefer", "respond-async")).await.0, 403, "others stay what they are");
    assert!(node.registry.world().created.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn without_a_registry_or_with_one_that_is_away_it_says_what_to_do() {
    let alone = Node::with(Config::default(), false).await;
    let (status, body) = answer(alone.raw(TaskId::new(), "").header("prefer", "respond-async")).await;
    assert_eq!((status, &body["code"]), (503, &json!("NO_REGISTRY")), "{body}");
    assert!(body["detail"].as_str().unwrap().contains("--sms-addr"), "{body}");
    alone.stop().await;
    let node = Node::new().await;
    let missing = node.raw(TaskId::new(), "").header("prefer", "respond-async");
    assert_eq!(answer(missing).await.1["code"], "TASK_NOT_FOUND");
    let task = node.task("echo");
    node.registry.down(true);
    assert_eq!(answer(node.raw(task, "").header("prefer", "respond-async")).await.0, 503);
    node.registry.down(false);
    node.stop().await;
}
