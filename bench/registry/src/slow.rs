//! Good clients beside thousands of slow ones: how long their requests take, alone and in company.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, task::JoinSet};

use bench_harness::{
    daemon::Daemon,
    load,
    results::{keep, median, within},
};

use crate::{nodes, pages::millis};

pub const GOOD: usize = 200;
pub const SLOW: usize = 5000;
/// Nodes in the list that is asked for.
const NODES: usize = 100;
/// A pause of a good client between two requests, so that they load the machine without filling it.
pub const PAUSE: Duration = Duration::from_millis(100);
/// How long a part of a round lasts, with the time to settle shorter than the limits that end slow clients.
const PART: Duration = Duration::from_secs(8);
/// Between parts: connecting and leaving are not what is measured.
const SETTLE: Duration = Duration::from_secs(3);
const ROUNDS: usize = 7;

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
    /// Of the medians of the rounds.
    pub p99_ratio: f64,
}

pub async fn run(program: &Path) -> Result<()> {
    // One that only the good ones ask, and one for all: what thousands leave behind would be taken for quiet.
    let (quiet, daemon) = (Daemon::spear(program)?, Daemon::spear(program)?);
    for daemon in [&quiet, &daemon] {
        load::run(daemon.http(), &nodes::request(), 1, NODES, 201).await?;
    }
    let file = large_file(daemon.http()).await?;
    println!("{:>5}  {:>7}  {:>9}  {:>9}  {:>12}", "round", "beside", "p50 ms", "p99 ms", "resident KiB");
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let alone = good(&quiet).await?;
        let company = Company::start(daemon.http(), &file).await?;
        tokio::time::sleep(SETTLE).await;
        let beside = good(&daemon).await?;
        drop(company);
        tokio::time::sleep(SETTLE).await;
        for (beside, part) in [("nobody", alone), ("slow", beside)] {
            let Part { p50_ms, p99_ms, resident_kib } = part;
            println!("{round:>5}  {beside:>7}  {p50_ms:>9.2}  {p99_ms:>9.2}  {resident_kib:>12}");
        }
        rounds.push((alone, beside));
    }
    let middle = |pick: fn(&(Part, Part)) -> f64| median(&rounds.iter().map(pick).collect::<Vec<_>>());
    let p99_ratio = middle(|(_, beside)| beside.p99_ms) / middle(|(alone, _)| alone.p99_ms);
    println!("p99 beside {SLOW} slow clients / alone, medians of {ROUNDS} rounds: {p99_ratio:.2}");
    let figures = Figures { rounds, p99_ratio };
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

/// The slow ones, in a process that gets what processor time the others leave: the machine is not what is measured.
struct Company(Child);

impl Company {
    async fn start(address: SocketAddr, file: &str) -> Result<Self> {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(std::env::current_exe()?).args(["crowd", &address.to_string(), file]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let company = Self(child);
        tokio::task::spawn_blocking(move || said.read_line(&mut String::new())).await??;
        Ok(company)
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Is slow in thousands of ways until it is killed; writes a line when all are there.
pub async fn crowd(address: SocketAddr, file: &str) -> Result<()> {
    let (mut company, there) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for number in 0..SLOW {
        company.spawn(slow(address, file.into(), number, there.clone()));
        while there.load(Ordering::SeqCst) + 500 < number {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    while there.load(Ordering::SeqCst) < SLOW {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("there");
    company.join_all().await;
    std::future::pending().await
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
