//! `/api/v1/files…`.

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, State},
    response::Response,
};
use futures_util::StreamExt;
use http::{HeaderMap, Method, StatusCode, header};
use net::{
    FileBody, Problem,
    extract::{Json, Path, Query},
    problem::ProblemBody,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::{Fault, FileId, FileRecord};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    read::checked,
    records::{DEFAULT_TYPE, LONGEST_NAME, LONGEST_TYPE, Label, NAME_HEADER, not_found, too_large},
};
use crate::{Sms, page::Page};

/// Files on a page when nothing else is asked.
const DEFAULT_LIMIT: usize = 100;
/// Seconds that a presigned answer names; the address does not really expire.
const EXPIRES_IN: u64 = 900;
/// Where files are uploaded.
const UPLOAD_PATH: &str = "/api/v1/files";

/// The routes of files.
pub fn routes() -> OpenApiRouter<Sms> {
    OpenApiRouter::new()
        .routes(routes!(upload_file))
        // The upload counts for itself, against its own limit and without holding it in memory.
        .layer(DefaultBodyLimit::disable())
        .routes(routes!(list_files))
        .routes(routes!(download_file, head_file, delete_file))
        .routes(routes!(get_file_meta))
        .routes(routes!(presign_upload))
}

/// Nothing that is not an id of ours is here: malformed ones are no other answer than unknown ones.
fn id(text: &str) -> Result<FileId, Problem> {
    text.parse().map_err(|_| not_found(text).into())
}

#[derive(Serialize, ToSchema)]
struct UploadedFile {
    success: bool,
    #[schema(format = Uuid)]
    id: String,
    name: String,
    /// What an executable names: `sms+file://<id>`.
    uri: String,
    /// Bytes.
    len: u64,
    /// In hexadecimal.
    sha256: String,
}

