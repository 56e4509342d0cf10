//! Functions through HTTP, beside a bare handler, wasmtime in a server of its own, and a process for each request.
//!
//! Every server runs alone while it is asked, in turns with the others; all of them have two threads.

use anyhow::{Context, Result, ensure};
use axum::{http::StatusCode, serve::ListenerExt};
use bench_harness::{
    daemon::{Daemon, announce},
    load,
    results::{keep, median},
    wrk::{self, Seen},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path, process::Stdio, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{module, peer::Peer};

/// Seconds of a round.
const SECONDS: u32 = 2;

/// One server in one setting; medians of the rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub what: String,
    pub server: String,
    pub bytes: usize,
    pub clients: usize,
    pub rate: f64,
    pub p50: f64,
    pub p99: f64,
    /// Of the bare handler.
    pub of_bare: f64,
}

/// Who is asked: a path and the process behind it.
struct Server {
    name: &'static str,
    address: SocketAddr,
    path: String,
    _daemon: Arc<Daemon>,
}

pub async fn run(program: &Path, rounds: usize) -> Result<()> {
    let spear = Arc::new(Daemon::all(program)?);
    let mut rows = Vec::new();
    for (what, guest) in [("no-op", module::NOTHING.to_owned()), ("echo", module::echo(2))] {
        let bytes = wat::parse_str(&guest)?;
        let mut servers = vec![own("bare handler", "bare", what)?];
        for (name, config) in [("spear", json!({})), ("spear, isolated", json!({"isolate": "true"}))] {
            let task = task(&spear, &bytes, config).await.context(name)?;
            let path = format!("/functions/{task}/invoke");
            servers.push(Server { name, address: spear.agent(), path, _daemon: spear.clone() });
        }
        servers.push(own("wasmtime, tuned", "tuned", what)?);
        servers.push(own("wasmtime", "plain", what)?);
        if what == "echo" {
            servers.push(own("process", "process", what)?);
        }
        let sizes: &[usize] = if what == "echo" { &[1 << 10, 64 << 10] } else { &[0] };
        for bytes in sizes {
            for clients in [1, 8, 64] {
                rows.append(&mut compare(what, &servers, (*bytes, clients), rounds).await?);
            }
        }
    }
    keep("http", &rows)
}

/// This program again, as a server.
fn own(name: &'static str, how: &str, what: &str) -> Result<Server> {
    let daemon = Arc::new(Daemon::own(["serve", how, what])?);
    Ok(Server { name, address: daemon.http(), path: "/".to_owned(), _daemon: daemon })
}

/// Makes a task of a module.
pub async fn task(spear: &Daemon, module: &[u8], config: Value) -> Result<String> {
    let made = load::exchange(spear.http(), &load::send("/api/v1/files", "application/wasm", module)).await?;
    let file: Value = serde_json::from_slice(&made)?;
    let task = json!({
        "name": format!("guest-{}", file["id"].as_str().unwrap_or_default()), "endpoint": "-", "version": "1.0.0",
        "executable": {"type": "wasm", "uri": file["uri"]}, "config": config,
    });
    let made = load::exchange(spear.http(), &load::post("/api/v1/tasks", &task.to_string())).await?;
    let task: Value = serde_json::from_slice(&made)?;
    Ok(task["task_id"].as_str().with_context(|| format!("no task: {task}"))?.to_owned())
}

async fn compare(what: &str, servers: &[Server], (bytes, clients): (usize, usize), rounds: usize) -> Result<Vec<Row>> {
    let body = vec![b'x'; bytes];
    let mut seen: Vec<Vec<Seen>> = vec![Vec::new(); servers.len()];
    for server in servers {
        let request = load::send(&server.path, "application/octet-stream", &body);
        // Until the code is there that is run from then on.
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(1);
        while tokio::time::Instant::now() < until {
            let answer = load::exchange(server.address, &request).await.context(server.name)?;
            ensure!(answer == body, "{} answers something else", server.name);
        }
    }
    for _ in 0..rounds {
        for (server, seen) in servers.iter().zip(&mut seen) {
            seen.push(wrk::post(server.address, &server.path, &body, clients, SECONDS).context(server.name)?);
        }
    }
    println!("{what}, {bytes} bytes, {clients} clients:");
    let mut rows: Vec<Row> = Vec::new();
    for (server, seen) in servers.iter().zip(seen) {
        let of = |field: fn(&Seen) -> f64| median(&seen.iter().map(field).collect::<Vec<_>>());
        let rate = of(|seen| seen.rate);
        let of_bare = rate / rows.first().map_or(rate, |bare| bare.rate);
        let row = Row {
            what: what.to_owned(),
            server: server.name.to_owned(),
            bytes,
            clients,
            rate,
            p50: of(|seen| seen.p50),
            p99: of(|seen| seen.p99),
            of_bare,
        };
        let Row { server, rate, p50, p99, of_bare, .. } = &row;
        println!("  {server:<18} {rate:9.0}/s  p50 {p50:7.0} µs  p99 {p99:8.0} µs  {of_bare:5.2} of bare");
        rows.push(row);
    }
    Ok(rows)
}

/// One of the other servers.
pub async fn serve(how: &str, what: &str) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?);
    let guest = if what == "no-op" { module::NOTHING.to_owned() } else { module::echo(2) };
    let route = match how {
        "bare" => axum::routing::post(async |body: axum::body::Bytes| body),
        "process" => axum::routing::post(process),
        how => {
            let peer = Arc::new(Peer::serving(&wat::parse_str(&guest)?, how == "tuned")?);
            // On the thread of the connection: what costs it least.
            axum::routing::post(async move |body: axum::body::Bytes| {
                peer.answer(body).await.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
            })
        }
    };
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, axum::Router::new().route("/", route)).await?)
}

/// A process for each request: what CGI costs.
async fn process(body: axum::body::Bytes) -> std::result::Result<Vec<u8>, (StatusCode, String)> {
    let run = async {
        let mut child =
            tokio::process::Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                stdin.write_all(&body).await?;
            }
            std::io::Result::Ok(())
        };
        let read = async {
            let mut answer = Vec::new();
            if let Some(mut stdout) = stdout {
                stdout.read_to_end(&mut answer).await?;
            }
            std::io::Result::Ok(answer)
        };
        let (_, answer) = tokio::try_join!(feed, read)?;
        child.wait().await?;
        std::io::Result::Ok(answer)
    };
    run.await.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
