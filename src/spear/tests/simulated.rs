//! Two hundred agents that only pretend, with the real protocol: all of them are registered, alive and given work,
//! and gone when they fall silent. What ten thousand cost is measured by `bench/registry`.

use rustix::process::Signal;
use serde_json::{Value, json};
use std::process::Stdio;

use crate::support::{Client, Daemon, sample, serve, spear};

const NODES: usize = 200;
const RUNS: usize = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_simulated_agents_live_work_and_are_missed_when_they_fall_silent() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = serve("sms");
    args.extend(["--heartbeat-timeout", "5s", "--cleanup-interval", "1s"].map(str::to_owned));
    let daemon = Daemon::start_with(dir.path(), args);
    let client = Client::new(&daemon.sms());
    let mut simulator = spear(dir.path());
    simulator.args(["simulate", "--nodes", &NODES.to_string(), "--connections", "20", "--interval", "1s"]);
    // Long enough that all of the work is under way at one time, and so on many nodes.
    simulator.args(["--run-time", "3s", "--output", "json"]);
    simulator.args(["--sms-grpc-addr", &daemon.address("sms/grpc").to_string()]);
    let simulator = simulator.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

    let online = |count: u64| move |answer: &Value| answer["stats"]["active_nodes"] == json!(count);
    client.until("/api/v1/cluster/stats", online(NODES as u64)).await;
    let uri = client.upload("hello.wasm", sample("hello")).await;
    let (task, first) = client.task("hello", &uri, json!({})).await;
    client.ended(&first).await;
    let path = format!("/api/v1/tasks/{task}/executions");
    let asked = (1..RUNS).map(|_| client.post(&path, json!({"mode": "async"})));
    for (status, answer) in futures_util::future::join_all(asked).await {
        assert_eq!(status, 202, "{answer}");
    }
    let completed = format!("/api/v1/executions?task_id={task}&status=completed&limit=1000");
    let answer =
        client.until(&completed, |answer| answer["executions"].as_array().is_some_and(|all| all.len() == RUNS)).await;
    let ran = answer["executions"].as_array().unwrap();
    let nodes: std::collections::BTreeSet<_> = ran.iter().map(|run| run["node_uuid"].as_str().unwrap()).collect();
    assert!(nodes.len() > NODES / 2, "the work is spread: {} nodes", nodes.len());

    rustix::process::kill_process(rustix::process::Pid::from_child(&simulator), Signal::TERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || simulator.wait_with_output().unwrap()).await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let summary: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((&summary["registrations"]["done"], &summary["online"]), (&json!(NODES), &json!(NODES)), "{summary}");
    assert_eq!((&summary["heartbeats_failed"], &summary["faults"]), (&json!(0), &json!(0)), "{summary}");
    assert_eq!((&summary["executions"], &summary["executions_failed"]), (&json!(RUNS), &json!(0)), "{summary}");
    assert!(summary["heartbeats"]["done"].as_u64().unwrap() >= NODES as u64, "{summary}");
    client.until("/api/v1/cluster/stats", online(0)).await;
}
