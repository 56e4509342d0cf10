//! Fetching, against servers that do what servers do.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::indexing_slicing, reason = "tests")]

mod buckets;
mod cached;
mod registry;
mod shared;
mod web;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use types::{Executable, ExecutableType, Fault};

use super::{Config, Fetcher, Held, hex};

/// What a server does with one request, step by step; then it closes the connection.
#[derive(Clone, Debug)]
enum Step {
    Send(Bytes),
    /// Says nothing more until the test opens the gate.
    Gate,
    /// Says nothing more, ever.
    Silence,
    /// One byte, every few milliseconds, until the other side goes away.
    Drip,
}

/// An HTTP server with a script.
struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
    gate: watch::Sender<bool>,
    seen: watch::Receiver<usize>,
}

impl Server {
    async fn start(script: impl Fn(usize, &str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (gate, opened) = watch::channel(false);
        let (tell, seen) = watch::channel(0);
        let (count, kept, script) = (requests.clone(), heads.clone(), Arc::new(script));
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (count, kept, script) = (count.clone(), kept.clone(), script.clone());
                let (opened, tell) = (opened.clone(), tell.clone());
                tokio::spawn(async move {
                    let mut stream = stream;
                    let Some(head) = head(&mut stream).await else { return };
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    kept.lock().unwrap().push(head.clone());
                    tell.send_modify(|seen| *seen = (*seen).max(number + 1));
                    play(&mut stream, script(number, &head), opened).await;
                });
            }
        });
        Self { address, requests, heads, gate, seen }
    }

    /// Always the same answer.
    async fn always(status: &str, body: impl Into<Bytes>) -> Self {
        let answer = answer(status, "", &body.into());
        Self::start(move |_, _| vec![Step::Send(answer.clone())]).await
    }

    fn url(&self) -> String {
        format!("http://{}/x.wasm", self.address)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    async fn seen(&self, requests: usize) {
        let mut seen = self.seen.clone();
        tokio::time::timeout(Duration::from_secs(20), seen.wait_for(|seen| *seen >= requests)).await.unwrap().unwrap();
    }
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Bytes {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat().into()
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.ok()? == 0 || head.len() > 8192 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// A peer that has gone away is not the server's trouble.
async fn play(stream: &mut TcpStream, steps: Vec<Step>, mut opened: watch::Receiver<bool>) {
    for step in steps {
        match step {
            Step::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Step::Gate => drop(opened.wait_for(|open| *open).await),
            Step::Silence => {
                let mut rest = [0; 64];
                while matches!(stream.read(&mut rest).await, Ok(read) if read > 0) {}
                return;
            }
            Step::Drip => {
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                return;
            }
        }
    }
    drop(stream.shutdown().await);
}

fn sha256(bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(bytes);
    hex(hash)
}

fn executable(uri: &str, checksum: &str) -> Executable {
    Executable {
        kind: ExecutableType::Wasm,
        uri: uri.to_owned(),
        name: "x".to_owned(),
        checksum_sha256: checksum.to_owned(),
        args: Vec::new(),
        env: Default::default(),
    }
}

/// Settings under which a test server may be fetched from.
fn allowing(servers: &[&Server]) -> Config {
    let allow_hosts = servers.iter().map(|server| server.address.to_string()).collect();
    Config { allow_http: true, allow_hosts, ..Config::default() }
}

/// A fetcher with its directory.
struct Bench {
    dir: TempDir,
    fetcher: Fetcher,
}

impl Bench {
    async fn new(config: &Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fetcher = Fetcher::open(config, dir.path().join("artifacts"), None).await.unwrap();
        Self { dir, fetcher }
    }

    /// Another process on the same directory.
    async fn again(self, config: &Config) -> Self {
        let fetcher = Fetcher::open(config, self.dir.path().join("artifacts"), None).await.unwrap();
        Self { dir: self.dir, fetcher }
    }

    async fn fetch(&self, uri: &str, checksum: &str) -> Result<Held, Fault> {
        fetch(&self.fetcher, uri, checksum).await
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("artifacts")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

async fn fetch(fetcher: &Fetcher, uri: &str, checksum: &str) -> Result<Held, Fault> {
    let wanted = executable(uri, checksum);
    let fetched = fetcher.fetch(&wanted, 1 << 20, &|_| {});
    tokio::time::timeout(Duration::from_secs(60), fetched).await.unwrap()
}

fn read(held: &Held) -> Vec<u8> {
    std::fs::read(&held.path).unwrap()
}
