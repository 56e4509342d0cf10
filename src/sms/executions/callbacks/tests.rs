//! Callbacks against receivers on real sockets of this machine.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use api::ExecutionReport;
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
    routing::post,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use net::client::Lookup;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::{net::TcpListener, sync::Semaphore};
use types::{ExecutionStatus as S, TaskId};

use super::{
    tell::{Outcome, judge},
    *,
};
use crate::executions::{
    NewRun,
    retention::Orphans,
    rig::{Rig, report, rig_with, until},
};

type Answer = Arc<dyn Fn(usize) -> BoxFuture<'static, Response> + Send + Sync>;

/// Somebody who is told, and answers the n-th telling (from 1) as the test has it.
#[derive(Clone)]
struct Receiver {
    at: SocketAddr,
    told: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    open: Arc<AtomicUsize>,
    most_open: Arc<AtomicUsize>,
}

impl Receiver {
    async fn answering(status: StatusCode) -> Self {
        Self::with(Arc::new(move |_| async move { status.into_response() }.boxed())).await
    }

    async fn with(answer: Answer) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    fn on(listener: TcpListener, answer: Answer) -> Self {
        let at = listener.local_addr().unwrap();
        let receiver = Self { at, told: Arc::default(), open: Arc::default(), most_open: Arc::default() };
        let this = receiver.clone();
        let handler = move |headers: HeaderMap, body: Bytes| async move {
            let open = this.open.fetch_add(1, Ordering::SeqCst) + 1;
            this.most_open.fetch_max(open, Ordering::SeqCst);
            let count = {
                let mut told = this.told.lock().unwrap();
                told.push((headers, serde_json::from_slice(&body).unwrap()));
                told.len()
            };
            let answer = answer(count).await;
            this.open.fetch_sub(1, Ordering::SeqCst);
            answer
        };
        let router = Router::new().route("/hook", post(handler.clone())).route("/other", post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        receiver
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.at)
    }

    fn count(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    fn told(&self, at: usize) -> (HeaderMap, Value) {
        self.told.lock().unwrap()[at].clone()
    }
}

fn quick() -> Config {
    Config {
        callback_hosts: vec!["127.0.0.1".to_owned()],
        callback_retry_first: Duration::from_millis(10),
        callback_retry_most: Duration::from_millis(40),
        ..Config::default()
    }
}

impl Rig {
    /// A run of a task that tells of its end, and has not ended.
    async fn telling(&self, task: TaskId, url: &str) -> ExecutionId {
        self.run(task, &NewRun { callback_url: Some(url.to_owned()), ..NewRun::default() }).await.id
    }

    async fn shown(&self, id: ExecutionId) -> Value {
        let (status, body) = self.call("GET", &format!("/api/v1/executions/{id}"), None).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Waits until a callback stands so, and shows it.
    async fn callback(&self, id: ExecutionId, status: &str) -> Value {
        until(status, async || self.shown(id).await["callback"]["status"] == json!(status)).await;
        self.shown(id).await["callback"].clone()
    }

    async fn cancel(&self, id: ExecutionId) {
        self.sms.executions.cancel(id, "").await.unwrap();
    }
}

#[tokio::test]
async fn the_end_is_told_once_as_the_interface_shows_it() {
    let receiver = Receiver::answering(StatusCode::NO_CONTENT).await;
    let rig = rig_with(quick()).await;
    let node = rig.node("wasm").await;
    let (task, _) = rig.task("t").await;
    let id = rig.telling(task, &receiver.url()).await;
    let before = rig.shown(id).await["callback"].clone();
    let (error, next) = (Value::Null, Value::Null);
    assert_eq!(
        before,
        json!({"url": receiver.url(), "status": "pending", "tries": 0, "last_error": error, "next_try_ms": next})
    );
    rig.tell(id, S::Running).await;
    let ended = ExecutionReport { result: Bytes::from("hello"), ..report(id, node, 1, S::Completed) };
    rig.control.report_execution(ended.clone()).await.unwrap();
    rig.control.report_execution(ended).await.unwrap();
    let callback = rig.callback(id, "delivered").await;
    assert_eq!((&callback["tries"], &callback["last_error"]), (&json!(1), &Value::Null));
    assert_eq!(receiver.count(), 1, "before the end nothing was told, and a repeated report tells nothing");
    let (headers, mut body) = receiver.told(0);
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("content-type").as_deref(), Some("application/json"));
    assert_eq!(header("spear-execution"), Some(id.to_string()));
    assert_eq!(header("spear-delivery").as_deref(), Some("1"));
    assert_eq!(header("idempotency-key"), Some(id.to_string()));
    for secret in ["authorization", "cookie", "proxy-authorization", "referer"] {
        assert_eq!(header(secret), None);
    }
    assert_eq!(body["result"]["text"], json!("hello"));
    let mut shown = rig.shown(id).await;
    assert_eq!(body["callback"].take()["status"], json!("pending"), "that it knows, it has not said by then");
    shown["callback"].take();
    assert_eq!(body, shown);
    let (_, list) = rig.call("GET", &format!("/api/v1/executions?task_id={task}"), None).await;
    let found: Vec<_> = list["executions"].as_array().unwrap().iter().map(|one| &one["callback"]["status"]).collect();
    assert_eq!(found, [&Value::Null, &json!("delivered")]);
}

#[tokio::test]
async fn the_first_execution_of_a_task_can_tell_too() {
    let receiver = Receiver::answering(StatusCode::OK).await;
    let rig = rig_with(quick()).await;
    let executable = json!({"type": "wasm", "uri": "https://example.org/x.wasm"});
    let mut body = json!({"name": "n", "endpoint": "", "version": "", "callback_url": receiver.url()});
    let (status, problem) = rig.call("POST", "/api/v1/tasks", Some(body.clone())).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!("callback_url")), "there is nothing to end");
    body["executable"] = executable;
    let (_, made) = rig.call("POST", "/api/v1/tasks", Some(body)).await;
    let id = made["execution_id"].as_str().unwrap().parse().unwrap();
    rig.cancel(id).await;
    rig.callback(id, "delivered").await;
    assert_eq!(receiver.told(0).1["status"], json!("cancelled"));
}

