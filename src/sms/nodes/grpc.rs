//! `sms.NodeService`.

use api::{
    convert,
    proto::sms::{
        DeleteNodeRequest, DeleteNodeResponse, GetNodeRequest, GetNodeResourceRequest, GetNodeResourceResponse,
        GetNodeResponse, GetNodeWithResourceRequest, GetNodeWithResourceResponse, HeartbeatRequest, HeartbeatResponse,
        ListNodeResourcesRequest, ListNodeResourcesResponse, ListNodesRequest, ListNodesResponse, RegisterNodeRequest,
        RegisterNodeResponse, UpdateNodeRequest, UpdateNodeResourceRequest, UpdateNodeResourceResponse,
        UpdateNodeResponse, node_service_server::NodeService,
    },
};
use net::grpc::status;
use tonic::{Request, Response, Status};
use types::{Fault, NodeId, node::port};

use super::{
    records::{self, Word},
    service::Update,
};
use crate::Sms;

/// Metadata of an answer to a heartbeat: milliseconds until the next.
pub const NEXT_HEARTBEAT: &str = "spear-next-heartbeat-ms";

/// The service over gRPC.
#[derive(Clone)]
pub struct Grpc {
    sms: Sms,
}

impl Grpc {
    /// For a registry.
    pub fn new(sms: &Sms) -> Self {
        Self { sms: sms.clone() }
    }
}

fn id(field: &str, text: &str) -> Result<NodeId, Status> {
    text.parse().map_err(|fault: Fault| {
        let detail = fault.errors.into_iter().next().map_or(fault.message, |error| error.detail);
        status(Fault::invalid_field(field, detail))
    })
}

fn node_required() -> Status {
    status(Fault::invalid_field("node", "Node is required"))
}

/// An operator's word in a node message. Agents send `online` and `offline` of themselves: that is for their
/// heartbeats to say, and only `online` in an update takes a word back.
fn word(text: &str) -> Result<Option<Word>, Fault> {
    if text.is_empty() { Ok(None) } else { records::word("node.status", text).map(Some) }
}

#[tonic::async_trait]
impl NodeService for Grpc {
    async fn register_node(
        &self,
        request: Request<RegisterNodeRequest>,
    ) -> Result<Response<RegisterNodeResponse>, Status> {
        let node = request.into_inner().node.ok_or_else(node_required)?;
        // Registering again says nothing about what an operator wants.
        let word = word(&node.status).map_err(status)?.filter(|word| match word {
            Word::Clear => false,
            Word::Set(word) => !word.eq_ignore_ascii_case("offline"),
        });
        let registration = convert::registration_from(node).map_err(status)?;
        let node = self.sms.nodes.put(registration, word).await.map_err(|fault| status(fault.within("node")))?;
        Ok(Response::new(RegisterNodeResponse {
            success: true,
            message: "Node registered successfully".to_owned(),
            node_uuid: node.id.to_string(),
        }))
    }

    async fn update_node(&self, request: Request<UpdateNodeRequest>) -> Result<Response<UpdateNodeResponse>, Status> {
        let UpdateNodeRequest { uuid, node } = request.into_inner();
        let node = node.ok_or_else(node_required)?;
        let named = if uuid.is_empty() { &node.uuid } else { &uuid };
        let target = id("uuid", named)?;
        if !node.uuid.is_empty() && node.uuid != *named {
            let fault = Fault::invalid_field("node.uuid", "names another node than uuid; leave it out or repeat it");
            return Err(status(fault));
        }
        let update = Update {
            ip_address: Some(node.ip_address),
            port: Some(port("node.port", i64::from(node.port)).map_err(status)?),
            http_port: Some(port("node.http_port", i64::from(node.http_port)).map_err(status)?),
            status: word(&node.status).map_err(status)?,
            metadata: Some(node.metadata.into_iter().collect()),
        };
        self.sms.nodes.update(target, update).await.map_err(|fault| status(fault.within("node")))?;
        Ok(Response::new(UpdateNodeResponse { success: true, message: "Node updated successfully".to_owned() }))
    }

