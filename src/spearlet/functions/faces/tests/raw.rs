//! `POST /functions/{task}/invoke` without streams.

use super::*;
use serde_json::json;

#[tokio::test]
async fn the_body_goes_in_and_comes_out_as_bytes() {
    let node = Node::new().await;
    let task = node.task("echo");
    for input in [&b""[..], b"\0\xff\n", &[7; 64 << 10], &[8; (64 << 10) + 1], &[9; 1 << 20]] {
        let response =
            node.raw(task, "").header("content-type", "image/png").body(input.to_vec()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-type"), "application/octet-stream");
        assert_eq!((header(&response, "spear-disposition"), header(&response, "spear-exit")), ("ok", "0"));
        let execution: types::ExecutionId = header(&response, "spear-execution").parse().unwrap();
        assert!(response.bytes().await.unwrap() == input, "{} bytes", input.len());
        let (status, seen) = node.get(&format!("/functions/executions/{execution}")).await;
        assert_eq!((status, &seen["status"]), (200, &json!("COMPLETED")), "{seen}");
    }
    node.stop().await;
}

#[tokio::test]
async fn arguments_headers_and_the_trace_reach_the_guest_and_credentials_do_not() {
    let node = Node::new().await;
    let task = node.task("args");
    let said = node.raw(task, "?arg=a+b&arg=%C3%A4").send().await.unwrap().text().await.unwrap();
    assert_eq!(said, "a b \u{e4}");
    for (name, expected) in [("x-own", "1|2"), ("authorization", ""), ("cookie", ""), ("spear-timeout-ms", "")] {
        let task = node.task(&format!("head {name}"));
        let request = node.raw(task, "").header("x-own", "1").header("x-own", "2").header("cookie", "c");
        let request = request.header("authorization", "Bearer t").header("spear-timeout-ms", "60000");
        let said = request.send().await.unwrap().text().await.unwrap();
        assert_eq!(said, expected, "{name}");
    }
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let task = node.task("env TRACEPARENT");
    let said = node.raw(task, "").header("traceparent", parent).send().await.unwrap().text().await.unwrap();
    assert_eq!(said, parent);
    node.stop().await;
}

#[tokio::test]
async fn how_it_ended_is_told_by_status_code_and_headers() {
    let node = Node::new().await;
    for (program, status, code, reason, exit) in [
        ("exit 75", 503, "FUNCTION_RETRY", "exit", Some(75)),
        ("exit 3", 500, "FUNCTION_EXITED", "exit", Some(3)),
        ("trap", 500, "FUNCTION_TRAPPED", "trap", None),
        ("memory", 507, "FUNCTION_MEMORY", "memory", None),
        ("flood 3000000", 507, "FUNCTION_OUTPUT", "output", None),
        ("what is this", 500, "FUNCTION_INVALID", "invalid_module", None),
        ("refuse", 422, "FUNCTION_REFUSED", "task", None),
    ] {
        let task = node.task(program);
        let response = node.raw(task, "").send().await.unwrap();
        assert_eq!(response.status(), status, "{program}");
        assert_eq!(header(&response, "content-type"), "application/problem+json");
        assert_eq!(header(&response, "spear-reason"), reason, "{program}");
        assert_eq!(header(&response, "spear-exit"), exit.map(|code: i32| code.to_string()).unwrap_or_default());
        assert_eq!(response.headers().contains_key("retry-after"), status == 503, "{program}");
        let execution = header(&response, "spear-execution").to_owned();
        let body: Value = response.json().await.unwrap();
        assert_eq!((&body["code"], &body["reason"]), (&json!(code), &json!(reason)), "{body}");
        assert_eq!((&body["exit_code"], &body["execution_id"]), (&json!(exit), &json!(execution)), "{body}");
    }
    let task = node.task("hold");
    let response = node.raw(task, "").header("spear-timeout-ms", "30").send().await.unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "spear-reason")), (504, "deadline"));
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_called_is_told_apart() {
    let node = Node::new().await;
    let code = async |request: reqwest::RequestBuilder| {
        let (status, body) = answer(request).await;
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    };
    let said = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(code(node.raw(TaskId::new(), "")).await, said(404, "TASK_NOT_FOUND"));
    let wrong = node.task_with("echo", &[("timeout_ms", "soon")]);
    let (status, body) = answer(node.raw(wrong, "")).await;
    assert_eq!((status, &body["code"]), (409, &json!("TASK_NOT_CALLABLE")));
    assert!(body["detail"].as_str().unwrap().contains("config.timeout_ms"), "{body}");
    assert_eq!(code(node.post("/functions/nonsense/invoke")).await, said(400, "INVALID_ARGUMENT"));
    let task = node.task("echo");
    assert_eq!(code(node.raw(task, "?strem=true")).await, said(400, "INVALID_ARGUMENT"));
    let limited = node.raw(task, "").header("spear-timeout-ms", "0");
    assert_eq!(code(limited).await, said(400, "INVALID_ARGUMENT"));
    node.registry.down(true);
    let away = node.raw(node.task("echo"), "");
    assert_eq!(code(away).await, said(503, "REGISTRY_UNAVAILABLE"));
    // What is ready is called without it.
    node.registry.down(false);
    assert_eq!(code(node.raw(task, "")).await.0, 200);
    node.registry.down(true);
    assert_eq!(code(node.raw(task, "")).await.0, 200);
    node.stop().await;
    let alone = Node::with(Config::default(), false).await;
    assert_eq!(code(alone.raw(TaskId::new(), "")).await, said(503, "NO_REGISTRY"));
    alone.stop().await;
}

