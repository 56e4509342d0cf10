//! The client of our own REST interface: against our server, and against servers that are not as they should be.

use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    response::Response,
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use std::{io, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use types::{ErrorKind, Fault};

use super::Server;
use crate::{Access, Problem, ServeOptions, Token, rest::Rest};

const TOKEN: &str = "correct-horse-battery-staple";
const KINDS: [(&str, ErrorKind); 13] = [
    ("invalid", ErrorKind::Invalid),
    ("unauthenticated", ErrorKind::Unauthenticated),
    ("denied", ErrorKind::Denied),
    ("not_found", ErrorKind::NotFound),
    ("conflict", ErrorKind::Conflict),
    ("too_large", ErrorKind::TooLarge),
    ("exhausted", ErrorKind::Exhausted),
    ("storage_full", ErrorKind::StorageFull),
    ("out_of_range", ErrorKind::OutOfRange),
    ("unavailable", ErrorKind::Unavailable),
    ("deadline", ErrorKind::Deadline),
    ("unsupported", ErrorKind::Unsupported),
    ("internal", ErrorKind::Internal),
];

fn rest(address: SocketAddr) -> Rest {
    Rest::new(&address.to_string(), None, None).unwrap()
}

/// A server that answers every connection with these bytes, once the head of a request has come, and closes.
async fn answering(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut some = [0; 1024];
                let count = stream.read(&mut some).await.unwrap();
                assert!(count > 0, "a whole head comes");
                head.extend_from_slice(&some[..count]);
            }
            stream.write_all(bytes).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_fault_survives_the_way_over_rest() {
    let refuse = |Path(kind): Path<String>| async move {
        let kind = KINDS.iter().find(|(name, _)| *name == kind).unwrap().1;
        let mut fault = Fault::new(kind, "SOME_CODE", "Größe: zu viel");
        fault.errors.extend(Fault::invalid_field("executable.uri", "is empty").errors);
        Err::<(), _>(Problem::from(fault))
    };
    let server = Server::start(Router::new().route("/refuse/{kind}", get(refuse))).await;
    for (name, kind) in KINDS {
        let fault = rest(server.addr).get::<Value>(&format!("/refuse/{name}")).await.unwrap_err();
        assert_eq!((fault.kind, &*fault.code, &*fault.message), (kind, "SOME_CODE", "Größe: zu viel"));
        assert_eq!((&*fault.errors[0].field, &*fault.errors[0].detail), ("executable.uri", "is empty"));
    }
}

#[tokio::test]
async fn bodies_are_json_both_ways_and_the_token_goes_along() {
    let router = Router::new().route("/echo", post(async |request: Request| Response::new(request.into_body())));
    let token = Token::from_text(TOKEN).unwrap();
    let access = Access::token(token.clone());
    let server = Server::with(router, access, ServeOptions::default()).await;
    let sent = json!({"a": [1, 2], "text": "ä"});
    let refused = rest(server.addr).json::<Value>(Method::POST, "/echo", Some(&sent)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unauthenticated);
    let let_in = Rest::new(&server.addr.to_string(), Some(token), None).unwrap();
    assert_eq!(let_in.json::<Value>(Method::POST, "/echo", Some(&sent)).await.unwrap(), sent);
    assert!(!format!("{let_in:?}").contains(TOKEN));
}

#[tokio::test]
async fn a_path_cannot_lead_to_another_server() {
    let here = rest("127.0.0.1:1".parse().unwrap());
    for away in ["//127.0.0.1:2/x", "http://127.0.0.1:2/", "https://127.0.0.1:1/"] {
        let fault = here.get::<Value>(away).await.unwrap_err();
        assert!(fault.kind == ErrorKind::Invalid && fault.message.contains("leads away"), "{away}: {fault}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let address = answering(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
    let fault = rest(address).get::<Value>("/").await.unwrap_err();
    assert_eq!((&*fault.code, fault.kind), ("REFUSED", ErrorKind::Internal));
    assert!(fault.message.ends_with("answers 302 Found"), "{fault}");
}

#[tokio::test]
async fn nobody_there_and_somebody_else_there_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    let fault = rest(free).get::<Value>("/").await.unwrap_err();
    assert_eq!((&*fault.code, fault.kind), ("UNREACHABLE", ErrorKind::Unavailable));
    assert!(fault.message.contains("Connection refused"), "{fault}");
    let page = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>").await;
    let fault = rest(page).get::<Value>("/").await.unwrap_err();
    assert_eq!((&*fault.code, fault.kind), ("UNEXPECTED_ANSWER", ErrorKind::Internal));
    let proxy = answering(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno!").await;
    let fault = rest(proxy).get::<Value>("/").await.unwrap_err();
    assert_eq!((&*fault.code, fault.kind), ("REFUSED", ErrorKind::Unavailable));
    let closing = answering(b"").await;
    let fault = rest(closing).get::<Value>("/").await.unwrap_err();
    assert_eq!(&*fault.code, "UNREACHABLE");
}

#[test]
fn an_address_is_a_host_and_a_port_or_a_url_of_no_more() {
    for good in ["127.0.0.1:80", "localhost:8080", "[::1]:8080", "http://h:1", "https://spear.example.org"] {
        assert!(Rest::new(good, None, None).is_ok(), "{good}");
    }
    assert_eq!(Rest::new("http://h:1/", None, None).unwrap().address(), "http://h:1");
    for bad in ["", "ftp://h", "http://h/path", "http://h?x", "http://user@h", "h:port", "http://"] {
        let fault = Rest::new(bad, None, None).unwrap_err();
        assert!(fault.kind == ErrorKind::Invalid && fault.message.contains("host:port"), "{bad}: {fault}");
    }
    let fault =
        Rest::new("h:1", None, Some(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")).unwrap_err();
    assert_eq!(fault.errors[0].field, "ca");
    assert!(Rest::new("h:1", None, Some(b"no certificates")).is_err());
}

#[tokio::test]
async fn an_upload_tells_its_length_where_it_is_known_and_its_headers() {
    let told = async |headers: HeaderMap, body: Bytes| {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let (length, name) = (header("content-length"), header("x-file-name"));
        axum::Json(json!({"length": length, "name": name, "count": body.len()}))
    };
    let server = Server::start(Router::new().route("/files", post(told))).await;
    let pieces = || stream::iter((0..10).map(|_| Ok(Bytes::from_static(&[7; 1000]))));
    let headers = [("x-file-name", "a%20b".to_owned())];
    let rest = rest(server.addr);
    let known: Value = rest.upload("/files", &headers, Some(10_000), pieces()).await.unwrap();
    assert_eq!(known, json!({"length": "10000", "name": "a%20b", "count": 10_000}));
    let unknown: Value = rest.upload("/files", &[], None, pieces()).await.unwrap();
    assert_eq!(unknown, json!({"length": null, "name": null, "count": 10_000}));
    let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(io::Error::other("the disk went away"))]);
    let fault = rest.upload::<Value>("/files", &[], None, broken).await.unwrap_err();
    assert!(fault.message.contains("the disk went away"), "{fault}");
}

#[tokio::test]
async fn a_refusal_reaches_whoever_is_still_sending() {
    let refuse = async || Err::<(), _>(Problem::from(Fault::new(ErrorKind::TooLarge, "TOO_LARGE", "over the limit")));
    let server = Server::start(Router::new().route("/files", post(refuse))).await;
    for total in [None, Some(64 << 20)] {
        let pieces = stream::iter((0..1024).map(|_| Ok(Bytes::from_static(&[7; 64 << 10]))));
        let fault = rest(server.addr).upload::<Value>("/files", &[], total, pieces).await.unwrap_err();
        assert_eq!((fault.kind, &*fault.code), (ErrorKind::TooLarge, "TOO_LARGE"), "{fault}");
    }
    // A client that reads the answer only when everything is sent.
    let mut stream = server.connect().await;
    stream.write_all(b"POST /files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8388608\r\n\r\n").await.unwrap();
    stream.write_all(&vec![7; 8 << 20]).await.unwrap();
    let answer = super::read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_download_that_ends_early_is_an_error_and_not_a_short_file() {
    let whole = async || Response::new(Body::from(vec![7; 100_000]));
    let server = Server::start(Router::new().route("/file", get(whole))).await;
    let content = rest(server.addr).download("/file").await.unwrap();
    assert_eq!(content.total_bytes, Some(100_000));
    let bytes: Vec<Bytes> = content.bytes.map(Result::unwrap).collect().await;
    assert_eq!(bytes.concat(), vec![7; 100_000]);
    let short = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\n1234").await;
    let content = rest(short).download("/file").await.unwrap();
    assert!(content.bytes.collect::<Vec<_>>().await.iter().any(Result::is_err));
    let fault = rest(server.addr).download("/other").await.err().unwrap();
    assert_eq!(fault.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn text_is_read_whatever_the_status() {
    let refuse = async || (StatusCode::SERVICE_UNAVAILABLE, "[-] store: full\nnot ready\n");
    let server = Server::start(Router::new().route("/readyz", get(refuse))).await;
    let (status, text) = rest(server.addr).text("/readyz").await.unwrap();
    assert_eq!((status.as_u16(), &*text), (503, "[-] store: full\nnot ready\n"));
}

#[tokio::test]
async fn events_are_read_however_the_bytes_are_cut() {
    const STREAM: &str = ": hello\n\nid: 1\nevent: made\ndata: {\"a\":\ndata:  1}\n\nretry: 5\r\nid: 2\r\ndata: grün\r\n\r\n\
        event: nothing\n\ndata: no id of its own\n\ndata: never ended";
    for size in [1, 2, 3, 7, STREAM.len()] {
        let pieces: Vec<Bytes> = STREAM.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
        let answer = move |request: Request| async move {
            let after = request.headers().get("last-event-id").map(|id| id.to_str().unwrap().to_owned());
            assert_eq!(after.as_deref(), Some("0"));
            Response::new(Body::from_stream(stream::iter(pieces.clone()).map(Ok::<_, io::Error>)))
        };
        let server = Server::start(Router::new().route("/events", get(answer))).await;
        let mut events = rest(server.addr).events("/events", Some("0")).await.unwrap();
        let mut seen = Vec::new();
        while let Some(event) = events.next().await.unwrap() {
            seen.push((event.id, event.name, event.data));
        }
        let wanted = [("1", "made", "{\"a\":\n 1}"), ("2", "message", "grün"), ("2", "message", "no id of its own")];
        assert_eq!(seen, wanted.map(|(id, name, data)| (id.to_owned(), name.to_owned(), data.to_owned())), "{size}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_and_one_that_is_no_stream_are_faults() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\nconnection: close\r\n\r\ndata: one\n\ndata: tw";
    let mut events = rest(answering(cut).await).events("/", None).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().data, "one");
    assert_eq!(events.next().await.unwrap_err().kind, ErrorKind::Unavailable);
    let endless = async || Response::new(Body::from(vec![b'x'; 5 << 20]));
    let server = Server::start(Router::new().route("/", get(endless))).await;
    let mut events = rest(server.addr).events("/", None).await.unwrap();
    assert!(events.next().await.unwrap_err().message.contains("longer than"));
}
