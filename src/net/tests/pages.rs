//! Health, events and the API's page.

use axum::Router;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use super::{Server, read_to_end};
use crate::{Readiness, openapi, sse};

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let stopping = tokio_util::sync::CancellationToken::new();
    let readiness = Readiness::new().until(stopping.clone());
    let (store, sms) = (readiness.check("store"), readiness.check("sms"));
    let server = Server::start(readiness.router()).await;
    assert_eq!(server.get("/livez", "").await.body, "ok\n");
    let answer = server.get("/readyz", "").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body, "[-] sms: starting\n[-] store: starting\nnot ready\n");
    store.set_ready();
    sms.set_ready();
    assert_eq!(server.get("/readyz", "").await.body, "ok\n");
    assert_eq!(server.get("/readyz?verbose", "").await.body, "[+] sms: ok\n[+] store: ok\nready\n");
    sms.set_not_ready("no answer for 30 s");
    assert_eq!(readiness.reasons(), [("sms".to_owned(), "no answer for 30 s".to_owned())]);
    assert!(server.get("/readyz?verbose=1", "").await.body.contains("[-] sms: no answer for 30 s\n"));
    sms.set_limited("the disk is full");
    assert_eq!(server.get("/readyz", "").await.body, "ok\n", "it does most of its work");
    assert_eq!(server.get("/readyz?verbose", "").await.body, "[!] sms: the disk is full\n[+] store: ok\nready\n");
    assert!(readiness.is_ready() && readiness.reasons().is_empty());
    sms.set_ready();
    stopping.cancel();
    let answer = server.get("/readyz", "").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("[-] process: stopping\n"), "{}", answer.body);
    assert_eq!(server.get("/healthz", "").await.body, "ok\n", "alive to the end");
}

#[tokio::test]
async fn events_are_sent_at_once_and_the_stream_ends_when_the_process_stops() {
    let stopping = tokio_util::sync::CancellationToken::new();
    let token = stopping.clone();
    let route = axum::routing::get(move || async move {
        let first = sse::event("log:1", "created", &serde_json::json!({"text": "a\nb"})).unwrap();
        sse::respond(futures_util::stream::iter([first]).chain(futures_util::stream::pending()), token)
    });
    let server = Server::start(Router::new().route("/events", route)).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains("id: log:1\n\n") {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_buf(&mut bytes)).await;
        assert_ne!(read.expect("an event").unwrap(), 0);
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("event: created\ndata: {\"text\":\"a\\nb\"}\nid: log:1\n\n"), "{text}");
    let head = text.to_ascii_lowercase();
    for line in ["content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"] {
        assert!(head.contains(line), "{line}: {head}");
    }
    stopping.cancel();
    read_to_end(&mut stream).await;
}

#[test]
fn an_event_with_a_line_break_in_its_id_is_an_error_and_no_panic() {
    for (id, name) in [("a\nb", "x"), ("a\0", "x"), ("a", "x\r")] {
        assert!(sse::event(id, name, &1).is_err(), "{id:?} {name:?}");
    }
}

fn document() -> utoipa::openapi::OpenApi {
    utoipa::openapi::OpenApiBuilder::new()
        .info(utoipa::openapi::InfoBuilder::new().title("Spear").version("1").build())
        .build()
}

#[tokio::test]
async fn the_page_and_the_document_come_from_inside() {
    let server = Server::start(openapi::swagger(document())).await;
    assert_eq!(server.get("/api/openapi.json", "").await.json()["info"]["title"], "Spear");
    let redirect = server.get("/swagger-ui", "").await;
    assert_eq!((redirect.status.as_u16(), redirect.header("location")), (303, Some("/swagger-ui/")));
    let page = server.get("/swagger-ui/", "").await;
    assert_eq!(page.status, 200);
    let initializer = server.get("/swagger-ui/swagger-initializer.js", "").await.body;
    assert!(initializer.contains("/api/openapi.json"), "{initializer}");
    assert!(initializer.contains("\"validatorUrl\": \"none\""), "{initializer}");
    for text in [&page.body, &initializer] {
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("\"//"), "{text}");
    }
    let mut loaded = 0;
    for part in page.body.split(['"', '\'']).filter(|part| part.starts_with("./") || part.ends_with(".css")) {
        let path = format!("/swagger-ui/{}", part.trim_start_matches("./"));
        assert_eq!(server.get(&path, "").await.status, 200, "{path}");
        loaded += 1;
    }
    assert!(loaded >= 4, "{loaded} parts of the page");
    let without = Server::start(Router::new()).await;
    without.get("/swagger-ui/", "").await.is_problem(404, "NO_SUCH_ROUTE");
}
