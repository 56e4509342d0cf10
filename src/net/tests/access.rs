//! Who is let in.

use axum::{
    Router,
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use proptest::prelude::*;
use std::{net::SocketAddr, time::Duration};

use super::{NO_HOSTS, Server};
use crate::{
    Access, ServeOptions, Token,
    access::Visit,
    attempts::{Attempts, MOST_WRONG},
    authority::{Authority, Host},
};

const SECRET: &str = "a-secret-of-enough-characters";

struct Request<'a> {
    method: &'a str,
    target: &'a str,
    headers: &'a [(&'a str, &'a str)],
    peer: &'a str,
    local: &'a str,
}

impl Default for Request<'_> {
    fn default() -> Self {
        Self { method: "GET", target: "/", headers: &[], peer: "127.0.0.1", local: "127.0.0.1:8080" }
    }
}

/// The status of the refusal, 200 for none.
fn ask(access: &Access, request: &Request<'_>) -> u16 {
    let mut headers = HeaderMap::new();
    for (name, value) in request.headers {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    let visit = Visit {
        method: &Method::try_from(request.method).unwrap(),
        uri: &Uri::try_from(request.target).unwrap(),
        headers: &headers,
        peer: request.peer.parse().unwrap(),
        local: request.local.parse::<SocketAddr>().unwrap(),
    };
    access.check(&visit).map_or_else(|problem| problem.status_code().as_u16(), |()| 200)
}

#[test]
fn on_loopback_a_request_must_name_this_machine() {
    let access = Access::loopback(["spear.example", "proxy.example:8443"]);
    for (host, status) in [
        ("localhost:8080", 200),
        ("localhost", 200),
        ("LocalHost.:8080", 200),
        ("127.0.0.1:8080", 200),
        ("127.0.0.1:9999", 200),
        ("127.1.2.3:8080", 200),
        ("[::1]:8080", 200),
        ("[::1]", 200),
        ("[::ffff:127.0.0.1]:8080", 200),
        ("spear.example", 200),
        ("spear.example:1234", 200),
        ("proxy.example:8443", 200),
        ("proxy.example", 421),
        ("proxy.example:8444", 421),
        ("evil.example:8080", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("127.1:8080", 421),
        ("2130706433", 421),
        ("0x7f000001", 421),
        ("0.0.0.0:8080", 421),
        ("192.168.1.7:8080", 421),
        ("", 421),
        ("localhost:", 400),
        ("localhost:99999", 400),
        ("user@localhost", 400),
        ("local host", 400),
        ("[::1", 400),
    ] {
        assert_eq!(ask(&access, &Request { headers: &[("host", host)], ..Request::default() }), status, "{host:?}");
    }
    assert_eq!(ask(&access, &Request::default()), 421, "no host at all");
    let two = [("host", "localhost"), ("host", "evil.example")];
    assert_eq!(ask(&access, &Request { headers: &two, ..Request::default() }), 400, "two hosts");
    let target = Request { target: "http://evil.example/", headers: &[("host", "localhost")], ..Request::default() };
    assert_eq!(ask(&access, &target), 400, "the target says otherwise");
    let target = Request { target: "http://evil.example/", ..Request::default() };
    assert_eq!(ask(&access, &target), 421, "the target alone");
}

#[test]
fn without_a_token_only_this_machine_is_let_in() {
    let access = Access::loopback(NO_HOSTS);
    let headers = &[("host", "localhost")];
    assert_eq!(ask(&access, &Request { peer: "192.168.1.7", headers, ..Request::default() }), 403);
    assert_eq!(ask(&access, &Request { peer: "::1", headers, ..Request::default() }), 200);
    assert_eq!(ask(&access, &Request { peer: "::ffff:127.0.0.1", headers, ..Request::default() }), 200);
}

#[test]
fn pages_of_another_origin_are_refused() {
    let loopback = Access::loopback(["spear.example"]);
    let token = Access::token(Token::from_text(SECRET).unwrap());
    let authorized = ("authorization", "Bearer a-secret-of-enough-characters");
    for (host, origin, status) in [
        ("localhost:8080", "http://localhost:8080", 200),
        ("localhost:8080", "https://localhost:8080", 200),
        ("localhost:8080", "http://127.0.0.1:8080", 200),
        ("127.0.0.1:8080", "http://[::1]:8080", 200),
        ("localhost:9090", "http://localhost:9090", 200),
        ("localhost", "http://localhost", 200),
        ("localhost:80", "http://localhost", 200),
        ("localhost", "https://localhost:443", 200),
        ("localhost:8080", "http://localhost:3000", 403),
        ("localhost:8080", "http://localhost", 403),
        ("localhost:8080", "http://evil.example", 403),
        ("localhost:8080", "http://evil.example:8080", 403),
        ("localhost:8080", "http://localhost.evil.example:8080", 403),
        ("localhost:8080", "http://user@localhost:8080", 403),
        ("localhost:8080", "null", 403),
        ("localhost:8080", "file://", 403),
        ("localhost:8080", "chrome-extension://abc", 403),
        ("localhost:8080", "", 403),
        ("localhost:8080", "http://localhost:8080, http://evil.example", 403),
    ] {
        for method in ["GET", "POST", "DELETE", "OPTIONS"] {
            let plain = [("host", host), ("origin", origin)];
            let request = Request { method, headers: &plain, ..Request::default() };
            assert_eq!(ask(&loopback, &request), status, "{method} {origin} to {host}");
            let with = [("host", host), ("origin", origin), authorized];
            let request = Request { method, headers: &with, ..Request::default() };
            assert_eq!(ask(&token, &request), status, "{method} {origin} to {host} with a token");
        }
    }
    let proxied = [("host", "localhost:8080"), ("origin", "https://spear.example")];
    assert_eq!(ask(&loopback, &Request { headers: &proxied, ..Request::default() }), 200, "an allowed host");
    let twice = [("host", "localhost:8080"), ("origin", "http://localhost:8080"), ("origin", "http://evil.example")];
    assert_eq!(ask(&loopback, &Request { headers: &twice, ..Request::default() }), 403, "two origins");
}

#[test]
fn what_a_foreign_page_embeds_is_refused_and_a_link_is_not() {
    let access = Access::loopback(NO_HOSTS);
    let host = ("host", "localhost:8080");
    for (method, site, mode, dest, status) in [
        ("GET", "same-origin", "cors", "empty", 200),
        ("GET", "none", "navigate", "document", 200),
        ("GET", "cross-site", "navigate", "document", 200),
        ("GET", "cross-site", "navigate", "iframe", 403),
        ("GET", "cross-site", "no-cors", "image", 403),
        ("GET", "same-site", "no-cors", "script", 403),
        ("POST", "cross-site", "navigate", "document", 403),
    ] {
        let headers = [host, ("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
        assert_eq!(ask(&access, &Request { method, headers: &headers, ..Request::default() }), status, "{site} {dest}");
    }
}

#[test]
fn a_token_is_needed_for_everything_but_health() {
    let access = Access::token(Token::from_text(SECRET).unwrap());
    let right = format!("Bearer {SECRET}");
    for (target, headers, status) in [
        ("/api/v1/nodes", vec![], 401),
        ("/api/v1/nodes", vec![("authorization", right.as_str())], 200),
        ("/api/v1/nodes", vec![("authorization", "bearer a-secret-of-enough-characters")], 200),
        ("/api/v1/nodes", vec![("authorization", "Basic a-secret-of-enough-characters")], 401),
        ("/api/v1/nodes", vec![("authorization", SECRET)], 401),
        ("/api/v1/nodes", vec![("authorization", "Bearer a-secret-of-enough-character")], 401),
        ("/api/v1/nodes", vec![("authorization", "Bearer ")], 401),
        ("/api/v1/nodes", vec![("authorization", right.as_str()), ("authorization", "Bearer x")], 401),
        ("/api/v1/nodes?token=a-secret-of-enough-characters", vec![], 401),
        ("/health", vec![], 200),
        ("/livez", vec![], 200),
        ("/readyz?verbose", vec![], 200),
        ("/healthz", vec![], 200),
        ("/grpc.health.v1.Health/Check", vec![], 200),
        ("/health/", vec![], 401),
        ("/healthy", vec![], 401),
        ("//health", vec![], 401),
        ("/health/../api/v1/nodes", vec![], 401),
        ("/grpc.health.v1.Healthy/Check", vec![], 401),
        ("/sms.NodeService/ListNodes", vec![], 401),
    ] {
        let request = Request { target, headers: &headers, peer: "192.168.1.7", ..Request::default() };
        assert_eq!(ask(&access, &request), status, "{target} {headers:?}");
    }
}

#[test]
fn with_a_token_or_openly_any_host_will_do() {
    let headers = [("host", "spear.example"), ("authorization", "Bearer a-secret-of-enough-characters")];
    let request = Request { headers: &headers, peer: "192.168.1.7", local: "0.0.0.0:8080", ..Request::default() };
    assert_eq!(ask(&Access::token(Token::from_text(SECRET).unwrap()), &request), 200);
    assert_eq!(ask(&Access::open("a test"), &request), 200);
}

#[tokio::test(start_paused = true)]
async fn ten_wrong_tokens_shut_out_their_address_for_a_minute() {
    let access = Access::token(Token::from_text(SECRET).unwrap());
    let present = |peer: &str, token: &str| {
        let value = format!("Bearer {token}");
        ask(&access, &Request { headers: &[("authorization", &value)], peer, ..Request::default() })
    };
    for _ in 0..MOST_WRONG {
        assert_eq!(present("192.168.1.7", "wrong-wrong-wrong-wrong"), 401);
        assert_eq!(present("2001:db8::1", "wrong-wrong-wrong-wrong"), 401);
        assert_eq!(present("127.0.0.1", "wrong-wrong-wrong-wrong"), 401);
    }
    assert_eq!(present("192.168.1.7", "wrong-wrong-wrong-wrong"), 429);
    assert_eq!(present("192.168.1.7", SECRET), 429, "guessing must not go on behind the limit");
    assert_eq!(present("2001:db8::ffff", SECRET), 429, "a whole /64 is one address");
    assert_eq!(present("192.168.1.8", SECRET), 200);
    assert_eq!(present("127.0.0.1", "wrong-wrong-wrong-wrong"), 429);
    assert_eq!(present("127.0.0.1", SECRET), 200, "the owner shares loopback with an agent that has an old token");
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(present("192.168.1.7", SECRET), 200);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_remembered_for_a_bounded_number_of_addresses() {
    let attempts = Attempts::default();
    for address in 0..10_000u32 {
        attempts.count(std::net::Ipv4Addr::from(address).into());
    }
    assert_eq!(attempts.remembered(), 4096);
}

#[tokio::test]
async fn refusals_come_before_any_route_and_never_with_cors_headers() {
    let router = || Router::new().route("/thing", post(async || "done").get(async || "read"));
    let token = Access::token(Token::from_text(SECRET).unwrap());
    let server = Server::with(router(), token, ServeOptions::default()).await;
    let refused = server.get("/thing", "").await;
    refused.is_problem(401, "UNAUTHENTICATED");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    server.get("/no-such-thing", "").await.is_problem(401, "UNAUTHENTICATED");
    assert_eq!(server.get("/thing", &format!("Authorization: Bearer {SECRET}\r\n")).await.body, "read");

    let server = Server::start(router()).await;
    server.get("/thing", "Host: evil.example\r\n").await.is_problem(421, "HOST_NOT_ALLOWED");
    let preflight = "OPTIONS /thing HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\
        Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n";
    let answers = [
        super::Answer::parse(&server.raw(preflight).await),
        super::Answer::parse(&server.raw(&preflight.replace("evil.example", &server.addr.to_string())).await),
        server.post("/thing", "Origin: http://evil.example\r\n", "x").await,
        server.get("/thing", &format!("Origin: http://{}\r\n", server.addr)).await,
    ];
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses, [403, 405, 403, 200]);
    for answer in answers {
        assert!(!answer.head.to_ascii_lowercase().contains("access-control"), "{answer:?}");
    }
}

#[tokio::test]
async fn too_many_attempts_are_told_when_to_come_back() {
    let token = Access::token(Token::from_text(SECRET).unwrap());
    let server = Server::with(Router::new().route("/", get(async || "read")), token, ServeOptions::default()).await;
    let wrong = "Authorization: Bearer wrong-wrong-wrong-wrong\r\n";
    for _ in 0..MOST_WRONG {
        let answer = server.get("/", wrong).await;
        assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    }
    let answer = server.get("/", wrong).await;
    answer.is_problem(429, "TOO_MANY_ATTEMPTS");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
}

#[test]
fn an_allowed_host_is_checked_where_it_is_configured() {
    for good in ["spear.example", "spear.example:8443", "10.0.0.1", "[::1]:80", "::1"] {
        crate::access::check_host(good).unwrap();
    }
    for bad in ["", "http://spear.example", "a b", "host:port", "host:70000", "user@host"] {
        assert!(crate::access::check_host(bad).unwrap_err().message.contains("host:port"), "{bad}");
    }
}

proptest! {
    #[test]
    fn an_authority_parses_what_it_prints(name in "[a-z0-9]([a-z0-9-]{0,20}\\.){0,3}[a-z]{1,5}", port: Option<u16>, v6: u128) {
        for host in [Host::Name(name), Host::Address(std::net::Ipv6Addr::from(v6).into())] {
            let authority = Authority { host, port };
            prop_assert_eq!(Authority::parse(&authority.to_string()), Some(authority));
        }
    }

    #[test]
    fn no_text_makes_an_authority_panic(text in ".{0,60}") {
        let _parsed = Authority::parse(&text);
    }
}
