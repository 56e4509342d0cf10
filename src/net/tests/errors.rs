//! Problems, statuses and refusals of extractors.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use types::{ErrorKind, Fault, FieldError};

use super::Server;
use crate::{
    Problem,
    extract::{Json, Path, Query},
    grpc,
    problem::{grpc_code, http_status},
};

const KINDS: [(ErrorKind, u16, tonic::Code); 13] = [
    (ErrorKind::Invalid, 400, tonic::Code::InvalidArgument),
    (ErrorKind::Unauthenticated, 401, tonic::Code::Unauthenticated),
    (ErrorKind::Denied, 403, tonic::Code::PermissionDenied),
    (ErrorKind::NotFound, 404, tonic::Code::NotFound),
    (ErrorKind::Conflict, 409, tonic::Code::Aborted),
    (ErrorKind::TooLarge, 413, tonic::Code::ResourceExhausted),
    (ErrorKind::Exhausted, 429, tonic::Code::ResourceExhausted),
    (ErrorKind::StorageFull, 507, tonic::Code::ResourceExhausted),
    (ErrorKind::OutOfRange, 410, tonic::Code::OutOfRange),
    (ErrorKind::Unavailable, 503, tonic::Code::Unavailable),
    (ErrorKind::Deadline, 504, tonic::Code::DeadlineExceeded),
    (ErrorKind::Unsupported, 501, tonic::Code::Unimplemented),
    (ErrorKind::Internal, 500, tonic::Code::Internal),
];

#[test]
fn every_kind_has_its_status_and_its_code() {
    for (kind, status, code) in KINDS {
        assert_eq!((http_status(kind).as_u16(), grpc_code(kind)), (status, code), "{kind:?}");
    }
}

#[test]
fn a_fault_survives_the_way_over_grpc() {
    for (kind, ..) in KINDS {
        let mut fault = Fault::new(kind, "SOME_CODE", "Größe: zu viel");
        fault.errors.push(FieldError { field: "executable.uri".to_owned(), detail: "empty".to_owned() });
        // Through headers, as the wire does it.
        let response = grpc::status(fault.clone()).into_http::<()>();
        let status = tonic::Status::from_header_map(response.headers()).unwrap();
        assert_eq!(grpc::fault(status), fault);
    }
}

#[test]
fn a_status_of_somebody_else_is_mapped_by_its_code() {
    let fault = grpc::fault(tonic::Status::already_exists("there is one"));
    assert_eq!((fault.kind, &*fault.code, &*fault.message), (ErrorKind::Conflict, "CONFLICT", "there is one"));
    assert!(!grpc::fault(tonic::Status::data_loss("")).message.is_empty());
}

#[test]
fn a_fault_too_large_for_a_header_loses_its_fields_but_not_its_code() {
    let mut fault = Fault::new(ErrorKind::Invalid, "MANY", "ö".repeat(5000));
    fault.errors =
        (0..1000).map(|at| FieldError { field: format!("field_{at}"), detail: "wrong".to_owned() }).collect();
    let status = grpc::status(fault);
    let bytes: usize =
        status.clone().into_http::<()>().headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    assert!(bytes < 16 * 1024, "{bytes}");
    let fault = grpc::fault(status);
    assert_eq!((&*fault.code, fault.errors.len()), ("MANY", 0));
}

#[tokio::test]
async fn a_problem_has_this_form() {
    let failing = || async {
        let fault = Fault::invalid_field("executable.uri", "must not be empty");
        Err::<(), _>(Problem::new(fault).error("Bad uri").caused_by("secret cause"))
    };
    let server = Server::start(Router::new().route("/api/v1/tasks", get(failing))).await;
    let answer = server.get("/api/v1/tasks", "X-Request-Id: abc-1\r\n").await;
    assert_eq!(
        answer.json(),
        json!({
            "type": "/problems/invalid-argument",
            "title": "Bad Request",
            "status": 400,
            "detail": "executable.uri: must not be empty",
            "instance": "/api/v1/tasks",
            "code": "INVALID_ARGUMENT",
            "errors": [{"field": "executable.uri", "detail": "must not be empty"}],
            "request_id": "abc-1",
            "success": false,
            "error": "Bad uri",
            "message": "executable.uri: must not be empty",
        })
    );
    assert_eq!(answer.header("x-request-id"), Some("abc-1"));
    assert!(!answer.body.contains("secret"));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    #[expect(dead_code, reason = "only read in")]
    name: String,
    #[expect(dead_code, reason = "only read in")]
    inner: Option<Inner>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    #[expect(dead_code, reason = "only read in")]
    port: u16,
}

