//! What measuring costs: the same server with and without figures, side by side, in rounds that take turns; and what
//! one observation costs alone.
//!
//!     cargo run --release --manifest-path bench/Cargo.toml -p bench-metrics [requests per round] [rounds]

use axum::{Router, extract::Path, routing::get};
use net::{Access, ServeOptions, Sockets, readiness::Readiness};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use supervise::{Budget, Phase, Supervisor};
use telemetry::{Metrics, SHORT};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A server like ours: probes and a route with a parameter.
async fn server(supervisor: &Supervisor, metrics: Option<Metrics>) -> SocketAddr {
    let router = Readiness::new().router().route("/api/v1/nodes/{uuid}", get(async |Path(id): Path<String>| id));
    let address = "127.0.0.1:0".parse().expect("an address");
    let listener = Sockets::bind("bench", "bench", address).await.expect("a free port");
    let address = listener.local_addr();
    let options = ServeOptions { metrics, ..ServeOptions::default() };
    let scope = supervisor.scope(Phase::Intake, "bench");
    net::serve(listener, router, Access::loopback([""; 0]), options, &scope, supervisor.stopping());
    address
}

/// Requests one after the other on one connection; the time of each.
async fn round(address: SocketAddr, path: &str, requests: u32) -> Duration {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut answer = [0; 4096];
    let started = Instant::now();
    for _ in 0..requests {
        stream.write_all(request.as_bytes()).await.expect("it takes requests");
        // Answers are shorter than a segment and come in one piece.
        let read = stream.read(&mut answer).await.expect("it answers");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "it answers with 200");
    }
    started.elapsed() / requests
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse().expect("a number"));
    let (requests, rounds) = (arguments.next().unwrap_or(5000), arguments.next().unwrap_or(21));
    let supervisor = Supervisor::new(Budget::default());
    let metrics = Metrics::new();
    let plain = server(&supervisor, None).await;
    let measured = server(&supervisor, Some(metrics.clone())).await;
    println!("| request | without | with | ratio |\n|---|---|---|---|");
    for path in ["/readyz", "/api/v1/nodes/0190a5c2-7f6e-7c7e-8f5b-000000000000"] {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for turn in 0..rounds {
            // Whoever comes second finds warmer caches: they take turns at that, too.
            for first in [turn % 2 == 0, turn % 2 != 0] {
                let (times, address) = if first { (&mut without, plain) } else { (&mut with, measured) };
                times.push(round(address, path, requests).await);
            }
        }
        let (without, with) = (median(without), median(with));
        let ratio = with.as_secs_f64() / without.as_secs_f64();
        println!("| GET {path} | {without:?} | {with:?} | {ratio:.3} |");
    }
    let seconds = metrics.histogram("spear_bench_seconds", "Of this bench.", SHORT);
    let times = 5_000_000u32;
    let started = Instant::now();
    for number in 0..times {
        seconds.observe(f64::from(number % 1000) / 1000.0);
    }
    println!("\none observation: {:?}", started.elapsed() / times);
    let started = Instant::now();
    let text = metrics.expose(telemetry::Format::OpenMetrics).expect("text");
    println!("one scrape: {:?}, {} bytes", started.elapsed(), text.body.len());
    supervisor.run(async {}).await.expect("an end in order");
}
