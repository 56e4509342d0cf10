//! What an operator sees, and waiting for it.

use futures_util::StreamExt;
use serde_json::json;
use std::time::{Duration, Instant};

use crate::support::{Client, PATIENCE};

/// Prints what an operator sees; shown with `--no-capture` and when the test fails.
pub fn show(what: &str, text: impl std::fmt::Display) {
    eprintln!("--- {what}\n{text}");
}

/// Waits for a level.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < give_up, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An event of the registry's stream.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its revision.
    pub rev: u64,
    /// As it came.
    pub text: String,
}

/// Every event from the first one to now.
pub async fn events(client: &Client) -> Vec<Event> {
    let url = format!("{}/api/v1/events?after=0", client.base);
    let mut stream = client.http.get(url).send().await.unwrap().bytes_stream();
    let (_, probe) = client.post("/api/v1/tasks", json!({"name": "probe", "endpoint": "e", "version": "1"})).await;
    let probe = probe["task_id"].as_str().unwrap();
    let (mut text, mut seen) = (String::new(), Vec::new());
    loop {
        let piece = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(&piece));
        while let Some((event, rest)) = text.split_once("\n\n") {
            let event = event.to_owned();
            text = rest.to_owned();
            assert!(!event.contains("event: resync"), "{event}");
            let rev = event.split_once("\"rev\":").map(|(_, rest)| rest);
            let rev = rev.and_then(|rest| rest.split(|byte: char| !byte.is_ascii_digit()).next()?.parse().ok());
            if let (Some(rev), false) = (rev, event.contains("event: bookmark")) {
                let last = event.contains(probe);
                seen.push(Event { rev, text: event });
                if last {
                    return seen;
                }
            }
        }
    }
}

/// How the record of one execution changed, status after status.
pub async fn statuses(client: &Client, execution: &str) -> Vec<String> {
    let mut statuses: Vec<String> = Vec::new();
    for event in events(client).await {
        let data = event.text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default();
        let data: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
        if data["type"] == "execution" && data["id"] == execution {
            let status = data["record"]["status"].as_str().unwrap_or_default().to_owned();
            if statuses.last() != Some(&status) {
                statuses.push(status);
            }
        }
    }
    statuses
}
