//! Pages of lists in a registry of 100 records and in one of 100,000: what a page costs must not depend on it.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{net::SocketAddr, path::Path, time::Instant};

use bench_harness::{
    daemon::Daemon,
    load,
    results::{keep, median, within},
};

use crate::nodes::{self, CONNECTIONS};

const SMALL: usize = 100;
const ROUNDS: usize = 9;
const REQUESTS: usize = 60;

#[derive(Clone, Serialize, Deserialize)]
pub struct Row {
    pub page: String,
    pub small_ms: f64,
    pub large_ms: f64,
    pub large_p99_ms: f64,
    pub ratio: f64,
}

#[derive(Serialize, Deserialize)]
pub struct Figures {
    pub small: usize,
    pub large: usize,
    pub rows: Vec<Row>,
}

/// A registry full of records; its executions wait, because no node has a runtime.
pub async fn filled(program: &Path, count: usize) -> Result<(Daemon, Example)> {
    let daemon = Daemon::spear(program)?;
    let address = daemon.http();
    load::run(address, &nodes::request(), CONNECTIONS, count, 201).await?;
    let task = r#"{"name":"measured","priority":"normal","endpoint":"http://127.0.0.1:8081/process","version":"1",
        "executable":{"type":"wasm","uri":"https://example.org/measured.wasm"}}"#;
    // Each has its first execution with it.
    load::run(address, &load::post("/api/v1/tasks", task), CONNECTIONS, count, 200).await?;
    let text = async |path: &str, list: &str, field: &str| {
        let answer: Value = serde_json::from_slice(&load::body(address, path).await?)?;
        let found = answer[list][0][field].as_str().with_context(|| format!("{path}: no {list}"))?;
        anyhow::Ok(found.to_owned())
    };
    let task = text("/api/v1/tasks?limit=1", "tasks", "task_id").await?;
    Ok((daemon, Example { task }))
}

/// Ids for filters.
pub struct Example {
    pub task: String,
}

/// The pages that are compared, by name; a path without a cursor.
fn paths(example: &Example) -> Vec<(String, String)> {
    let named = |name: &str, path: &str| (name.to_owned(), path.to_owned());
    vec![
        named("nodes", "/api/v1/nodes?limit=50"),
        named("nodes, status=online", "/api/v1/nodes?limit=50&status=online"),
        named("nodes, status=offline (none)", "/api/v1/nodes?limit=50&status=offline"),
        named("tasks", "/api/v1/tasks?limit=50"),
        named("tasks, priority=high (none)", "/api/v1/tasks?limit=50&priority=high"),
        named("executions", "/api/v1/executions?limit=50"),
        named("executions, status=pending", "/api/v1/executions?limit=50&status=pending"),
        named("executions, status=failed (none)", "/api/v1/executions?limit=50&status=failed"),
        ("executions of a task".to_owned(), format!("/api/v1/executions?limit=50&task_id={}", example.task)),
    ]
}

/// Cursors that lead to the middle and to the last full page of a list, found by following it.
async fn places(address: SocketAddr, path: &str, count: usize) -> Result<[String; 2]> {
    let wide = path.replace("limit=50", "limit=25");
    let (mut cursor, mut seen, mut middle) = (String::new(), 0, String::new());
    let step = 25;
    let big = path.replace("limit=50", "limit=1000");
    loop {
        let left = count.saturating_sub(seen + 50);
        let path = if left >= 1000 { &big } else { &wide };
        let url = if cursor.is_empty() { path.clone() } else { format!("{path}&cursor={cursor}") };
        let answer: Value = serde_json::from_slice(&load::body(address, &url).await?)?;
        let Some(next) = answer["next_cursor"].as_str() else { break };
        seen += if left >= 1000 { 1000 } else { step };
        next.clone_into(&mut cursor);
        if middle.is_empty() && seen >= count / 2 {
            middle.clone_from(&cursor);
        }
        if left < 1000 && seen + 50 >= count {
            break;
        }
    }
    Ok([format!("{path}&cursor={middle}"), format!("{path}&cursor={cursor}")])
}

pub async fn run(program: &Path, large: usize) -> Result<()> {
    let registries = [filled(program, SMALL).await?, filled(program, large).await?];
    let counts = [SMALL, large];
    let mut asked: Vec<(String, [String; 2])> = Vec::new();
    let [small, big] = [&registries[0], &registries[1]];
    for ((name, first), (_, other)) in paths(&small.1).into_iter().zip(paths(&big.1)) {
        let deep = matches!(name.as_str(), "nodes" | "tasks" | "executions");
        if deep {
            let [small_middle, small_last] = places(small.0.http(), &first, counts[0]).await?;
            let [large_middle, large_last] = places(big.0.http(), &other, counts[1]).await?;
            asked.push((format!("{name}, first page"), [first, other]));
            asked.push((format!("{name}, middle"), [small_middle, large_middle]));
            asked.push((format!("{name}, last page"), [small_last, large_last]));
        } else {
            asked.push((name, [first, other]));
        }
    }
    println!("{:<36} {:>10} {:>10} {:>10} {:>6}", "page of 50", "100, ms", "large, ms", "p99, ms", "ratio");
    let mut rows = Vec::new();
    for (name, paths) in asked {
        let mut times = [Vec::new(), Vec::new()];
        // In turns, so that whatever else the machine does meets both.
        for _ in 0..ROUNDS {
            for ((times, path), (daemon, _)) in times.iter_mut().zip(&paths).zip(&registries) {
                load::timed(daemon.http(), &load::get(path), REQUESTS, times).await?;
            }
        }
        let [small, large] = times;
        let (small_ms, large_ms, large_p99_ms) = (median(&small), median(&large), within(&large, 0.99));
        let row = Row { page: name, small_ms, large_ms, large_p99_ms, ratio: large_ms / small_ms };
        println!("{:<36} {small_ms:>10.3} {large_ms:>10.3} {large_p99_ms:>10.3} {:>6.2}", row.page, row.ratio);
        rows.push(row);
    }
    keep("pages", &Figures { small: SMALL, large, rows })
}

/// Milliseconds since a moment.
pub fn millis(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}
