//! `/objects`. A key is everything behind `/objects/`, slashes and all. `POST` and `DELETE` look at the end of
//! the path as it was sent: `/refs` and `/pin` are parts of an object; a key that itself ends so is written
//! with `%2F` (`DELETE /objects/a%2Fpin` deletes `a/pin`).

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Uri, header};
use net::{
    extract::{Json, Query},
    problem::{Problem, ProblemBody},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, sync::Arc};
use types::{ErrorKind, Fault, id::clip};
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::{Error, Listed, MOST_LISTED, MOST_METADATA, ObjectRecord, Put, Refusal, Service, grpc::removed};

/// Bytes of a small body.
const SMALL: u64 = 64 << 10;
/// Objects in a page when the caller does not say.
const PAGE: usize = 100;
/// Padding or not, it is base64.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The routes' part of the OpenAPI document.
#[derive(OpenApi)]
#[openapi(paths(
    list_objects,
    put_object,
    get_object,
    delete_object,
    add_references,
    remove_references,
    pin_object,
    unpin_object
))]
pub struct Document;

/// The routes.
pub fn router(service: Arc<Service>) -> Router {
    let longest = usize::try_from(longest(&service)).unwrap_or(usize::MAX);
    Router::new()
        .route("/objects", get(list_objects))
        .route("/objects/", object_routes(longest))
        .route("/objects/{*key}", object_routes(longest))
        .with_state(service)
}

fn object_routes(longest: usize) -> MethodRouter<Arc<Service>> {
    let upload = put(put_object).layer(DefaultBodyLimit::max(longest));
    upload.merge(get(get_object)).merge(post(post_part)).merge(delete(delete_part))
}

/// An object to write.
#[derive(Debug, Deserialize, ToSchema)]
struct PutBody {
    /// Its bytes in base64.
    value: String,
    /// Free labels.
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    /// May it replace an object of the same key?
    #[serde(default)]
    overwrite: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct PutAnswer {
    success: bool,
    message: String,
    key: String,
}

/// What was done, or why it was not.
#[derive(Debug, Serialize, ToSchema)]
struct Done {
    success: bool,
    message: String,
}

/// How many references; 1 when the body is empty.
#[derive(Debug, Deserialize, ToSchema)]
struct CountBody {
    #[serde(default = "one")]
    count: i32,
}

impl Default for CountBody {
    fn default() -> Self {
        Self { count: one() }
    }
}

fn one() -> i32 {
    1
}

#[derive(Debug, Serialize, ToSchema)]
struct References {
    success: bool,
    message: String,
    new_ref_count: i32,
}

/// An object with its bytes.
#[derive(Debug, Serialize, ToSchema)]
struct ObjectAnswer {
    found: bool,
    key: String,
    /// base64.
    value: String,
    metadata: BTreeMap<String, String>,
    size: u64,
    /// Seconds since 1970-01-01 UTC.
    created_at: i64,
    /// Seconds since 1970-01-01 UTC.
    updated_at: i64,
    ref_count: i32,
    pinned: bool,
}

/// An object in a list.
#[derive(Debug, Serialize, ToSchema)]
struct ListedObject {
    key: String,
    size: u64,
    created_at: i64,
    updated_at: i64,
    metadata: BTreeMap<String, String>,
    ref_count: i32,
    is_pinned: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct ListAnswer {
    objects: Vec<ListedObject>,
    /// For the next page; null on the last.
    continuation_token: Option<String>,
    has_more: bool,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only keys that begin so.
    #[serde(default)]
    prefix: String,
    /// Objects per page, 1 to 1000.
    #[param(default = 100)]
    limit: Option<usize>,
    /// From the answer before; a decimal number is taken as the number of objects to skip.
    continuation_token: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeleteQuery {
    /// Delete it though it is pinned.
    #[serde(default)]
    force: bool,
}

/// Lists objects in the order of their keys.
#[utoipa::path(get, path = "/objects", tag = "objects", params(ListQuery), responses(
    (status = 200, body = ListAnswer), (status = 400, body = ProblemBody)))]
