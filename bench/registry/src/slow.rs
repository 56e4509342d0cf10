//! Good clients beside thousands of slow ones: how long their requests take, alone and in company.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, task::JoinSet};

use crate::{
    daemon::Daemon,
    load, nodes,
    pages::millis,
    results::{keep, median, within},
};

pub const GOOD: usize = 200;
pub const SLOW: usize = 5000;
/// Nodes in the list that is asked for.
const NODES: usize = 100;
/// A pause of a good client between two requests, so that they load the machine without filling it.
pub const PAUSE: Duration = Duration::from_millis(100);
/// How long a part of a round lasts: shorter than the limits that end slow clients.
const PART: Duration = Duration::from_secs(8);
const ROUNDS: usize = 5;

#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Part {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub resident_kib: usize,
}

#[derive(Serialize, Deserialize)]
pub struct Figures {
    /// Alone, and beside the slow ones.
    pub rounds: Vec<(Part, Part)>,
    /// Median of the rounds.
    pub p99_ratio: f64,
}

pub async fn run(program: &Path) -> Result<()> {
    let daemon = Daemon::spear(program)?;
    load::run(daemon.http(), &nodes::request(), 1, NODES, 201).await?;
    let file = large_file(daemon.http()).await?;
    println!("{:>5}  {:>7}  {:>9}  {:>9}  {:>12}", "round", "beside", "p50 ms", "p99 ms", "resident KiB");
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let alone = good(&daemon).await?;
        let (mut company, there) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for number in 0..SLOW {
            company.spawn(slow(daemon.http(), file.clone(), number, there.clone()));
            while there.load(Ordering::SeqCst) + 500 < number {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        while there.load(Ordering::SeqCst) < SLOW {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let beside = good(&daemon).await?;
        company.shutdown().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        for (beside, part) in [("nobody", alone), ("slow", beside)] {
            let Part { p50_ms, p99_ms, resident_kib } = part;
            println!("{round:>5}  {beside:>7}  {p50_ms:>9.2}  {p99_ms:>9.2}  {resident_kib:>12}");
        }
        rounds.push((alone, beside));
    }
    let ratios: Vec<f64> = rounds.iter().map(|(alone, beside)| beside.p99_ms / alone.p99_ms).collect();
    let figures = Figures { rounds, p99_ratio: median(&ratios) };
    println!("p99 beside {SLOW} slow clients / alone, median of {ROUNDS} rounds: {:.2}", figures.p99_ratio);
    keep("slow", &figures)
}

/// Uploads 8 MiB; the path to read them.
async fn large_file(address: SocketAddr) -> Result<Arc<str>> {
    let body = vec![7; 8 << 20];
    let head = format!("POST /api/v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    let answer = load::exchange(address, &[head.as_bytes(), &body].concat()).await?;
    let text = String::from_utf8(answer)?;
    let id = text.split("sms+file://").nth(1).and_then(|rest| rest.get(..36)).context("no uri")?;
    Ok(format!("/api/v1/files/{id}").into())
}

/// Good clients for a while.
async fn good(daemon: &Daemon) -> Result<Part> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..GOOD {
        let (address, stop) = (daemon.http(), stop.clone());
        clients.spawn(async move {
            // Spread over the pause, as clients that know nothing of each other are.
            tokio::time::sleep(PAUSE.mul_f64(number as f64 / GOOD as f64)).await;
            let (mut stream, mut buffer) = (load::connected(address).await?, Vec::with_capacity(64 << 10));
            let (request, mut taken) = (load::get("/api/v1/nodes"), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                stream.write_all(&request).await?;
                load::answer(&mut stream, &mut buffer, 200).await?;
                taken.push(millis(begun));
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::Ok(taken)
        });
    }
    tokio::time::sleep(PART).await;
    let resident_kib = daemon.resident_kib()?;
    stop.store(true, Ordering::Relaxed);
    let mut taken = Vec::new();
    while let Some(done) = clients.join_next().await {
        taken.extend(done??);
    }
    ensure!(taken.len() > GOOD, "only {} requests", taken.len());
    Ok(Part { p50_ms: median(&taken), p99_ms: within(&taken, 0.99), resident_kib })
}

/// Slow headers, a slow body, an answer nobody reads, or nothing at all.
async fn slow(address: SocketAddr, file: Arc<str>, number: usize, there: Arc<AtomicUsize>) {
    let Ok(mut stream) = load::connected(address).await else { return };
    let begin = match number % 4 {
        0 => "GET /api/v1/nodes HTTP/1.1\r\nhost: localhost\r\nx-slow: ".to_owned(),
        1 => "POST /api/v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
              content-length: 1000000\r\n\r\n{"
            .to_owned(),
        2 => format!("GET {file} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        _ => String::new(),
    };
    drop(stream.write_all(begin.as_bytes()).await);
    there.fetch_add(1, Ordering::SeqCst);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if number % 4 < 2 && stream.write_all(b" ").await.is_err() {
            return;
        }
    }
}
