//! The disk is full in the middle of uploads and commits: refused with what to do, nothing acknowledged is lost,
//! and it heals without a restart.

use api::proto::sms::{HeartbeatRequest, RegisterNodeRequest, node_service_client::NodeServiceClient};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use super::{
    machine::Mounted,
    seen::{show, until},
};
use crate::{
    outage::slow,
    remote::agent,
    support::{Client, Daemon, channel, sample},
};

/// What the registry has acknowledged.
#[derive(Default)]
struct Acknowledged {
    files: BTreeMap<String, Vec<u8>>,
    tasks: BTreeSet<String>,
}

/// Uploads and creates tasks until uploads are refused; the first refusal.
async fn write_until_full(client: &Client, writer: u64, known: &Mutex<Acknowledged>) -> Value {
    for round in 0u64.. {
        let bytes: Vec<u8> =
            (0..256 * 1024u64).map(|n| (n.wrapping_mul(writer + 3) ^ round).to_le_bytes()[0]).collect();
        let request = client.http.post(format!("{}/api/v1/files", client.base)).body(bytes.clone());
        match client.send(request).await {
            (200, answer) => drop(known.lock().unwrap().files.insert(text(&answer["id"]), bytes)),
            (507, problem) => return problem,
            other => panic!("an upload is taken or refused for want of space: {other:?}"),
        }
        let task = json!({"name": format!("task {writer}/{round}"), "endpoint": "e", "version": "1"});
        match client.post("/api/v1/tasks", task).await {
            (200, answer) => drop(known.lock().unwrap().tasks.insert(text(&answer["task_id"]))),
            (507, problem) => return problem,
            other => panic!("a task is taken or refused for want of space: {other:?}"),
        }
    }
    unreachable!("the disk has an end")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

async fn compare(client: &Client, known: &Acknowledged) {
    for (id, bytes) in &known.files {
        let answer = client.http.get(format!("{}/api/v1/files/{id}", client.base)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "an acknowledged file is gone: {id}");
        assert_eq!(answer.bytes().await.unwrap(), bytes, "{id}");
    }
    for task in &known.tasks {
        assert_eq!(client.get(&format!("/api/v1/tasks/{task}")).await.0, 200, "an acknowledged task is gone: {task}");
    }
}

/// A refusal says that the disk is full, and what to do.
fn says_what_to_do(problem: &Value) {
    assert_eq!((&problem["status"], &problem["code"]), (&json!(507), &json!("STORAGE_FULL")), "{problem}");
    let detail = text(&problem["detail"]);
    assert!(detail.contains("free") && detail.contains("delete"), "what is wrong and what to do: {detail}");
}

async fn full_and_free_again(role: &str) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Mounted::small(&dir.path().join("data"), 48 << 20);
    let daemon = Daemon::start(dir.path(), role);
    let client = Client::new(&daemon.sms());
    let mut grpc = NodeServiceClient::new(channel(daemon.address("sms/grpc")).await);
    let register = |address: &str| RegisterNodeRequest {
        node: Some(api::proto::sms::Node { ip_address: address.into(), port: 1, ..Default::default() }),
    };
    let node = grpc.register_node(register("10.0.0.1")).await.unwrap().into_inner().node_uuid;

    // Uploads and commits in parallel until uploads are refused.
    let known = Arc::new(Mutex::new(Acknowledged::default()));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (client, known) = (client.clone(), known.clone());
            tokio::spawn(async move { write_until_full(&client, writer, &known).await })
        })
        .collect();
    for writer in writers {
        let problem = writer.await.unwrap();
        says_what_to_do(&problem);
        show("an upload on a full disk", &problem["detail"]);
    }
    // Then somebody else's log takes the rest, to the last byte.
    let ballast = disk.fill("ballast", 0);
    let (status, problem) =
        client.post("/api/v1/tasks", json!({"name": "one more", "endpoint": "e", "version": "1"})).await;
    show("a task on a full disk", &problem);
    assert_eq!(status, 507, "{problem}");
    says_what_to_do(&problem);
    let refused = grpc.register_node(register("10.0.0.2")).await.unwrap_err();
    show("a node over gRPC on a full disk", &refused);
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("delete"), "{refused}");

    // What needs no room goes on.
    let beat = HeartbeatRequest { uuid: node.clone(), ..Default::default() };
    assert!(grpc.heartbeat(beat).await.unwrap().into_inner().success);
    assert_eq!(client.get(&format!("/api/v1/nodes/{node}")).await.0, 200);
    let some = known.lock().unwrap().files.keys().next().unwrap().clone();
    let answer = client.http.get(format!("{}/api/v1/files/{some}", client.base)).send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap().len(), 256 * 1024);
    let low = async || client.text("/readyz?verbose").await.contains("[!] sms/disk: ./data/sms: ");
    until("/readyz tells of the disk", low).await;
    let ready = client.text("/readyz?verbose").await;
    show("/readyz?verbose on a full disk", &ready);
    assert!(ready.contains("bytes are free; what needs room is refused") && ready.ends_with("\nready\n"), "{ready}");
    assert!(client.get("/livez").await.0 == 200, "it lives");

    // A file can be deleted even now, for that is what makes room.
    let first = known.lock().unwrap().files.pop_first().unwrap().0;
    let url = format!("{}/api/v1/files/{first}", client.base);
    let (status, answer) = client.send(client.http.delete(url)).await;
    assert_eq!(status, 200, "deleting goes on: {answer}");
    assert_eq!(client.get(&format!("/api/v1/files/{first}")).await.0, 404);

    // Space returns: everything works again, by itself.
    std::fs::remove_file(ballast).unwrap();
    let all: Vec<String> = known.lock().unwrap().files.keys().take(24).cloned().collect();
    for id in all {
        let url = format!("{}/api/v1/files/{id}", client.base);
        assert_eq!(client.send(client.http.delete(url)).await.0, 200);
        known.lock().unwrap().files.remove(&id);
    }
    client.upload("after", vec![7; 100_000]).await;
    let (status, answer) =
        client.post("/api/v1/tasks", json!({"name": "after", "endpoint": "e", "version": "1"})).await;
    assert_eq!(status, 200, "{answer}");
    grpc.register_node(register("10.0.0.3")).await.unwrap();
    until("all is well", async || !client.text("/readyz?verbose").await.contains("[!]")).await;
    let log = daemon.log();
    let about: Vec<_> = log.lines().filter(|line| line.contains("disk")).collect();
    show("the log", about.join("\n"));
    assert!(log.contains("is low on space") && log.contains("has space again"), "{log}");
    let known = std::mem::take(&mut *known.lock().unwrap());
    compare(&client, &known).await;
    daemon.kill();
    let daemon = Daemon::start(dir.path(), role);
    compare(&Client::new(&daemon.sms()), &known).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_on_a_full_disk_refuses_writes_loses_nothing_and_heals() {
    full_and_free_again("sms").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_roles_on_a_full_disk_refuse_writes_lose_nothing_and_heal() {
    full_and_free_again("all").await;
}

/// A module with so many bytes beside its code.
fn padded(mut module: Vec<u8>, bytes: u32) -> Vec<u8> {
    // A custom section: id 0, its length as LEB128 in five bytes, a name of one letter.
    module.push(0);
    let length = bytes + 2;
    module.extend((0..5).map(|n| u8::try_from(length >> (7 * n) & 0x7f).unwrap() | if n < 4 { 0x80 } else { 0 }));
    module.extend([1, b'x']);
    module.extend((0..bytes).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]));
    module
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_on_a_full_disk_refuses_an_artifact_with_the_reason_keeps_a_result_and_heals() {
    let (sms_dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = Mounted::small(&agent_dir.path().join("data"), 24 << 20);
    let sms = Daemon::start(sms_dir.path(), "sms");
    let node = Daemon::start_with(agent_dir.path(), agent(&sms));
    let (client, agent) = (Client::new(&sms.sms()), Client::new(&format!("http://{}", node.address("spearlet/http"))));
    let hello = client.upload("hello.wasm", sample("hello")).await;
    let (_, first) = client.task("first", &hello, json!({})).await;
    assert_eq!(client.ended(&first).await["status"], json!("completed"));

    // Room for records, none for the artifact.
    let ballast = disk.fill("ballast", 2 << 20);
    let large = client.upload("large.wasm", padded(sample("hello"), 4 << 20)).await;
    let (_, refused) = client.task("large", &large, json!({})).await;
    let ended = client.ended(&refused).await;
    show("an artifact for a full disk", &ended);
    assert_eq!((&ended["status"], &ended["reason"]), (&json!("failed"), &json!("artifact")), "{ended}");
    let message = text(&ended["message"]);
    assert!(message.contains("No space left") && message.contains("data/spearlet/artifacts"), "{message}");

    // The disk becomes full while a guest runs: its result waits for room.
    std::fs::remove_file(&ballast).unwrap();
    let uri = client.upload("slow.wasm", slow()).await;
    let (_, execution) = client.task("slow", &uri, json!({})).await;
    let path = format!("/api/v1/executions/{execution}");
    client.until(&path, |now| now["status"] == json!("running") && now["progress"]["phase"] == json!("run")).await;
    let ballast = disk.fill("ballast", 0);
    show("a result that waits for room", node.logged(&["cannot note how an execution ended; waiting for space"]));
    let low = async || agent.text("/readyz?verbose").await.contains("[!] spearlet/disk: ");
    until("/readyz tells of the disk", low).await;
    show("/readyz?verbose of the agent", agent.text("/readyz?verbose").await);
    assert_eq!(client.get(&path).await.1["status"], json!("running"));
    let nodes = client.get("/api/v1/nodes").await.1;
    assert_eq!(nodes["nodes"][0]["status"], json!("online"), "heartbeats go on");
    // Work given to it now waits too.
    let (_, later) = client.task("later", &hello, json!({})).await;
    std::fs::remove_file(&ballast).unwrap();
    let ended = client.ended(&execution).await;
    assert_eq!(
        (&ended["status"], &ended["result"]["text"], &ended["attempt"]),
        (&json!("completed"), &json!("before\nafter\n"), &json!(1)),
        "{ended}"
    );
    assert_eq!(client.ended(&later).await["status"], json!("completed"));
    let (_, again) = client.task("large again", &large, json!({})).await;
    assert_eq!(client.ended(&again).await["status"], json!("completed"));
}
