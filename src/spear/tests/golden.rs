//! A data directory of a registry that an earlier program wrote is opened and served for ever.
//!
//! `golden/registry-<n>` holds one for each form of what lies on the disk, and `expected.json` what was served from it
//! then. A new one is written with `SPEAR_WRITE_GOLDEN=registry-<n>` in the environment of this test.

use serde_json::{Map, Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::{Client, Daemon, sample, spear};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Files of a data directory that are part of a golden one.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.join("store.redb"), dir.join("store.clean")];
    for below in ["files", "logs"] {
        found.extend(fs::read_dir(dir.join(below)).unwrap().map(|entry| entry.unwrap().path()));
    }
    found.into_iter().filter(|path| path.is_file()).collect()
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let place = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&file, place).unwrap();
    }
}

/// What a registry answers, as far as it does not hang on the time of day.
async fn served(client: &Client) -> Value {
    let mut all = Map::new();
    for (path, list) in [
        ("/api/v1/nodes", "nodes"),
        ("/api/v1/tasks", "tasks"),
        ("/api/v1/files", "files"),
        ("/api/v1/executions", "executions"),
    ] {
        let (status, page) = client.get(path).await;
        assert_eq!(status, 200, "{path}: {page}");
        all.insert(list.to_owned(), page[list].clone());
    }
    for node in all["nodes"].as_array_mut().unwrap() {
        let node = node.as_object_mut().unwrap();
        node.retain(|field, _| matches!(field.as_str(), "uuid" | "ip_address" | "port" | "metadata" | "registered_at"));
    }
    let mut contents = Map::new();
    for file in all["files"].as_array().unwrap() {
        let id = file["id"].as_str().unwrap();
        contents.insert(id.to_owned(), client.text(&format!("/api/v1/files/{id}")).await.len().into());
    }
    let (mut logs, mut full) = (Map::new(), Map::new());
    for execution in all["executions"].as_array().unwrap() {
        let id = execution["execution_id"].as_str().unwrap();
        full.insert(id.to_owned(), client.get(&format!("/api/v1/executions/{id}")).await.1);
        logs.insert(id.to_owned(), client.get(&format!("/api/v1/executions/{id}/logs")).await.1["lines"].clone());
    }
    all.insert("contents".to_owned(), contents.into());
    all.insert("full".to_owned(), full.into());
    all.insert("logs".to_owned(), logs.into());
    all.into()
}

/// Everything that was served then is served now; more may have come.
fn includes(now: &Value, then: &Value, place: &str) {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => {
            for (field, then) in then {
                includes(now.get(field).unwrap_or(&Value::Null), then, &format!("{place}/{field}"));
            }
        }
        (Value::Array(now), Value::Array(then)) => {
            assert_eq!(now.len(), then.len(), "{place}");
            now.iter().zip(then).enumerate().for_each(|(n, (now, then))| includes(now, then, &format!("{place}/{n}")));
        }
        _ => assert_eq!(now, then, "{place}"),
    }
}

/// Writes a golden directory with a bit of everything.
async fn write(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    let node = json!({"ip_address": "192.168.1.100", "port": 8080, "metadata": {"region": "us-west-1", "ü": "zone a"}});
    assert_eq!(client.post("/api/v1/nodes", node).await.0, 201);
    let uri = client.upload("echo.wasm", sample("echo")).await;
    client.upload("empty", Vec::new()).await;
    let more = json!({"priority": "high", "description": "says it again", "executable": {"args": ["a", "b"]}});
    let (task, first) = client.task("echo", &uri, more).await;
    client.ended(&first).await;
    let run = json!({"mode": "sync", "input_base64": "//4AYWJj"});
    client.post(&format!("/api/v1/tasks/{task}/executions"), run).await;
    let trap = client.upload("trap.wasm", sample("trap")).await;
    let (_, trapped) = client.task("trap", &trap, json!({})).await;
    assert_eq!(client.ended(&trapped).await["status"], json!("failed"));
    let (removed, _) = client.task("removed", "https://example.org/none.wasm", json!({"node_uuid": uuid()})).await;
    let delete = client.http.delete(format!("{}/api/v1/tasks/{removed}", client.base));
    assert_eq!(client.send(delete).await.0, 200);
    client.task("waits", "https://example.org/none.wasm", json!({"node_uuid": uuid()})).await;
    let expected = served(&client).await;
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().0.success());
    let compacted = spear(dir.path()).args(["store", "compact", "data/sms"]).output().unwrap();
    assert!(compacted.status.success(), "{}", String::from_utf8_lossy(&compacted.stderr));
    let place = golden().join(name);
    copy(&dir.path().join("data/sms"), &place);
    fs::write(place.join("expected.json"), serde_json::to_string_pretty(&expected).unwrap() + "\n").unwrap();
}

/// A node that never was.
fn uuid() -> &'static str {
    "93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8"
}

#[tokio::test]
async fn a_data_directory_of_every_earlier_form_is_served_as_it_was() {
    if let Ok(name) = std::env::var("SPEAR_WRITE_GOLDEN") {
        write(&name).await;
    }
    let mut count = 0;
    for place in fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()) {
        count += 1;
        let dir = tempfile::tempdir().unwrap();
        copy(&place, &dir.path().join("data/sms"));
        let daemon = Daemon::start(dir.path(), "sms");
        let client = Client::new(&daemon.sms());
        let then: Value = serde_json::from_str(&fs::read_to_string(place.join("expected.json")).unwrap()).unwrap();
        assert!(then["full"].as_object().unwrap().len() >= 4, "there is something to compare");
        includes(&served(&client).await, &then, &place.display().to_string());
        // It is not only looked at: it goes on, and a backup of it is whole.
        client.task("new", "https://example.org/none.wasm", json!({"node_uuid": uuid()})).await;
        let address = daemon.address("sms/http").to_string();
        let backup = spear(dir.path()).args(["backup", "--addr", &address, "-O", "b.tar"]).output().unwrap();
        assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    }
    assert!(count > 0, "no golden directory");
}
