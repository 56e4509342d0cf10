//! The original's JSON: `/functions/execute`, `/tasks`, `/monitoring`; and `/api/v1/functions`, `/api/v1/instances`.

use super::*;
use serde_json::json;

async fn execute(node: &Node, body: Value) -> (u16, Value) {
    answer(node.post("/functions/execute").json(&body)).await
}

#[tokio::test]
async fn a_call_is_answered_with_its_output_and_what_it_was() {
    let node = Node::new().await;
    let task = node.task("echo");
    let body = json!({"task_id": task, "mode": "sync", "invocation_id": "mine", "input_base64": "AP8=",
        "input_content_type": "image/png", "session_id": "s", "timeout_ms": 0});
    let (status, answer) = execute(&node, body).await;
    assert_eq!((status, &answer["success"], &answer["status"]), (200, &json!(true), &json!("COMPLETED")), "{answer}");
    assert_eq!((&answer["output_base64"], &answer["error"]), (&json!("AP8="), &Value::Null));
    assert_eq!((&answer["invocation_id"], &answer["task_id"]), (&json!("mine"), &json!(task)));
    assert_eq!((&answer["exit_code"], &answer["disposition"]), (&json!(0), &json!("ok")));
    assert!(answer["started_at"].as_str().unwrap().starts_with("20"), "{answer}");
    let path = answer["status_url"].as_str().unwrap().to_owned();
    let (status, seen) = node.get(&format!("{path}?include_output=true")).await;
    assert_eq!(
        (status, &seen["output_base64"], &seen["function_name"]),
        (200, &json!("AP8="), &json!("echo")),
        "{seen}"
    );
    let (status, missing) = node.get(&format!("/functions/executions/{}", types::ExecutionId::new())).await;
    assert_eq!((status, &missing["code"]), (404, &json!("EXECUTION_NOT_FOUND")));
    node.stop().await;
}

#[tokio::test]
async fn a_function_by_name_is_the_first_argument_and_the_rest_reaches_the_guest() {
    let node = Node::new().await;
    let text = |answer: &Value| {
        use base64::{Engine, prelude::BASE64_STANDARD};
        String::from_utf8(BASE64_STANDARD.decode(answer["output_base64"].as_str().unwrap()).unwrap()).unwrap()
    };
    let args = node.task("args");
    for (name, expected) in [("add", "add 1 2"), ("_start", "1 2"), ("__spear_default_entry__", "1 2"), ("", "1 2")] {
        let (_, answer) = execute(&node, json!({"task_id": args, "function_name": name, "args": ["1", "2"]})).await;
        assert_eq!(text(&answer), expected, "{name}");
    }
    let environment = json!({"task_id": node.task("env A"), "environment": {"A": "x"}});
    assert_eq!(text(&execute(&node, environment).await.1), "x");
    let headers = json!({"task_id": node.task("head x-a"), "headers": {"X-A": "x"}});
    assert_eq!(text(&execute(&node, headers).await.1), "x");
    node.stop().await;
}

