//! What a listener counts.

use axum::{
    Router,
    routing::{get, post},
};
use std::{convert::Infallible, time::Duration};
use telemetry::{Metrics, Value};
use tokio::io::AsyncWriteExt;

use super::{NO_HOSTS, Server, grpc::call};
use crate::{Access, ServeOptions, Token};

/// A figure's value: of a histogram, how much was observed.
fn figure(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let figures = metrics.figures();
    let family = figures.into_iter().find(|figure| figure.name == name)?;
    let fits = |has: &[(&str, String)]| {
        labels.iter().all(|(name, value)| has.iter().any(|(its, is)| its == name && is == value))
    };
    let found: Vec<_> = family.series.iter().filter(|series| fits(&series.labels)).collect();
    (!found.is_empty()).then(|| {
        let one = |value: &Value| match value {
            Value::Number(number) => *number,
            Value::Buckets { counts, .. } => counts.iter().sum::<u64>() as f64,
        };
        found.iter().map(|series| one(&series.value)).sum()
    })
}

/// Waits until a figure has a value.
async fn until(metrics: &Metrics, name: &str, labels: &[(&str, &str)], wanted: f64) {
    let waiting = async {
        while figure(metrics, name, labels) != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(waited.is_ok(), "{name} {labels:?} stayed {:?}, not {wanted}", figure(metrics, name, labels));
}

async fn panicking() -> &'static str {
    if std::hint::black_box(true) {
        panic!("on purpose");
    }
    ""
}

async fn server(router: Router, access: Access, options: ServeOptions) -> (Server, Metrics) {
    let metrics = Metrics::new();
    let options = ServeOptions { metrics: Some(metrics.clone()), ..options };
    (Server::with(router, access, options).await, metrics)
}

#[tokio::test]
async fn requests_are_counted_by_the_template_of_their_route_and_never_by_their_path() {
    let router = Router::new()
        .route("/things/{id}", get(async || "thing").put(async || http::StatusCode::CONFLICT))
        .route("/broken", get(panicking));
    let (server, metrics) = server(router, Access::loopback(NO_HOSTS), ServeOptions::default()).await;
    for id in 0..50 {
        server.get(&format!("/things/{id}"), "").await;
        server.get(&format!("/nowhere/{id}"), "").await;
    }
    server.post("/things/1", "", "").await;
    let head = "Host: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    server.raw(&format!("PUT /things/1 HTTP/1.1\r\n{head}")).await;
    server.raw(&format!("BREW /things/1 HTTP/1.1\r\n{head}")).await;
    server.get("/broken", "").await;
    for (method, route, code, count) in [
        ("GET", "/things/{id}", "200", 50.0),
        ("GET", "unmatched", "404", 50.0),
        ("POST", "/things/{id}", "405", 1.0),
        ("PUT", "/things/{id}", "409", 1.0),
        ("other", "/things/{id}", "405", 1.0),
        ("GET", "/broken", "500", 1.0),
    ] {
        let labels = [("listener", "http"), ("method", method), ("route", route), ("code", code)];
        until(&metrics, "spear_http_requests_total", &labels, count).await;
        let labels = [("method", method), ("route", route)];
        until(&metrics, "spear_http_request_duration_seconds", &labels, count).await;
    }
    let figures = metrics.figures();
    let requests = figures.iter().find(|figure| figure.name == "spear_http_requests_total").unwrap();
    assert_eq!(requests.series.len(), 6, "{requests:?}");
    until(&metrics, "spear_http_connections", &[], 0.0).await;
    assert_eq!(figure(&metrics, "spear_http_connections_accepted_total", &[]), Some(104.0));
}

