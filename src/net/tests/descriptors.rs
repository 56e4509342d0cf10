//! A process without file descriptors goes on serving once it has some again.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use axum::{Router, routing::get};
use net::{Access, ServeOptions, Sockets, serve};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    fs::File,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use supervise::{Budget, Phase, Supervisor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};
use tracing::{
    Metadata,
    field::{Field, Visit},
    span,
};

/// Counts the lines that say that nothing can be accepted, and the tries that they stand for.
#[derive(Clone, Default)]
struct Complaints {
    lines: Arc<AtomicU64>,
    tries: Arc<AtomicU64>,
}

struct Times<'a>(&'a Complaints);

impl Visit for Times<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "times" {
            self.0.tries.fetch_add(value, Ordering::SeqCst);
            self.0.lines.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl tracing::Subscriber for Complaints {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == tracing::Level::ERROR
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Times(self));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn without_file_descriptors_the_listener_waits_complains_rarely_and_recovers() {
    let complaints = Complaints::default();
    tracing::subscriber::set_global_default(complaints.clone()).unwrap();
    let supervisor = Supervisor::new(Budget::default());
    let listener = Sockets::bind("http", "http.addr", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr();
    let router = Router::new().route("/", get(async || "hello"));
    let scope = supervisor.scope(Phase::Intake, "test");
    serve(listener, router, Access::loopback(["x"]), ServeOptions::default(), &scope, supervisor.stopping());

    // The client has its descriptor; from here on nobody gets another one.
    let socket = TcpSocket::new_v4().unwrap();
    let before = getrlimit(Resource::Nofile);
    let lowest_free = File::open("/dev/null").unwrap().as_raw_fd();
    let none_left = Rlimit { current: Some(u64::try_from(lowest_free).unwrap()), ..before };
    setrlimit(Resource::Nofile, none_left).unwrap();
    let mut stream = socket.connect(addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let waiting = async {
        while complaints.lines.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("two complaints");
    // The second line stands for every try of the second between them.
    let tries = complaints.tries.load(Ordering::SeqCst);
    assert!((2..=13).contains(&tries), "{tries} tries for two lines");

    setrlimit(Resource::Nofile, before).unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
}