async fn list_objects(
    State(service): State<Arc<Service>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ListAnswer>, Problem> {
    let limit = query.limit.unwrap_or(PAGE);
    if limit == 0 || limit > MOST_LISTED {
        return Err(Fault::invalid_field("limit", format!("is {limit}; 1 to {MOST_LISTED} are allowed")).into());
    }
    let token = query.continuation_token.as_deref().filter(|token| !token.is_empty());
    let listed = match token.map(position).transpose()? {
        Some(Position::Skip(skip)) => service.list_at(&query.prefix, skip, limit),
        Some(Position::After(key)) => listed(service.list(&query.prefix, Some(&key), limit, false).await)?,
        None => listed(service.list(&query.prefix, None, limit, false).await)?,
    };
    let last = listed.objects.last().filter(|_| listed.more);
    let continuation_token = last.map(|found| format!("k{}", BASE64_URL_SAFE_NO_PAD.encode(&found.record.key)));
    let objects = listed.objects.iter().map(|found| entry(&found.record)).collect();
    Ok(Json(ListAnswer { objects, has_more: continuation_token.is_some(), continuation_token }))
}

fn listed(result: Result<Listed, Error>) -> Result<Listed, Problem> {
    result.map_err(|error| match error {
        Error::Fault(fault) => fault.into(),
        Error::Refused(refusal) => Fault::internal(refusal.to_string()).into(),
    })
}

/// Where a list goes on.
enum Position {
    After(String),
    Skip(usize),
}

fn position(token: &str) -> Result<Position, Fault> {
    if token.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number beyond all objects, however long, skips them all.
        return Ok(Position::Skip(token.parse().unwrap_or(usize::MAX)));
    }
    let key = token.strip_prefix('k').and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
    let key = key.and_then(|key| String::from_utf8(key).ok());
    key.map(Position::After).ok_or_else(|| {
        Fault::invalid_field("continuation_token", format!("{:?} did not come from a list", clip(token)))
    })
}

/// Writes an object.
#[utoipa::path(put, path = "/objects/{key}", tag = "objects", request_body = PutBody,
    params(("key" = String, Path, description = "any text, slashes too")), responses(
    (status = 200, body = PutAnswer, description = "written, or refused with success false"),
    (status = 400, body = ProblemBody), (status = 413, body = ProblemBody), (status = 507, body = ProblemBody)))]
async fn put_object(State(service): State<Arc<Service>>, request: Request) -> Result<Json<PutAnswer>, Problem> {
    let key = decoded(path_of(request.uri()))?;
    let most = longest(&service);
    // The body, the text in it and the bytes of that are in memory one after another, never all three.
    let _room = service.room(announced(&request).unwrap_or(most).min(most).saturating_mul(2)).await?;
    let Json(body) = Json::<PutBody>::from_request(request, &()).await?;
    let value =
        BASE64.decode(&body.value).map_err(|error| Fault::invalid_field("value", format!("is not base64: {error}")))?;
    drop(body.value);
    let metadata = body.metadata.unwrap_or_default();
    let put = Put { key: key.clone(), value: value.into(), metadata, overwrite: body.overwrite };
    let (success, message) = match service.put(put).await {
        Ok(_) => (true, "Object stored successfully".to_owned()),
        Err(error) => (false, refused(error)?),
    };
    Ok(Json(PutAnswer { success, message, key }))
}

/// An object with its bytes.
#[utoipa::path(get, path = "/objects/{key}", tag = "objects",
    params(("key" = String, Path, description = "any text, slashes too")), responses(
    (status = 200, body = ObjectAnswer), (status = 404, body = ProblemBody),
    (status = 500, body = ProblemBody, description = "the bytes on disk are damaged")))]
