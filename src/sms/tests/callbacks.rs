//! Callbacks and idempotency keys as a stranger sees them: REST and gRPC over sockets, a store on disk, restarts.

use api::proto::{
    sms::{RegisterTaskRequest, TaskExecutable, task_service_client::TaskServiceClient},
    v1::{
        CancelExecutionRequest, GetExecutionRequest, ListExecutionsRequest, RunTaskRequest,
        execution_service_client::ExecutionServiceClient,
    },
};
use axum::{Router, http::StatusCode, routing::post};
use net::channel::{ConnectOptions, connect};
use serde_json::{Value, json as object};
use sms::Config;
use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::tempdir;
use tokio::net::TcpListener;
use tonic::{Code, Request, Response};

use crate::harness::{Registry, json, problem};

/// A receiver that knows what it is told.
struct Receiver {
    at: SocketAddr,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let (at, told) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let kept = told.clone();
        let hook = async move |axum::Json(body): axum::Json<Value>| {
            kept.lock().unwrap().push(body);
            StatusCode::NO_CONTENT
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(hook))).await.unwrap() });
        Self { at, told }
    }

    fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap().clone()
    }
}

fn config(hosts: &[&str]) -> Config {
    Config {
        callback_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        callback_retry_first: Duration::from_millis(20),
        callback_retry_most: Duration::from_millis(100),
        ..Config::default()
    }
}

async fn start(home: &Path, hosts: &[&str]) -> Registry {
    Registry::with(home, config(hosts)).await
}

async fn task(registry: &Registry) -> String {
    let executable = object!({"type": "wasm", "uri": "https://example.org/x.wasm"});
    let body = object!({"name": "t", "endpoint": "", "version": "", "executable": executable});
    json(registry.post("/api/v1/tasks").json(&body), 200).await["task_id"].as_str().unwrap().to_owned()
}

async fn run(registry: &Registry, task: &str, body: Value) -> String {
    let run = registry.post(&format!("/api/v1/tasks/{task}/executions")).json(&body);
    json(run, 202).await["execution_id"].as_str().unwrap().to_owned()
}

/// Nobody has taken it, so that it ends at once.
async fn end(registry: &Registry, execution: &str) {
    let ended = json(registry.post(&format!("/api/v1/executions/{execution}/cancel")), 200).await;
    assert_eq!(ended["status"], "cancelled");
}

