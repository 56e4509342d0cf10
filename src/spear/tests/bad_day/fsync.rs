//! The disk fails a write that was promised: the process ends with 74 and the reason, whoever was not answered
//! before gets an error, and what was acknowledged is there after a new start.

use serde_json::{Value, json};
use std::{path::Path, process::Command};

use super::seen::show;
use crate::support::{Client, Daemon, serve, spear};

/// A daemon whose every thread's `k`-th fsync fails, as if a wire of the disk were loose.
fn failing(dir: &Path, role: &str, k: usize) -> Command {
    let there = Command::new("strace").arg("--version").output();
    assert!(there.is_ok(), "this test lets system calls fail: install strace (apt-get install strace)");
    let inner = spear(dir);
    let mut command = Command::new("strace");
    command.current_dir(dir).env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // The tracer is a grandchild, so that this process is the daemon itself.
    command.args(["-D", "-f", "-qq", "-o", "strace.log", "-e", "trace=fsync,fdatasync", "-e", "signal=none", "-e"]);
    command.arg(format!("inject=fsync,fdatasync:error=EIO:when={k}"));
    command.arg(inner.get_program()).args(serve(role));
    command
}

/// What the registry has acknowledged, in order.
#[derive(Default)]
struct Acknowledged {
    tasks: Vec<String>,
    files: Vec<String>,
    /// The first answer that was none.
    failure: Option<Value>,
}

/// Writes until something fails.
async fn write(client: &Client, most: usize) -> Acknowledged {
    let mut known = Acknowledged::default();
    for round in 0..most {
        let task = json!({"name": format!("task {round}"), "endpoint": "e", "version": "1"});
        let request = client.http.post(format!("{}/api/v1/tasks", client.base)).json(&task);
        match answered(request).await {
            Ok(answer) => known.tasks.push(answer["task_id"].as_str().unwrap().to_owned()),
            Err(failure) => {
                known.failure = Some(failure);
                break;
            }
        }
        let request = client.http.post(format!("{}/api/v1/files", client.base)).body(contents(round));
        match answered(request).await {
            Ok(answer) => known.files.push(answer["id"].as_str().unwrap().to_owned()),
            Err(failure) => {
                known.failure = Some(failure);
                break;
            }
        }
    }
    known
}

fn contents(round: usize) -> Vec<u8> {
    format!("file {round} ").repeat(1000).into_bytes()
}

/// The answer of a call that was done, or what came instead: a problem, or nothing when the process was gone.
async fn answered(request: reqwest::RequestBuilder) -> Result<Value, Value> {
    let Ok(response) = request.send().await else { return Err(Value::Null) };
    let done = response.status().is_success();
    let answer: Value = response.json().await.map_err(|_| Value::Null)?;
    if done { Ok(answer) } else { Err(answer) }
}

/// Starts and stops once, so that there is a store.
fn prepare(dir: &Path, role: &str) {
    let daemon = Daemon::start(dir, role);
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().0.success());
}

#[tokio::test]
async fn a_failed_fsync_ends_the_registry_with_74_and_the_reason_and_loses_nothing() {
    let mut refused = 0;
    // While the store is made; while it is opened; while it is written to.
    for (k, empty) in [(1, true), (3, true), (7, true)].into_iter().chain((1..=10).map(|k| (k, false))) {
        let dir = tempfile::tempdir().unwrap();
        if !empty {
            prepare(dir.path(), "sms");
        }
        let known = match Daemon::try_launch(failing(dir.path(), "sms", k)) {
            Ok(daemon) => {
                let client = Client::new(&daemon.sms());
                let known = write(&client, 40).await;
                let failure = known.failure.as_ref().unwrap_or_else(|| panic!("k = {k}: nothing failed"));
                if !failure.is_null() {
                    refused += 1;
                    let what = (&failure["status"], &failure["code"]);
                    assert_eq!(what, (&json!(503), &json!("STORAGE_FAILED")), "{failure}");
                }
                let (status, log) = daemon.wait();
                reason(k, status, &log);
                known
            }
            Err((status, log)) => {
                reason(k, status, &log);
                Acknowledged::default()
            }
        };
        compare(dir.path(), k, &known).await;
    }
    assert!(refused > 0, "at least one caller was told before the end");
}

async fn compare(dir: &Path, k: usize, known: &Acknowledged) {
    let daemon = Daemon::start(dir, "sms");
    let client = Client::new(&daemon.sms());
    for (round, task) in known.tasks.iter().enumerate() {
        let (status, answer) = client.get(&format!("/api/v1/tasks/{task}")).await;
        assert_eq!((status, &answer["name"]), (200, &json!(format!("task {round}"))), "k = {k}: {answer}");
    }
    for (round, file) in known.files.iter().enumerate() {
        let answer = client.http.get(format!("{}/api/v1/files/{file}", client.base)).send().await.unwrap();
        assert_eq!(answer.bytes().await.unwrap(), contents(round), "k = {k}");
    }
    let (status, answer) = client.post("/api/v1/tasks", json!({"name": "x", "endpoint": "e", "version": "1"})).await;
    assert_eq!(status, 200, "{answer}");
    // What a failed upload left behind is gone; one whose record may have been written is allowed.
    let listed = client.get("/api/v1/files").await.1["files"].as_array().unwrap().len();
    let names = std::fs::read_dir(dir.join("data/sms/files")).unwrap().flatten().map(|entry| entry.file_name());
    let left = names.filter(|name| uuid_like(&name.to_string_lossy())).count();
    assert_eq!(left, listed, "k = {k}: bytes without a record");
}

fn uuid_like(name: &str) -> bool {
    name.len() >= 36 && name.as_bytes()[8] == b'-'
}

/// The end says which file and which system call.
fn reason(k: usize, status: std::process::ExitStatus, log: &str) {
    let last = log.lines().rev().find(|line| line.starts_with("spear: ")).unwrap_or_else(|| panic!("no word: {log}"));
    show(&format!("the end after fsync {k}"), format!("{last}\n({status})"));
    assert_eq!(status.code(), Some(74), "k = {k}:\n{log}");
    assert!(last.contains("./data") && last.contains("sync") && last.contains("Input/output error"), "{last}");
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_failed_fsync_ends_an_agent_with_74_and_keeps_what_it_acknowledged() {
    for k in [1, 3, 5, 7, 9, 11] {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), "spearlet");
        let mut known = Vec::new();
        let ended = match Daemon::try_launch(failing(dir.path(), "spearlet", k)) {
            Ok(daemon) => {
                let client = Client::new(&format!("http://{}", daemon.address("spearlet/http")));
                for round in 0..40 {
                    let url = format!("{}/objects/key-{round}", client.base);
                    match answered(client.http.put(url).json(&json!({"value": "aGk="}))).await {
                        Ok(_) => known.push(format!("/objects/key-{round}")),
                        Err(_) => break,
                    }
                }
                daemon.wait()
            }
            Err(ended) => ended,
        };
        let last = ended.1.lines().rev().find(|line| line.starts_with("spear: ")).unwrap_or_default();
        show(&format!("the agent's end after fsync {k}"), format!("{last}\n({})", ended.0));
        assert_eq!(ended.0.code(), Some(74), "k = {k}:\n{}", ended.1);
        assert!(last.contains("data/spearlet") && last.contains("Input/output error"), "{last}");
        let daemon = Daemon::start(dir.path(), "spearlet");
        let client = Client::new(&format!("http://{}", daemon.address("spearlet/http")));
        for path in known {
            assert_eq!(client.get(&path).await.1["value"], json!("aGk="), "k = {k}: {path}");
        }
    }
}
