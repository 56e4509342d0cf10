//! The agent's own interfaces as a client meets them: on sockets, put together by `Spearlet::start`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::indexing_slicing, reason = "tests")]

use api::proto::spearlet::{PutObjectRequest, object_service_client::ObjectServiceClient};
use futures_util::StreamExt;
use serde_json::{Value, json};
use spearlet::{Addresses, Config, Deps, Spearlet};
use std::{net::SocketAddr, sync::Arc};
use store::{Memory, Store};
use supervise::{Budget, Phase, Supervisor};
use tempfile::TempDir;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};
use types::SystemClock;

struct Node {
    _dir: TempDir,
    supervisor: Supervisor,
    spearlet: Spearlet,
    http: SocketAddr,
    grpc: SocketAddr,
}

async fn bind() -> net::Listener {
    net::Sockets::bind("test", "test", "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

impl Node {
    async fn start(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new(Budget::default());
        let store = Store::start(Arc::new(Memory::new()), &supervisor.scope(Phase::Store, "store"));
        let (http, grpc) = (bind().await, bind().await);
        let addresses = Addresses { http: http.local_addr(), grpc: grpc.local_addr() };
        let clock = Arc::new(SystemClock::new());
        let who = ("spearlet", "test");
        let process = net::Process::new(who, &[], &supervisor, &net::Readiness::new(), clock.clone());
        let deps = Deps {
            control: None,
            runtimes: runtime::Runtimes::default(),
            bus: bus::Bus::start(&store, &supervisor.scope(Phase::Bus, "bus")),
            store,
            clock,
            data_dir: dir.path().to_owned(),
            addresses,
            process,
            config: config.into(),
        };
        let spearlet = Spearlet::start(deps, &supervisor).await.unwrap();
        let scope = supervisor.scope(Phase::Intake, "test");
        for (listener, router) in [(http, spearlet.http()), (grpc, spearlet.grpc().unwrap())] {
            let (access, options) = (net::Access::loopback([""; 0]), net::ServeOptions::default());
            net::serve(listener, router, access, options, &scope, supervisor.stopping());
        }
        Self { _dir: dir, supervisor, spearlet, http: addresses.http, grpc: addresses.grpc }
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.send("GET", path).await
    }

    async fn send(&self, method: &str, path: &str) -> reqwest::Response {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        client.request(method.parse().unwrap(), format!("http://{}{path}", self.http)).send().await.unwrap()
    }

    fn channel(&self) -> net::channel::Channel {
        net::channel::connect(&self.grpc.to_string(), None, net::channel::ConnectOptions::default()).unwrap()
    }

    async fn stop(self) {
        let Self { supervisor, spearlet, .. } = self;
        drop(spearlet);
        supervisor.run(std::future::ready(())).await.unwrap();
    }
}

#[tokio::test]
async fn health_and_status_tell_of_the_node() {
    let node = Node::start(Config { node_name: "edge-1".to_owned(), ..Config::default() }).await;
    let mut health: Value = node.get("/health").await.json().await.unwrap();
    let timestamp = health["timestamp"].take();
    let timestamp = timestamp.as_str().unwrap();
    assert!(timestamp.starts_with("20") && timestamp.ends_with('Z') && timestamp.contains('T'), "{timestamp}");
    assert_eq!(health, json!({"status": "healthy", "timestamp": null, "service": "spearlet"}));

    let mut client = ObjectServiceClient::new(node.channel());
    let put = PutObjectRequest { key: "a".into(), value: vec![0; 12].into(), ..Default::default() };
    assert!(client.put_object(put).await.unwrap().into_inner().success);
    let pinned: Value = node.send("POST", "/objects/a/pin").await.json().await.unwrap();
    assert_eq!(pinned["success"], true);
    let status: Value = node.get("/status").await.json().await.unwrap();
    let expected = json!({"status": "running", "node_name": "edge-1", "node_uuid": node.spearlet.id().to_string(),
        "object_count": 1, "total_object_size": 12, "pinned_object_count": 1, "running": 0, "waiting": 0});
    assert_eq!(status, expected);
    node.stop().await;
}

#[tokio::test]
async fn every_operation_of_the_document_is_served() {
    let node = Node::start(Config::default()).await;
    let document: Value = node.get("/api/openapi.json").await.json().await.unwrap();
    assert_eq!(document["info"]["title"], "SPEARlet API");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            operations.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    operations.sort();
    let expected = [
        "DELETE /api/v1/instances/{instance_id}",
        "DELETE /objects/{key}",
        "DELETE /objects/{key}/pin",
        "DELETE /objects/{key}/refs",
        "DELETE /tasks/{task_id}",
        "GET /api/v1/functions",
        "GET /api/v1/instances",
        "GET /api/v1/status",
        "GET /functions/executions/{execution_id}",
        "GET /health",
        "GET /monitoring/health",
        "GET /monitoring/stats",
        "GET /objects",
        "GET /objects/{key}",
        "GET /status",
        "GET /tasks",
        "GET /tasks/{task_id}",
        "GET /tasks/{task_id}/executions",
        "POST /functions/execute",
        "POST /functions/executions/{execution_id}/cancel",
        "POST /functions/{task_id}/invoke",
        "POST /objects/{key}/pin",
        "POST /objects/{key}/refs",
        "PUT /objects/{key}",
    ];
    assert_eq!(operations, expected);
    for operation in &operations {
        let (method, path) = operation.split_once(' ').unwrap();
        let path = ["{key}", "{task_id}", "{execution_id}", "{instance_id}"]
            .iter()
            .fold(path.to_owned(), |path, name| path.replace(name, "a"));
        let response = node.send(method, &path).await;
        let (status, body) = (response.status().as_u16(), response.text().await.unwrap());
        assert!(!body.contains("NO_SUCH_ROUTE") && status != 405 && status < 500, "{operation}: {status} {body}");
    }
    let references = document.to_string();
    for part in references.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name} is not defined");
    }
    node.stop().await;
}