async fn callback(registry: &Registry, execution: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let give_up = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let shown = json(registry.get(&format!("/api/v1/executions/{execution}")), 200).await["callback"].clone();
        if wanted(&shown) {
            return shown;
        }
        assert!(tokio::time::Instant::now() < give_up, "it stayed {shown}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is(status: &'static str) -> impl Fn(&Value) -> bool {
    move |callback| callback["status"] == status
}

#[tokio::test]
async fn what_is_pending_is_on_disk_and_told_after_a_restart() {
    let home = tempdir().unwrap();
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = place.local_addr().unwrap();
    drop(place);
    let (url, listed) = (format!("http://{at}/"), at.to_string());
    let registry = start(home.path(), &[&listed]).await;
    let task = task(&registry).await;
    let ended = run(&registry, &task, object!({"callback_url": url})).await;
    let open = run(&registry, &task, object!({"callback_url": url})).await;
    end(&registry, &ended).await;
    callback(&registry, &ended, |callback| callback["tries"] != 0).await;
    registry.stop().await;

    // The host has left the list: nobody is called, and nothing is lost.
    let registry = start(home.path(), &["127.0.0.1:1"]).await;
    let receiver = Receiver::on(TcpListener::bind(at).await.unwrap());
    let refused = |callback: &Value| {
        callback["last_error"].as_str().is_some_and(|error| error.contains("executions.callback_hosts"))
    };
    assert!(is("pending")(&callback(&registry, &ended, refused).await));
    assert_eq!(receiver.told(), Vec::<Value>::new());
    registry.stop().await;

    let registry = start(home.path(), &[&listed]).await;
    callback(&registry, &ended, is("delivered")).await;
    end(&registry, &open).await;
    callback(&registry, &open, is("delivered")).await;
    registry.stop().await;

    let registry = start(home.path(), &[&listed]).await;
    assert_eq!(callback(&registry, &ended, is("delivered")).await["last_error"], Value::Null);
    let told: Vec<_> = receiver.told().iter().map(|body| body["execution_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, [ended, open], "each once");
    registry.stop().await;
}

#[tokio::test]
async fn a_key_outlives_a_restart() {
    let home = tempdir().unwrap();
    let registry = start(home.path(), &[]).await;
    let task = task(&registry).await;
    let path = format!("/api/v1/tasks/{task}/executions");
    let send = |registry: &Registry, input: &str| {
        registry.post(&path).header("Idempotency-Key", "\"order-17\"").json(&object!({"input": input}))
    };
    let first = send(&registry, "a").send().await.unwrap();
    assert_eq!((first.status().as_u16(), first.headers().get("idempotent-replayed")), (202, None));
    let (place, first) = (first.headers()["location"].clone(), first.json::<Value>().await.unwrap());
    registry.stop().await;

    let registry = start(home.path(), &[]).await;
    let again = send(&registry, "a").send().await.unwrap();
    assert_eq!(again.status(), 202);
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(again.headers()["location"], place);
    assert_eq!(again.json::<Value>().await.unwrap(), first);
    let refused = problem(send(&registry, "b"), 422, "IDEMPOTENCY_KEY_REUSED").await;
    assert!(refused["detail"].as_str().unwrap().contains(first["execution_id"].as_str().unwrap()), "{refused}");
    let all = json(registry.get(&path), 200).await;
    assert_eq!(all["executions"].as_array().unwrap().len(), 2, "the first of the task, and this one");
    registry.stop().await;
}

fn keyed<T>(message: T, key: &'static str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

fn replayed<T>(answer: &Response<T>) -> bool {
    answer.metadata().get("idempotent-replayed").is_some_and(|value| value == "true")
}

#[tokio::test]
async fn grpc_takes_keys_and_callbacks_too() {
    let home = tempdir().unwrap();
    let receiver = Receiver::start().await;
    let registry = start(home.path(), &["127.0.0.1"]).await;
    let channel = connect(&registry.grpc.to_string(), None, ConnectOptions::default()).unwrap();
    let (mut tasks, mut executions) = (TaskServiceClient::new(channel.clone()), ExecutionServiceClient::new(channel));
    let executable = TaskExecutable { r#type: 4, uri: "https://example.org/x.wasm".into(), ..Default::default() };
    let new = RegisterTaskRequest { name: "t".into(), executable: Some(executable), ..Default::default() };
    let made = tasks.register_task(keyed(new.clone(), "k")).await.unwrap();
    let again = tasks.register_task(keyed(new.clone(), "k")).await.unwrap();
    assert_eq!((replayed(&made), replayed(&again)), (false, true));
    let task = made.into_inner();
    assert_eq!(again.into_inner(), task);
    let refused = tasks.register_task(keyed(RegisterTaskRequest { name: "u".into(), ..new }, "k")).await.unwrap_err();
    assert_eq!(
        (refused.code(), net::grpc::fault(refused).code),
        (Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED".into())
    );

    let url = format!("http://{}/", receiver.at);
    let run = RunTaskRequest { task_id: task.task_id.clone(), callback_url: url.clone(), ..Default::default() };
    let first = executions.run_task(keyed(run.clone(), "\"r\"")).await.unwrap().into_inner();
    assert_eq!(first.callback.as_ref().map(|callback| (&*callback.url, &*callback.status)), Some((&*url, "pending")));
    let again = executions.run_task(keyed(run.clone(), "r")).await.unwrap();
    assert!(replayed(&again));
    assert_eq!(again.into_inner().execution_id, first.execution_id);
    let rest = registry.post(&format!("/api/v1/tasks/{}/executions", task.task_id)).header("idempotency-key", "r");
    let rest = json(rest.json(&object!({"callback_url": url})), 202).await;
    assert_eq!(rest["execution_id"], *first.execution_id, "a key is one key, whichever way it comes");
    let other = RunTaskRequest { input: "x".into(), ..run.clone() };
    assert_eq!(executions.run_task(keyed(other, "r")).await.unwrap_err().code(), Code::InvalidArgument);
    let malformed = executions.run_task(keyed(run.clone(), "a b")).await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);
    let sync = RunTaskRequest { wait: true, ..run.clone() };
    let refused = net::grpc::fault(executions.run_task(sync).await.unwrap_err());
    assert_eq!(refused.errors[0].field, "callback_url");
    let elsewhere = RunTaskRequest { callback_url: "https://elsewhere.example/".into(), ..run };
    let refused = executions.run_task(elsewhere).await.unwrap_err();
    assert_eq!((refused.code(), net::grpc::fault(refused).code), (Code::PermissionDenied, "CALLBACK_REFUSED".into()));

    let execution_id = first.execution_id;
    executions
        .cancel_execution(CancelExecutionRequest { execution_id: execution_id.clone(), ..Default::default() })
        .await
        .unwrap();
    callback(&registry, &execution_id, is("delivered")).await;
    let shown = executions.get_execution(GetExecutionRequest { execution_id }).await.unwrap().into_inner();
    let callback = shown.callback.unwrap();
    assert_eq!((&*callback.status, callback.tries, callback.next_try_ms), ("delivered", 1, 0));
    let asked = ListExecutionsRequest { task_id: task.task_id, ..Default::default() };
    let list = executions.list_executions(asked).await.unwrap().into_inner().executions;
    assert_eq!(list.iter().filter(|one| one.callback.is_some()).count(), 1);
    assert_eq!(receiver.told().len(), 1);
    registry.stop().await;
}

#[tokio::test]
async fn the_document_of_the_interface_names_both() {
    let home = tempdir().unwrap();
    let registry = start(home.path(), &[]).await;
    let document = json(registry.get("/api/openapi.json"), 200).await;
    for path in ["/api/v1/tasks", "/api/v1/tasks/{task_id}/executions"] {
        let operation = &document["paths"][path]["post"];
        let parameters = operation["parameters"].as_array().unwrap();
        let key = parameters.iter().find(|one| one["name"] == "Idempotency-Key").unwrap();
        assert_eq!((&key["in"], &key["required"]), (&object!("header"), &object!(false)), "{path}");
        let answers = operation["responses"].as_object().unwrap();
        let marked = answers.values().filter(|answer| !answer["headers"]["Idempotent-Replayed"].is_null()).count();
        assert!(marked > 0 && answers.contains_key("422"), "{path}");
    }
    let schemas = &document["components"]["schemas"];
    for schema in ["RunTaskRequest", "RegisterTaskRequest"] {
        assert!(schemas[schema]["properties"]["callback_url"].is_object(), "{schema}");
    }
    assert!(schemas["Execution"]["properties"]["callback"].is_object() && schemas["Callback"].is_object());
    registry.stop().await;
}
