//! Requests that are sent again and ends that are told, by the real program, which is killed in between.

use axum::{Router, http::StatusCode, routing::post};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    process::Output,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::support::{Client, Daemon, PATIENCE, serve, spear};

/// An address that nothing can be fetched from, and no node that would try.
const NOWHERE: &str = "https://example.org/none.wasm";

/// What a request with a key was answered; none when the registry died before.
async fn send(client: &Client, task: &str, key: &str) -> Option<(u16, String)> {
    let url = format!("{}/api/v1/tasks/{task}/executions", client.base);
    let answer = client.http.post(url).header("idempotency-key", key).json(&json!({"input": key})).send().await.ok()?;
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.ok()?;
    Some((status, body["execution_id"].as_str()?.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_callers_with_one_key_across_a_kill_exactly_one_execution_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path(), "sms");
    let (task, _) = Client::new(&daemon.sms()).task("t", NOWHERE, json!({})).await;
    let mut all = BTreeSet::new();
    for round in 0..6u64 {
        let key = format!("key-{round}");
        let client = Client::new(&daemon.sms());
        let callers = (0..64).map(|_| {
            let (client, task, key) = (client.clone(), task.clone(), key.clone());
            tokio::spawn(async move { send(&client, &task, &key).await })
        });
        let callers: Vec<_> = callers.collect();
        // From before the first commit to after most answers.
        tokio::time::sleep(Duration::from_millis(round * 8)).await;
        daemon.kill();
        let mut told = BTreeSet::new();
        for caller in callers {
            told.extend(caller.await.unwrap());
        }
        daemon = Daemon::start(dir.path(), "sms");
        let client = Client::new(&daemon.sms());
        let after: BTreeSet<_> =
            join_all((0..64).map(|_| send(&client, &task, &key))).await.into_iter().map(Option::unwrap).collect();
        assert_eq!(after.len(), 1, "round {round}: {after:?}");
        assert!(told.is_subset(&after), "round {round}: {told:?} was answered before, {after:?} after");
        all.extend(after.into_iter().map(|(_, id)| id));
        let (_, page) = client.get(&format!("/api/v1/tasks/{task}/executions")).await;
        let made = page["executions"].as_array().unwrap().iter().filter(|one| one["first"] == json!(false));
        let made: BTreeSet<_> = made.map(|one| one["execution_id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(made, all, "round {round}");
    }
}

/// What a receiver was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Value>>>);

impl Told {
    async fn receive(self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let hook = async move |axum::Json(body): axum::Json<Value>| {
            self.0.lock().unwrap().push(body);
            StatusCode::OK
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(hook))).await.unwrap() });
        at
    }

    fn ids(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().iter().map(|body| body["execution_id"].as_str().unwrap().to_owned()).collect()
    }
}

fn start(dir: &Path, config: &str) -> Daemon {
    std::fs::write(dir.join("sms.toml"), config).unwrap();
    let mut args = serve("sms");
    args.extend(["--config".to_owned(), dir.join("sms.toml").display().to_string()]);
    Daemon::start_with(dir, args)
}

