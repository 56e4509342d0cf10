//! Measures a registry from outside, against a floor in the same run.
//!
//!     cargo run --release -p bench-registry -- nodes  ../target/release/spear [20000]
//!     cargo run --release -p bench-registry -- readyz ../target/release/spear
//!
//! `nodes` registers nodes from 64 connections and prints rate and resident memory in windows: the last window
//! against the first says whether registering stays flat. `readyz` compares the probe with a bare axum handler
//! that runs as a process of its own, in alternating rounds.

mod daemon;
mod load;

use anyhow::{Context, Result, bail};
use std::{path::PathBuf, time::Instant};

use daemon::Daemon;

const CONNECTIONS: usize = 64;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    match what.as_str() {
        "nodes" => nodes(program(args.next())?, args.next().map_or(Ok(20_000), |count| count.parse())?).await,
        "readyz" => readyz(program(args.next())?).await,
        "bare" => bare().await,
        other => bail!("unknown measurement {other:?}: nodes or readyz"),
    }
}

fn program(path: Option<String>) -> Result<PathBuf> {
    let path = PathBuf::from(path.context("the path of the spear binary is missing")?);
    path.canonicalize().with_context(|| format!("{}: build it with cargo build --release", path.display()))
}

async fn nodes(program: PathBuf, count: usize) -> Result<()> {
    const WINDOWS: usize = 10;
    let daemon = Daemon::spear(&program)?;
    let body = r#"{"ip_address":"192.168.1.100","port":8080,"metadata":{"region":"us-west-1","zone":"a"}}"#;
    let request = load::post("/api/v1/nodes", body);
    let idle = daemon.resident_kib()?;
    println!("{:>8}  {:>9}  {:>12}  {:>13}", "nodes", "nodes/s", "resident KiB", "bytes a node");
    let (mut done, mut rates) = (0, Vec::new());
    for _ in 0..WINDOWS {
        let begun = Instant::now();
        done += load::run(daemon.address, &request, CONNECTIONS, count / WINDOWS, 201).await?;
        let rate = (count / WINDOWS) as f64 / begun.elapsed().as_secs_f64();
        let resident = daemon.resident_kib()?;
        let each = resident.saturating_sub(idle) * 1024 / done;
        println!("{done:>8}  {rate:>9.0}  {resident:>12}  {each:>13}");
        rates.push(rate);
    }
    let half = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    let (first, last) = rates.split_at(WINDOWS / 2);
    println!("second half / first half: {:.2}", half(last) / half(first));
    Ok(())
}

async fn readyz(program: PathBuf) -> Result<()> {
    const ROUNDS: usize = 7;
    const REQUESTS: usize = 60_000;
    const READERS: usize = 16;
    let spear = Daemon::spear(&program)?;
    let bare = Daemon::bare()?;
    let mut ratios = Vec::new();
    println!("{:>5}  {:>11}  {:>11}  {:>5}", "round", "bare axum/s", "/readyz /s", "ratio");
    for round in 1..=ROUNDS {
        let mut rates = [0.0; 2];
        for (rate, (address, path)) in rates.iter_mut().zip([(bare.address, "/"), (spear.address, "/readyz")]) {
            let begun = Instant::now();
            load::run(address, &load::get(path), READERS, REQUESTS, 200).await?;
            *rate = REQUESTS as f64 / begun.elapsed().as_secs_f64();
        }
        let ratio = rates[1] / rates[0];
        println!("{round:>5}  {:>11.0}  {:>11.0}  {ratio:>5.2}", rates[0], rates[1]);
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio: {:.2}", ratios[ROUNDS / 2]);
    Ok(())
}

/// The floor: axum with one handler, in a process of its own.
async fn bare() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    eprintln!("listening {}", listener.local_addr()?);
    let router = axum::Router::new().route("/", axum::routing::get(async || "ok"));
    Ok(axum::serve(listener, router).await?)
}