#[tokio::test]
async fn the_page_for_people_is_there_only_if_wanted() {
    let node = Node::start(Config::default()).await;
    let page = node.get("/swagger-ui/").await;
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains("swagger-ui"));
    for path in ["/swagger-ui", "/docs", "/api-docs"] {
        let response = node.get(path).await;
        assert!(response.status().is_redirection(), "{path}: {}", response.status());
        assert_eq!(response.headers()["location"], "/swagger-ui/", "{path}");
    }
    node.stop().await;
    let node = Node::start(Config { swagger_enabled: false, ..Config::default() }).await;
    for path in ["/swagger-ui/", "/swagger-ui", "/docs", "/api-docs", "/api/openapi.json"] {
        let response = node.get(path).await;
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(response.json::<Value>().await.unwrap()["code"], "NO_SUCH_ROUTE");
    }
    assert_eq!(node.get("/health").await.status(), 200);
    node.stop().await;
}

const SERVICES: [&str; 5] = [
    "spearlet.ObjectService",
    "spearlet.FunctionService",
    "spearlet.InvocationService",
    "spearlet.ExecutionService",
    "spearlet.InstanceService",
];

#[tokio::test]
async fn grpc_tells_its_health_and_its_services() {
    let node = Node::start(Config::default()).await;
    let mut health = HealthClient::new(node.channel());
    for service in [&""].into_iter().chain(&SERVICES) {
        let answer = health.check(HealthCheckRequest { service: (*service).to_owned() }).await.unwrap().into_inner();
        assert_eq!(answer.status, 1, "{service:?} is serving");
    }
    let unknown = health.check(HealthCheckRequest { service: "no.Such".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    macro_rules! services {
        ($version:ident) => {{
            use $version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
            let asked = futures_util::stream::iter([
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol("spearlet.ObjectService".to_owned())),
            ]);
            let mut client = ServerReflectionClient::new(node.channel());
            let mut answers = client.server_reflection_info(asked).await.unwrap().into_inner();
            let listed = answers.next().await.unwrap().unwrap().message_response.unwrap();
            let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{listed:?}") };
            let file = answers.next().await.unwrap().unwrap().message_response.unwrap();
            assert!(matches!(file, MessageResponse::FileDescriptorResponse(_)), "{file:?}");
            let mut names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
            names.sort();
            names
        }};
    }
    let (current, older) = (services!(v1), services!(v1alpha));
    for names in [current, older] {
        for service in SERVICES {
            assert!(names.contains(&service.to_owned()), "{names:?}");
        }
        assert!(names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with("sms.")), "{names:?}");
    }
    node.stop().await;
}
