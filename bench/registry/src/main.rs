//! Measures a registry from outside, against a floor in the same run.
//!
//!     cargo run --release -p bench-registry -- start      ../target/release/spear
//!     cargo run --release -p bench-registry -- nodes      ../target/release/spear [100000]
//!     cargo run --release -p bench-registry -- pages      ../target/release/spear [100000]
//!     cargo run --release -p bench-registry -- events     ../target/release/spear [100000]
//!     cargo run --release -p bench-registry -- slow       ../target/release/spear
//!     cargo run --release -p bench-registry -- heartbeats ../target/release/spear [10000] [30] [1000]
//!     cargo run --release -p bench-registry -- readyz     ../target/release/spear
//!     cargo run --release -p bench-registry -- draw       ../docs
//!
//! Each prints its figures and keeps them; `draw` makes `docs/performance.md` and its curves from what is kept.

mod chart;
mod draw;
mod events;
mod heartbeats;
mod nodes;
mod pages;
mod slow;
mod start;

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use bench_harness::{
    daemon::{Daemon, announce},
    load, results,
};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let place = args.next();
    let mut number = |usual: usize| args.next().map_or(Ok(usual), |text| text.parse::<usize>());
    match what.as_str() {
        "start" => start::run(&program(place)?),
        "nodes" => nodes::run(&program(place)?, number(100_000)?).await,
        "pages" => pages::run(&program(place)?, number(100_000)?).await,
        "events" => events::run(&program(place)?, number(100_000)?).await,
        "slow" => slow::run(&program(place)?).await,
        "heartbeats" => {
            let (nodes, minutes, connections) = (number(10_000)?, number(30)?, number(1000)?);
            heartbeats::run(&program(place)?, nodes, minutes as f64, connections).await
        }
        "readyz" => readyz(&program(place)?).await,
        "draw" => draw::run(Path::new(&place.context("the directory of the documents is missing")?)),
        "bare" => bare().await,
        "crowd" => slow::crowd(place.context("an address")?.parse()?, &args.next().context("a path")?).await,
        other => bail!("unknown measurement {other:?}: start, nodes, pages, events, slow, heartbeats, readyz or draw"),
    }
}

fn program(path: Option<String>) -> Result<PathBuf> {
    let path = PathBuf::from(path.context("the path of the spear binary is missing")?);
    path.canonicalize().with_context(|| format!("{}: build it with cargo build --release", path.display()))
}

async fn readyz(program: &Path) -> Result<()> {
    const ROUNDS: usize = 7;
    const REQUESTS: usize = 60_000;
    const READERS: usize = 16;
    let spear = Daemon::spear(program)?;
    let bare = Daemon::bare()?;
    let mut ratios = Vec::new();
    println!("{:>5}  {:>11}  {:>11}  {:>5}", "round", "bare axum/s", "/readyz /s", "ratio");
    for round in 1..=ROUNDS {
        let mut rates = [0.0; 2];
        for (rate, (address, path)) in rates.iter_mut().zip([(bare.http(), "/"), (spear.http(), "/readyz")]) {
            let begun = Instant::now();
            load::run(address, &load::get(path), READERS, REQUESTS, 200).await?;
            *rate = REQUESTS as f64 / begun.elapsed().as_secs_f64();
        }
        let ratio = rates[1] / rates[0];
        println!("{round:>5}  {:>11.0}  {:>11.0}  {ratio:>5.2}", rates[0], rates[1]);
        ratios.push(ratio);
    }
    println!("median ratio: {:.2}", results::median(&ratios));
    Ok(())
}

/// The floor: axum with one handler, in a process of its own. It says that it is ready as a daemon does.
async fn bare() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?);
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
        std::os::unix::net::UnixDatagram::unbound()?.send_to(b"READY=1", path)?;
    }
    let router = axum::Router::new().route("/", axum::routing::get(async || "ok"));
    Ok(axum::serve(listener, router).await?)
}