#[tokio::test]
async fn a_receiver_that_is_down_is_told_when_it_is_up() {
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = place.local_addr().unwrap();
    drop(place);
    let rig = rig_with(quick()).await;
    let (task, _) = rig.task("t").await;
    let id = rig.telling(task, &format!("http://{at}/hook")).await;
    rig.cancel(id).await;
    until("it was tried twice", async || rig.shown(id).await["callback"]["tries"].as_u64().unwrap() >= 2).await;
    let callback = rig.shown(id).await["callback"].clone();
    assert_eq!(callback["status"], json!("pending"));
    assert!(callback["last_error"].as_str().unwrap().contains(&format!("http://{at} cannot be reached")), "{callback}");
    assert!(callback["next_try_ms"].as_i64().unwrap() >= 1_732_186_800_000, "{callback}");
    let answer: Answer = Arc::new(|_| async { StatusCode::OK.into_response() }.boxed());
    let receiver = Receiver::on(TcpListener::bind(at).await.unwrap(), answer);
    let callback = rig.callback(id, "delivered").await;
    assert_eq!((receiver.count(), &callback["last_error"], &callback["next_try_ms"]), (1, &Value::Null, &Value::Null));
    assert_eq!(receiver.told(0).0["spear-delivery"].to_str().unwrap(), callback["tries"].to_string());
}