#[tokio::test]
async fn a_busy_function_refuses_with_a_time_to_come_back_and_a_queued_call_gets_its_turn() {
    let node = Node::new().await;
    let task = node.task_with("hold", &[("concurrency", "1"), ("queue", "1"), ("queue_wait_ms", "60000")]);
    let [first, second] = [0, 1].map(|_| tokio::spawn(node.raw(task, "").send()));
    node.stage.holds(1).await;
    node.until("/monitoring/stats", |stats| stats["queue_size"] == 1).await;
    let third = node.raw(task, "").send().await.unwrap();
    assert_eq!((third.status().as_u16(), header(&third, "spear-reason")), (429, "queue"));
    let again: u64 = header(&third, "retry-after").parse().unwrap();
    assert!((1..=60).contains(&again), "{again}");
    assert!(header(&third, "spear-execution").is_empty(), "it never began");
    node.stage.release();
    for call in [first, second] {
        let response = call.await.unwrap().unwrap();
        assert_eq!((response.status().as_u16(), response.text().await.unwrap()), (200, "held".to_owned()));
    }
    let (_, stats) = node.get("/monitoring/stats").await;
    assert_eq!((&stats["total_executions"], &stats["refused_executions"]), (&json!(2), &json!(1)), "{stats}");
    node.stop().await;
}

#[tokio::test]
async fn a_wait_in_the_queue_that_is_too_long_is_refused() {
    let node = Node::new().await;
    let task = node.task_with("hold", &[("concurrency", "1"), ("queue", "4"), ("queue_wait_ms", "20")]);
    let first = tokio::spawn(node.raw(task, "").send());
    node.stage.holds(1).await;
    let (status, body) = answer(node.raw(task, "")).await;
    assert_eq!((status, &body["code"]), (429, &json!("FUNCTION_BUSY")), "{body}");
    node.stage.release();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    node.stop().await;
}

#[tokio::test]
async fn the_node_itself_is_busy_when_all_its_places_are_taken() {
    let node = Node::with(Config { invocations: 2, ..Config::default() }, true).await;
    let task = node.task("hold");
    let held = [0, 1].map(|_| tokio::spawn(node.raw(task, "").send()));
    node.stage.holds(2).await;
    let (status, body) = answer(node.raw(node.task("echo"), "")).await;
    assert_eq!((status, &body["code"]), (429, &json!("FUNCTION_BUSY")), "{body}");
    node.stage.release();
    for call in held {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_its_call_and_leaves_nothing_behind() {
    let node = Node::new().await;
    let task = node.task("hold");
    let calls: Vec<_> = (0..8).map(|_| tokio::spawn(node.raw(task, "").send())).collect();
    node.stage.holds(8).await;
    for call in calls {
        call.abort();
    }
    node.stage.holds(0).await;
    node.stage.cancels(8).await;
    let stats = node.until("/monitoring/stats", |stats| stats["active_executions"] == 0).await;
    assert_eq!((&stats["failed_executions"], &stats["total_executions"]), (&json!(8), &json!(8)));
    let (_, all) = node.get(&format!("/tasks/{task}/executions?status=cancelled")).await;
    assert_eq!(all["total"], 8, "{all}");
    node.stop().await;
}

#[tokio::test]
async fn a_call_can_be_given_its_id_and_cancelled_by_it() {
    let node = Node::new().await;
    let (task, id) = (node.task("hold"), types::ExecutionId::new());
    let request = || node.raw(task, "").header("spear-execution", id.to_string());
    let call = tokio::spawn(request().send());
    node.stage.holds(1).await;
    let (_, seen) = node.get(&format!("/functions/executions/{id}")).await;
    assert_eq!((&seen["status"], &seen["success"]), (&json!("RUNNING"), &json!(true)), "{seen}");
    assert!(!seen["instance_id"].as_str().unwrap().is_empty(), "{seen}");
    let (status, body) = answer(request()).await;
    assert_eq!((status, &body["code"]), (409, &json!("EXECUTION_EXISTS")), "{body}");
    let (status, body) = answer(node.post(&format!("/functions/executions/{id}/cancel"))).await;
    assert_eq!((status, &body["success"], &body["final_status"]), (200, &json!(true), &json!("TERMINATED")), "{body}");
    let response = call.await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "spear-reason")), (409, "cancelled"));
    let (status, body) = answer(node.post(&format!("/functions/executions/{id}/cancel"))).await;
    assert_eq!((status, &body["success"], &body["final_status"]), (200, &json!(false), &json!("TERMINATED")), "{body}");
    let (status, body) =
        answer(node.post(&format!("/functions/executions/{}/cancel", types::ExecutionId::new()))).await;
    assert_eq!((status, &body["code"]), (404, &json!("EXECUTION_NOT_FOUND")));
    node.stop().await;
}

#[tokio::test]
async fn what_went_to_standard_error_is_shown_where_it_is_asked_for() {
    let node = Node::new().await;
    let response = node.raw(node.task("whine exit 3"), "").send().await.unwrap();
    let execution = header(&response, "spear-execution").to_owned();
    let (_, seen) = node.get(&format!("/functions/executions/{execution}?include_logs=true")).await;
    assert_eq!(seen["logs"][0]["message"], "not again", "{seen}");
    assert_eq!((&seen["exit_code"], &seen["error"]["code"]), (&json!(3), &json!("EXIT")), "{seen}");
    let (_, seen) = node.get(&format!("/functions/executions/{execution}")).await;
    assert_eq!((&seen["logs"], &seen["output_base64"]), (&Value::Null, &Value::Null), "{seen}");
    node.stop().await;
}
