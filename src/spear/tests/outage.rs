//! The registry goes away and comes back, with and without its disk.

use serde_json::json;

use crate::{
    remote::agent,
    support::{Client, Daemon, guest, serve},
};

/// The same listeners again, so that the agent finds the registry where it was.
pub fn same_place(sms: &Daemon) -> Vec<String> {
    let mut args = serve("sms");
    for (flag, listener) in [("--grpc-addr", "sms/grpc"), ("--http-addr", "sms/http")] {
        let place = args.iter().position(|arg| arg == flag).unwrap();
        args[place + 1] = sms.address(listener).to_string();
    }
    args
}

/// Prints, sleeps two seconds, prints.
pub fn slow() -> Vec<u8> {
    guest(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "\10\00\00\00\07\00\00\00")
          (data (i32.const 16) "before\n")
          (data (i32.const 80) "\01\00\00\00\00\00\00\00\00\94\35\77\00\00\00\00")
          (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 160)))
            (i64.store (i32.const 16) (i64.const 0x0a7265746661))
            (i32.store (i32.const 4) (i32.const 6))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#,
    )
}

#[tokio::test]
async fn result_and_log_of_a_run_survive_an_outage_of_the_registry() {
    let (sms_dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sms = Daemon::start(sms_dir.path(), "sms");
    let _agent = Daemon::start_with(agent_dir.path(), agent(&sms));
    let client = Client::new(&sms.sms());
    let uri = client.upload("slow.wasm", slow()).await;
    let (_, execution) = client.task("slow", &uri, json!({})).await;
    let path = format!("/api/v1/executions/{execution}");
    client.until(&path, |now| now["status"] == json!("running") && now["progress"]["phase"] == json!("run")).await;
    let args = same_place(&sms);
    sms.kill();
    // The guest ends while nobody is there to be told.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let sms = Daemon::start_with(sms_dir.path(), args);
    let client = Client::new(&sms.sms());
    let ended = client.ended(&execution).await;
    assert_eq!(
        (&ended["status"], &ended["result"]["text"]),
        (&json!("completed"), &json!("before\nafter\n")),
        "{ended}"
    );
    let log = client.until(&format!("{path}/logs"), |log| log["completed"] == json!(true)).await;
    let stdout: Vec<_> = log["lines"].as_array().unwrap().iter().filter(|line| line["stream"] == "stdout").collect();
    assert_eq!((&stdout[0]["message"], &stdout[1]["message"], stdout.len()), (&json!("before"), &json!("after"), 2));
}

#[tokio::test]
async fn a_registry_that_comes_back_with_an_empty_disk_gets_its_nodes_back() {
    let (sms_dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sms = Daemon::start(sms_dir.path(), "sms");
    let _agent = Daemon::start_with(agent_dir.path(), agent(&sms));
    let client = Client::new(&sms.sms());
    let there = |nodes: &serde_json::Value| nodes["nodes"].as_array().is_some_and(|all| all.len() == 1);
    let before = client.until("/api/v1/nodes", there).await;
    let args = same_place(&sms);
    sms.kill();
    std::fs::remove_dir_all(sms_dir.path().join("data")).unwrap();
    let sms = Daemon::start_with(sms_dir.path(), args);
    let client = Client::new(&sms.sms());
    let after = client.until("/api/v1/nodes", there).await;
    assert_eq!(before["nodes"][0]["uuid"], after["nodes"][0]["uuid"]);
    let uri = client.upload("hello.wasm", crate::support::sample("hello")).await;
    let (_, execution) = client.task("hello", &uri, json!({})).await;
    assert_eq!(client.ended(&execution).await["status"], json!("completed"));
}

#[tokio::test]
async fn an_agent_killed_while_a_guest_runs_reports_the_loss_when_it_is_back() {
    let (sms_dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sms = Daemon::start(sms_dir.path(), "sms");
    let first = Daemon::start_with(agent_dir.path(), agent(&sms));
    let client = Client::new(&sms.sms());
    let uri = client.upload("slow.wasm", slow()).await;
    let (_, execution) = client.task("slow", &uri, json!({})).await;
    let path = format!("/api/v1/executions/{execution}");
    client.until(&path, |now| now["status"] == json!("running") && now["progress"]["phase"] == json!("run")).await;
    first.kill();
    let _second = Daemon::start_with(agent_dir.path(), agent(&sms));
    let ended = client.ended(&execution).await;
    assert_eq!((&ended["status"], &ended["reason"]), (&json!("failed"), &json!("node_lost")), "{ended}");
}
