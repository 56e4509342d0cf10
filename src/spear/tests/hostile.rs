//! Guests that mean harm end as failed executions with their reason, and nothing else happens.

use serde_json::{Value, json};

use crate::support::{Client, Daemon, guest, sample};

/// Name, module, settings of its task, status and reasons it may end with.
type Case = (&'static str, Vec<u8>, Value, &'static str, &'static [&'static str]);

async fn run(client: &Client, name: &str, module: Vec<u8>, config: Value) -> Value {
    let uri = client.upload(name, module).await;
    let (_, execution) = client.task(name, &uri, json!({"config": config})).await;
    client.ended(&execution).await
}

#[tokio::test]
async fn each_hostile_guest_ends_with_its_reason_and_the_node_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    let wasi = r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
                  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
                  (memory (export "memory") 1)"#;
    let start = |body: &str| guest(&format!(r#"(module {wasi} (func (export "_start") {body}))"#));
    let short = json!({"timeout_ms": "500"});
    let many_locals = format!(
        r#"(module (memory (export "memory") 1) (func (export "_start") {} {}))"#,
        "(local i32)".repeat(20_000),
        (0..20_000).map(|n| format!("(local.set {n} (i32.load (i32.const {n})))")).collect::<String>()
            + &(0..20_000).map(|n| format!("(i32.store (i32.const {n}) (local.get {n}))")).collect::<String>(),
    );
    let cases: [Case; 8] = [
        ("trap", start("unreachable"), json!({}), "failed", &["trap"]),
        ("loop", start("(loop (br 0))"), short.clone(), "timeout", &["deadline"]),
        (
            "allocate",
            start("(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable"),
            json!({}),
            "failed",
            &["memory"],
        ),
        (
            "print",
            start(
                "(i32.store (i32.const 4) (i32.const 60000))
                 (loop (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))",
            ),
            json!({}),
            "failed",
            &["output"],
        ),
        ("bomb", guest(&many_locals), json!({}), "failed", &["compile", "invalid_module"]),
        ("garbage", b"\0asm and nothing else".to_vec(), json!({}), "failed", &["invalid_module"]),
        ("not-wasm", b"<html>not found</html>".to_vec(), json!({}), "failed", &["invalid_module"]),
        ("recursion", start("(call 2)"), json!({}), "failed", &["trap"]),
    ];
    for (name, module, config, status, reasons) in cases {
        let ended = run(&client, name, module, config).await;
        assert_eq!(ended["status"], json!(status), "{name}: {ended}");
        assert!(reasons.contains(&ended["reason"].as_str().unwrap()), "{name}: {ended}");
        assert!(!ended["message"].as_str().unwrap().is_empty(), "{name}: {ended}");
    }
    let fine = run(&client, "hello", sample("hello"), json!({})).await;
    assert_eq!(fine["status"], json!("completed"), "{fine}");
}

#[tokio::test]
async fn an_artifact_that_is_not_what_was_promised_is_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    let uri = client.upload("hello.wasm", sample("hello")).await;
    let wrong = "0".repeat(64);
    let (_, execution) = client.task("pinned", &uri, json!({"executable": {"checksum_sha256": wrong}})).await;
    let ended = client.ended(&execution).await;
    assert_eq!((&ended["status"], &ended["reason"]), (&json!("failed"), &json!("artifact")), "{ended}");
    assert!(ended["message"].as_str().unwrap().contains(&wrong), "{ended}");
    let gone = "sms+file://93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8";
    let (_, execution) = client.task("gone", gone, json!({})).await;
    assert_eq!(client.ended(&execution).await["reason"], json!("artifact"));
}