#[tokio::test]
async fn everything_but_2xx_and_410_is_tried_again_and_a_redirect_leads_nowhere() {
    let receiver = Receiver::with(Arc::new(|count| {
        async move {
            match count {
                1 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                2 => StatusCode::NOT_FOUND.into_response(),
                3 => Redirect::temporary("/other").into_response(),
                4 => Redirect::permanent("http://127.0.0.1:1/").into_response(),
                // The connection breaks off in the middle of the answer: what it said counts.
                _ => {
                    let broken = stream::iter([Ok(Bytes::from("x"))]).chain(stream::once(async {
                        // So that what came before has been sent.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        Err(io::Error::other("broken"))
                    }));
                    (StatusCode::ACCEPTED, Body::from_stream(broken)).into_response()
                }
            }
        }
        .boxed()
    }))
    .await;
    let rig = rig_with(quick()).await;
    let (task, _) = rig.task("t").await;
    let id = rig.telling(task, &receiver.url()).await;
    rig.cancel(id).await;
    let callback = rig.callback(id, "delivered").await;
    assert_eq!((receiver.count(), &callback["tries"]), (5, &json!(5)), "each answer was to this address");
    let deliveries: Vec<_> =
        (0..5).map(|at| receiver.told(at).0["spear-delivery"].to_str().unwrap().to_owned()).collect();
    assert_eq!(deliveries, ["1", "2", "3", "4", "5"]);
    let keys: Vec<_> = (0..5).map(|at| receiver.told(at).0["idempotency-key"].to_str().unwrap().to_owned()).collect();
    assert!(keys.iter().all(|key| *key == id.to_string()), "{keys:?}");
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_told_no_more() {
    let receiver = Receiver::answering(StatusCode::GONE).await;
    let rig = rig_with(quick()).await;
    let metrics = telemetry::Metrics::new();
    rig.sms.measure(&metrics);
    let (task, _) = rig.task("t").await;
    let id = rig.telling(task, &receiver.url()).await;
    rig.cancel(id).await;
    let callback = rig.callback(id, "failed").await;
    assert_eq!((&callback["tries"], &callback["next_try_ms"]), (&json!(1), &Value::Null));
    assert!(callback["last_error"].as_str().unwrap().contains("410 Gone"), "{callback}");
    let text = metrics.expose(telemetry::Format::OpenMetrics).unwrap().body;
    for line in [
        "spear_callbacks_total{outcome=\"failed\"} 1",
        "spear_callbacks_total{outcome=\"delivered\"} 0",
        "spear_callbacks_pending 0",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn who_never_takes_it_is_given_up_after_so_many_tries() {
    let receiver = Receiver::answering(StatusCode::SERVICE_UNAVAILABLE).await;
    let rig = rig_with(Config { callback_tries: 3, ..quick() }).await;
    let (task, _) = rig.task("t").await;
    let id = rig.telling(task, &receiver.url()).await;
    rig.cancel(id).await;
    let callback = rig.callback(id, "failed").await;
    assert_eq!((receiver.count(), &callback["tries"]), (3, &json!(3)));
    assert!(callback["last_error"].as_str().unwrap().contains("503 Service Unavailable"), "{callback}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However long tries take and whatever the limits: it ends, pauses stay within their bounds, and the time spent
    /// passes the limit by no more than the last try.
    #[test]
    fn telling_ends_within_its_limits(
        (first, most, whole, tries) in (1u64..5_000, 1u64..400_000, 1u64..4_000_000, 1u32..400),
        took in 0u64..10_000,
    ) {
        let config = Config {
            callback_retry_first: Duration::from_millis(first),
            callback_retry_most: Duration::from_millis(most),
            callback_give_up_after: Duration::from_millis(whole),
            callback_tries: tries,
            ..Config::default()
        };
        let mut callback = Callback::new(ExecutionId::new(), "http://x".into(), 1);
        let mut now = 0;
        while callback.status == CallbackStatus::Pending {
            prop_assert!(callback.tries < tries && callback.spent_ms <= whole);
            now += i64::try_from(took).unwrap();
            judge(&mut callback, &Outcome::Later("no".repeat(1000)), (Duration::from_millis(took), Timestamp(now)), &config);
            prop_assert!(callback.last_error.as_ref().unwrap().len() <= 500);
            prop_assert_eq!(callback.next_try_at.is_some(), callback.status == CallbackStatus::Pending);
            if let Some(next) = callback.next_try_at {
                let pause = u64::try_from(next.millis() - now).unwrap();
                prop_assert!(pause <= most);
                now = next.millis();
            }
        }
        prop_assert_eq!(callback.status, CallbackStatus::Failed);
        prop_assert!(callback.tries == tries || callback.spent_ms >= whole);
        prop_assert!(callback.spent_ms <= whole + took);
    }
}

#[tokio::test]
async fn a_host_that_is_not_listed_is_refused_when_it_is_asked_for() {
    let rig = rig_with(Config { callback_hosts: vec!["hooks.example.com".into()], ..Config::default() }).await;
    let (task, _) = rig.task("t").await;
    let path = format!("/api/v1/tasks/{task}/executions");
    for (url, status, code, word) in [
        ("https://other.example.com/x", 422, CALLBACK_REFUSED, "executions.callback_hosts"),
        ("http://127.0.0.1:8080/", 422, CALLBACK_REFUSED, "executions.callback_hosts"),
        ("http://[::1]/", 422, CALLBACK_REFUSED, "executions.callback_hosts"),
        ("http://localhost/", 422, CALLBACK_REFUSED, "executions.callback_hosts"),
        ("ftp://hooks.example.com/", 400, "INVALID_ARGUMENT", "https or http"),
        ("https://user:hunter2@hooks.example.com/", 400, "INVALID_ARGUMENT", "password"),
        ("nonsense", 400, "INVALID_ARGUMENT", "not a URL"),
        ("", 400, "INVALID_ARGUMENT", "not a URL"),
        (&format!("https://hooks.example.com/{}", "x".repeat(3000)), 400, "INVALID_ARGUMENT", "2048"),
    ] {
        let (got, problem) = rig.call("POST", &path, Some(json!({"callback_url": url}))).await;
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{url}: {problem}");
        let detail = problem["errors"][0]["detail"].as_str().unwrap();
        assert_eq!(problem["errors"][0]["field"], json!("callback_url"));
        assert!(detail.contains(word) && !detail.contains("hunter2"), "{url}: {detail}");
    }
    let sync = json!({"mode": "sync", "callback_url": "https://hooks.example.com/"});
    let (status, problem) = rig.call("POST", &path, Some(sync)).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!("callback_url")));
    let fine = json!({"callback_url": "https://hooks.example.com/"});
    assert_eq!(rig.call("POST", &path, Some(fine)).await.0, 202);
    let none = rig_with(Config::default()).await;
    let (task, _) = none.task("t").await;
    let refused = json!({"callback_url": "https://hooks.example.com/"});
    let (status, problem) = none.call("POST", &format!("/api/v1/tasks/{task}/executions"), Some(refused)).await;
    assert_eq!((status, &problem["code"]), (422, &json!(CALLBACK_REFUSED)), "without a list nobody is called");
}

/// A name server that knows one name.
struct Name(&'static str);

impl Lookup for Name {
    fn lookup(&self, name: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        assert_eq!(name, "hook.test");
        let address = self.0.parse().unwrap();
        Box::pin(async move { Ok(vec![address]) })
    }
}

#[tokio::test]
async fn a_listed_name_that_leads_to_this_machine_is_not_called() {
    let receiver = Receiver::answering(StatusCode::OK).await;
    let url = format!("http://hook.test:{}/hook", receiver.at.port());
    for (hosts, address, called) in [
        (vec!["hook.test"], "127.0.0.1", false),
        (vec!["*.test"], "::ffff:127.0.0.1", false),
        (vec!["hook.test", "10.0.0.0/8", "127.0.0.1:1"], "127.0.0.1", false),
        (vec!["hook.test", "localhost"], "127.0.0.1", false),
        (vec!["hook.test", "127.0.0.0/8"], "127.0.0.1", true),
        (vec!["hook.test", "127.0.0.1"], "127.0.0.1", true),
    ] {
        let callback_hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let rig = rig_with(Config { callback_hosts, callback_tries: 2, ..quick() }).await;
        rig.sms.executions.callbacks.resolve_by(Arc::new(Name(address)));
        let before = receiver.count();
        let (task, _) = rig.task("t").await;
        let id = rig.telling(task, &url).await;
        rig.cancel(id).await;
        let callback = rig.callback(id, if called { "delivered" } else { "failed" }).await;
        assert_eq!(receiver.count() - before, usize::from(called), "{hosts:?}");
        if !called {
            let error = callback["last_error"].as_str().unwrap();
            assert!(error.contains("loopback") && error.contains("executions.callback_hosts"), "{hosts:?}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_holds_up_nobody_else() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let slow = Receiver::with(Arc::new(move |_| {
        let held = held.clone();
        async move {
            drop(held.acquire().await.unwrap());
            StatusCode::OK.into_response()
        }
        .boxed()
    }))
    .await;
    let fine = Receiver::answering(StatusCode::OK).await;
    let rig = rig_with(quick()).await;
    let (task, _) = rig.task("t").await;
    let mut ids = Vec::new();
    for at in 0..60 {
        let receiver = if at % 3 == 2 { &fine } else { &slow };
        ids.push((at % 3 == 2, rig.telling(task, &receiver.url()).await));
    }
    for (_, id) in &ids {
        rig.cancel(*id).await;
    }
    for (_, id) in ids.iter().filter(|(fine, _)| *fine) {
        rig.callback(*id, "delivered").await;
    }
    assert_eq!((fine.count(), slow.count()), (20, 4), "a host has four at a time");
    assert_eq!((slow.open.load(Ordering::SeqCst), rig.sms.executions.callbacks.waiting()), (4, 40));
    gate.add_permits(1);
    for (_, id) in ids {
        rig.callback(id, "delivered").await;
    }
    assert_eq!((slow.count(), slow.most_open.load(Ordering::SeqCst)), (40, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_sixteen_are_told_at_a_time() {
    let gate = Arc::new(Semaphore::new(0));
    let mut receivers = Vec::new();
    for _ in 0..6 {
        let held = gate.clone();
        let answer: Answer = Arc::new(move |_| {
            let held = held.clone();
            async move {
                held.acquire().await.unwrap().forget();
                StatusCode::OK.into_response()
            }
            .boxed()
        });
        receivers.push(Receiver::with(answer).await);
    }
    let rig = rig_with(quick()).await;
    let (task, _) = rig.task("t").await;
    let mut ids = Vec::new();
    for at in 0..36 {
        ids.push(rig.telling(task, &receivers[at % 6].url()).await);
    }
    for id in &ids {
        rig.cancel(*id).await;
    }
    let open = || receivers.iter().map(|receiver| receiver.open.load(Ordering::SeqCst)).sum::<usize>();
    until("sixteen are under way", async || open() == 16).await;
    gate.add_permits(100);
    for id in ids {
        rig.callback(id, "delivered").await;
    }
    let counts: Vec<_> = receivers.iter().map(Receiver::count).collect();
    assert_eq!(counts, [6; 6], "each once");
    assert!(receivers.iter().all(|receiver| receiver.most_open.load(Ordering::SeqCst) <= 4));
}

#[tokio::test]
async fn what_a_receiver_answers_is_read_to_a_limit_and_dropped() {
    let receiver = Receiver::with(Arc::new(|_| {
        async {
            let endless = stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from(vec![b'x'; 8192])));
            Body::from_stream(endless.then(async |chunk| {
                tokio::task::yield_now().await;
                chunk
            }))
            .into_response()
        }
        .boxed()
    }))
    .await;
    let rig = rig_with(quick()).await;
    let (task, _) = rig.task("t").await;
    let id = rig.telling(task, &receiver.url()).await;
    rig.cancel(id).await;
    assert_eq!(rig.callback(id, "delivered").await["tries"], json!(1));
}

#[tokio::test]
async fn retention_and_the_removal_of_the_task_wait_for_the_telling() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let receiver = Receiver::with(Arc::new(move |_| {
        let held = held.clone();
        async move {
            held.acquire().await.unwrap().forget();
            StatusCode::OK.into_response()
        }
        .boxed()
    }))
    .await;
    let rig = rig_with(Config { executions_kept_per_task: 1, ..quick() }).await;
    let (task, first) = rig.task("t").await;
    let id = rig.telling(task, &receiver.url()).await;
    let last = rig.run(task, &NewRun::default()).await.id;
    for id in [first, id, last] {
        rig.cancel(id).await;
    }
    let mut orphans = Orphans::default();
    rig.sms.executions.remove_old(&mut orphans).await.unwrap();
    assert!(rig.sms.executions.get(first).await.is_err(), "it is one of those that are too many");
    assert_eq!(rig.shown(id).await["callback"]["status"], json!("pending"));
    rig.sms.tasks.remove(task, "").await.unwrap();
    rig.sms.executions.remove_old(&mut orphans).await.unwrap();
    rig.clock.advance(Duration::from_secs(3600));
    rig.sms.executions.remove_old(&mut orphans).await.unwrap();
    assert!(rig.sms.executions.get(last).await.is_err());
    until("it is being told", async || receiver.count() == 1).await;
    gate.add_permits(1);
    rig.callback(id, "delivered").await;
    let (_, body) = receiver.told(0);
    assert_eq!((&body["status"], &body["execution_id"]), (&json!("cancelled"), &json!(id.to_string())));
    rig.sms.executions.remove_old(&mut orphans).await.unwrap();
    assert!(rig.sms.executions.get(id).await.is_err());
    let left = rig.sms.bus.store().list(Callback::PREFIX, None, 10).await.unwrap().records;
    assert!(left.is_empty(), "{left:?}");
    until("the agenda has heard of it", async || rig.sms.executions.callbacks.waiting() == 0).await;
}

#[tokio::test]
async fn a_task_that_is_removed_tells_that_its_executions_were_cancelled() {
    let receiver = Receiver::answering(StatusCode::OK).await;
    let rig = rig_with(quick()).await;
    let (task, _) = rig.task("t").await;
    let id = rig.telling(task, &receiver.url()).await;
    rig.sms.tasks.remove(task, "no longer needed").await.unwrap();
    rig.callback(id, "delivered").await;
    let (_, body) = receiver.told(0);
    assert_eq!((&body["status"], &body["reason"]), (&json!("cancelled"), &json!("cancelled")));
    assert!(body["message"].as_str().unwrap().contains("no longer needed"), "{body}");
}

#[tokio::test]
async fn a_lost_execution_that_was_not_lost_is_told_again_as_another_event() {
    let receiver = Receiver::answering(StatusCode::OK).await;
    let rig = rig_with(quick()).await;
    let node = rig.node("wasm").await;
    let (task, _) = rig.task("t").await;
    let id = rig.telling(task, &receiver.url()).await;
    rig.tell(id, S::Running).await;
    rig.sms.nodes.delete(node).await.unwrap();
    until("it is lost", async || rig.execution(id).await.status == S::Lost).await;
    rig.callback(id, "delivered").await;
    rig.control.report_execution(report(id, node, 1, S::Completed)).await.unwrap();
    until("the truth is told", async || receiver.count() == 2).await;
    rig.callback(id, "delivered").await;
    let told = |at: usize| {
        let (headers, body) = receiver.told(at);
        (headers["idempotency-key"].to_str().unwrap().to_owned(), body["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(told(0), (id.to_string(), "lost".to_owned()));
    assert_eq!(told(1), (format!("{id}-2"), "completed".to_owned()));
}

#[tokio::test]
async fn a_try_under_way_says_nothing_of_what_came_after_it_began() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let receiver = Receiver::with(Arc::new(move |_| {
        let held = held.clone();
        async move {
            held.acquire().await.unwrap().forget();
            StatusCode::OK.into_response()
        }
        .boxed()
    }))
    .await;
    let rig = rig_with(quick()).await;
    let node = rig.node("wasm").await;
    let (task, _) = rig.task("t").await;
    let id = rig.telling(task, &receiver.url()).await;
    rig.tell(id, S::Running).await;
    rig.sms.nodes.delete(node).await.unwrap();
    until("that it is lost is being told", async || receiver.count() == 1).await;
    rig.control.report_execution(report(id, node, 1, S::Completed)).await.unwrap();
    gate.add_permits(1);
    until("the truth is being told", async || receiver.count() == 2).await;
    assert_eq!(rig.shown(id).await["callback"]["status"], json!("pending"));
    assert_eq!((&receiver.told(0).1["status"], &receiver.told(1).1["status"]), (&json!("lost"), &json!("completed")));
    gate.add_permits(1);
    assert_eq!(rig.callback(id, "delivered").await["tries"], json!(1));
}

#[tokio::test]
async fn a_record_without_its_execution_is_given_up_at_once() {
    let receiver = Receiver::answering(StatusCode::OK).await;
    let rig = rig_with(quick()).await;
    let stray = Callback::new(ExecutionId::new(), receiver.url(), 1);
    let store = rig.sms.bus.store();
    store.commit(Batch::new().put(stray.key(), encode(&stray).unwrap())).await.unwrap();
    until("it is gone", async || store.get(&stray.key()).await.unwrap().is_none()).await;
    until("it is forgotten", async || rig.sms.executions.callbacks.waiting() == 0).await;
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn too_many_pending_ones_refuse_more() {
    let rig = rig_with(quick()).await;
    let agenda = &rig.sms.executions.callbacks.agenda;
    let far = Instant::now() + Duration::from_secs(3600);
    for _ in 0..MOST_PENDING {
        agenda.set(ExecutionId::new(), Some(("http://127.0.0.1:9/", far)));
    }
    let (task, _) = rig.task("t").await;
    let path = format!("/api/v1/tasks/{task}/executions");
    let (status, problem) = rig.call("POST", &path, Some(json!({"callback_url": "http://127.0.0.1:9/"}))).await;
    assert_eq!((status, &problem["code"]), (429, &json!("TOO_MANY_CALLBACKS")));
    assert_eq!(rig.call("POST", &path, Some(json!({}))).await.0, 202);
}

#[test]
fn a_clock_that_jumps_delays_nothing_beyond_the_longest_pause() {
    let (now, most) = (Timestamp(1_000_000), Duration::from_secs(300));
    let begin = Instant::now();
    for (at, least, longest) in [
        (None, 0, 0),
        (Some(Timestamp(0)), 0, 0),
        (Some(Timestamp(1_005_000)), 5, 5),
        (Some(Timestamp(i64::MAX)), 300, 300),
    ] {
        let due = due(at, now, most);
        assert!(due >= begin + Duration::from_secs(least) && due <= Instant::now() + Duration::from_secs(longest));
    }
}
