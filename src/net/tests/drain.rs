//! Stopping: what is in hand finishes, what is idle goes, nothing new comes in.

use axum::{Router, routing::get};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{sync::Arc, time::Duration};
use supervise::Phase;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, Semaphore},
};

use super::{NO_HOSTS, Server, read_to_end};
use crate::{Access, ServeOptions};

const REQUEST: &str = "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A route that says when it has begun and answers when it may.
struct Slow {
    begun: Arc<Notify>,
    may: Arc<Semaphore>,
}

impl Slow {
    fn new() -> (Self, Router) {
        let slow = Self { begun: Arc::new(Notify::new()), may: Arc::new(Semaphore::new(0)) };
        let (begun, may) = (slow.begun.clone(), slow.may.clone());
        let route = get(move || async move {
            begun.notify_one();
            may.acquire().await.unwrap().forget();
            "slow"
        });
        (slow, Router::new().route("/slow", route).route("/", get(async || "quick")))
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

#[tokio::test]
async fn a_request_in_hand_finishes_and_an_idle_connection_closes() {
    let (slow, router) = Slow::new();
    let server = Server::start(router).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"quick") {
        within(idle.read_buf(&mut answer)).await.unwrap();
    }
    let mut silent = server.connect().await;
    let mut busy = server.connect().await;
    busy.write_all(REQUEST.as_bytes()).await.unwrap();
    within(slow.begun.notified()).await;

    let stopped = tokio::spawn(server.supervisor.clone().run(async {}));
    assert_eq!(read_to_end(&mut idle).await, "");
    assert_eq!(read_to_end(&mut silent).await, "");
    within(async {
        while TcpStream::connect(server.addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    slow.may.add_permits(1);
    let text = read_to_end(&mut busy).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("slow"), "{text}");
    within(stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut() {
    let (slow, router) = Slow::new();
    let options = ServeOptions { drain: Duration::from_millis(100), ..ServeOptions::default() };
    let server = Server::with(router, Access::loopback(NO_HOSTS), options).await;
    let mut busy = server.connect().await;
    busy.write_all(REQUEST.as_bytes()).await.unwrap();
    within(slow.begun.notified()).await;
    within(server.supervisor.clone().run(async {})).await.unwrap();
    assert_eq!(read_to_end(&mut busy).await, "");
}

#[tokio::test]
async fn connections_of_a_later_phase_outlive_the_work_of_an_earlier_one() {
    let (slow, router) = Slow::new();
    let supervisor = supervise::Supervisor::new(supervise::Budget { total: Duration::from_secs(20) });
    let listener = crate::Sockets::bind("http", "http.addr", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr();
    let options = ServeOptions {
        connection_scope: Some(supervisor.scope(Phase::Report, "http")),
        drain: Duration::from_millis(100),
        ..ServeOptions::default()
    };
    let intake = supervisor.scope(Phase::Intake, "test");
    crate::serve(listener, router, Access::loopback(NO_HOSTS), options, &intake, supervisor.stopping());
    // The work that the request waits for ends in the phase after the listener's.
    let may = slow.may.clone();
    supervisor.scope(Phase::Work, "work").spawn("work", supervise::OnError::Log, move |stop| {
        let may = may.clone();
        async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            may.add_permits(1);
            Ok(())
        }
    });
    let mut busy = TcpStream::connect(addr).await.unwrap();
    busy.write_all(REQUEST.as_bytes()).await.unwrap();
    within(slow.begun.notified()).await;
    let stopped = tokio::spawn(supervisor.run(async {}));
    assert!(read_to_end(&mut busy).await.ends_with("slow"));
    within(stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn http2_streams_in_hand_finish_and_the_connection_takes_no_more() {
    let (slow, router) = Slow::new();
    let server = Server::start(router).await;
    let io = TokioIo::new(server.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = || http::Request::get(server.url("/slow")).body(Empty::new()).unwrap();
    let pending = client.send_request(request());
    let in_hand = tokio::spawn(pending);
    within(slow.begun.notified()).await;
    server.stopping.cancel();
    slow.may.add_permits(1);
    assert_eq!(within(in_hand).await.unwrap().unwrap().status(), 200);
    within(connection).await.unwrap().unwrap();
    assert!(client.send_request(request()).await.is_err(), "the connection was told to go away");
}