    async fn delete_node(&self, request: Request<DeleteNodeRequest>) -> Result<Response<DeleteNodeResponse>, Status> {
        let target = id("uuid", &request.into_inner().uuid)?;
        self.sms.nodes.delete(target).await.map_err(status)?;
        Ok(Response::new(DeleteNodeResponse { success: true, message: "Node deleted successfully".to_owned() }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        let HeartbeatRequest { uuid, health_info, .. } = request.into_inner();
        let target = id("uuid", &uuid)?;
        let next = self.sms.nodes.heartbeat(target, health_info.into_iter().collect()).await.map_err(status)?;
        let mut answer = Response::new(HeartbeatResponse {
            success: true,
            message: "Heartbeat received".to_owned(),
            server_timestamp: self.sms.clock.wall().seconds(),
        });
        if let Ok(millis) = next.as_millis().to_string().parse() {
            answer.metadata_mut().insert(NEXT_HEARTBEAT, millis);
        }
        Ok(answer)
    }

    async fn list_nodes(&self, request: Request<ListNodesRequest>) -> Result<Response<ListNodesResponse>, Status> {
        let wanted = request.into_inner().status_filter;
        let nodes = self.sms.nodes.all((!wanted.is_empty()).then_some(wanted.as_str()));
        Ok(Response::new(ListNodesResponse { nodes: nodes.iter().map(convert::node).collect() }))
    }

    async fn get_node(&self, request: Request<GetNodeRequest>) -> Result<Response<GetNodeResponse>, Status> {
        let target = id("uuid", &request.into_inner().uuid)?;
        let node = self.sms.nodes.view(target).map_err(status)?;
        Ok(Response::new(GetNodeResponse { found: true, node: Some(convert::node(&node)) }))
    }

    async fn update_node_resource(
        &self,
        request: Request<UpdateNodeResourceRequest>,
    ) -> Result<Response<UpdateNodeResourceResponse>, Status> {
        let resource = request.into_inner().resource;
        let resource = resource.ok_or_else(|| status(Fault::invalid_field("resource", "Resource is required")))?;
        let target = id("resource.node_uuid", &resource.node_uuid)?;
        let resource = convert::resource_from(resource);
        let updated = self.sms.nodes.update_resource(target, resource).await;
        updated.map_err(|fault| status(fault.within("resource")))?;
        Ok(Response::new(UpdateNodeResourceResponse {
            success: true,
            message: "Resource updated successfully".to_owned(),
        }))
    }

    async fn get_node_resource(
        &self,
        request: Request<GetNodeResourceRequest>,
    ) -> Result<Response<GetNodeResourceResponse>, Status> {
        let target = id("node_uuid", &request.into_inner().node_uuid)?;
        let resource = self.sms.nodes.resource(target).map(|resource| convert::resource(target, &resource));
        Ok(Response::new(GetNodeResourceResponse { found: resource.is_some(), resource }))
    }

    async fn list_node_resources(
        &self,
        request: Request<ListNodeResourcesRequest>,
    ) -> Result<Response<ListNodeResourcesResponse>, Status> {
        let wanted = request.into_inner().node_uuids;
        let wanted = wanted.iter().map(|one| id("node_uuids", one)).collect::<Result<Vec<_>, _>>()?;
        let resources = self.sms.nodes.all_resources(&wanted);
        let resources = resources.iter().map(|(node, resource)| convert::resource(*node, resource)).collect();
        Ok(Response::new(ListNodeResourcesResponse { resources }))
    }

    async fn get_node_with_resource(
        &self,
        request: Request<GetNodeWithResourceRequest>,
    ) -> Result<Response<GetNodeWithResourceResponse>, Status> {
        let target = id("uuid", &request.into_inner().uuid)?;
        let node = self.sms.nodes.view(target).ok();
        let resource = node.as_ref().and_then(|_| self.sms.nodes.resource(target));
        Ok(Response::new(GetNodeWithResourceResponse {
            found: node.is_some(),
            node: node.as_ref().map(convert::node),
            resource: resource.map(|resource| convert::resource(target, &resource)),
        }))
    }
}