#[tokio::test]
async fn what_is_refused_cut_off_or_late_is_counted_as_that() {
    let router = Router::new().route("/slow", get(std::future::pending::<&'static str>));
    let token = Access::token(Token::from_text("a-secret-of-enough-characters").unwrap());
    let options = ServeOptions { request_timeout: Some(Duration::from_millis(50)), ..ServeOptions::default() };
    let (server, metrics) = server(router.clone(), token, options).await;
    server.get("/slow", "").await;
    server.get("/slow", "Authorization: Bearer wrong-wrong-wrong\r\n").await;
    server.get("/slow", "Authorization: Bearer a-secret-of-enough-characters\r\n").await;
    until(&metrics, "spear_http_access_refused_total", &[("reason", "unauthenticated")], 2.0).await;
    until(&metrics, "spear_http_requests_total", &[("route", "refused"), ("code", "401")], 2.0).await;
    until(&metrics, "spear_http_requests_total", &[("route", "/slow"), ("code", "504")], 1.0).await;

    let (server, metrics) = self::server(router, Access::loopback(NO_HOSTS), ServeOptions::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    until(&metrics, "spear_http_requests_in_flight", &[], 1.0).await;
    until(&metrics, "spear_http_connections", &[], 1.0).await;
    drop(stream);
    until(&metrics, "spear_http_requests_total", &[("route", "/slow"), ("code", "499")], 1.0).await;
    until(&metrics, "spear_http_requests_in_flight", &[], 0.0).await;
    until(&metrics, "spear_http_connections", &[], 0.0).await;
}

#[tokio::test]
async fn an_event_stream_is_open_until_its_reader_goes() {
    let events = async || {
        let stream = futures_util::stream::pending::<crate::sse::Event>();
        crate::sse::respond(stream, tokio_util::sync::CancellationToken::new())
    };
    let router = Router::new().route("/events", get(events));
    let (server, metrics) = server(router, Access::loopback(NO_HOSTS), ServeOptions::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    until(&metrics, "spear_http_event_streams", &[], 1.0).await;
    until(&metrics, "spear_http_requests_total", &[("route", "/events"), ("code", "200")], 1.0).await;
    drop(stream);
    until(&metrics, "spear_http_event_streams", &[], 0.0).await;
}

#[tokio::test]
async fn calls_are_counted_by_rpcs_that_exist_and_never_by_the_callers_words() {
    let router = super::grpc::router().await.route("/rest-only", get(async || "rest"));
    let (server, metrics) = server(router, Access::loopback(NO_HOSTS), ServeOptions::default()).await;
    for _ in 0..3 {
        call(&server, "/grpc.health.v1.Health/Check", &[]).await;
    }
    for number in 0..40 {
        call(&server, &format!("/grpc.health.v1.Health/Word{number}"), &[]).await;
        call(&server, &format!("/some.Service{number}/Call"), &[]).await;
    }
    call(&server, "/spear.v1.Test/Fail", &[]).await;
    call(&server, "/rest-only", &[]).await;
    let health = ("service", "grpc.health.v1.Health");
    for (labels, count) in [
        (vec![health, ("method", "Check"), ("code", "OK")], 3.0),
        (vec![health, ("method", "unmatched"), ("code", "UNIMPLEMENTED")], 40.0),
        (vec![("service", "unmatched"), ("method", "unmatched"), ("code", "UNIMPLEMENTED")], 40.0),
        (vec![("service", "spear.v1.Test"), ("method", "Fail"), ("code", "INTERNAL")], 1.0),
        (vec![("service", "rest-only"), ("code", "UNIMPLEMENTED")], 1.0),
    ] {
        until(&metrics, "spear_grpc_server_handled_total", &labels, count).await;
    }
    let figures = metrics.figures();
    let handled = figures.iter().find(|figure| figure.name == "spear_grpc_server_handled_total").unwrap();
    assert_eq!(handled.series.len(), 5, "{handled:?}");
    until(&metrics, "spear_grpc_server_in_flight", &[], 0.0).await;
    assert_eq!(figure(&metrics, "spear_http_requests_total", &[]), None, "calls are counted apart");
}

#[tokio::test]
async fn a_router_keeps_its_ways_when_it_is_measured() {
    let nested = Router::new().route("/inside/{*rest}", get(async |path: axum::extract::Path<String>| path.0));
    let router = Router::new()
        .nest("/outer", nested)
        .route("/echo", post(async |body: String| Ok::<_, Infallible>(body)))
        .fallback(async || (http::StatusCode::IM_A_TEAPOT, "mine"));
    let (server, metrics) = server(router, Access::loopback(NO_HOSTS), ServeOptions::default()).await;
    assert_eq!(server.get("/outer/inside/a/b", "").await.body, "a/b");
    assert_eq!(server.post("/echo", "", "said").await.body, "said");
    let answer = server.get("/echo", "").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("POST")));
    assert_eq!(server.get("/other", "").await.body, "mine");
    until(&metrics, "spear_http_requests_total", &[("route", "/outer/inside/{*rest}")], 1.0).await;
    until(&metrics, "spear_http_requests_total", &[("route", "unmatched"), ("code", "418")], 1.0).await;
}
