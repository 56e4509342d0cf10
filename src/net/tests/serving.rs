//! What every answer has, and what happens when a route goes wrong.

use axum::{Extension, Router, body::Body, extract::ConnectInfo, routing::get};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{net::SocketAddr, time::Duration};
use tokio::io::AsyncWriteExt;

use super::{NO_HOSTS, Server};
use crate::{Access, Problem, RequestId, ServeOptions, Sockets};
use types::Fault;

#[tokio::test]
async fn every_answer_has_an_id_and_safe_headers() {
    let echo = |Extension(RequestId(id)): Extension<RequestId>, ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
        assert!(peer.ip().is_loopback());
        id.to_string()
    };
    let server = Server::start(Router::new().route("/", get(echo))).await;
    let answer = server.get("/", "").await;
    assert_eq!(answer.header("x-request-id"), Some(answer.body.as_str()));
    assert_eq!(answer.body.len(), 36, "made by us: {}", answer.body);
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(server.get("/", "X-Request-Id: from-the-caller\r\n").await.body, "from-the-caller");
    for bad in ["with space", "\u{e4}", &"x".repeat(129)] {
        let made = server.get("/", &format!("X-Request-Id: {bad}\r\n")).await.body;
        assert_eq!(made.len(), 36, "{bad:?} is not taken over: {made}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let server = Server::start(Router::new().route("/thing", get(async || "thing"))).await;
    let problem = server.get("/nothing", "").await.is_problem(404, "NO_SUCH_ROUTE");
    assert_eq!(problem["instance"], "/nothing");
    let answer = server.post("/thing", "", "").await;
    answer.is_problem(405, "METHOD_NOT_ALLOWED");
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    let head = server.raw("HEAD /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 404") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn a_route_may_answer_an_error_in_its_own_words() {
    let own = || async { (http::StatusCode::NOT_FOUND, "my own words") };
    let server = Server::start(Router::new().route("/own", get(own))).await;
    let answer = server.get("/own", "").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (404, "my own words"));
}

#[tokio::test]
async fn a_panic_is_a_problem_and_the_server_goes_on() {
    let panicking = || async {
        if std::hint::black_box(true) {
            panic!("secret state");
        }
    };
    let server = Server::start(Router::new().route("/", get(panicking)).route("/fine", get(async || "fine"))).await;
    let answer = server.get("/", "").await;
    answer.is_problem(500, "INTERNAL");
    assert!(!answer.body.contains("secret"), "{}", answer.body);
    assert_eq!(server.get("/fine", "").await.body, "fine");
}

#[tokio::test]
async fn a_route_that_takes_too_long_is_a_problem() {
    let router = Router::new().route("/", get(|| async { std::future::pending::<()>().await }));
    let options = ServeOptions { request_timeout: Some(Duration::from_millis(50)), ..ServeOptions::default() };
    let server = Server::with(router, Access::loopback(NO_HOSTS), options).await;
    server.get("/", "").await.is_problem(504, "TIMEOUT");
}

#[tokio::test]
async fn busy_and_away_say_when_to_come_back() {
    let router = Router::new()
        .route("/away", get(|| async { Problem::new(Fault::unavailable("the registry is away")) }))
        .route("/internal", get(|| async { Problem::new(Fault::internal("a defect")).caused_by("secret") }));
    let server = Server::start(router).await;
    let answer = server.get("/away", "").await;
    answer.is_problem(503, "UNAVAILABLE");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(!server.get("/internal", "").await.body.contains("secret"));
}

#[tokio::test]
async fn compressed_bodies_are_refused() {
    let server = Server::start(Router::new().route("/", axum::routing::post(async || "read"))).await;
    let answer = server.post("/", "Content-Encoding: gzip\r\n", "x").await;
    answer.is_problem(415, "CONTENT_ENCODING_UNSUPPORTED");
    assert_eq!(answer.header("accept-encoding"), Some("identity"));
    assert_eq!(server.post("/", "Content-Encoding: identity\r\n", "x").await.body, "read");
}

#[tokio::test]
async fn http2_is_served_on_the_same_port_and_a_panic_ends_one_stream_only() {
    let panicking = || async {
        if std::hint::black_box(true) {
            panic!("state");
        }
    };
    let echo = |body: Bytes| async move { Body::from(body) };
    let router = Router::new().route("/panic", get(panicking)).route("/echo", axum::routing::post(echo));
    let server = Server::start(router).await;
    let stream = TokioIo::new(server.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let failed =
        client.send_request(http::Request::get(server.url("/panic")).body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(failed.status(), 500);
    let request = http::Request::post(server.url("/echo")).body(Full::from("hello")).unwrap();
    let answer = client.send_request(request).await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (http::Version::HTTP_2, 200));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
}

#[tokio::test]
async fn upgraded_connections_reach_the_route() {
    let upgrade = |mut request: axum::extract::Request| async move {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgraded.await.unwrap());
            io.write_all(b"upgraded").await.unwrap();
            io.shutdown().await.unwrap();
        });
        (http::StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "test")])
    };
    let server = Server::start(Router::new().route("/", get(upgrade))).await;
    let text = server.raw("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 101") && text.ends_with("\r\n\r\nupgraded"), "{text}");
}

#[tokio::test]
async fn a_socket_in_use_is_told_with_its_setting() {
    let first = Sockets::bind("http", "http.addr", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    assert!(first.is_loopback() && first.name() == "http");
    let port = first.local_addr().port();
    let bind = |addr: String| async move {
        Sockets::bind("http", "http.addr, flag --http-addr", addr.parse().unwrap()).await.unwrap_err().to_string()
    };
    assert_eq!(
        bind(format!("127.0.0.1:{port}")).await,
        format!("cannot listen on 127.0.0.1:{port}: the port is in use (setting http.addr, flag --http-addr)")
    );
    assert_eq!(
        bind("203.0.113.9:8080".to_owned()).await,
        "cannot listen on 203.0.113.9:8080: this machine does not have that address (setting http.addr, flag --http-addr)"
    );
    let any = Sockets::bind("http", "http.addr", "0.0.0.0:0".parse().unwrap()).await.unwrap();
    assert!(!any.is_loopback());
}

#[tokio::test]
async fn http2_without_a_body_works_too() {
    let server = Server::start(Router::new().route("/", get(async || "hello"))).await;
    let (mut client, connection) = hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(server.connect().await),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://evil.example/").body(Empty::new()).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 421, "the authority is the host");
}
