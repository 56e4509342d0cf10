//! `sms.NodeService`, health and reflection, through generated clients.

use api::proto::sms::{
    DeleteNodeRequest, GetNodeRequest, GetNodeResourceRequest, GetNodeWithResourceRequest, HeartbeatRequest,
    ListNodeResourcesRequest, ListNodesRequest, Node, NodeResource, RegisterNodeRequest, UpdateNodeRequest,
    UpdateNodeResourceRequest, node_service_client::NodeServiceClient,
};
use net::channel::{Channel, ConnectOptions, connect};
use std::collections::BTreeSet;
use tempfile::tempdir;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::harness::{Registry, json};

const ID: &str = "93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8";
const STRANGER: &str = "00000000-0000-4000-8000-000000000000";

fn channel(registry: &Registry) -> Channel {
    connect(&registry.grpc.to_string(), None, ConnectOptions::default()).unwrap()
}

fn node() -> Node {
    Node {
        uuid: ID.to_owned(),
        ip_address: "10.0.0.7".to_owned(),
        port: 50052,
        status: "online".to_owned(),
        http_port: 8081,
        metadata: [("zone".to_owned(), "a".to_owned())].into(),
        ..Node::default()
    }
}

/// The code of a refusal and the field that it blames.
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    let code = status.code();
    let fault = net::grpc::fault(status);
    (code, fault.errors.first().map(|error| error.field.clone()).unwrap_or_default())
}

#[tokio::test]
async fn a_node_lives_through_all_ten_calls() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let mut nodes = NodeServiceClient::new(channel(&registry));
    let registered = nodes.register_node(RegisterNodeRequest { node: Some(node()) }).await.unwrap().into_inner();
    assert_eq!((registered.success, registered.node_uuid.as_str()), (true, ID), "the caller's id is used as it is");
    let got = nodes.get_node(GetNodeRequest { uuid: ID.into() }).await.unwrap().into_inner();
    let got = (got.found, got.node.unwrap());
    assert!(got.0 && got.1.registered_at > 1_700_000_000 && got.1.last_heartbeat >= got.1.registered_at);
    let times = (got.1.registered_at, got.1.last_heartbeat);
    assert_eq!(got.1, Node { registered_at: times.0, last_heartbeat: times.1, ..node() });

    let beat = nodes.heartbeat(HeartbeatRequest { uuid: ID.into(), ..HeartbeatRequest::default() }).await.unwrap();
    let next: u64 = beat.metadata().get("spear-next-heartbeat-ms").unwrap().to_str().unwrap().parse().unwrap();
    assert!((7_500..=12_500).contains(&next), "{next}");
    let beat = beat.into_inner();
    assert!(beat.success && beat.server_timestamp > 1_700_000_000);

    let update = Node { status: "maintenance".into(), ip_address: "10.0.0.8".into(), ..node() };
    let update = UpdateNodeRequest { uuid: ID.into(), node: Some(update) };
    assert!(nodes.update_node(update).await.unwrap().into_inner().success);
    for (status_filter, count) in [("", 1), ("maintenance", 1), ("online", 0)] {
        let list = nodes.list_nodes(ListNodesRequest { status_filter: status_filter.into() }).await.unwrap();
        assert_eq!(list.into_inner().nodes.len(), count, "{status_filter:?}");
    }
    let shown = json(registry.get(&format!("/api/v1/nodes/{ID}")), 200).await;
    assert_eq!((&shown["node"]["status"], &shown["node"]["ip_address"]), (&"maintenance".into(), &"10.0.0.8".into()));

    let told = NodeResource { node_uuid: ID.into(), cpu_usage_percent: 12.5, ..NodeResource::default() };
    let asked = GetNodeResourceRequest { node_uuid: ID.into() };
    assert!(!nodes.get_node_resource(asked.clone()).await.unwrap().into_inner().found);
    nodes.update_node_resource(UpdateNodeResourceRequest { resource: Some(told) }).await.unwrap();
    let resource = nodes.get_node_resource(asked).await.unwrap().into_inner();
    assert_eq!((resource.found, resource.resource.unwrap().cpu_usage_percent), (true, 12.5));
    for (node_uuids, count) in [(vec![], 1), (vec![ID.to_owned()], 1), (vec![STRANGER.to_owned()], 0)] {
        let list = nodes.list_node_resources(ListNodeResourcesRequest { node_uuids }).await.unwrap();
        assert_eq!(list.into_inner().resources.len(), count);
    }
    let both = nodes.get_node_with_resource(GetNodeWithResourceRequest { uuid: ID.into() }).await.unwrap().into_inner();
    assert!(both.found && both.node.is_some() && both.resource.is_some());
    assert!(nodes.delete_node(DeleteNodeRequest { uuid: ID.into() }).await.unwrap().into_inner().success);
    let both = nodes.get_node_with_resource(GetNodeWithResourceRequest { uuid: ID.into() }).await.unwrap().into_inner();
    assert!(!both.found && both.node.is_none() && both.resource.is_none());
    registry.stop().await;
}

