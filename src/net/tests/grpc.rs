//! gRPC through the same door: real calls, refusals as statuses.

use axum::{Router, routing::get};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use types::ErrorKind;

use super::{NO_HOSTS, Server};
use crate::{
    Access, ServeOptions, Token,
    channel::{self, ConnectOptions},
    grpc,
};

const SECRET: &str = "a-secret-of-enough-characters";

/// The health service, and again under a path that is not exempt from the token.
pub(super) async fn router() -> Router {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("spear", tonic_health::ServingStatus::Serving).await;
    let panicking = || async {
        if std::hint::black_box(true) {
            panic!("state");
        }
    };
    tonic::service::Routes::new(service)
        .into_axum_router()
        .reset_fallback()
        .route("/spear.v1.Test/Fail", axum::routing::post(panicking))
        .route("/rest", get(async || "rest"))
}

/// Calls a method by its path with an empty message, and tells the status.
pub(super) async fn call(server: &Server, path: &str, headers: &[(&str, &str)]) -> (tonic::Status, http::HeaderMap) {
    let io = TokioIo::new(server.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let mut request =
        http::Request::post(server.url(path)).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.send_request(request.body(Full::from(&[0u8; 5][..])).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200, "a gRPC answer is a status in trailers");
    assert_eq!(answer.headers().get("content-type").unwrap(), "application/grpc");
    let headers = answer.headers().clone();
    let collected = answer.into_body().collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    let status = tonic::Status::from_header_map(&headers)
        .or_else(|| tonic::Status::from_header_map(&trailers.unwrap_or_default()))
        .expect("a grpc-status");
    (status, headers)
}

#[tokio::test]
async fn refusals_of_calls_are_statuses() {
    let token = Access::token(Token::from_text(SECRET).unwrap());
    let server = Server::with(router().await, token, ServeOptions::default()).await;
    let right = format!("Bearer {SECRET}");
    let authorized = ("authorization", right.as_str());
    for (path, headers, code) in [
        ("/grpc.health.v1.Health/Check", vec![], tonic::Code::Ok),
        ("/sms.NodeService/ListNodes", vec![], tonic::Code::Unauthenticated),
        (
            "/sms.NodeService/ListNodes",
            vec![("authorization", "Bearer wrong-wrong-wrong")],
            tonic::Code::Unauthenticated,
        ),
        (
            "/sms.NodeService/ListNodes",
            vec![authorized, ("origin", "http://evil.example")],
            tonic::Code::PermissionDenied,
        ),
        ("/sms.NodeService/ListNodes", vec![authorized], tonic::Code::Unimplemented),
        ("/spear.v1.Test/Fail", vec![authorized], tonic::Code::Internal),
        ("/rest", vec![authorized], tonic::Code::Unimplemented),
    ] {
        let (status, headers) = call(&server, path, &headers).await;
        assert_eq!(status.code(), code, "{path}: {status:?}");
        assert!(headers.contains_key("x-request-id"));
    }
    let loopback = Server::with(router().await, Access::loopback(NO_HOSTS), ServeOptions::default()).await;
    let (status, _) = call(&loopback, "/grpc.health.v1.Health/Check", &[("origin", "http://evil.example")]).await;
    assert_eq!(grpc::fault(status).code, "ORIGIN_NOT_ALLOWED");
}

#[tokio::test]
async fn a_channel_calls_with_its_token_and_survives_a_restart_of_the_server() {
    let access = || Access::token(Token::from_text(SECRET).unwrap());
    // The same service where a token is needed.
    let guarded = async || Router::new().nest("/guarded", router().await);
    let server = Server::with(guarded().await, access(), ServeOptions::default()).await;
    let addr = server.addr;
    let check = |token: Option<Token>| async move {
        let channel = channel::connect(&addr.to_string(), token, ConnectOptions::default()).unwrap();
        let prefixed = tower::util::MapRequest::new(channel, |mut request: http::Request<tonic::body::Body>| {
            let path = format!(
                "http://{}/guarded{}",
                request.uri().authority().map_or("x", |it| it.as_str()),
                request.uri().path()
            );
            *request.uri_mut() = path.parse().unwrap();
            request
        });
        let mut client = HealthClient::new(prefixed);
        client.check(HealthCheckRequest { service: "spear".to_owned() }).await.map_err(grpc::fault).map(|_| ())
    };
    check(Some(Token::from_text(SECRET).unwrap())).await.unwrap();
    let wrong = check(Some(Token::from_text("wrong-wrong-wrong-wrong").unwrap())).await.unwrap_err();
    assert_eq!((wrong.kind, &*wrong.message), (ErrorKind::Unauthenticated, "the token is wrong"));
    assert_eq!(check(None).await.unwrap_err().kind, ErrorKind::Unauthenticated);

    // One channel, across an outage.
    let channel = channel::connect(&format!("http://{addr}"), None, ConnectOptions::default()).unwrap();
    let mut client = HealthClient::new(channel);
    let request = || HealthCheckRequest { service: String::new() };
    // Not found under this path, but answered.
    assert_eq!(client.check(request()).await.unwrap_err().code(), tonic::Code::Unimplemented);
    server.supervisor.clone().run(async {}).await.unwrap();
    let away = grpc::fault(client.check(request()).await.unwrap_err());
    assert_eq!(away.kind, ErrorKind::Unavailable, "{away:?}");
    let supervisor = supervise::Supervisor::new(supervise::Budget::default());
    let listener = crate::Sockets::bind("grpc", "grpc.addr", addr).await.unwrap();
    let scope = supervisor.scope(supervise::Phase::Intake, "test");
    crate::serve(listener, router().await, access(), ServeOptions::default(), &scope, supervisor.stopping());
    client.check(request()).await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_what_would_be_right() {
    for (addr, word) in [
        ("", "host:port"),
        ("localhost", "port is missing"),
        ("http://localhost:1/path", "nothing may follow"),
        ("ftp://localhost:1", "http or https"),
        ("http://user:secret@localhost:1", "user name"),
        ("https://localhost:1", "certificate authority"),
    ] {
        let fault = channel::connect(addr, None, ConnectOptions::default()).map(|_| ()).unwrap_err();
        assert!(fault.kind == ErrorKind::Invalid && fault.message.contains(word), "{addr}: {fault}");
    }
}
