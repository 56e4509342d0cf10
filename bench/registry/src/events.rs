//! Event streams: what an event costs for each client that follows, and whether the size of the registry matters.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
};

use bench_harness::{
    daemon::Daemon,
    load,
    results::{keep, median, within},
};

use crate::pages::{filled, millis};

const EVENTS: usize = 200;
/// A task with nothing to run: one change, one event.
const TASK: &str = r#"{"name":"event","endpoint":"http://127.0.0.1:8081/process","version":"1"}"#;

#[derive(Clone, Serialize, Deserialize)]
pub struct Row {
    pub records: usize,
    pub clients: usize,
    /// Processor time of the registry, less that of the same changes without clients.
    pub cpu_micros_per_event_and_client: f64,
    pub kib_per_client: f64,
    /// From the request that makes the change until the last byte of its event has come to a client.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

#[derive(Serialize, Deserialize)]
pub struct Figures {
    pub rows: Vec<Row>,
}

pub async fn run(program: &Path, large: usize) -> Result<()> {
    println!(
        "{:>8} {:>8} {:>24} {:>11} {:>9} {:>9}",
        "records", "clients", "CPU µs/event and client", "KiB/client", "p50, ms", "p99, ms"
    );
    let mut rows = Vec::new();
    for records in [100, large] {
        let (daemon, _) = filled(program, records).await?;
        let alone = changes(&daemon).await?;
        for clients in [1, 100, 1000] {
            let row = followed(&daemon, records, clients, alone).await?;
            println!(
                "{records:>8} {clients:>8} {:>24.1} {:>11.1} {:>9.2} {:>9.2}",
                row.cpu_micros_per_event_and_client, row.kib_per_client, row.p50_ms, row.p99_ms
            );
            rows.push(row);
        }
    }
    keep("events", &Figures { rows })
}

/// Processor time of the changes alone, seconds.
async fn changes(daemon: &Daemon) -> Result<f64> {
    let before = daemon.cpu_seconds()?;
    for _ in 0..EVENTS {
        load::run(daemon.http(), &load::post("/api/v1/tasks", TASK), 1, 1, 200).await?;
    }
    Ok(daemon.cpu_seconds()? - before)
}

async fn followed(daemon: &Daemon, records: usize, clients: usize, alone: f64) -> Result<Row> {
    let before = daemon.resident_kib()?;
    let (sender, mut seen) = mpsc::channel(clients * 4);
    let mut all = JoinSet::new();
    for _ in 0..clients {
        all.spawn(follow(daemon.http(), sender.clone()));
    }
    drop(sender);
    // Each says when its stream has begun.
    for _ in 0..clients {
        seen.recv().await.context("a client has ended")?;
    }
    let kib_per_client = (daemon.resident_kib()?.saturating_sub(before)) as f64 / clients as f64;
    let (cpu, mut times) = (daemon.cpu_seconds()?, Vec::new());
    for _ in 0..EVENTS {
        let begun = Instant::now();
        load::run(daemon.http(), &load::post("/api/v1/tasks", TASK), 1, 1, 200).await?;
        for _ in 0..clients {
            tokio::time::timeout(Duration::from_secs(30), seen.recv()).await?.context("a client has ended")?;
            times.push(millis(begun));
        }
    }
    let spent = (daemon.cpu_seconds()? - cpu - alone).max(0.0);
    all.abort_all();
    Ok(Row {
        records,
        clients,
        cpu_micros_per_event_and_client: spent * 1e6 / (EVENTS * clients) as f64,
        kib_per_client,
        p50_ms: median(&times),
        p99_ms: within(&times, 0.99),
    })
}

/// Says once that the stream has begun, and then of every event.
async fn follow(address: SocketAddr, seen: mpsc::Sender<()>) -> Result<()> {
    let mut stream = load::connected(address).await?;
    stream.write_all(&load::get("/api/v1/events?types=task")).await?;
    let (mut buffer, mut told) = (Vec::with_capacity(4096), false);
    loop {
        ensure!(stream.read_buf(&mut buffer).await? > 0, "the stream has ended");
        if !told && contains(&buffer, b"event: bookmark") {
            told = true;
            seen.send(()).await?;
        }
        // The end of an event; keep-alives and bookmarks have no such name.
        while let Some(end) = buffer.windows(2).position(|window| window == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            if contains(&event, b"event: task.created") {
                seen.send(()).await?;
            }
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