#[tokio::test]
async fn unknown_and_malformed_ids_have_the_codes_of_the_original() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let mut nodes = NodeServiceClient::new(channel(&registry));
    for (uuid, code, field) in
        [(STRANGER, Code::NotFound, ""), ("x", Code::InvalidArgument, "uuid"), ("", Code::InvalidArgument, "uuid")]
    {
        let expected = (code, field.to_owned());
        let (uuid, named) = (uuid.to_owned(), Some(Node { uuid: String::new(), ..node() }));
        assert_eq!(refused(nodes.get_node(GetNodeRequest { uuid: uuid.clone() }).await), expected);
        assert_eq!(refused(nodes.delete_node(DeleteNodeRequest { uuid: uuid.clone() }).await), expected);
        let beat = HeartbeatRequest { uuid: uuid.clone(), ..HeartbeatRequest::default() };
        assert_eq!(refused(nodes.heartbeat(beat).await), expected);
        assert_eq!(refused(nodes.update_node(UpdateNodeRequest { uuid, node: named }).await), expected);
    }
    let unknown = GetNodeResourceRequest { node_uuid: STRANGER.into() };
    assert!(!nodes.get_node_resource(unknown).await.unwrap().into_inner().found, "an answer, not an error");
    let resource = Some(NodeResource { node_uuid: STRANGER.into(), ..NodeResource::default() });
    let refusal = refused(nodes.update_node_resource(UpdateNodeResourceRequest { resource }).await);
    assert_eq!(refusal, (Code::NotFound, String::new()));
    registry.stop().await;
}

#[tokio::test]
async fn bad_input_is_an_invalid_argument_that_names_its_field() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let mut nodes = NodeServiceClient::new(channel(&registry));
    let absent = nodes.register_node(RegisterNodeRequest { node: None }).await.unwrap_err();
    assert_eq!((absent.code(), absent.message().contains("Node is required")), (Code::InvalidArgument, true));
    let absent = UpdateNodeRequest { uuid: ID.into(), node: None };
    assert_eq!(refused(nodes.update_node(absent).await), (Code::InvalidArgument, "node".into()));
    let labels = (0..65).map(|n| (n.to_string(), String::new())).collect();
    for (wrong, field) in [
        (Node { uuid: "x".into(), ..node() }, "node.uuid"),
        (Node { ip_address: String::new(), ..node() }, "node.ip_address"),
        (Node { port: -1, ..node() }, "node.port"),
        (Node { port: 65536, ..node() }, "node.port"),
        (Node { http_port: i32::MAX, ..node() }, "node.http_port"),
        (Node { status: "a\nb".into(), ..node() }, "node.status"),
        (Node { metadata: labels, ..node() }, "node.metadata"),
    ] {
        let register = RegisterNodeRequest { node: Some(wrong) };
        assert_eq!(refused(nodes.register_node(register).await), (Code::InvalidArgument, field.to_owned()));
    }
    nodes.register_node(RegisterNodeRequest { node: Some(node()) }).await.unwrap();
    let other = UpdateNodeRequest { uuid: ID.into(), node: Some(Node { uuid: STRANGER.into(), ..node() }) };
    assert_eq!(refused(nodes.update_node(other).await), (Code::InvalidArgument, "node.uuid".into()));
    let resource = Some(NodeResource { node_uuid: ID.into(), load_average_1m: f64::NAN, ..NodeResource::default() });
    let refusal = refused(nodes.update_node_resource(UpdateNodeResourceRequest { resource }).await);
    assert_eq!(refusal, (Code::InvalidArgument, "resource.load_average_1m".into()));
    let node_uuids = vec![ID.to_owned(), "x".to_owned()];
    let refusal = refused(nodes.list_node_resources(ListNodeResourcesRequest { node_uuids }).await);
    assert_eq!(refusal, (Code::InvalidArgument, "node_uuids".into()));
    registry.stop().await;
}

#[tokio::test]
async fn registering_again_is_harmless_and_keeps_what_an_operator_said() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let mut nodes = NodeServiceClient::new(channel(&registry));
    let again = RegisterNodeRequest { node: Some(node()) };
    nodes.register_node(again.clone()).await.unwrap();
    let path = format!("/api/v1/nodes/{ID}");
    json(registry.put(&path).json(&serde_json::json!({"status": "maintenance"})), 200).await;
    nodes.register_node(again).await.unwrap();
    let shown = nodes.get_node(GetNodeRequest { uuid: ID.into() }).await.unwrap().into_inner().node.unwrap();
    assert_eq!(shown.status, "maintenance");
    assert_eq!(json(registry.get("/api/v1/nodes"), 200).await["total_count"], 1);
    let made = nodes.register_node(RegisterNodeRequest { node: Some(Node { uuid: String::new(), ..node() }) }).await;
    assert_ne!(made.unwrap().into_inner().node_uuid, ID, "no id: a new node");
    registry.stop().await;
}

#[tokio::test]
async fn health_is_told_of_the_process_and_of_every_service() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let mut health = HealthClient::new(channel(&registry));
    for service in services(&registry).await.into_iter().chain([String::new()]) {
        if service.starts_with("grpc.") {
            continue;
        }
        let asked = HealthCheckRequest { service: service.clone() };
        let status = health.check(asked).await.unwrap_or_else(|status| panic!("{service}: {status}")).into_inner();
        assert_eq!(status.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = health.check(HealthCheckRequest { service: "sms.NoService".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watching = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watching.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    registry.stop().await;
}

/// Names of the services that the registry itself says it has.
async fn services(registry: &Registry) -> BTreeSet<String> {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel(registry));
    let mut answers = client.server_reflection_info(futures_util::stream::iter([request])).await.unwrap().into_inner();
    match answers.message().await.unwrap().unwrap().message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => list.service.into_iter().map(|service| service.name).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    use tonic_reflection::pb::v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let listed = services(&registry).await;
    let served = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "sms.NodeService",
        "sms.TaskService",
        "spear.v1.AgentService",
        "spear.v1.ExecutionService",
    ];
    assert_eq!(listed, served.map(str::to_owned).into(), "those that are served here, and no others");
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol("sms.NodeService".into())),
    };
    let mut client = ServerReflectionClient::new(channel(&registry));
    let mut answers = client.server_reflection_info(futures_util::stream::iter([request])).await.unwrap().into_inner();
    let response = answers.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(
        matches!(response, MessageResponse::FileDescriptorResponse(found) if !found.file_descriptor_proto.is_empty())
    );
    registry.stop().await;
}
