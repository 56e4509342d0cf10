//! What a restart keeps, and what it gives up on purpose.

use serde_json::json as object;
use tempfile::tempdir;

use crate::harness::{Registry, json, problem};

#[tokio::test]
async fn a_restart_keeps_nodes_and_files_and_forgets_only_loads() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let body = object!({"ip_address": "10.0.0.1", "port": 1, "metadata": {"zone": "a"}});
    let id = json(registry.post("/api/v1/nodes").json(&body), 201).await["node_uuid"].as_str().unwrap().to_owned();
    let gone = json(registry.post("/api/v1/nodes").json(&body), 201).await["node_uuid"].as_str().unwrap().to_owned();
    let (node, load) = (format!("/api/v1/nodes/{id}"), format!("/api/v1/nodes/{id}/resource"));
    json(registry.put(&node).json(&object!({"status": "maintenance"})), 200).await;
    json(registry.put(&load).json(&object!({"cpu_usage_percent": 1.0})), 200).await;
    json(registry.delete(&format!("/api/v1/nodes/{gone}")), 200).await;
    let file = json(registry.post("/api/v1/files").body("hello"), 200).await["id"].as_str().unwrap().to_owned();
    let (nodes, files) =
        (json(registry.get("/api/v1/nodes"), 200).await, json(registry.get("/api/v1/files"), 200).await);
    registry.stop().await;
    std::fs::write(home.path().join("files").join(format!("{file}.part")), "half an upload").unwrap();

    let registry = Registry::start(home.path()).await;
    assert_eq!(json(registry.get("/api/v1/nodes"), 200).await, nodes);
    assert_eq!(json(registry.get("/api/v1/files"), 200).await, files);
    assert_eq!(registry.get(&format!("/api/v1/files/{file}")).send().await.unwrap().text().await.unwrap(), "hello");
    assert_eq!(registry.stored(), [file]);
    problem(registry.get(&load), 404, "RESOURCE_NOT_FOUND").await;
    json(registry.put(&load).json(&object!({"cpu_usage_percent": 2.0})), 200).await;
    registry.stop().await;
}
