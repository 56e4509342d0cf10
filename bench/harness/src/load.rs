//! A load generator that costs little itself: one request, written again and again on kept connections.

use anyhow::{Context, Result, ensure};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A GET request.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// A POST request with a JSON body.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    send(path, "application/json", body.as_bytes())
}

/// A POST request.
pub fn send(path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Sends `count` requests over `connections`; every answer must have `status`.
pub async fn run(address: SocketAddr, request: &[u8], connections: usize, count: usize, status: u16) -> Result<usize> {
    let left = Arc::new(AtomicUsize::new(count));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (left, request) = (left.clone(), request.to_vec());
        clients.spawn(async move {
            let mut stream = connected(address).await?;
            let mut buffer = Vec::with_capacity(4096);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                stream.write_all(&request).await?;
                answer(&mut stream, &mut buffer, status).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    Ok(count)
}

/// Sends a request `count` times, one after the other, and adds how long each took, in milliseconds.
pub async fn timed(address: SocketAddr, request: &[u8], count: usize, times: &mut Vec<f64>) -> Result<()> {
    let mut stream = connected(address).await?;
    let mut buffer = Vec::with_capacity(4096);
    for _ in 0..count {
        let begun = Instant::now();
        stream.write_all(request).await?;
        answer(&mut stream, &mut buffer, 200).await?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(())
}

/// The body of a GET.
pub async fn body(address: SocketAddr, path: &str) -> Result<Vec<u8>> {
    exchange(address, &get(path)).await
}

/// The body of the answer to a request on a connection of its own.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
    let (mut stream, mut buffer) = (connected(address).await?, Vec::new());
    stream.write_all(request).await?;
    let head = answer(&mut stream, &mut buffer, 200).await?;
    Ok(buffer.split_off(head))
}

pub async fn connected(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one answer with a content length; the length of its head.
pub async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>, status: u16) -> Result<usize> {
    buffer.clear();
    loop {
        ensure!(stream.read_buf(buffer).await? > 0, "the server closed the connection");
        let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
        ensure!(
            text.starts_with(&format!("http/1.1 {status}")),
            "answered {}: {}",
            text.lines().next().unwrap_or_default(),
            String::from_utf8_lossy(&buffer[head..])
        );
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no content-length")?;
        let whole = head + 4 + length.trim().parse::<usize>()?;
        while buffer.len() < whole {
            ensure!(stream.read_buf(buffer).await? > 0, "the server closed the connection");
        }
        return Ok(head + 4);
    }
}
