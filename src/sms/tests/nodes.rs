//! `/api/v1/nodes…` as the seed's README and clients use it.

use proptest::{
    prelude::any,
    test_runner::{Config as Cases, TestRunner},
};
use reqwest::StatusCode;
use serde_json::{Value, json as object};
use tempfile::tempdir;

use crate::harness::{Registry, field, json, problem};

/// The bodies of the curl lines in the seed's README.
const REGISTER: &str =
    r#"{ "ip_address": "192.168.1.100", "port": 8080, "metadata": { "region": "us-west-1", "zone": "a" } }"#;
const HEARTBEAT: &str = r#"{ "health_info": { "cpu_usage": "45%", "memory_usage": "60%", "disk_usage": "30%" } }"#;
const UPDATE: &str = r#"{ "status": "active", "metadata": { "region": "us-west-2", "zone": "b" } }"#;
const STRANGER: &str = "93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8";

fn text(request: reqwest::RequestBuilder, body: &'static str) -> reqwest::RequestBuilder {
    request.header("content-type", "application/json").body(body)
}

async fn register(registry: &Registry) -> String {
    let answer = json(text(registry.post("/api/v1/nodes"), REGISTER), 201).await;
    answer["node_uuid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_seeds_curl_lines_register_show_change_and_delete_a_node() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let response = text(registry.post("/api/v1/nodes"), REGISTER).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let answer: Value = response.json().await.unwrap();
    let id = answer["node_uuid"].as_str().unwrap();
    assert_eq!(answer, object!({"success": true, "message": "Node registered successfully", "node_uuid": id}));
    assert_eq!(location, format!("/api/v1/nodes/{id}"));

    let listed = json(registry.get("/api/v1/nodes"), 200).await;
    let node = listed["nodes"][0].clone();
    let times = (node["registered_at"].as_i64().unwrap(), node["last_heartbeat"].as_i64().unwrap());
    assert!(times.0 > 1_700_000_000 && times.1 >= times.0, "whole seconds: {times:?}");
    let expected = object!({
        "uuid": id, "ip_address": "192.168.1.100", "port": 8080, "http_port": 0, "status": "online", "liveness": "online",
        "last_heartbeat": times.1, "registered_at": times.0, "metadata": {"region": "us-west-1", "zone": "a"},
    });
    assert_eq!(node, expected);
    assert_eq!(listed, object!({"success": true, "nodes": [expected], "total_count": 1, "next_cursor": null}));

    let beat = json(text(registry.post(&format!("/api/v1/nodes/{id}/heartbeat")), HEARTBEAT), 200).await;
    assert_eq!((&beat["success"], &beat["message"]), (&true.into(), &"Heartbeat received".into()));
    let next = beat["next_heartbeat_ms"].as_u64().unwrap();
    assert!((7_500..=12_500).contains(&next), "10 s, scattered by a quarter: {next}");

    let path = format!("/api/v1/nodes/{id}");
    let updated = json(text(registry.put(&path), UPDATE), 200).await;
    assert_eq!(updated, object!({"success": true, "message": "Node updated successfully"}));
    let shown = json(registry.get(&path), 200).await;
    assert_eq!(shown["success"], true);
    assert_eq!((&shown["node"]["status"], &shown["node"]["liveness"]), (&"active".into(), &"online".into()));
    assert_eq!(shown["node"]["metadata"], object!({"region": "us-west-2", "zone": "b"}));
    assert_eq!(shown["node"]["ip_address"], "192.168.1.100", "what is left out stays");

    let deleted = json(registry.delete(&path), 200).await;
    assert_eq!(deleted, object!({"success": true, "message": "Node deleted successfully"}));
    let gone = problem(registry.get(&path), 404, "NODE_NOT_FOUND").await;
    assert_eq!(gone["error"], "Node not found", "the seed's text");
    registry.stop().await;
}

#[tokio::test]
async fn every_route_of_an_unknown_node_is_404_and_of_a_malformed_id_400() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    for (id, status, code) in [
        (STRANGER, 404, "NODE_NOT_FOUND"),
        ("not-a-uuid", 400, "INVALID_ARGUMENT"),
        ("93f9a7cae0334bb78b5ac0899f9a52b8", 400, "INVALID_ARGUMENT"),
        ("%00", 400, "INVALID_ARGUMENT"),
    ] {
        let path = |rest: &str| format!("/api/v1/nodes/{id}{rest}");
        let asked = [
            registry.get(&path("")),
            text(registry.put(&path("")), UPDATE),
            registry.delete(&path("")),
            text(registry.post(&path("/heartbeat")), "{}"),
            text(registry.put(&path("/resource")), "{}"),
            registry.get(&path("/resource")),
            registry.get(&path("/with-resource")),
        ];
        for request in asked {
            let problem = problem(request, status, code).await;
            match status {
                404 => assert_eq!(problem["error"], "Node not found"),
                _ => assert_eq!(field(&problem), "uuid"),
            }
        }
    }
    registry.stop().await;
}