#[tokio::test]
async fn a_guest_that_fails_is_an_answer_and_what_keeps_it_from_running_a_problem() {
    let node = Node::new().await;
    for (program, word, code) in
        [("exit 3", "FAILED", "EXIT"), ("trap", "FAILED", "TRAP"), ("memory", "FAILED", "MEMORY")]
    {
        let (status, answer) = execute(&node, json!({"task_id": node.task(program)})).await;
        assert_eq!((status, &answer["success"]), (200, &json!(false)), "{answer}");
        assert_eq!((&answer["status"], &answer["error"]["code"]), (&json!(word), &json!(code)), "{answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty());
    }
    let task = node.task("hold");
    for (body, status, code) in [
        (json!({"task_id": TaskId::new()}), 404, "TASK_NOT_FOUND"),
        (json!({"task_id": task, "timeout_ms": 20}), 504, "FUNCTION_DEADLINE"),
        (json!({"task_id": node.task("refuse")}), 422, "FUNCTION_REFUSED"),
        (json!({"task_id": task, "mode": "later"}), 400, "INVALID_ARGUMENT"),
        (json!({"task_id": task, "input_base64": "?"}), 400, "INVALID_ARGUMENT"),
        (json!({"task_id": "x"}), 400, "INVALID_ARGUMENT"),
        (json!({"task_id": task, "execution_id": "x"}), 400, "INVALID_ARGUMENT"),
        (json!({"task_id": task, "timeout_ms": "x"}), 422, "INVALID_ARGUMENT"),
        (json!({"task_id": task, "callback_url": "https://example.org"}), 400, "INVALID_ARGUMENT"),
        (json!({"mode": "sync"}), 422, "INVALID_ARGUMENT"),
    ] {
        let (got, answer) = execute(&node, body.clone()).await;
        assert_eq!((got, &answer["code"]), (status, &json!(code)), "{body}: {answer}");
    }
    // The fake counts the calls of an instance.
    let counting = node.task("count");
    for (new, expected) in [(false, "MQ=="), (false, "Mg=="), (true, "MQ==")] {
        let (status, answer) = execute(&node, json!({"task_id": counting, "force_new_instance": new})).await;
        assert_eq!((status, &answer["output_base64"]), (200, &json!(expected)), "{answer}");
    }
    let most = vec![0; (8 << 20) + 3];
    use base64::{Engine, prelude::BASE64_STANDARD};
    let (status, _) = execute(&node, json!({"task_id": task, "input_base64": BASE64_STANDARD.encode(most)})).await;
    assert_eq!(status, 413);
    assert_eq!(execute(&node, json!({"task_id": task, "input_base64": "A".repeat(12 << 20)})).await.0, 413);
    node.stop().await;
}

#[tokio::test]
async fn tasks_are_those_that_were_called_here_and_can_be_unloaded() {
    let node = Node::new().await;
    assert_eq!(node.get("/tasks").await.1["total"], 0);
    let (echo, fails) = (node.task("echo"), node.task("exit 3"));
    for task in [echo, echo, fails] {
        execute(&node, json!({"task_id": task})).await;
    }
    let (_, list) = node.get("/tasks").await;
    assert_eq!((&list["total"], &list["limit"], &list["has_more"]), (&json!(2), &json!(100), &json!(false)), "{list}");
    let first = &list["tasks"][0];
    assert_eq!(
        (&first["task_id"], &first["function_name"], &first["status"]),
        (&json!(echo), &json!("echo"), &json!("idle"))
    );
    assert_eq!(first["execution_count"], 2, "{first}");
    let (_, page) = node.get("/tasks?limit=1&offset=1").await;
    assert_eq!((&page["tasks"][0]["task_id"], &page["has_more"]), (&json!(fails), &json!(false)), "{page}");
    assert_eq!(node.get("/tasks?status=active").await.1["total"], 0);
    for wrong in
        ["/tasks?limit=0", "/tasks?limit=1001", "/tasks?status=busy", &format!("/tasks/{echo}/executions?limit=501")]
    {
        assert_eq!(node.get(wrong).await.0, 400, "{wrong}");
    }
    let (_, one) = node.get(&format!("/tasks/{fails}")).await;
    assert_eq!((&one["last_execution"]["status"], &one["description"]), (&json!("FAILED"), &json!("exit 3")), "{one}");
    assert_eq!(one["parameters"]["concurrency"], 64, "{one}");
    let (_, executions) = node.get(&format!("/tasks/{echo}/executions?limit=1")).await;
    assert_eq!((&executions["total"], &executions["has_more"]), (&json!(2), &json!(true)), "{executions}");
    assert_eq!(node.get(&format!("/tasks/{echo}/executions?status=failed")).await.1["total"], 0);

    let delete = || answer(node.client.delete(node.url(&format!("/tasks/{echo}"))));
    assert_eq!(delete().await.1["success"], true);
    let (status, gone) = delete().await;
    assert_eq!((status, &gone["code"]), (404, &json!("TASK_NOT_LOADED")), "{gone}");
    assert_eq!(node.get(&format!("/tasks/{echo}")).await.0, 404);
    assert_eq!(node.get(&format!("/tasks/{echo}/executions")).await.1["total"], 2, "its calls are remembered");
    // The registry has it: the next call loads it again.
    assert_eq!(execute(&node, json!({"task_id": echo})).await.0, 200);
    // One that the registry has deleted is not found any more.
    delete().await;
    node.registry.alter(|world| world.tasks.remove(&echo));
    assert_eq!(execute(&node, json!({"task_id": echo})).await.0, 404);
    node.stop().await;
}

#[tokio::test]
async fn unloading_by_force_ends_the_calls_under_way() {
    let node = Node::new().await;
    let task = node.task("hold");
    let call = tokio::spawn(node.raw(task, "").send());
    node.stage.holds(1).await;
    let (status, _) = answer(node.client.delete(node.url(&format!("/tasks/{task}?force=true")))).await;
    assert_eq!((status, call.await.unwrap().unwrap().status().as_u16()), (200, 409));
    node.stop().await;
}

#[tokio::test]
async fn the_node_tells_what_it_does_and_has_done() {
    let node = Node::new().await;
    let (echo, hold) = (node.task("echo"), node.task("hold"));
    for body in [json!({"task_id": echo}), json!({"task_id": echo}), json!({"task_id": node.task("trap")})] {
        execute(&node, body).await;
    }
    let call = tokio::spawn(node.raw(hold, "").send());
    node.stage.holds(1).await;
    let (_, stats) = node.get("/monitoring/stats").await;
    let expected = [
        ("total_executions", 3),
        ("successful_executions", 2),
        ("failed_executions", 1),
        ("active_executions", 1),
        ("queue_size", 0),
        ("pending_executions", 0),
        ("task_count", 3),
        ("artifact_count", 3),
    ];
    for (name, value) in expected {
        assert_eq!(stats[name], value, "{name}: {stats}");
    }
    assert!(stats["average_response_time_ms"].as_f64().unwrap() > 0.0);
    let (_, health) = node.get("/monitoring/health").await;
    assert_eq!((&health["status"], &health["details"]["runtimes"]), (&json!("healthy"), &json!(["wasm"])), "{health}");
    let (_, functions) = node.get("/api/v1/functions").await;
    let of = |task: TaskId| {
        functions["functions"].as_array().unwrap().iter().find(|one| one["task_id"] == json!(task)).unwrap().clone()
    };
    let (echo, holding) = (of(echo), of(hold));
    assert_eq!(
        (&echo["calls"], &echo["failures"], &echo["idle_instances"]),
        (&json!(2), &json!(0), &json!(1)),
        "{echo}"
    );
    let counted: u64 = echo["latency_us"].as_array().unwrap().iter().map(|bucket| bucket[1].as_u64().unwrap()).sum();
    assert_eq!(counted, 2, "{echo}");
    assert_eq!((&holding["in_flight"], &holding["busy_instances"]), (&json!(1), &json!(1)), "{holding}");
    assert_eq!(functions["node"]["total_executions"], 3, "{functions}");
    node.stage.release();
    call.await.unwrap().unwrap();
    node.stop().await;
}

#[tokio::test]
async fn instances_are_listed_and_can_be_ended() {
    let node = Node::new().await;
    let (echo, hold) = (node.task("echo"), node.task("hold"));
    execute(&node, json!({"task_id": echo})).await;
    let call = tokio::spawn(node.raw(hold, "").send());
    node.stage.holds(1).await;
    let (_, list) = node.get("/api/v1/instances").await;
    let all = list["instances"].as_array().unwrap();
    assert_eq!(all.len(), 2, "{list}");
    let find = |status: &str| all.iter().find(|one| one["status"] == status).unwrap();
    let (idle, busy) = (find("idle"), find("busy"));
    assert_eq!(
        (&idle["function_name"], &idle["uses"], &idle["execution_id"]),
        (&json!("echo"), &json!(1), &Value::Null)
    );
    assert!(busy["execution_id"].is_string() && busy["memory_bytes"] == 4096, "{busy}");
    let kill = async |id: &str| answer(node.client.delete(node.url(&format!("/api/v1/instances/{id}")))).await;
    assert_eq!(kill(busy["instance_id"].as_str().unwrap()).await.0, 200);
    assert_eq!(call.await.unwrap().unwrap().status(), 409);
    assert_eq!(kill(idle["instance_id"].as_str().unwrap()).await.0, 200);
    let (status, gone) = kill(idle["instance_id"].as_str().unwrap()).await;
    assert_eq!((status, &gone["code"]), (404, &json!("INSTANCE_NOT_FOUND")), "{gone}");
    assert_eq!(kill("x").await.0, 400);
    node.stop().await;
}