fn until(what: &str, so: impl Fn() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < give_up, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_before_a_kill_is_told_after_it() {
    let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
    let at = told.clone().receive().await;
    let mut ended = BTreeSet::new();
    for round in 0..4 {
        // First nobody may be called; what ended then is told once somebody may.
        let hosts = if round == 0 { "127.0.0.1:1".to_owned() } else { at.to_string() };
        let config = format!("[executions]\ncallback_hosts = [\"{at}\"]\ncallback_retry_first = 50\n");
        let daemon = start(dir.path(), &config.replace(&at.to_string(), &hosts));
        let client = Client::new(&daemon.sms());
        let url = if round == 0 { "http://127.0.0.1:1/".to_owned() } else { format!("http://{at}/") };
        let (task, _) = client.task("t", NOWHERE, json!({})).await;
        for _ in 0..8 {
            let path = format!("/api/v1/tasks/{task}/executions");
            let (status, made) = client.post(&path, json!({"callback_url": url})).await;
            assert_eq!(status, 202, "{made}");
            let id = made["execution_id"].as_str().unwrap().to_owned();
            assert_eq!(client.post(&format!("/api/v1/executions/{id}/cancel"), json!({})).await.0, 200);
            if round > 0 {
                ended.insert(id);
            }
        }
        daemon.kill();
    }
    let daemon = start(dir.path(), &format!("[executions]\ncallback_hosts = [\"{at}\"]\n"));
    until("all are told", || told.ids() == ended);
    let client = Client::new(&daemon.sms());
    for id in &ended {
        let path = format!("/api/v1/executions/{id}");
        client.until(&path, |shown| shown["callback"]["status"] == json!("delivered")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_takes_a_key_and_an_address_to_tell() {
    let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
    let at = told.clone().receive().await;
    let daemon = start(dir.path(), "[executions]\ncallback_hosts = [\"127.0.0.1\"]\n");
    let (task, _) = Client::new(&daemon.sms()).task("t", NOWHERE, json!({})).await;
    let spear = |args: &[&str]| -> Output {
        let mut command = spear(dir.path());
        command.env("SPEAR_ADDR", daemon.address("sms/http").to_string()).args(args).output().unwrap()
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let url = format!("http://{at}/");
    // A key with a quote and a backslash is a key like any other.
    let run = ["task", "run", &task, "--idempotency-key", "order \\\"17", "--callback", &url, "-q"];
    let refused = spear(&run);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(refused.stderr).contains("visible ASCII"), "a key has no spaces");
    let run = run.map(|word| if word == "order \\\"17" { "order\\\"17" } else { word });
    let (first, second) = (spear(&run), spear(&run));
    assert!(first.status.success() && second.status.success(), "{first:?} {second:?}");
    let id = text(first.stdout).trim().to_owned();
    assert_eq!(id, text(second.stdout).trim());
    let other = spear(&["task", "run", &task, "--idempotency-key", "order\\\"17", "--input", "x"]);
    let said = text(other.stderr);
    assert!(other.status.code() == Some(2) && said.contains(&id) && said.contains("Idempotency-Key"), "{said}");
    let elsewhere = spear(&["task", "run", &task, "--callback", "https://elsewhere.example/"]);
    let said = text(elsewhere.stderr);
    assert!(elsewhere.status.code() == Some(2) && said.contains("executions.callback_hosts"), "{said}");

    assert!(spear(&["execution", "cancel", &id]).status.success());
    until("it is told", || told.ids().contains(&id));
    Client::new(&daemon.sms())
        .until(&format!("/api/v1/executions/{id}"), |shown| shown["callback"]["status"] == json!("delivered"))
        .await;
    let wide = text(spear(&["execution", "ls", "-o", "wide", "--task", &task]).stdout);
    assert!(wide.contains("CALLBACK") && wide.contains("delivered"), "{wide}");
    let shown: Value = serde_json::from_slice(&spear(&["execution", "get", &id, "-o", "json"]).stdout).unwrap();
    assert_eq!((&shown["callback"]["url"], &shown["callback"]["tries"]), (&json!(url), &json!(1)));
    assert_eq!(told.0.lock().unwrap().len(), 1);
}

#[test]
fn a_host_of_the_wrong_form_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sms.toml"), "[executions]\ncallback_hosts = [\"https://hooks.example.com/\"]\n")
        .unwrap();
    let mut args = serve("sms");
    args.extend(["--config".to_owned(), dir.path().join("sms.toml").display().to_string()]);
    let (status, log) = Daemon::try_start(dir.path(), args).err().unwrap();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(
        log.contains("sms.toml") && log.contains("executions.callback_hosts") && log.contains("host:port"),
        "{log}"
    );
}
