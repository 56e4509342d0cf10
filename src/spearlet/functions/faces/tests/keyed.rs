//! Calls that are sent again.

use super::*;
use serde_json::json;

#[tokio::test]
async fn of_64_callers_with_one_key_one_calls_and_all_get_its_answer() {
    let node = Node::new().await;
    let task = node.task("hold");
    let calls: Vec<_> = (0..64)
        .map(|_| tokio::spawn(node.raw(task, "").header("idempotency-key", "\"k\"").body("in").send()))
        .collect();
    node.stage.holds(1).await;
    node.stage.release();
    let (mut executions, mut replayed) = (std::collections::BTreeSet::new(), 0);
    for call in calls {
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        executions.insert(header(&response, "spear-execution").to_owned());
        replayed += usize::from(header(&response, "idempotent-replayed") == "true");
        assert_eq!(response.text().await.unwrap(), "held");
    }
    assert_eq!((executions.len(), replayed, node.stage.calls()), (1, 63, 1));
    node.stop().await;
}

#[tokio::test]
async fn an_answer_is_replayed_over_every_interface_and_another_call_is_refused_the_key() {
    let node = Node::new().await;
    let (task, other) = (node.task("count"), node.task("count"));
    let raw = |task, body: &'static str| node.raw(task, "").header("idempotency-key", "k").body(body);
    let first = raw(task, "in").send().await.unwrap();
    let execution = header(&first, "spear-execution").to_owned();
    assert_eq!(header(&first, "idempotent-replayed"), "");
    assert_eq!(first.text().await.unwrap(), "1");
    let body = json!({"task_id": task, "input_base64": "aW4="});
    let again = node.post("/functions/execute").header("idempotency-key", "k").json(&body).send().await.unwrap();
    assert_eq!((again.status().as_u16(), header(&again, "idempotent-replayed")), (200, "true"));
    let again: Value = again.json().await.unwrap();
    assert_eq!((&again["execution_id"], &again["output_base64"]), (&json!(execution), &json!("MQ==")), "{again}");
    let (status, refused) = answer(raw(task, "another")).await;
    assert_eq!((status, &refused["code"]), (422, &json!("IDEMPOTENCY_KEY_REUSED")), "{refused}");
    assert_eq!(answer(node.raw(task, "?arg=x").header("idempotency-key", "k").body("in")).await.0, 422);
    // A key belongs to its task, and a call without one to nobody.
    assert_eq!(raw(other, "another").send().await.unwrap().text().await.unwrap(), "1");
    assert_eq!(node.raw(task, "").body("in").send().await.unwrap().text().await.unwrap(), "2");
    let (status, body) = answer(node.raw(task, "").header("idempotency-key", "a,b")).await;
    assert_eq!((status, &body["errors"][0]["field"]), (400, &json!("Idempotency-Key")), "{body}");
    node.stop().await;
}

#[tokio::test]
async fn a_failure_that_lasts_is_replayed_and_one_that_passes_is_tried_again() {
    let node = Node::new().await;
    for (program, expected) in [("exit 3", 1), ("trap", 1), ("exit 75", 2)] {
        let (task, before) = (node.task(program), node.stage.calls());
        for _ in 0..2 {
            let response = node.raw(task, "").header("idempotency-key", "k").send().await.unwrap();
            assert!(response.status().is_server_error(), "{program}");
        }
        assert_eq!(node.stage.calls() - before, expected, "{program}");
    }
    let busy = node.task_with("hold", &[("concurrency", "1"), ("queue", "0")]);
    let held = tokio::spawn(node.raw(busy, "").send());
    node.stage.holds(1).await;
    let keyed = || node.raw(busy, "").header("idempotency-key", "k").send();
    assert_eq!(keyed().await.unwrap().status(), 429);
    node.stage.release();
    held.await.unwrap().unwrap();
    assert_eq!(keyed().await.unwrap().status(), 200, "a refusal is not kept");
    node.stop().await;
}

#[tokio::test]
async fn a_keyed_call_goes_on_when_its_caller_goes_away() {
    let node = Node::new().await;
    let task = node.task("hold");
    let keyed = || node.raw(task, "").header("idempotency-key", "k").send();
    let gone = tokio::spawn(keyed());
    node.stage.holds(1).await;
    gone.abort();
    assert!(gone.await.is_err());
    let again = tokio::spawn(keyed());
    node.stage.release();
    let again = again.await.unwrap().unwrap();
    assert_eq!((again.status().as_u16(), header(&again, "idempotent-replayed"), node.stage.calls()), (200, "true", 1));
    node.stop().await;
}

#[tokio::test]
async fn a_key_does_not_go_with_a_stream_and_its_input_has_a_limit() {
    let node = Node::new().await;
    let task = node.task("exit 0");
    let (status, body) = answer(node.raw(task, "?stream=true").header("idempotency-key", "k")).await;
    assert_eq!((status, &body["errors"][0]["field"]), (400, &json!("stream")), "{body}");
    let keyed = |length: usize| node.raw(task, "").header("idempotency-key", length.to_string()).body(vec![0; length]);
    assert_eq!(keyed(8 << 20).send().await.unwrap().status(), 200);
    let (status, body) = answer(keyed((8 << 20) + 1)).await;
    assert_eq!((status, &body["code"]), (413, &json!("INPUT_TOO_LARGE")), "{body}");
    node.stop().await;
}
