//! The composition itself, called as a function: sockets, signal and program are arguments.

use serde_json::json;
use spear::{
    compose,
    config::{self, Given, Inputs, Roles},
    instruments::Instruments,
    reload::Reloads,
};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

use crate::support::{Client, sample};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_runs_a_task_on_port_0_and_returns_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let flags = [
        ("grpc-addr", "127.0.0.1:0".to_owned()),
        ("http-addr", "127.0.0.1:0".to_owned()),
        ("spearlet-grpc-addr", "127.0.0.1:0".to_owned()),
        ("spearlet-http-addr", "127.0.0.1:0".to_owned()),
        ("db-path", path("sms")),
        ("storage-path", path("spearlet")),
    ];
    let flags = flags.into_iter().map(|(name, value)| Given { name, value }).collect();
    let environment = BTreeMap::from([("HOME".to_owned(), dir.path().as_os_str().to_owned())]);
    let settings = config::load(&Inputs { roles: Roles::ALL, environment, file: None, flags }).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, running) = oneshot::channel();
    let served = tokio::spawn(async move {
        let signal = async { drop(stopped.await) };
        let ready = |now: &compose::Running| drop(ready.send(now.clone()));
        let start = compose::Start {
            instruments: Instruments::new(&settings)?,
            settings,
            reloads: Reloads::never(),
            program: env!("CARGO_BIN_EXE_spear").into(),
        };
        Box::pin(compose::serve(start, signal, ready)).await
    });
    let running = running.await.expect("it becomes ready");
    let client = Client::new(&format!("http://{}", running.address("sms/http").unwrap()));
    let uri = client.upload("echo.wasm", sample("echo")).await;
    let (task, first) = client.task("echo", &uri, json!({})).await;
    client.ended(&first).await;
    let run = format!("/api/v1/tasks/{task}/executions");
    let (_, answer) = client.post(&run, json!({"mode": "sync", "input": "in process"})).await;
    assert_eq!(answer["result"]["text"], json!("in process"), "{answer}");
    client.until("/readyz", |answer| answer == &json!("ok\n")).await;
    stop.send(()).unwrap();
    served.await.unwrap().unwrap();
    assert!(client.http.get(format!("{}/livez", client.base)).send().await.is_err(), "nobody listens any more");
}