/// Upload a file: the body is the file.
///
/// When this is answered, the bytes are on disk.
#[utoipa::path(post, path = "/api/v1/files", operation_id = "upload_file", tag = "files",
    params(
        ("x-file-name" = Option<String>, Header, description = "Its name, percent-encoded or plain; `blob` when left out"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The bytes, not a form"),
    responses(
        (status = 200, body = UploadedFile),
        (status = 400, description = "A header makes no sense, a form, or the upload broke off", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Over the limit; nothing was kept", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "Too many uploads at once", body = ProblemBody, content_type = "application/problem+json"),
        (status = 504, description = "No byte for 30 seconds; nothing was kept", body = ProblemBody, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full; nothing was kept", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn upload_file(State(sms): State<Sms>, headers: HeaderMap, body: Body) -> Result<Json<UploadedFile>, Problem> {
    let label = Label::of(&headers)?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let record = sms.files.upload(label, announced, body.into_data_stream()).await?;
    Ok(Json(UploadedFile {
        success: true,
        id: record.id.to_string(),
        uri: format!("sms+file://{}", record.id),
        name: record.name,
        len: record.len,
        sha256: record.sha256,
    }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListFilesQuery {
    /// Only files whose id or name contains this, in any case.
    q: Option<String>,
    /// Files on a page, 1 to 1000; 100 when left out.
    #[param(value_type = Option<u16>)]
    limit: Option<i64>,
    /// Files to leave out first.
    #[param(value_type = Option<u64>)]
    offset: Option<i64>,
    /// The `next_cursor` of the page before; instead of `offset`.
    cursor: Option<String>,
}

/// A file. Times are whole seconds since 1970-01-01 UTC.
#[derive(Serialize, ToSchema)]
#[schema(as = File)]
pub(crate) struct FileView {
    #[schema(format = Uuid)]
    id: String,
    name: String,
    /// Bytes.
    len: u64,
    /// The same as `created_at`: files do not change.
    modified_at: i64,
    created_at: i64,
    content_type: String,
    /// In hexadecimal.
    sha256: String,
}

impl From<&FileRecord> for FileView {
    fn from(file: &FileRecord) -> Self {
        Self {
            id: file.id.to_string(),
            name: file.name.clone(),
            len: file.len,
            modified_at: file.created_at.seconds(),
            created_at: file.created_at.seconds(),
            content_type: file.content_type.clone(),
            sha256: file.sha256.clone(),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct FileList {
    files: Vec<FileView>,
    /// Of all pages.
    total_count: usize,
    /// Where the next page begins; none: this was the last.
    next_cursor: Option<String>,
}

/// List files, newest first.
#[utoipa::path(get, path = "/api/v1/files", operation_id = "list_files", tag = "files",
    params(ListFilesQuery),
    responses(
        (status = 200, body = FileList),
        (status = 400, description = "A parameter makes no sense", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn list_files(State(sms): State<Sms>, Query(query): Query<ListFilesQuery>) -> Result<Json<FileList>, Problem> {
    let page = Page::parse("files", (query.limit, query.offset, query.cursor.as_deref()), DEFAULT_LIMIT)?;
    let cut = sms.files.list(query.q.as_deref().filter(|part| !part.is_empty()), &page)?;
    let files = cut.items.iter().map(|file| FileView::from(&**file)).collect();
    Ok(Json(FileList { files, total_count: cut.total, next_cursor: cut.next }))
}

/// Download a file.
///
/// Answers `Range` (one range), `If-Range` and `If-None-Match`; the ETag is the sha256.
#[utoipa::path(get, path = "/api/v1/files/{id}", operation_id = "download_file", tag = "files",
    params(
        ("id" = String, Path, format = Uuid, description = "Its id"),
        ("range" = Option<String>, Header, description = "`bytes=0-99`, `bytes=100-`, `bytes=-100`"),
        ("if-none-match" = Option<String>, Header, description = "ETags that the client has"),
        ("if-range" = Option<String>, Header, description = "ETag for which the range is meant"),
    ),
    responses(
        (status = 200, description = "The bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "A part of them", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The client has them"),
        (status = 404, description = "Unknown", body = ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "The range begins behind the end", body = ProblemBody, content_type = "application/problem+json"),
        (status = 500, description = "The stored bytes are damaged", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn download_file(
    State(sms): State<Sms>,
    Path(text): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (record, file) = sms.files.open(id(&text)?).await?;
    let response = answer(&record, file).respond(&Method::GET, &headers).await?;
    if response.status() != StatusCode::OK {
        return Ok(response);
    }
    let record = FileRecord::clone(&record);
    Ok(response.map(|body| Body::from_stream(checked(body.into_data_stream(), record).boxed())))
}

/// Ask for the headers of a download.
#[utoipa::path(head, path = "/api/v1/files/{id}", operation_id = "head_file", tag = "files",
    params(("id" = String, Path, format = Uuid, description = "Its id")),
    responses(
        (status = 200, description = "It is here: see Content-Length and ETag"),
        (status = 304, description = "The client has it"),
        (status = 404, description = "Unknown"),
        (status = 500, description = "The stored bytes are damaged"),
    ))]
async fn head_file(State(sms): State<Sms>, Path(text): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let (record, file) = sms.files.open(id(&text)?).await?;
    answer(&record, file).respond(&Method::HEAD, &headers).await
}

fn answer(record: &FileRecord, file: tokio::fs::File) -> FileBody {
    FileBody {
        file,
        size: record.len,
        etag: record.sha256.clone(),
        // What somebody said it is, is not for a browser to act on.
        content_type: DEFAULT_TYPE.to_owned(),
        name: record.name.clone(),
    }
}

/// What is known of a file; only `found` where nothing is.
#[derive(Default, Serialize, ToSchema)]
struct FileMeta {
    found: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// Ask what is known of a file.
#[utoipa::path(get, path = "/api/v1/files/{id}/meta", operation_id = "get_file_meta", tag = "files",
    params(("id" = String, Path, format = Uuid, description = "Its id")),
    responses(
        (status = 200, description = "Also for an id that nothing is known of: `found` is false", body = FileMeta),
        (status = 404, description = "Not an id of ours", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn get_file_meta(State(sms): State<Sms>, Path(text): Path<String>) -> Result<Json<FileMeta>, Problem> {
    let id = id(&text)?;
    let Ok(file) = sms.files.get(id) else { return Ok(Json(FileMeta::default())) };
    Ok(Json(FileMeta {
        found: true,
        len: Some(file.len),
        name: Some(file.name.clone()),
        content_type: Some(file.content_type.clone()),
        created_at: Some(file.created_at.seconds()),
        sha256: Some(file.sha256.clone()),
    }))
}

#[derive(Serialize, ToSchema)]
struct DeletedFile {
    success: bool,
}

/// Delete a file.
#[utoipa::path(delete, path = "/api/v1/files/{id}", operation_id = "delete_file", tag = "files",
    params(("id" = String, Path, format = Uuid, description = "Its id")),
    responses(
        (status = 200, body = DeletedFile),
        (status = 404, description = "Unknown", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn delete_file(State(sms): State<Sms>, Path(text): Path<String>) -> Result<Json<DeletedFile>, Problem> {
    sms.files.delete(id(&text)?).await?;
    Ok(Json(DeletedFile { success: true }))
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct PresignRequest {
    /// Not used: there is one place for files.
    bucket: Option<String>,
    /// Name of the file to come.
    key: Option<String>,
    /// Its media type.
    content_type: Option<String>,
    /// Bytes it will have at most.
    max_size_bytes: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct PresignedUpload {
    /// Where to send it, on this server.
    upload_url: &'static str,
    method: &'static str,
    /// Seconds.
    expires_in: u64,
    /// Headers to send with it, beside those that authenticate.
    headers: BTreeMap<String, String>,
    /// Bytes that are taken at most.
    max_size_bytes: u64,
}

/// Ask how to upload a file.
///
/// For programs written for stores with presigned addresses. The address is the ordinary upload of this server and
/// gives no rights: the caller's own are needed.
#[utoipa::path(post, path = "/api/v1/files/presign-upload", operation_id = "presign_upload", tag = "files",
    request_body = PresignRequest,
    responses(
        (status = 200, body = PresignedUpload),
        (status = 400, description = "Not JSON, or a value out of range", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Such a file would be refused", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Not sent as application/json", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is of another type", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn presign_upload(
    State(sms): State<Sms>,
    Json(body): Json<PresignRequest>,
) -> Result<Json<PresignedUpload>, Problem> {
    let limit = sms.files.limit();
    if body.max_size_bytes.is_some_and(|size| size > limit) {
        return Err(too_large(limit).into());
    }
    let mut headers = BTreeMap::new();
    if let Some(key) = body.key.filter(|key| !key.is_empty()) {
        headers.insert(NAME_HEADER.to_string(), encoded("key", &key, LONGEST_NAME)?);
    }
    if let Some(kind) = body.content_type.filter(|kind| !kind.is_empty()) {
        if kind.len() > LONGEST_TYPE || !kind.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            let detail = format!("must be up to {LONGEST_TYPE} printable ASCII characters");
            return Err(Fault::invalid_field("content_type", detail).into());
        }
        headers.insert(header::CONTENT_TYPE.to_string(), kind);
    }
    Ok(Json(PresignedUpload {
        upload_url: UPLOAD_PATH,
        method: "POST",
        expires_in: EXPIRES_IN,
        headers,
        max_size_bytes: body.max_size_bytes.unwrap_or(limit),
    }))
}

/// A text as it can stand in a header.
fn encoded(field: &str, text: &str, longest: usize) -> Result<String, Fault> {
    if text.len() > longest || text.chars().any(char::is_control) {
        return Err(Fault::invalid_field(field, format!("must be up to {longest} bytes without control characters")));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    Ok(text
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect())
}
