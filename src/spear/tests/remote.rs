//! Registry and agent as two processes.

use serde_json::json;

use crate::support::{Client, Daemon, sample, serve};

/// An agent's arguments for a registry.
pub fn agent(sms: &Daemon) -> Vec<String> {
    let mut args = serve("spearlet");
    args.extend(["--sms-addr".to_owned(), sms.address("sms/grpc").to_string()]);
    args.extend(["--sms-http-addr".to_owned(), sms.address("sms/http").to_string()]);
    args.push("--auto-register".to_owned());
    args
}

#[tokio::test]
async fn a_task_runs_on_an_agent_in_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let sms = Daemon::start(dir.path(), "sms");
    let _agent = Daemon::start_with(dir.path(), agent(&sms));
    let client = Client::new(&sms.sms());
    let uri = client.upload("echo.wasm", sample("echo")).await;
    let (task, first) = client.task("echo", &uri, json!({})).await;
    assert_eq!(client.ended(&first).await["status"], json!("completed"));
    let run = format!("/api/v1/tasks/{task}/executions");
    let (status, answer) = client.post(&run, json!({"mode": "sync", "input": "over the wire"})).await;
    assert_eq!((status, &answer["result"]["text"]), (200, &json!("over the wire")), "{answer}");
    let node = client.get("/api/v1/nodes").await.1["nodes"][0]["uuid"].as_str().unwrap().to_owned();
    let cursor = dir.path().join(format!("data/spearlet/task_events_cursor_{node}.json"));
    let cursor: u64 = std::fs::read_to_string(cursor).unwrap().trim().parse().unwrap();
    assert!(cursor > 0);
    let resource = client
        .until(&format!("/api/v1/nodes/{node}/resource"), |answer| answer["total_memory_bytes"].is_number())
        .await;
    assert!(resource["total_memory_bytes"].as_i64().unwrap() > 0 && resource["total_disk_bytes"].as_i64().unwrap() > 0);
}

#[tokio::test]
async fn an_agent_whose_registry_does_not_answer_ends_with_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut args = serve("spearlet");
    args.extend(["--sms-addr".to_owned(), free.clone(), "--sms-connect-timeout-ms".to_owned(), "300".to_owned()]);
    let (status, log) = Daemon::try_start(dir.path(), args).err().expect("nobody is there");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&free), "{log}");
}

#[tokio::test]
async fn an_agent_without_a_registry_stands_alone() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Daemon::start(dir.path(), "spearlet");
    let client = Client::new(&format!("http://{}", agent.address("spearlet/http")));
    assert_eq!(client.get("/health").await.1["service"], json!("spearlet"));
    let (status, _) =
        client.send(client.http.put(format!("{}/objects/k", client.base)).json(&json!({"value": "aGk="}))).await;
    assert_eq!(status, 200);
    assert_eq!(client.get("/objects/k").await.1["value"], json!("aGk="));
}