async fn get_object(State(service): State<Arc<Service>>, uri: Uri) -> Result<Json<ObjectAnswer>, Problem> {
    let key = decoded(path_of(&uri))?;
    let size = service.get(&key, false).await.map_err(problem)?.record.size;
    let _room = service.room(size.saturating_mul(3)).await?;
    let found = service.get(&key, true).await.map_err(problem)?;
    let record = &found.record;
    Ok(Json(ObjectAnswer {
        found: true,
        key,
        value: BASE64_STANDARD.encode(found.value.unwrap_or_default()),
        metadata: record.metadata.clone(),
        size: record.size,
        created_at: record.created_at.seconds(),
        updated_at: record.updated_at.seconds(),
        ref_count: record.ref_count,
        pinned: record.pinned,
    }))
}

async fn post_part(
    State(service): State<Arc<Service>>,
    uri: Uri,
    net::extract::Body(body): net::extract::Body,
) -> Result<Response, Problem> {
    match part(&uri)? {
        (key, Part::References) => add_references(service, key, body).await.map(IntoResponse::into_response),
        (key, Part::Pin) => pin_object(service, key).await.map(IntoResponse::into_response),
        (_, Part::Whole) => {
            let fault =
                Fault::new(ErrorKind::Invalid, "METHOD_NOT_ALLOWED", "POST goes to …/refs or …/pin of an object");
            let problem = Problem::from(fault).status(http::StatusCode::METHOD_NOT_ALLOWED);
            Err(problem.header(header::ALLOW, http::HeaderValue::from_static("GET, PUT, DELETE")))
        }
    }
}

async fn delete_part(
    State(service): State<Arc<Service>>,
    Query(query): Query<DeleteQuery>,
    uri: Uri,
    net::extract::Body(body): net::extract::Body,
) -> Result<Response, Problem> {
    match part(&uri)? {
        (key, Part::References) => remove_references(service, key, body).await.map(IntoResponse::into_response),
        (key, Part::Pin) => unpin_object(service, key).await.map(IntoResponse::into_response),
        (key, Part::Whole) => delete_object(service, key, query).await.map(IntoResponse::into_response),
    }
}

/// Deletes an object.
#[utoipa::path(delete, path = "/objects/{key}", tag = "objects", params(DeleteQuery,
    ("key" = String, Path, description = "any text; one that ends in /refs or /pin with that slash as %2F")),
    responses((status = 200, body = Done, description = "deleted, or refused with success false")))]
async fn delete_object(service: Arc<Service>, key: String, query: DeleteQuery) -> Result<Json<Done>, Problem> {
    done(service.delete(key, query.force).await, "Object deleted successfully")
}

/// Adds references to an object.
#[utoipa::path(post, path = "/objects/{key}/refs", tag = "objects", request_body = CountBody,
    params(("key" = String, Path)), responses(
    (status = 200, body = References, description = "added, or refused with success false"),
    (status = 400, body = ProblemBody)))]
async fn add_references(service: Arc<Service>, key: String, body: Bytes) -> Result<Json<References>, Problem> {
    let CountBody { count } = optional(&body)?;
    Ok(Json(match service.add_ref(key, count).await {
        Ok(now) => References { success: true, message: "Reference added".to_owned(), new_ref_count: now },
        Err(error) => References { success: false, message: refused(error)?, new_ref_count: 0 },
    }))
}

/// Removes references; without any left, an object that is not pinned is deleted.
#[utoipa::path(delete, path = "/objects/{key}/refs", tag = "objects", request_body = CountBody,
    params(("key" = String, Path)), responses(
    (status = 200, body = References, description = "removed, or refused with success false"),
    (status = 400, body = ProblemBody)))]
async fn remove_references(service: Arc<Service>, key: String, body: Bytes) -> Result<Json<References>, Problem> {
    let CountBody { count } = optional(&body)?;
    Ok(Json(match service.remove_ref(key, count).await {
        Ok((left, deleted)) => References { success: true, message: removed(deleted).to_owned(), new_ref_count: left },
        Err(error) => References { success: false, message: refused(error)?, new_ref_count: 0 },
    }))
}

