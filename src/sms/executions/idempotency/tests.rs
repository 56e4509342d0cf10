#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use types::ExecutionStatus as S;

use super::*;
use crate::{
    Config,
    executions::{
        Filter,
        retention::Orphans,
        rig::{Rig, new_task, rig, rig_with, until},
    },
    tasks::NewTask,
};

/// Status, was it replayed, body.
type Answered = (u16, bool, Value);

async fn send(rig: &Rig, path: &str, key: &str, body: Value) -> Answered {
    let (status, headers, bytes) =
        rig.call_with("POST", path, &[("idempotency-key", key)], Some(body.to_string())).await;
    let replayed = headers.get(REPLAYED).is_some_and(|value| value == "true");
    (status, replayed, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn runs(task: TaskId) -> String {
    format!("/api/v1/tasks/{task}/executions")
}

fn made(answer: &Value) -> ExecutionId {
    answer["execution_id"].as_str().unwrap_or_else(|| panic!("{answer}")).parse().unwrap()
}

/// Executions of a task beside its first.
async fn others(rig: &Rig, task: TaskId) -> Vec<ExecutionId> {
    let filter = Filter { task_id: Some(task), ..Filter::default() };
    let (all, _) = rig.sms.executions.list(&filter, None, 1000).await.unwrap();
    all.iter().filter(|execution| !execution.first).map(|execution| execution.id).collect()
}

async fn keys(rig: &Rig) -> usize {
    rig.sms.bus.store().list(Remembered::PREFIX, None, 1000).await.unwrap().records.len()
}

#[test]
fn both_forms_of_a_key_are_one_key() {
    let of = |text: &str| Key::of(&HeaderMap::from_iter([("idempotency-key".parse().unwrap(), text.parse().unwrap())]));
    assert_eq!(of("a").unwrap(), of(" \"a\" ").unwrap());
    assert_eq!(of("a").unwrap(), Some(Key::named("a")), "as an agent brings it, who has read it");
    assert_eq!(Key::of(&HeaderMap::new()).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_requests_have_one_fingerprint_only_if_they_are_the_same(
        one in proptest::collection::vec(("[ab]{0,2}", "[ab]{0,3}"), 0..4),
        other in proptest::collection::vec(("[ab]{0,2}", "[ab]{0,3}"), 0..4),
    ) {
        let print = |parts: &[(String, String)]| {
            parts.iter().fold(Fingerprint::new("x"), |all, (name, part)| all.with(name, part)).finish()
        };
        prop_assert_eq!(print(&one) == print(&other), one == other);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_callers_with_one_key_one_makes_the_execution_and_all_get_it() {
    let rig = Arc::new(rig().await);
    rig.node("wasm").await;
    for round in 0..3 {
        let (task, _) = rig.task("t").await;
        let callers = (0..64).map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move { send(&rig, &runs(task), "\"k\"", json!({"input": "same"})).await })
        });
        let answers: Vec<Answered> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|(status, ..)| *status == 202), "{answers:?}");
        let ids: BTreeSet<_> = answers.iter().map(|(.., body)| made(body)).collect();
        let fresh = answers.iter().filter(|(_, replayed, _)| !replayed).count();
        assert_eq!((ids.len(), fresh), (1, 1), "round {round}");
        assert_eq!(others(&rig, task).await, ids.into_iter().collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_synchronous_callers_all_get_the_one_result() {
    let rig = Arc::new(rig().await);
    let node = rig.node("wasm").await;
    rig.echo_agent(node);
    let (task, _) = rig.task("echo").await;
    let callers = (0..64).map(|_| {
        let rig = rig.clone();
        tokio::spawn(async move { send(&rig, &runs(task), "k", json!({"mode": "sync", "input": "hello"})).await })
    });
    let answers: Vec<Answered> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
    for (status, _, body) in &answers {
        assert_eq!((*status, &body["status"], &body["result"]["text"]), (200, &json!("completed"), &json!("hello")));
    }
    assert_eq!(answers.iter().map(|(.., body)| made(body)).collect::<BTreeSet<_>>().len(), 1);
    assert_eq!(answers.iter().filter(|(_, replayed, _)| !replayed).count(), 1);
    assert_eq!(others(&rig, task).await.len(), 1);
}

#[tokio::test]
async fn a_second_caller_joins_what_is_still_under_way() {
    let rig = Arc::new(rig().await);
    rig.node("wasm").await;
    let (task, _) = rig.task("t").await;
    let caller = |key: &'static str| {
        let rig = rig.clone();
        tokio::spawn(async move { send(&rig, &runs(task), key, json!({"mode": "sync"})).await })
    };
    let first = caller("k");
    until("the run is there", async || others(&rig, task).await.len() == 1).await;
    let id = others(&rig, task).await[0];
    until("the first waits", async || rig.sms.executions.index.waited_for(id)).await;
    let second = caller("\"k\"");
    until("the second waits too", async || rig.sms.executions.index.waiters_of(id) == 2).await;
    rig.tell(id, S::Completed).await;
    let ((status, replayed, one), (also, joined, other)) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((status, replayed, also, joined), (200, false, 200, true));
    assert_eq!(one, other);
}

#[tokio::test]
async fn another_request_with_the_key_is_refused_and_told_of_the_first() {
    let rig = rig_with(Config { callback_hosts: vec!["127.0.0.1".into()], ..Config::default() }).await;
    let (task, _) = rig.task("t").await;
    let body = json!({"mode": "async", "input": "a", "timeout_ms": 5, "callback_url": "http://127.0.0.1:9/x"});
    let (status, _, first) = send(&rig, &runs(task), "k", body.clone()).await;
    assert_eq!(status, 202, "{first}");
    for (field, value) in [
        ("mode", Value::Null),
        ("input", json!("b")),
        ("input", Value::Null),
        ("timeout_ms", json!(6)),
        ("timeout_ms", Value::Null),
        ("callback_url", json!("http://127.0.0.1:9/y")),
        ("callback_url", Value::Null),
    ] {
        let mut other = body.clone();
        other[field] = value;
        let same = field == "mode";
        let (status, replayed, answer) = send(&rig, &runs(task), "k", other).await;
        if same {
            assert_eq!((status, replayed), (202, true), "async is what is meant without a mode");
            continue;
        }
        assert_eq!((status, &answer["code"]), (422, &json!("IDEMPOTENCY_KEY_REUSED")), "{field}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(&made(&first).to_string()), "{answer}");
        assert_eq!(answer["errors"][0]["field"], json!(HEADER));
    }
    let (status, ..) = send(&rig, &runs(task), "k", json!({"mode": "sync", "input": "a", "timeout_ms": 5})).await;
    assert_eq!(status, 422, "to wait is another request");
    let base64 = json!({"input_base64": "YQ==", "timeout_ms": 5, "callback_url": "http://127.0.0.1:9/x"});
    assert!(send(&rig, &runs(task), "k", base64).await.1, "the same bytes are the same input");
    assert_eq!(others(&rig, task).await.len(), 1);
}

#[tokio::test]
async fn a_key_is_known_to_its_task_only() {
    let rig = rig().await;
    let ((one, _), (other, _)) = (rig.task("one").await, rig.task("other").await);
    let first = send(&rig, &runs(one), "k", json!({})).await;
    let second = send(&rig, &runs(other), "k", json!({"input": "x"})).await;
    assert_eq!((first.0, first.1, second.0, second.1), (202, false, 202, false));
    assert_ne!(made(&first.2), made(&second.2));
    assert!(!send(&rig, &runs(one), "K", json!({})).await.1, "case counts");
    // A refused request has made nothing and has no claim to the key.
    assert_eq!(send(&rig, &runs(one), "new", json!({"timeout_ms": 0})).await.0, 400);
    assert_eq!(send(&rig, &runs(one), "new", json!({"timeout_ms": 1})).await.0, 202);
    for wrong in ["", "a b", "\"a"] {
        let (status, _, problem) = send(&rig, &runs(one), wrong, json!({})).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!(HEADER)), "{wrong:?}");
    }
    assert_eq!(send(&rig, &runs(TaskId::new()), "k", json!({})).await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_was_not_answered_before_the_process_died_gets_the_same_execution_after_it() {
    let config = Config::default;
    let mut rig = Arc::new(rig_with(config()).await);
    rig.node("wasm").await;
    let (task, _) = rig.task("t").await;
    for round in 0..8u64 {
        let key = format!("k{round}");
        let callers: Vec<_> = (0..64)
            .map(|_| {
                let (rig, key) = (rig.clone(), key.clone());
                tokio::spawn(async move { send(&rig, &runs(task), &key, json!({"input": key})).await })
            })
            .collect();
        let before = round as usize;
        // At a moment between nothing and everything; whoever was not answered by then never is.
        tokio::time::sleep(Duration::from_micros(round * 700)).await;
        callers.iter().for_each(tokio::task::JoinHandle::abort);
        let mut told = BTreeSet::new();
        for caller in callers {
            told.extend(caller.await.ok().map(|(.., body)| made(&body)));
        }
        rig = Arc::new(rig.restarted(config()).await);
        let once_more = (0..8).map(async |_| send(&rig, &runs(task), &key, json!({"input": key})).await);
        let after: BTreeSet<_> = join_all(once_more).await.into_iter().map(|(.., body)| made(&body)).collect();
        assert_eq!(after.len(), 1, "round {round}");
        assert!(told.is_subset(&after), "round {round}: {told:?} was answered before, {after:?} after");
        until("all see it", async || others(&rig, task).await.len() == before + 1).await;
    }
}

#[tokio::test]
async fn a_key_is_forgotten_after_its_time_and_what_it_made_before_stays() {
    let rig = rig_with(Config { executions_kept_per_task: 1, ..Config::default() }).await;
    rig.node("wasm").await;
    let (task, _) = rig.task("t").await;
    let (.., first) = send(&rig, &runs(task), "k", json!({"input": "one"})).await;
    rig.clock.advance(Duration::from_secs(24 * 3600 - 1));
    assert!(send(&rig, &runs(task), "k", json!({"input": "one"})).await.1);
    rig.clock.advance(Duration::from_secs(1));
    let (status, replayed, second) = send(&rig, &runs(task), "k", json!({"input": "two"})).await;
    assert_eq!((status, replayed), (202, false));
    assert_ne!(made(&first), made(&second));
    assert_eq!(rig.execution(made(&first)).await.status, S::Pending);
    // The first goes, and does not take the key along that is the second's now.
    rig.tell(made(&first), S::Completed).await;
    rig.tell(made(&second), S::Completed).await;
    rig.sms.executions.remove_old(&mut Orphans::default()).await.unwrap();
    assert!(rig.sms.executions.get(made(&first)).await.is_err());
    let (_, replayed, again) = send(&rig, &runs(task), "k", json!({"input": "two"})).await;
    assert_eq!((replayed, made(&again)), (true, made(&second)));
}

#[tokio::test]
async fn a_key_goes_with_its_execution_in_one_commit() {
    let rig = rig_with(Config { executions_kept_per_task: 1, ..Config::default() }).await;
    rig.node("wasm").await;
    let (task, first) = rig.task("t").await;
    rig.tell(first, S::Completed).await;
    let mut ids = Vec::new();
    for key in ["a", "b", "c"] {
        let id = made(&send(&rig, &runs(task), key, json!({})).await.2);
        rig.tell(id, S::Completed).await;
        ids.push(id);
    }
    assert_eq!(keys(&rig).await, 3);
    rig.sms.executions.remove_old(&mut Orphans::default()).await.unwrap();
    assert_eq!(keys(&rig).await, 1, "never more keys than executions");
    assert!(send(&rig, &runs(task), "c", json!({})).await.1);
    let (status, replayed, anew) = send(&rig, &runs(task), "a", json!({"input": "other"})).await;
    assert_eq!((status, replayed), (202, false), "{anew}");
    let again = rig.restarted(Config::default()).await;
    assert_eq!(made(&send(&again, &runs(task), "a", json!({"input": "other"})).await.2), made(&anew));
}

#[tokio::test]
async fn keys_whose_time_has_passed_are_swept_page_by_page() {
    let rig = rig().await;
    let (task, _) = rig.task("t").await;
    for key in ["a", "b"] {
        send(&rig, &runs(task), key, json!({})).await;
    }
    let entry = json!({"name": "entry", "endpoint": "", "version": ""});
    let (.., entry) = send(&rig, "/api/v1/tasks", "entry", entry).await;
    assert_eq!(keys(&rig).await, 3);
    assert_eq!(rig.sms.executions.sweep_keys(None).await.unwrap(), None);
    assert_eq!(keys(&rig).await, 3);
    rig.sms.tasks.remove(entry["task_id"].as_str().unwrap().parse().unwrap(), "").await.unwrap();
    rig.sms.executions.sweep_keys(None).await.unwrap();
    assert_eq!(keys(&rig).await, 2, "nothing is left of what it made");
    rig.clock.advance(Duration::from_secs(24 * 3600));
    send(&rig, &runs(task), "fresh", json!({})).await;
    rig.sms.executions.sweep_keys(None).await.unwrap();
    assert_eq!(keys(&rig).await, 1);
    assert!(send(&rig, &runs(task), "fresh", json!({})).await.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_registrations_with_one_key_one_makes_the_task() {
    let rig = Arc::new(rig().await);
    let executable = json!({"type": "wasm", "uri": "https://example.org/x.wasm", "args": ["a"], "env": {"A": "b"}});
    let body = json!({"name": "n", "endpoint": "e", "version": "1", "executable": executable, "input": "i"});
    let callers = (0..64).map(|_| {
        let (rig, body) = (rig.clone(), body.clone());
        tokio::spawn(async move { send(&rig, "/api/v1/tasks", "k", body).await })
    });
    let answers: Vec<Answered> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
    let first = &answers[0].2;
    assert!(answers.iter().all(|(status, _, body)| *status == 200 && body == first), "{answers:?}");
    assert_eq!(answers.iter().filter(|(_, replayed, _)| !replayed).count(), 1);
    assert_eq!(rig.call("GET", "/api/v1/tasks", None).await.1["total_count"], json!(1));
    let change = |change: fn(&mut Value)| {
        let mut other = body.clone();
        change(&mut other);
        other
    };
    for other in [
        change(|body| body["name"] = json!("m")),
        change(|body| body["input"] = json!("j")),
        change(|body| body["executable"]["args"] = json!(["a", ""])),
        change(|body| body["executable"]["env"] = json!({"A": "c"})),
        change(|body| body["metadata"] = json!({"A": "b"})),
        change(|body| body["config"] = json!({"A": "b"})),
        change(|body| drop(body.as_object_mut().unwrap().remove("executable"))),
    ] {
        let mut other = other;
        if other.get("executable").is_none() {
            drop(other.as_object_mut().unwrap().remove("input"));
        }
        let (status, _, answer) = send(&rig, "/api/v1/tasks", "k", other).await;
        assert_eq!((status, &answer["code"]), (422, &json!("IDEMPOTENCY_KEY_REUSED")), "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(first["execution_id"].as_str().unwrap()));
    }
    // Also when the task is gone: who asks again wants no second one.
    rig.sms.tasks.remove(first["task_id"].as_str().unwrap().parse().unwrap(), "").await.unwrap();
    let (status, replayed, again) = send(&rig, "/api/v1/tasks", "k", body.clone()).await;
    assert_eq!((status, replayed, &again), (200, true, first));
    let entry = rig.sms.tasks.register(NewTask { executable: None, ..new_task("entry") }).await.unwrap().0.task.id;
    assert_eq!(send(&rig, &runs(entry), "k", json!({})).await.0, 409);
}

#[tokio::test]
async fn a_removed_task_still_answers_for_what_was_run() {
    let rig = rig().await;
    let (task, _) = rig.task("t").await;
    let (.., first) = send(&rig, &runs(task), "k", json!({})).await;
    rig.sms.tasks.remove(task, "").await.unwrap();
    let (status, replayed, again) = send(&rig, &runs(task), "k", json!({})).await;
    assert_eq!((status, replayed, made(&again)), (202, true, made(&first)));
    assert_eq!(send(&rig, &runs(task), "other", json!({})).await.0, 404);
}
