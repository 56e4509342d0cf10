//! Starting, stopping, and being refused.

use rustix::process::Signal;
use serde_json::json;
use std::{net::TcpListener, time::Instant};

use crate::support::{Client, Daemon, guest, serve};

#[tokio::test]
async fn a_port_in_use_ends_the_start_with_one_line_naming_port_and_setting() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut args = serve("sms");
    let place = args.iter().position(|arg| arg == "--http-addr").unwrap();
    args[place + 1] = address.clone();
    let (status, log) = Daemon::try_start(dir.path(), args).err().expect("the port is taken");
    assert_eq!(status.code(), Some(75), "{log}");
    let lines: Vec<_> = log.lines().filter(|line| line.contains(&address)).collect();
    assert!(lines.len() == 1 && lines[0].contains("--http-addr"), "{log}");
    assert!(!dir.path().join("data/sms/store.redb").exists(), "sockets come before any work");
}

#[tokio::test]
async fn a_second_process_on_one_data_directory_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = Daemon::start(dir.path(), "sms");
    let (status, log) = Daemon::try_start(dir.path(), serve("sms")).err().expect("the directory is in use");
    assert_eq!(status.code(), Some(75), "{log}");
    assert!(log.contains(&format!("in use by pid {}", first.pid())), "{log}");
    first.kill();
    drop(Daemon::start(dir.path(), "sms"));
}

#[tokio::test]
async fn sigterm_drains_and_exits_0_with_an_endless_guest_and_an_open_stream() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    let endless = guest(r#"(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))"#);
    let uri = client.upload("endless.wasm", endless).await;
    let (_, execution) = client.task("endless", &uri, json!({"config": {"timeout_ms": "600000"}})).await;
    let path = format!("/api/v1/executions/{execution}");
    // What has not come to its guest is taken up again by the next process.
    client.until(&path, |now| now["status"] == json!("running") && now["progress"]["phase"] == json!("run")).await;
    let _stream = client.http.get(format!("{}/api/v1/events", client.base)).send().await.unwrap();
    let begun = Instant::now();
    daemon.signal(Signal::TERM);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(begun.elapsed().as_secs() <= 22, "the bound of a shutdown is part of its contract");
    let again = Daemon::start(dir.path(), "all");
    let ended = Client::new(&again.sms()).ended(&execution).await;
    assert_eq!((&ended["status"], &ended["reason"]), (&json!("failed"), &json!("node_lost")), "{ended}");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    let endless = guest(r#"(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))"#);
    let uri = client.upload("endless.wasm", endless).await;
    let (_, execution) = client.task("endless", &uri, json!({"config": {"timeout_ms": "600000"}})).await;
    let path = format!("/api/v1/executions/{execution}");
    client.until(&path, |now| now["status"] == json!("running") && now["progress"]["phase"] == json!("run")).await;
    daemon.signal(Signal::TERM);
    while !daemon.log().contains("stopping") {
        tokio::task::yield_now().await;
    }
    daemon.signal(Signal::TERM);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(143), "{log}");
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    let uri = client.upload("hello.wasm", crate::support::sample("hello")).await;
    let (task, execution) = client.task("hello", &uri, json!({})).await;
    let before = client.ended(&execution).await;
    let log =
        client.until(&format!("/api/v1/executions/{execution}/logs"), |log| log["completed"] == json!(true)).await;
    let node = client.get("/api/v1/nodes").await.1["nodes"][0]["uuid"].clone();
    daemon.kill();
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    assert_eq!(client.get(&format!("/api/v1/executions/{execution}")).await.1, before);
    assert_eq!(client.get(&format!("/api/v1/executions/{execution}/logs")).await.1["lines"], log["lines"]);
    assert_eq!(client.get(&format!("/api/v1/tasks/{task}")).await.1["name"], json!("hello"));
    assert_eq!(client.get("/api/v1/nodes").await.1["nodes"][0]["uuid"], node, "the node kept its id");
}
