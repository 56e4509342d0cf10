//! `spearlet.ObjectService`. What the rules refuse is answered as the original does, with `success: false`;
//! malformed input and broken disks are statuses.

use api::proto::spearlet::{
    self as wire,
    object_service_server::{ObjectService, ObjectServiceServer},
};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use types::Fault;

use super::{Error, Found, MOST_LISTED, ObjectRecord, Put, Refusal, Service};

/// Bytes of a message beyond those of the largest object: key, metadata, framing.
const SLACK: u64 = 1 << 20;

/// The service on the wire.
pub struct Grpc {
    service: Arc<Service>,
}

/// Serves an object store; messages may be a little larger than the largest object.
pub fn server(service: Arc<Service>) -> ObjectServiceServer<Grpc> {
    let most = usize::try_from(service.config().max_object_size.saturating_add(SLACK)).unwrap_or(usize::MAX);
    // A page of 1000 objects has metadata of its own.
    let most_sent = most.saturating_add(MOST_LISTED * (super::MOST_METADATA + super::MOST_KEY));
    ObjectServiceServer::new(Grpc { service }).max_decoding_message_size(most).max_encoding_message_size(most_sent)
}

type Answer<T> = Result<Response<T>, Status>;

/// Splits what goes into the answer from what is a status.
fn refused<T>(result: Result<T, Error>) -> Result<Result<T, Refusal>, Status> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Error::Refused(refusal)) => Ok(Err(refusal)),
        Err(Error::Fault(fault)) => Err(net::grpc::status(fault)),
    }
}

/// An absent count cannot be told from 0 on the wire, and means 1 as it does over HTTP.
fn count(count: i32) -> i32 {
    if count == 0 { 1 } else { count }
}

#[tonic::async_trait]
impl ObjectService for Grpc {
    async fn put_object(&self, request: Request<wire::PutObjectRequest>) -> Answer<wire::PutObjectResponse> {
        let wire::PutObjectRequest { key, value, metadata, overwrite } = request.into_inner();
        let _room = self.service.room(value.len() as u64).await.map_err(net::grpc::status)?;
        let put = Put { key, value, metadata: metadata.into_iter().collect(), overwrite };
        Ok(Response::new(match refused(self.service.put(put).await)? {
            Ok(record) => wire::PutObjectResponse {
                success: true,
                message: "Object stored successfully".to_owned(),
                object_meta: Some(meta(&record)),
            },
            Err(refusal) => wire::PutObjectResponse { success: false, message: refusal.to_string(), object_meta: None },
        }))
    }

    async fn get_object(&self, request: Request<wire::GetObjectRequest>) -> Answer<wire::GetObjectResponse> {
        let wire::GetObjectRequest { key, include_value } = request.into_inner();
        let size = match refused(self.service.get(&key, false).await)? {
            Ok(found) if include_value => found.record.size,
            _ => 0,
        };
        let _room = self.service.room(size).await.map_err(net::grpc::status)?;
        Ok(Response::new(match refused(self.service.get(&key, include_value).await)? {
            Ok(found) => {
                wire::GetObjectResponse { found: true, object: Some(object(found)), message: "Object found".to_owned() }
            }
            Err(refusal) => wire::GetObjectResponse { found: false, object: None, message: refusal.to_string() },
        }))
    }

    async fn list_objects(&self, request: Request<wire::ListObjectsRequest>) -> Answer<wire::ListObjectsResponse> {
        let wire::ListObjectsRequest { prefix, limit, start_after, include_values } = request.into_inner();
        let limit = usize::try_from(limit).map_err(|_| {
            net::grpc::status(Fault::invalid_field("limit", format!("is {limit}; 0 (the most) or more are wanted")))
        })?;
        let limit = if limit == 0 { MOST_LISTED } else { limit };
        let after = Some(start_after.as_str()).filter(|after| !after.is_empty());
        let room = if include_values { self.service.config().max_object_size } else { 0 };
        let _room = self.service.room(room).await.map_err(net::grpc::status)?;
        let listed = match refused(self.service.list(&prefix, after, limit, include_values).await)? {
            Ok(listed) => listed,
            Err(refusal) => return Err(net::grpc::status(Fault::internal(refusal.to_string()))),
        };
        let last = listed.objects.last().filter(|_| listed.more).map(|found| found.record.key.clone());
        Ok(Response::new(wire::ListObjectsResponse {
            has_more: last.is_some(),
            next_start_after: last.unwrap_or_default(),
            objects: listed.objects.into_iter().map(object).collect(),
        }))
    }