#[derive(Deserialize)]
struct Paging {
    limit: Option<u32>,
    word: Option<String>,
}

fn reading() -> Router {
    Router::new()
        .route("/json", post(|Json(_): Json<Input>| async { "read" }))
        .route("/value", post(|Json(_): Json<Value>| async { "read" }).layer(DefaultBodyLimit::max(3_000_000)))
        .route(
            "/query",
            get(|Query(paging): Query<Paging>| async move { format!("{:?} {:?}", paging.limit, paging.word) }),
        )
        .route("/path/{id}", get(|Path(id): Path<types::NodeId>| async move { id.to_string() }))
        .route("/pair/{a}/{b}", get(|Path((a, b)): Path<(u8, u8)>| async move { format!("{}", a ^ b) }))
}

#[tokio::test]
async fn a_bad_body_is_refused_with_the_field_to_blame() {
    let server = Server::start(reading()).await;
    let json = "Content-Type: application/json; charset=utf-8\r\n";
    for (headers, body, status, code, field) in [
        ("", r#"{"name":"a"}"#, 415, "UNSUPPORTED_MEDIA_TYPE", None),
        ("Content-Type: text/plain\r\n", r#"{"name":"a"}"#, 415, "UNSUPPORTED_MEDIA_TYPE", None),
        ("Content-Type: application/x-www-form-urlencoded\r\n", "name=a", 415, "UNSUPPORTED_MEDIA_TYPE", None),
        (json, "", 400, "INVALID_JSON", None),
        (json, "{", 400, "INVALID_JSON", None),
        (json, r#"{"name":"a"} x"#, 400, "INVALID_JSON", None),
        (json, "{}", 422, "INVALID_ARGUMENT", Some("name")),
        (json, r#"{"name":1}"#, 422, "INVALID_ARGUMENT", Some("name")),
        (json, r#"{"name":"a","name":"b"}"#, 422, "INVALID_ARGUMENT", Some("name")),
        (json, r#"{"name":"a","colour":1}"#, 422, "INVALID_ARGUMENT", Some("colour")),
        (json, r#"{"name":"a","inner":{}}"#, 422, "INVALID_ARGUMENT", Some("inner.port")),
        (json, r#"{"name":"a","inner":{"port":70000}}"#, 422, "INVALID_ARGUMENT", Some("inner.port")),
        (json, r#"{"name":"a","inner":{"port":1,"x":1}}"#, 422, "INVALID_ARGUMENT", Some("inner.x")),
        (json, "[]", 422, "INVALID_ARGUMENT", Some("body")),
        (json, "7", 422, "INVALID_ARGUMENT", Some("body")),
    ] {
        let answer = server.post("/json", headers, body).await;
        let problem = answer.is_problem(status, code);
        assert_eq!(problem["errors"][0]["field"].as_str(), field, "{body}: {problem}");
    }
    assert_eq!(server.post("/json", json, r#"{"name":"a","inner":{"port":1}}"#).await.body, "read");
    assert_eq!(server.post("/json", "Content-Type: application/foo+json\r\n", r#"{"name":"a"}"#).await.body, "read");
}

#[tokio::test]
async fn deep_and_large_json_is_refused_and_a_route_may_allow_more() {
    let server = Server::start(reading()).await;
    let json = "Content-Type: application/json\r\n";
    server.post("/value", json, &"[".repeat(100_000)).await.is_problem(400, "INVALID_JSON");
    let large = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
    assert_eq!(server.post("/value", json, &large(2_500_000)).await.body, "read");
    server.post("/value", json, &large(3_000_000)).await.is_problem(413, "TOO_LARGE");
    server.post("/json", json, &large(2_097_152)).await.is_problem(413, "TOO_LARGE");
}

#[tokio::test]
async fn a_bad_query_or_path_is_refused_with_the_field_to_blame() {
    let server = Server::start(reading()).await;
    for (path, field) in [
        ("/query?limit=many", "limit"),
        ("/query?limit=-1", "limit"),
        ("/query?limit=1&limit=2", "limit"),
        ("/path/not-a-uuid", "id"),
        ("/path/%ff", "id"),
        ("/pair/1/256", "path[1]"),
    ] {
        let problem = server.get(path, "").await.is_problem(400, "INVALID_ARGUMENT");
        let shown = problem["errors"][0]["field"].as_str().unwrap_or_default();
        // What the query calls the field is all that the library tells for a tuple.
        assert!(shown == field, "{path}: {problem}");
    }
    assert_eq!(server.get("/query?limit=3&word=a%20b", "").await.body, "Some(3) Some(\"a b\")");
    assert_eq!(server.get("/pair/1/3", "").await.body, "2");
}
