#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::indexing_slicing, reason = "tests")]

mod access;
mod drain;
mod errors;
mod fetch;
mod figures;
mod files;
mod grpc;
mod limits;
mod logs;
mod outbound;
mod pages;
mod rest;
mod serving;
mod token;

use axum::Router;
use http::StatusCode;
use serde_json::Value;
use std::{net::SocketAddr, time::Duration};
use supervise::{Budget, Phase, Supervisor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use crate::{Access, ServeOptions, Sockets, serve};

const NO_HOSTS: [&str; 0] = [];

/// A server on a free port.
struct Server {
    supervisor: Supervisor,
    stopping: CancellationToken,
    addr: SocketAddr,
}

impl Server {
    async fn start(router: Router) -> Self {
        Self::with(router, Access::loopback(NO_HOSTS), ServeOptions::default()).await
    }

    async fn with(router: Router, access: Access, options: ServeOptions) -> Self {
        let supervisor = Supervisor::new(Budget { total: Duration::from_secs(20) });
        let listener = Sockets::bind("http", "http.addr", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (addr, stopping) = (listener.local_addr(), supervisor.stopping());
        serve(listener, router, access, options, &supervisor.scope(Phase::Intake, "test"), stopping.clone());
        Self { supervisor, stopping, addr }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends bytes and reads until the server closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }

    /// A GET over HTTP/1 on a connection of its own, with more header lines.
    async fn get(&self, path: &str, headers: &str) -> Answer {
        let host = if headers.to_ascii_lowercase().contains("host:") { "" } else { "Host: localhost\r\n" };
        Answer::parse(&self.raw(&format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n")).await)
    }

    async fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n");
        Answer::parse(&self.raw(&format!("{head}{headers}\r\n{body}")).await)
    }
}

/// Reads until the other side closes, however it does that; fails if it does not.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    // A reset after the answer is a way of closing too.
    let _closed = read.expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = body.to_owned();
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            body = dechunked(&body);
        }
        Self { status, head: head.to_owned(), body }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(its, _)| its.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts a problem of this status and code.
    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let json = self.json();
        assert_eq!((json["code"].as_str(), json["status"].as_u64()), (Some(code), Some(status.into())), "{json}");
        json
    }
}

fn dechunked(mut text: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        whole.push_str(&rest[..size]);
        text = rest[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    whole
}
