//! A machine was copied with its agent: two claim one node id.

use api::proto::v1::{RegisterRequest, agent_service_client::AgentServiceClient};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

use super::seen::{show, until};
use crate::{
    remote::agent,
    support::{Client, Daemon, channel, sample, serve, spear},
};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (from, to): (PathBuf, PathBuf) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// An agent that keeps trying instead of ending, as one does whose registry is named in a file.
fn patient(dir: &Path, sms: &Daemon) -> Daemon {
    let mut command = spear(dir);
    command.args(serve("spearlet")).env("SPEARLET_SMS_GRPC_ADDR", sms.address("sms/grpc").to_string());
    command.env("SPEARLET_SMS_HTTP_ADDR", sms.address("sms/http").to_string());
    Daemon::launch(command)
}

#[tokio::test]
async fn the_second_of_two_agents_with_one_id_is_refused_while_the_first_lives_and_told_what_to_do() {
    let (sms_dir, first_dir, second_dir) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = spear(sms_dir.path());
    command.args(serve("sms")).env("SMS_HEARTBEAT_TIMEOUT", "6").env("SMS_HEARTBEAT_INTERVAL", "1");
    command.env("SMS_CLEANUP_INTERVAL", "1");
    let sms = Daemon::launch(command);
    let client = Client::new(&sms.sms());
    let first = Daemon::start_with(first_dir.path(), agent(&sms));
    first.signal(rustix::process::Signal::TERM);
    assert!(first.wait().0.success());
    copy(&first_dir.path().join("data"), &second_dir.path().join("data"));
    let first = Daemon::start_with(first_dir.path(), agent(&sms));
    let listed = |nodes: &Value| nodes["nodes"].as_array().is_some_and(|all| all.len() == 1);
    let id = client.until("/api/v1/nodes", listed).await["nodes"][0]["uuid"].as_str().unwrap().to_owned();
    let port = |nodes: &Value| nodes["nodes"][0]["port"].clone();
    let home = port(&client.get("/api/v1/nodes").await.1);

    // With the address given by flag, it ends.
    let Err((status, log)) = Daemon::try_start(second_dir.path(), agent(&sms)) else { panic!("it registered") };
    let last = log.lines().rev().find(|line| line.starts_with("spear: ")).unwrap_or_else(|| panic!("no word: {log}"));
    show("the start of a copy", format!("{last}\n({status})"));
    assert_eq!(status.code(), Some(75), "{log}");
    for word in ["refuses this node", &id, "is in use by an agent at 127.0.0.1:", "node-id"] {
        assert!(last.contains(word), "{word}: {last}");
    }
    let mut grpc = AgentServiceClient::new(channel(sms.address("sms/grpc")).await);
    let metadata = [("spear.boot_id".to_owned(), "somewhere else".to_owned())].into();
    let node =
        RegisterRequest { node_uuid: id.clone(), ip_address: "10.0.0.2".into(), port: 1, http_port: 2, metadata };
    let refused = grpc.register(node).await.unwrap_err();
    show("a registration with an id in use", refused.message());
    assert_eq!(refused.code(), tonic::Code::Aborted, "{refused}");
    assert_eq!(port(&client.get("/api/v1/nodes").await.1), home, "the first is still the node");

    // The first may crash and start again in its place, at once.
    first.kill();
    let first = Daemon::start_with(first_dir.path(), agent(&sms));
    let home = port(&client.get("/api/v1/nodes").await.1);
    // A patient copy waits, not ready, with the reason.
    let second = patient(second_dir.path(), &sms);
    let waiting = Client::new(&format!("http://{}", second.address("spearlet/http")));
    until("it says why", async || waiting.text("/readyz?verbose").await.contains("is in use by an agent")).await;
    show("/readyz?verbose of a copy", waiting.text("/readyz?verbose").await);
    assert_eq!(waiting.get("/readyz").await.0, 503);
    assert_eq!(port(&client.get("/api/v1/nodes").await.1), home);
    // And takes over when the first is gone for longer than the timeout.
    first.kill();
    until("it takes over", async || waiting.get("/readyz").await.0 == 200).await;
    let nodes = client.get("/api/v1/nodes").await.1;
    assert_eq!(
        (&nodes["nodes"][0]["status"], nodes["nodes"].as_array().unwrap().len()),
        (&json!("online"), 1),
        "{nodes}"
    );
    assert_ne!(port(&nodes), home);
    let uri = client.upload("hello.wasm", sample("hello")).await;
    let (_, execution) = client.task("hello", &uri, json!({})).await;
    assert_eq!(client.ended(&execution).await["status"], json!("completed"));
    let Err((status, _)) = Daemon::try_start(first_dir.path(), agent(&sms)) else { panic!("it registered") };
    assert_eq!(status.code(), Some(75), "now the first is one too many");
}

#[tokio::test]
async fn an_agent_that_stood_still_while_a_copy_took_its_place_takes_no_more_work() {
    let (sms_dir, first_dir, second_dir) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = spear(sms_dir.path());
    command.args(serve("sms")).env("SMS_HEARTBEAT_TIMEOUT", "6").env("SMS_HEARTBEAT_INTERVAL", "1");
    command.env("SMS_CLEANUP_INTERVAL", "1");
    let sms = Daemon::launch(command);
    let client = Client::new(&sms.sms());
    let first = patient(first_dir.path(), &sms);
    first.signal(rustix::process::Signal::TERM);
    assert!(first.wait().0.success());
    copy(&first_dir.path().join("data"), &second_dir.path().join("data"));
    let first = patient(first_dir.path(), &sms);
    let ready = |daemon: &Daemon| Client::new(&format!("http://{}", daemon.address("spearlet/http")));
    let (one, second) = (ready(&first), patient(second_dir.path(), &sms));
    let two = ready(&second);
    until("the first is the node", async || one.get("/readyz").await.0 == 200).await;
    first.signal(rustix::process::Signal::STOP);
    until("the second is the node", async || two.get("/readyz").await.0 == 200).await;
    first.signal(rustix::process::Signal::CONT);
    show("the log of the first", first.logged(&["another agent has taken this node's id; no work is taken here"]));
    until("the first is not ready", async || one.get("/readyz").await.0 == 503).await;
    show("/readyz?verbose of the first", one.text("/readyz?verbose").await);
    let uri = client.upload("hello.wasm", sample("hello")).await;
    let mut executions = Vec::new();
    for number in 0..6 {
        executions.push(client.task(&format!("hello {number}"), &uri, json!({})).await.1);
    }
    for execution in executions {
        assert_eq!(client.ended(&execution).await["status"], json!("completed"));
    }
    let ran = |daemon: &Daemon| daemon.log().lines().filter(|line| line.contains("execution ended")).count();
    assert_eq!((ran(&first), ran(&second)), (0, 6), "each ran once, on the node");
}
