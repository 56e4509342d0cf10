//! What a process says of itself.

use serde_json::{Value, json};

use crate::support::{Client, Daemon};

fn scope<'a>(status: &'a Value, name: &str) -> &'a Value {
    let scopes = status["scopes"].as_array().unwrap();
    scopes.iter().find(|scope| scope["name"] == name).unwrap_or_else(|| panic!("no scope {name}: {status:#}"))
}

#[tokio::test]
async fn both_gateways_tell_the_same_of_listeners_readiness_and_everything_supervised() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let registry = Client::new(&daemon.sms());
    let agent = Client::new(&format!("http://{}", daemon.address("spearlet/http")));
    registry.until("/readyz", |answer| answer == &json!("ok\n")).await;
    for client in [&registry, &agent] {
        let (code, status) = client.get("/api/v1/status").await;
        assert_eq!(code, 200, "{status}");
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!((&status["role"], &status["pid"]), (&json!("all"), &json!(daemon.pid())));
        assert!(status["uptime_seconds"].is_u64());
        assert_eq!((&status["ready"], &status["reasons"]), (&json!(true), &json!([])));
        let listeners = status["listeners"].as_array().unwrap();
        let told = |name: &str| listeners.iter().find(|one| one["name"] == name).unwrap()["address"].clone();
        for name in ["sms/grpc", "sms/http", "spearlet/grpc", "spearlet/http"] {
            assert_eq!(told(name), json!(daemon.address(name).to_string()));
        }
        let commit = scope(&status, "sms/store/commit");
        assert_eq!(
            commit,
            &json!({"name": "sms/store/commit", "phase": "store", "state": "running", "count": 1, "restarts": 0, "last_error": null})
        );
        assert_eq!(scope(&status, "listen/sms/http")["phase"], "intake");
        let connections = scope(&status, "connections/connection/http");
        assert!(connections["count"].as_u64().unwrap() >= 1, "this very connection is counted: {connections}");
    }
}

#[tokio::test]
async fn an_agent_without_its_registry_says_why_it_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::fs::write(dir.path().join("agent.toml"), format!("[spearlet]\nsms_grpc_addr = \"{nobody}\"\n")).unwrap();
    let mut args = crate::support::serve("spearlet");
    args.extend(["--config".to_owned(), "agent.toml".to_owned()]);
    let daemon = Daemon::start_with(dir.path(), args);
    let client = Client::new(&format!("http://{}", daemon.address("spearlet/http")));
    let status = client.until("/api/v1/status", |status| status["ready"] == json!(false)).await;
    assert_eq!(status["role"], "spearlet");
    let reason = &status["reasons"][0];
    assert_eq!(reason["check"], "spearlet/registry");
    assert!(!reason["reason"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn readiness_names_the_files_that_are_gone_and_comes_back_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "sms");
    let client = Client::new(&daemon.sms());
    client.until("/readyz", |answer| answer == &json!("ok\n")).await;
    let all = client.text("/readyz?verbose").await;
    assert!(
        all.contains("[+] sms/store: ok") && all.contains("[+] sms/files: ok") && all.ends_with("ready\n"),
        "{all}"
    );
    let (files, aside) = (dir.path().join("data/sms/files"), dir.path().join("aside"));
    std::fs::rename(&files, &aside).unwrap();
    let status = client.until("/api/v1/status", |status| status["ready"] == json!(false)).await;
    assert_eq!(status["reasons"][0]["check"], "sms/files");
    let (code, reasons) = client.get("/readyz").await;
    assert_eq!(code, 503);
    assert!(reasons.as_str().unwrap().contains("[-] sms/files: the directory of files cannot be used"), "{reasons}");
    std::fs::rename(&aside, &files).unwrap();
    client.until("/readyz", |answer| answer == &json!("ok\n")).await;
}
