//! The OpenAPI document, the page that shows it, and health.

use serde_json::Value;
use sms::Config;
use std::collections::BTreeSet;
use tempfile::tempdir;

use crate::harness::{Registry, json, problem};

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "head"];

async fn document(registry: &Registry) -> Value {
    json(registry.get("/api/openapi.json"), 200).await
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                found.push((method.to_owned(), path.clone(), operation.clone()));
            }
        }
    }
    found
}

#[tokio::test]
async fn the_document_is_3_1_and_names_every_route_of_nodes_and_files() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let document = document(&registry).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    assert_eq!(document["info"]["title"], "SPEAR Metadata Server API");
    let named: BTreeSet<_> = operations(&document)
        .iter()
        .map(|(method, path, operation)| {
            format!("{} {method} {path}", operation["operationId"].as_str().unwrap_or("nameless"))
        })
        .collect();
    for expected in [
        "register_node post /api/v1/nodes",
        "list_nodes get /api/v1/nodes",
        "get_node get /api/v1/nodes/{uuid}",
        "update_node put /api/v1/nodes/{uuid}",
        "delete_node delete /api/v1/nodes/{uuid}",
        "node_heartbeat post /api/v1/nodes/{uuid}/heartbeat",
        "update_node_resource put /api/v1/nodes/{uuid}/resource",
        "get_node_resource get /api/v1/nodes/{uuid}/resource",
        "get_node_with_resource get /api/v1/nodes/{uuid}/with-resource",
        "list_resources get /api/v1/resources",
        "cluster_stats get /api/v1/cluster/stats",
        "upload_file post /api/v1/files",
        "list_files get /api/v1/files",
        "download_file get /api/v1/files/{id}",
        "head_file head /api/v1/files/{id}",
        "delete_file delete /api/v1/files/{id}",
        "get_file_meta get /api/v1/files/{id}/meta",
        "presign_upload post /api/v1/files/presign-upload",
        "health get /health",
    ] {
        assert!(named.contains(expected), "{expected} is missing in {named:#?}");
    }
    registry.stop().await;
}

#[tokio::test]
async fn every_operation_has_a_name_of_its_own_a_summary_a_tag_and_its_errors_as_problems() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let document = document(&registry).await;
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let place = format!("{method} {path}");
        let name = operation["operationId"].as_str().unwrap_or_default();
        assert!(!name.is_empty() && names.insert(name.to_owned()), "{place}: {name:?}");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{place}");
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{place}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{place}");
        if path.contains('{') {
            assert!(responses.contains_key("404"), "{place} can be asked of what is not there");
        }
        for (status, response) in responses {
            let error = status.starts_with('4') || status.starts_with('5');
            if error && method != "head" && path != "/health" {
                let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(problem, "#/components/schemas/ProblemBody", "{place} {status}");
            }
        }
    }
    registry.stop().await;
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let document = document(&registry).await;
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let references: Vec<_> =
        text.split("\"#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(references.len() > 20);
    for reference in references {
        assert!(schemas.contains_key(reference), "{reference}");
    }
    registry.stop().await;
}

#[tokio::test]
async fn every_documented_operation_is_served() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    for (method, path, _) in operations(&document(&registry).await) {
        let concrete: String = path
            .split('/')
            .map(|part| if part.starts_with('{') { "93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let method = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let request = registry.client.request(method.clone(), registry.url(&concrete));
        let request = if method == "POST" || method == "PUT" { request.json(&serde_json::json!({})) } else { request };
        // Event streams never end: the head of the answer is enough.
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        assert!(status.as_u16() != 405 && !status.is_server_error(), "{method} {path}: {status}");
        if status == 404 && method != "HEAD" && headers["content-type"] == "application/problem+json" {
            let body: Value = response.json().await.unwrap();
            assert_ne!(body["code"], "NO_SUCH_ROUTE", "{method} {path}");
        }
    }
    registry.stop().await;
}

#[tokio::test]
async fn the_page_that_shows_the_document_works_without_any_other_server() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let response = registry.get("/swagger-ui").send().await.unwrap();
    assert_eq!(response.url().path(), "/swagger-ui/", "redirected");
    let page = response.text().await.unwrap();
    let mut loaded = 0;
    for reference in page.split("src=\"").skip(1).chain(page.split("href=\"").skip(1)) {
        let reference = reference.split('"').next().unwrap();
        assert!(!reference.contains("//"), "{reference} is elsewhere");
        let asset = registry.get(&format!("/swagger-ui/{}", reference.trim_start_matches("./"))).send().await.unwrap();
        assert_eq!(asset.status(), 200, "{reference}");
        loaded += 1;
    }
    assert!(loaded >= 3, "{page}");
    registry.stop().await;
}

#[tokio::test]
async fn neither_document_nor_page_is_served_when_the_setting_says_so() {
    let home = tempdir().unwrap();
    let registry = Registry::with(home.path(), Config { enable_swagger: false, ..Config::default() }).await;
    for path in ["/api/openapi.json", "/swagger-ui/", "/swagger-ui", "/swagger-ui/index.html"] {
        problem(registry.get(path), 404, "NO_SUCH_ROUTE").await;
    }
    json(registry.get("/api/v1/nodes"), 200).await;
    registry.stop().await;
}

#[tokio::test]
async fn health_is_told_in_the_seeds_shape_and_looks_at_something() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let health = json(registry.get("/health"), 200).await;
    assert_eq!((&health["status"], &health["service"]), (&"healthy".into(), &"sms".into()));
    let time = health["timestamp"].as_str().unwrap();
    assert!(time.len() >= 20 && time.contains('T') && time.ends_with('Z'), "{time}");
    assert_eq!(health.as_object().unwrap().len(), 3);
    std::fs::remove_dir_all(home.path().join("files")).unwrap();
    let ill = json(registry.get("/health"), 503).await;
    assert_eq!(ill["status"], "unhealthy");
    assert!(ill["reason"].as_str().unwrap().contains("files"), "{ill}");
    registry.stop().await;
}