/// Pins an object.
#[utoipa::path(post, path = "/objects/{key}/pin", tag = "objects", params(("key" = String, Path)),
    responses((status = 200, body = Done, description = "pinned, or refused with success false")))]
async fn pin_object(service: Arc<Service>, key: String) -> Result<Json<Done>, Problem> {
    done(service.pin(key).await, "Object pinned")
}

/// Unpins an object.
#[utoipa::path(delete, path = "/objects/{key}/pin", tag = "objects", params(("key" = String, Path)),
    responses((status = 200, body = Done, description = "unpinned, or refused with success false")))]
async fn unpin_object(service: Arc<Service>, key: String) -> Result<Json<Done>, Problem> {
    done(service.unpin(key).await, "Object unpinned")
}

fn done(result: Result<(), Error>, message: &str) -> Result<Json<Done>, Problem> {
    Ok(Json(match result {
        Ok(()) => Done { success: true, message: message.to_owned() },
        Err(error) => Done { success: false, message: refused(error)? },
    }))
}

fn entry(record: &ObjectRecord) -> ListedObject {
    ListedObject {
        key: record.key.clone(),
        size: record.size,
        created_at: record.created_at.seconds(),
        updated_at: record.updated_at.seconds(),
        metadata: record.metadata.clone(),
        ref_count: record.ref_count,
        is_pinned: record.pinned,
    }
}

/// What the state of an object refuses is an answer of the original's kind; everything else is a problem.
fn refused(error: Error) -> Result<String, Problem> {
    match error {
        Error::Refused(refusal @ (Refusal::Exists | Refusal::NotFound | Refusal::NotPinned | Refusal::Pinned)) => {
            Ok(refusal.to_string())
        }
        error => Err(problem(error)),
    }
}

fn problem(error: Error) -> Problem {
    let refusal = match error {
        Error::Fault(fault) => return fault.into(),
        Error::Refused(refusal) => refusal,
    };
    let text = refusal.to_string();
    match refusal {
        Refusal::EmptyKey => Fault::invalid_field("key", "must not be empty"),
        Refusal::TooLarge { .. } => Fault::new(ErrorKind::TooLarge, "OBJECT_TOO_LARGE", text),
        Refusal::Full { .. } | Refusal::TooMany { .. } => Fault::new(ErrorKind::StorageFull, "OBJECTS_FULL", text),
        Refusal::NotFound => Fault::not_found("OBJECT_NOT_FOUND", text),
        Refusal::Exists | Refusal::NotPinned | Refusal::Pinned => Fault::conflict("OBJECT_STATE", text),
    }
    .into()
}

/// What of an object a path means.
enum Part {
    Whole,
    References,
    Pin,
}

fn path_of(uri: &Uri) -> &str {
    uri.path().strip_prefix("/objects/").unwrap_or_default()
}

fn part(uri: &Uri) -> Result<(String, Part), Fault> {
    let path = path_of(uri);
    let (key, part) = match path.rsplit_once('/') {
        Some((key, "refs")) => (key, Part::References),
        Some((key, "pin")) => (key, Part::Pin),
        _ => (path, Part::Whole),
    };
    Ok((decoded(key)?, part))
}

fn decoded(path: &str) -> Result<String, Fault> {
    let key = percent_encoding::percent_decode_str(path).decode_utf8();
    key.map(Into::into).map_err(|_| Fault::invalid_field("key", "is not UTF-8 once decoded"))
}

/// The length a body says it has.
fn announced(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body that may be absent.
fn optional<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() { Ok(T::default()) } else { net::extract::parse(body) }
}

/// Bytes of the longest body of a `PUT`: base64 takes a third more, an escaped character six times as much.
fn longest(service: &Service) -> u64 {
    service.config().max_object_size.saturating_mul(4) / 3 + (MOST_METADATA as u64) * 6 + SMALL
}