#[tokio::test]
async fn bad_bodies_are_refused_with_the_field_that_is_wrong() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    for (body, status, code, blamed) in [
        (r#"{"port": 1}"#, 422, "INVALID_ARGUMENT", "ip_address"),
        (r#"{"ip_address": "h"}"#, 422, "INVALID_ARGUMENT", "port"),
        (r#"{"ip_address": "h", "port": "80"}"#, 422, "INVALID_ARGUMENT", "port"),
        (r#"{"ip_address": "h", "port": 1, "metadata": {"a": 1}}"#, 422, "INVALID_ARGUMENT", "metadata.a"),
        (r#"{"ip_address": "h", "port": 65536}"#, 400, "INVALID_ARGUMENT", "port"),
        (r#"{"ip_address": "h", "port": -1}"#, 400, "INVALID_ARGUMENT", "port"),
        (r#"{"ip_address": "h", "port": 1, "http_port": 70000}"#, 400, "INVALID_ARGUMENT", "http_port"),
        (r#"{"ip_address": "", "port": 1}"#, 400, "INVALID_ARGUMENT", "ip_address"),
        (r#"{"ip_address": "#, 400, "INVALID_JSON", ""),
        ("", 400, "INVALID_JSON", ""),
        ("[]", 422, "INVALID_ARGUMENT", "body"),
    ] {
        let problem = problem(text(registry.post("/api/v1/nodes"), body), status, code).await;
        assert_eq!(field(&problem), blamed, "{body}");
    }
    let bare = registry.post("/api/v1/nodes").body(REGISTER);
    problem(bare, 415, "UNSUPPORTED_MEDIA_TYPE").await;
    let huge = format!(r#"{{"ip_address": "h", "port": 1, "x": "{}"}}"#, "x".repeat(3 << 20));
    let huge = registry.post("/api/v1/nodes").header("content-type", "application/json").body(huge);
    problem(huge, 413, "TOO_LARGE").await;
    let id = register(&registry).await;
    let path = format!("/api/v1/nodes/{id}");
    assert_eq!(field(&problem(text(registry.put(&path), r#"{"status":""}"#), 400, "INVALID_ARGUMENT").await), "status");
    let unknown = json(text(registry.put(&path), r#"{"whatever": 1}"#), 200).await;
    assert_eq!(unknown["success"], true, "fields that older clients send too are not our business");
    registry.stop().await;
}

#[tokio::test]
async fn the_list_filters_pages_and_keeps_its_order() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(register(&registry).await);
    }
    let seen = |list: &Value| -> Vec<String> {
        list["nodes"].as_array().unwrap().iter().map(|node| node["uuid"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(seen(&json(registry.get("/api/v1/nodes"), 200).await), ids, "in the order of registration");
    let offset = json(registry.get("/api/v1/nodes?limit=2&offset=3"), 200).await;
    assert_eq!((seen(&offset), &offset["total_count"]), (ids[3..].to_vec(), &5.into()));
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let list = json(registry.get(&format!("/api/v1/nodes?limit=2{cursor}")), 200).await;
        paged.extend(seen(&list));
        match list["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(paged, ids);
    json(text(registry.put(&format!("/api/v1/nodes/{}", ids[1])), r#"{"status":"maintenance"}"#), 200).await;
    let marked = json(registry.get("/api/v1/nodes?status=maintenance"), 200).await;
    assert_eq!((seen(&marked), &marked["total_count"]), (vec![ids[1].clone()], &1.into()));
    assert_eq!(json(registry.get("/api/v1/nodes?status=offline"), 200).await["total_count"], 0);
    for (query, blamed) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("offset=-1", "offset"),
        ("cursor=%21", "cursor"),
        ("cursor=Zm9v&offset=1", "cursor"),
    ] {
        let problem = problem(registry.get(&format!("/api/v1/nodes?{query}")), 400, "INVALID_ARGUMENT").await;
        assert_eq!(field(&problem), blamed, "{query}");
    }
    registry.stop().await;
}

#[tokio::test]
async fn loads_are_told_and_shown_in_the_seeds_shapes() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let (id, other) = (register(&registry).await, register(&registry).await);
    problem(registry.get(&format!("/api/v1/nodes/{id}/resource")), 404, "RESOURCE_NOT_FOUND").await;
    let without = json(registry.get(&format!("/api/v1/nodes/{id}/with-resource")), 200).await;
    assert!(without.get("resource").is_none() && without["uuid"] == id.as_str());
    let load = object!({"cpu_usage_percent": 45.2, "load_average_1m": 1.5, "total_memory_bytes": 8_589_934_592_u64,
        "resource_metadata": {"gpu": "none"}});
    let path = format!("/api/v1/nodes/{id}/resource");
    let told = json(registry.put(&path).json(&load), 200).await;
    assert_eq!(told, object!({"success": true, "message": "Resource updated successfully"}));
    let shown = json(registry.get(&path), 200).await;
    assert_eq!((&shown["node_uuid"], &shown["cpu_usage_percent"]), (&id.as_str().into(), &45.2.into()));
    assert_eq!((&shown["total_memory_bytes"], &shown["used_disk_bytes"]), (&8_589_934_592_u64.into(), &0.into()));
    assert_eq!(shown["resource_metadata"], object!({"gpu": "none"}));
    assert!(shown["updated_at"].as_i64().unwrap() > 1_700_000_000);
    let with = json(registry.get(&format!("/api/v1/nodes/{id}/with-resource")), 200).await;
    assert_eq!(with["resource"]["load_average_1m"], 1.5);
    assert!(with["resource"].get("node_uuid").is_none(), "without the id, as the seed has it");
    for (query, count) in [
        (String::new(), 1),
        (format!("?node_uuids={id}"), 1),
        (format!("?node_uuids=nonsense,%20{id}%20,{other}"), 1),
        (format!("?node_uuids={other}"), 0),
    ] {
        let list = json(registry.get(&format!("/api/v1/resources{query}")), 200).await;
        assert_eq!(list["resources"].as_array().unwrap().len(), count, "{query}");
    }
    let stats = json(registry.get("/api/v1/cluster/stats"), 200).await;
    assert_eq!(stats["success"], true);
    let expected = [("total_nodes", 2), ("active_nodes", 2), ("inactive_nodes", 0), ("nodes_with_resources", 1)];
    for (name, count) in expected {
        assert_eq!(stats["stats"][name], count, "{name}");
    }
    assert_eq!(stats["stats"]["average_cpu_usage"], 45.2);
    for (body, status, blamed) in [
        (r#"{"cpu_usage_percent": -1}"#, 400, "cpu_usage_percent"),
        (r#"{"used_disk_bytes": 18446744073709551615}"#, 400, "used_disk_bytes"),
        (r#"{"used_disk_bytes": -1}"#, 422, "used_disk_bytes"),
        (r#"{"load_average_1m": "much"}"#, 422, "load_average_1m"),
    ] {
        assert_eq!(field(&problem(text(registry.put(&path), body), status, "INVALID_ARGUMENT").await), blamed);
    }
    registry.stop().await;
}

#[test]
fn no_text_in_the_place_of_an_id_or_a_cursor_is_a_server_error() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let home = tempdir().unwrap();
    let registry = runtime.block_on(Registry::start(home.path()));
    let mut runner = TestRunner::new(Cases { cases: 96, failure_persistence: None, ..Cases::default() });
    let outcome = runner.run(&any::<String>(), |text| {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for path in ["nodes/", "nodes/x%2F", "files/", "nodes?cursor=", "files?cursor=", "files?q=", "nodes?status="] {
            let response = runtime.block_on(registry.get(&format!("/api/v1/{path}{encoded}")).send()).unwrap();
            let status = response.status().as_u16();
            assert!(matches!(status, 200 | 400 | 404), "{path}{text:?}: {status}");
        }
        Ok(())
    });
    outcome.unwrap();
    runtime.block_on(registry.stop());
}
