//! A process is stopped and goes on later, as under a debugger, on a laptop that slept, or on a machine that swapped.

use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;

use super::seen::{events, show, statuses, until};
use crate::{
    outage::slow,
    remote::agent,
    support::{Client, Daemon, serve, spear},
};

/// A registry that gives up nodes quickly.
fn hasty(dir: &std::path::Path, lost_after: &str) -> Daemon {
    let mut command = spear(dir);
    command.args(serve("sms")).env("SMS_HEARTBEAT_TIMEOUT", "6").env("SMS_HEARTBEAT_INTERVAL", "1");
    command.env("SMS_CLEANUP_INTERVAL", "1").env("SMS_LOST_AFTER", lost_after).env("SMS_REMOVE_AFTER", "3600");
    Daemon::launch(command)
}

async fn node(client: &Client, count: usize) -> String {
    let there = |nodes: &Value| nodes["nodes"].as_array().is_some_and(|all| all.len() == count);
    let nodes = client.until("/api/v1/nodes", there).await;
    nodes["nodes"][0]["uuid"].as_str().unwrap().to_owned()
}

fn messages(log: &Value) -> Vec<&str> {
    let lines = log["lines"].as_array().unwrap().iter();
    lines.filter(|line| line["stream"] == "stdout").map(|line| line["message"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_registry_that_stood_still_for_longer_than_the_timeout_expires_nobody() {
    let (sms_dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sms = hasty(sms_dir.path(), "2");
    let _agent = Daemon::start_with(agent_dir.path(), agent(&sms));
    let client = Client::new(&sms.sms());
    let id = node(&client, 1).await;
    // Others that are heard of by REST, so that there would be a mass to expire.
    let mut others = Vec::new();
    for number in 1..=20 {
        let body = json!({"ip_address": "10.0.0.1", "port": number});
        others.push(client.post("/api/v1/nodes", body).await.1["node_uuid"].as_str().unwrap().to_owned());
    }
    let beats = tokio::spawn({
        let (client, others) = (client.clone(), others.clone());
        async move {
            loop {
                for other in &others {
                    let url = format!("{}/api/v1/nodes/{other}/heartbeat", client.base);
                    drop(client.http.post(url).json(&json!({})).send().await);
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    });
    let uri = client.upload("slow.wasm", slow()).await;
    let (_, execution) = client.task("slow", &uri, json!({})).await;
    let path = format!("/api/v1/executions/{execution}");
    client.until(&path, |now| now["status"] == json!("running") && now["progress"]["phase"] == json!("run")).await;
    sms.signal(Signal::STOP);
    tokio::time::sleep(Duration::from_secs(15)).await;
    sms.signal(Signal::CONT);
    // The old connections were idle for too long.
    let client = Client::new(&sms.sms());
    show("the log of a registry that stood still", sms.logged(&["this process was stopped for a while"]));
    let ended = client.ended(&execution).await;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("completed"), &json!(1)), "{ended}");
    // Several sweeps later everybody is still there.
    for other in others.iter().chain([&id]) {
        let path = format!("/api/v1/nodes/{other}");
        for _ in 0..2 {
            let heard = client.get(&path).await.1["node"]["last_heartbeat"].clone();
            client.until(&path, |now| now["node"]["last_heartbeat"] != heard).await;
        }
        assert_eq!(client.get(&path).await.1["node"]["status"], json!("online"));
    }
    beats.abort();
    let seen = events(&client).await;
    let offline: Vec<_> = seen.iter().filter(|event| event.text.contains("\"offline\"")).collect();
    assert!(offline.is_empty(), "{offline:?}");
}

#[tokio::test]
async fn an_agent_that_stood_still_is_offline_then_back_and_runs_nothing_twice() {
    let (sms_dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sms = hasty(sms_dir.path(), "300");
    let agent = Daemon::start_with(agent_dir.path(), agent(&sms));
    let client = Client::new(&sms.sms());
    let id = node(&client, 1).await;
    let uri = client.upload("slow.wasm", slow()).await;
    let (_, execution) = client.task("slow", &uri, json!({})).await;
    let path = format!("/api/v1/executions/{execution}");
    client.until(&path, |now| now["status"] == json!("running") && now["progress"]["phase"] == json!("run")).await;
    agent.signal(Signal::STOP);
    let status = async |word: &str| client.get(&format!("/api/v1/nodes/{id}")).await.1["node"]["status"] == word;
    until("it is offline", async || status("offline").await).await;
    show("the registry's log", sms.logged(&["node is silent and now offline"]));
    assert_eq!(client.get(&path).await.1["status"], json!("running"), "its work is not given up yet");
    agent.signal(Signal::CONT);
    until("it is back", async || status("online").await).await;
    let ended = client.ended(&execution).await;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("completed"), &json!(1)), "{ended}");
    let log = client.until(&format!("{path}/logs"), |log| log["completed"] == json!(true)).await;
    assert_eq!(messages(&log), ["before", "after"], "it ran once");
}

#[tokio::test]
async fn work_that_was_lost_while_its_agent_stood_still_counts_when_it_comes_after_all() {
    let (sms_dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sms = hasty(sms_dir.path(), "1");
    let agent = Daemon::start_with(agent_dir.path(), agent(&sms));
    let client = Client::new(&sms.sms());
    node(&client, 1).await;
    let uri = client.upload("slow.wasm", slow()).await;
    let (_, execution) = client.task("slow", &uri, json!({})).await;
    let path = format!("/api/v1/executions/{execution}");
    client.until(&path, |now| now["status"] == json!("running") && now["progress"]["phase"] == json!("run")).await;
    agent.signal(Signal::STOP);
    let lost = client.until(&path, |now| now["status"] == json!("lost")).await;
    show("an execution whose node stands still", &lost);
    assert_eq!(lost["reason"], json!("node_lost"));
    assert!(lost["message"].as_str().unwrap().contains("has been offline for longer than 1s"), "{lost}");
    agent.signal(Signal::CONT);
    let ended = client.until(&path, |now| now["status"] != json!("lost")).await;
    assert_eq!(
        (&ended["status"], &ended["attempt"], &ended["result"]["text"]),
        (&json!("completed"), &json!(1), &json!("before\nafter\n")),
        "{ended}"
    );
    let statuses = statuses(&client, &execution).await;
    show("its statuses, by events", statuses.join(" "));
    assert_eq!(statuses, ["pending", "running", "lost", "completed"]);
}
