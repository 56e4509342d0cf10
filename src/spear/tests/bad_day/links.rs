//! The link between agent and registry: half-open, or away for longer than anybody is patient.

use serde_json::{Value, json};
use std::path::Path;

use super::{
    proxy::Proxy,
    seen::{show, until},
};
use crate::{
    outage::{same_place, slow},
    remote::agent,
    support::{Client, Daemon, sample, serve, spear},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_link_is_noticed_and_replaced_and_the_work_goes_on() {
    let (sms_dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sms = Daemon::start(sms_dir.path(), "sms");
    let proxy = Proxy::to(sms.address("sms/grpc")).await;
    let mut args = serve("spearlet");
    args.extend(["--sms-addr".to_owned(), proxy.address.to_string()]);
    args.extend(["--sms-http-addr".to_owned(), sms.address("sms/http").to_string(), "--auto-register".to_owned()]);
    let node = Daemon::start_with(agent_dir.path(), args);
    let client = Client::new(&sms.sms());
    let (slow, hello) = (client.upload("slow.wasm", slow()).await, client.upload("hello.wasm", sample("hello")).await);
    let (_, running) = client.task("running", &slow, json!({})).await;
    let path = format!("/api/v1/executions/{running}");
    client.until(&path, |now| now["status"] == json!("running") && now["progress"]["phase"] == json!("run")).await;
    let before = proxy.taken();
    proxy.freeze();
    // Work that is given out now cannot reach the node over the old link.
    let (_, later) = client.task("later", &hello, json!({})).await;
    until("a new connection", async || proxy.taken() > before).await;
    for (execution, text) in [(&running, "before\nafter\n"), (&later, "hello\n")] {
        let ended = client.ended(execution).await;
        assert_eq!((&ended["status"], &ended["attempt"]), (&json!("completed"), &json!(1)), "{ended}");
        assert!(ended["result"]["text"].as_str().unwrap().starts_with(text.trim_end()), "{ended}");
    }
    let log = client.until(&format!("{path}/logs"), |log| log["completed"] == json!(true)).await;
    let lines = log["lines"].as_array().unwrap().iter().filter(|line| line["stream"] == "stdout");
    assert_eq!(lines.count(), 2, "each line once: {log}");
    until("the registry lets go of the dead link", async || proxy.dropped() >= 1).await;
    let nodes = client.get("/api/v1/nodes").await.1;
    assert_eq!(nodes["nodes"][0]["status"], json!("online"), "{nodes}");
    let lost: Vec<_> = node.log().lines().filter(|line| line.contains("\"WARN\"")).map(str::to_owned).collect();
    show("the agent's log", lost.join("\n"));
}

/// An agent that is patient for two seconds.
fn impatient(dir: &Path, sms: &Daemon, exit: &str) -> Daemon {
    let mut command = spear(dir);
    command.args(agent(sms)).env("SPEARLET_RECONNECT_TOTAL_TIMEOUT_MS", "2000");
    command.env("SPEARLET_RECONNECT_EXIT", exit).env("SPEARLET_SMS_CONNECT_RETRY_MS", "100");
    Daemon::launch(command)
}

#[tokio::test]
async fn a_registry_away_for_too_long_makes_the_agent_not_ready_with_the_reason_until_it_is_back() {
    let (sms_dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = spear(sms_dir.path());
    command.args(serve("sms")).env("SMS_HEARTBEAT_INTERVAL", "1");
    let sms = Daemon::launch(command);
    let node = impatient(agent_dir.path(), &sms, "false");
    let client = Client::new(&format!("http://{}", node.address("spearlet/http")));
    until("it is ready", async || client.get("/readyz").await.0 == 200).await;
    let args = same_place(&sms);
    sms.kill();
    show("the agent's log", node.logged(&["ERROR", "no contact with the registry; work in hand goes on"]));
    until("it is not ready", async || client.get("/readyz").await.0 == 503).await;
    let ready = client.text("/readyz?verbose").await;
    show("/readyz?verbose without a registry", &ready);
    assert!(ready.contains("[-] spearlet/registry: no contact with the registry for more than 2s: "), "{ready}");
    assert_eq!(client.get("/livez").await.0, 200, "it lives");
    let put = client.http.put(format!("{}/objects/k", client.base)).json(&json!({"value": "aGk="}));
    assert_eq!(client.send(put).await.0, 200, "and does what needs no registry");
    let sms = Daemon::start_with(sms_dir.path(), args);
    until("it is ready again", async || client.get("/readyz").await.0 == 200).await;
    node.logged(&["the registry is back"]);
    let registry = Client::new(&sms.sms());
    let online = |nodes: &Value| nodes["nodes"][0]["status"] == json!("online");
    registry.until("/api/v1/nodes", online).await;
    let uri = registry.upload("hello.wasm", sample("hello")).await;
    let (_, execution) = registry.task("hello", &uri, json!({})).await;
    assert_eq!(registry.ended(&execution).await["status"], json!("completed"));
}

#[tokio::test]
async fn a_registry_away_for_too_long_ends_an_agent_that_is_told_so() {
    let (sms_dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = spear(sms_dir.path());
    command.args(serve("sms")).env("SMS_HEARTBEAT_INTERVAL", "1");
    let sms = Daemon::launch(command);
    let node = impatient(agent_dir.path(), &sms, "true");
    let client = Client::new(&format!("http://{}", node.address("spearlet/http")));
    until("it is ready", async || client.get("/readyz").await.0 == 200).await;
    sms.kill();
    let (status, log) = node.wait();
    let last = log.lines().rev().find(|line| line.starts_with("spear: ")).unwrap_or_else(|| panic!("no word: {log}"));
    show("the end without a registry", format!("{last}\n({status})"));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(last.contains("no contact with the registry for more than 2s"), "{last}");
}