    async fn add_object_ref(&self, request: Request<wire::AddObjectRefRequest>) -> Answer<wire::AddObjectRefResponse> {
        let request = request.into_inner();
        let (success, message, new_ref_count) =
            match refused(self.service.add_ref(request.key, count(request.count)).await)? {
                Ok(now) => (true, "Reference added".to_owned(), now),
                Err(refusal) => (false, refusal.to_string(), 0),
            };
        Ok(Response::new(wire::AddObjectRefResponse { success, message, new_ref_count }))
    }

    async fn remove_object_ref(
        &self,
        request: Request<wire::RemoveObjectRefRequest>,
    ) -> Answer<wire::RemoveObjectRefResponse> {
        let request = request.into_inner();
        let (success, message, new_ref_count, deleted) =
            match refused(self.service.remove_ref(request.key, count(request.count)).await)? {
                Ok((left, deleted)) => (true, removed(deleted).to_owned(), left, deleted),
                Err(refusal) => (false, refusal.to_string(), 0, false),
            };
        Ok(Response::new(wire::RemoveObjectRefResponse { success, message, new_ref_count, deleted }))
    }

    async fn pin_object(&self, request: Request<wire::PinObjectRequest>) -> Answer<wire::PinObjectResponse> {
        let (success, message) = match refused(self.service.pin(request.into_inner().key).await)? {
            Ok(()) => (true, "Object pinned".to_owned()),
            Err(refusal) => (false, refusal.to_string()),
        };
        Ok(Response::new(wire::PinObjectResponse { success, message }))
    }

    async fn unpin_object(&self, request: Request<wire::UnpinObjectRequest>) -> Answer<wire::UnpinObjectResponse> {
        let (success, message) = match refused(self.service.unpin(request.into_inner().key).await)? {
            Ok(()) => (true, "Object unpinned".to_owned()),
            Err(refusal) => (false, refusal.to_string()),
        };
        Ok(Response::new(wire::UnpinObjectResponse { success, message }))
    }

    async fn delete_object(&self, request: Request<wire::DeleteObjectRequest>) -> Answer<wire::DeleteObjectResponse> {
        let request = request.into_inner();
        let (success, message) = match refused(self.service.delete(request.key, request.force).await)? {
            Ok(()) => (true, "Object deleted successfully".to_owned()),
            Err(refusal) => (false, refusal.to_string()),
        };
        Ok(Response::new(wire::DeleteObjectResponse { success, message, deleted: success }))
    }
}

/// What removing references has done, in the original's words.
pub(super) fn removed(deleted: bool) -> &'static str {
    if deleted { "Object deleted due to zero references" } else { "Reference removed" }
}

fn size(record: &ObjectRecord) -> i64 {
    i64::try_from(record.size).unwrap_or(i64::MAX)
}

fn meta(record: &ObjectRecord) -> wire::ObjectMeta {
    wire::ObjectMeta {
        key: record.key.clone(),
        size: size(record),
        created_at: record.created_at.seconds(),
        updated_at: record.updated_at.seconds(),
        ref_count: record.ref_count,
        pinned: record.pinned,
        metadata: record.metadata.clone().into_iter().collect(),
    }
}

fn object(found: Found) -> wire::Object {
    let wire::ObjectMeta { key, size, created_at, updated_at, ref_count, pinned, metadata } = meta(&found.record);
    let value = found.value.unwrap_or_default();
    wire::Object { key, value, size, created_at, updated_at, ref_count, pinned, metadata }
}
