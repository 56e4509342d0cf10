//! Slow, silent, greedy and malformed peers.

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use super::{Answer, NO_HOSTS, Server, read_to_end};
use crate::{Access, ServeOptions, extract};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

async fn limited(router: Router, options: ServeOptions) -> Server {
    Server::with(router, Access::loopback(NO_HOSTS), options).await
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

/// Reads one answer of five bytes of body, and leaves the connection open.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !bytes.ends_with(b"hello") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "closed");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("an answer");
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn peers_that_do_not_finish_their_headers_are_let_go() {
    let options = ServeOptions { header_timeout: Duration::from_millis(300), ..ServeOptions::default() };
    let server = limited(hello(), options).await;
    for begun in ["", "G", "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", "PRI * HTTP/2.0\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let text = read_to_end(&mut stream).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{begun:?}: {text}");
    }
    // One byte at a time is no way around it.
    let mut stream = server.connect().await;
    let begun = Instant::now();
    let mut closed = false;
    while !closed && begun.elapsed() < Duration::from_secs(20) {
        closed = stream.write_all(b"A").await.is_err();
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut byte)).await;
        closed = closed || read.is_ok();
    }
    assert!(closed, "dripped for ever");
}

#[tokio::test]
async fn a_kept_connection_that_asks_nothing_more_is_closed() {
    let options = ServeOptions { header_timeout: Duration::from_millis(300), ..ServeOptions::default() };
    let server = limited(hello(), options).await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    read_to_end(&mut stream).await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_a_problem() {
    let read = |extract::Body(bytes): extract::Body| async move { bytes.len().to_string() };
    let options = ServeOptions { body_idle: Duration::from_millis(200), ..ServeOptions::default() };
    let server = limited(Router::new().route("/", axum::routing::post(read)), options).await;
    let mut stream = server.connect().await;
    let begun = "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 10\r\n\r\nabc";
    stream.write_all(begun.as_bytes()).await.unwrap();
    Answer::parse(&read_to_end(&mut stream).await).is_problem(408, "TIMEOUT");
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answer_is_let_go() {
    struct Gone(Arc<Notify>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let gone = Arc::new(Notify::new());
    let told = gone.clone();
    let endless = move || {
        let guard = Gone(told.clone());
        async move {
            Body::from_stream(futures_util::stream::repeat_with(move || {
                let _kept = &guard;
                Ok::<_, std::io::Error>(Bytes::from_static(&[0; 65536]))
            }))
        }
    };
    let options = ServeOptions { write_stall: Duration::from_millis(200), ..ServeOptions::default() };
    let server = limited(Router::new().route("/", get(endless)), options).await;
    let mut stream = server.connect().await;
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), gone.notified()).await.expect("the answer is given up");
    drop(stream);
}

#[tokio::test]
async fn headers_and_targets_over_the_limit_are_refused() {
    let server = Server::start(hello()).await;
    let mut statuses = Vec::new();
    for request in [
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: {}\r\n\r\n", "x".repeat(100_000)),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-Many: 1\r\n".repeat(1000)),
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(65_535)),
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n\r\n".to_owned(),
    ] {
        let text = server.raw(&request).await;
        statuses.push(text.get(9..12).unwrap_or_default().to_owned());
    }
    assert_eq!(statuses[..2], ["431", "431"]);
    assert!(["414", "431"].contains(&statuses[2].as_str()), "{statuses:?}");
    assert_eq!(statuses[3..], ["400", "400", "400", "400"]);
}

#[tokio::test]
async fn connections_over_the_listeners_limit_wait_for_a_place() {
    let options = ServeOptions { connections: 1, ..ServeOptions::default() };
    let server = limited(hello(), options).await;
    let mut first = server.connect().await;
    first.write_all(REQUEST.as_bytes()).await.unwrap();
    read_answer(&mut first).await;
    let mut second = server.connect().await;
    second.write_all(REQUEST.as_bytes()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), second.read_u8()).await;
    assert!(early.is_err(), "served beside the first");
    drop(first);
    assert!(read_answer(&mut second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_over_the_limit_of_an_address_are_closed() {
    let options = ServeOptions { connections_per_address: 2, loopback_exempt: false, ..ServeOptions::default() };
    let server = limited(hello(), options).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        read_answer(&mut stream).await;
        open.push(stream);
    }
    let mut third = server.connect().await;
    assert_eq!(read_to_end(&mut third).await, "");
    open.pop();
    // The place is given back as soon as the server sees the end.
    let begun = Instant::now();
    loop {
        let mut stream = server.connect().await;
        let sent = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        if sent.is_ok() && read_to_end(&mut stream).await.ends_with("hello") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the place is never given back");
    }
    let exempt = limited(hello(), ServeOptions { connections_per_address: 0, ..ServeOptions::default() }).await;
    assert_eq!(exempt.get("/", "").await.body, "hello", "loopback is exempt");
}
