//! `kill -9` at any moment loses nothing that was acknowledged.

use futures_util::StreamExt;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::support::{Client, Daemon, PATIENCE};

/// What the registry has acknowledged.
#[derive(Clone, Default)]
struct Acknowledged {
    nodes: HashSet<String>,
    tasks: HashSet<String>,
    deleted: HashSet<String>,
    files: BTreeMap<String, Vec<u8>>,
}

struct Load {
    stop: AtomicBool,
    writes: AtomicU64,
    acknowledged: Mutex<Acknowledged>,
}

async fn write(client: &Client, load: &Load, writer: u64) -> Result<(), reqwest::Error> {
    let mut round = 0u64;
    while !load.stop.load(Ordering::Relaxed) {
        round += 1;
        let url = |path: &str| format!("{}{path}", client.base);
        match (writer + round) % 3 {
            0 => {
                let body = json!({"ip_address": "10.0.0.1", "port": 1, "metadata": {"writer": writer.to_string()}});
                let answer = client.http.post(url("/api/v1/nodes")).json(&body).send().await?;
                assert_eq!(answer.status(), 201);
                let answer: Value = answer.json().await?;
                load.acknowledged.lock().unwrap().nodes.insert(answer["node_uuid"].as_str().unwrap().into());
            }
            1 => {
                let body = json!({"name": format!("w{writer}-{round}"), "endpoint": "e", "version": "1"});
                let answer: Value = client.http.post(url("/api/v1/tasks")).json(&body).send().await?.json().await?;
                let task = answer["task_id"].as_str().unwrap().to_owned();
                load.acknowledged.lock().unwrap().tasks.insert(task.clone());
                if round.is_multiple_of(7) {
                    // Until the answer is here, both states are allowed.
                    load.acknowledged.lock().unwrap().tasks.remove(&task);
                    let answer = client.http.delete(url(&format!("/api/v1/tasks/{task}"))).send().await?;
                    assert_eq!(answer.status(), 200);
                    load.acknowledged.lock().unwrap().deleted.insert(task);
                }
            }
            _ => {
                let bytes = format!("{writer}/{round}/").repeat(100).into_bytes();
                let answer = client.http.post(url("/api/v1/files")).body(bytes.clone()).send().await?;
                let answer: Value = answer.json().await?;
                load.acknowledged.lock().unwrap().files.insert(answer["id"].as_str().unwrap().into(), bytes);
            }
        }
        load.writes.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn pages(client: &Client, path: &str, list: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let query = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let (status, page) = client.get(&format!("{path}?limit=500{query}")).await;
        assert_eq!(status, 200, "{page}");
        all.extend(page[list].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) if !next.is_empty() => cursor = Some(next.to_owned()),
            _ => return all,
        }
    }
}

async fn verify(client: &Client, known: &Acknowledged) {
    let ids = |all: Vec<Value>, field: &str| -> HashSet<String> {
        all.iter().map(|one| one[field].as_str().unwrap().to_owned()).collect()
    };
    let nodes = ids(pages(client, "/api/v1/nodes", "nodes").await, "uuid");
    let tasks = ids(pages(client, "/api/v1/tasks", "tasks").await, "task_id");
    let missing: Vec<_> = known.nodes.difference(&nodes).collect();
    assert!(missing.is_empty(), "acknowledged nodes are gone: {missing:?}");
    let missing: Vec<_> = known.tasks.difference(&tasks).collect();
    assert!(missing.is_empty(), "acknowledged tasks are gone: {missing:?}");
    let back: Vec<_> = known.deleted.intersection(&tasks).collect();
    assert!(back.is_empty(), "deleted tasks are back: {back:?}");
    for (id, bytes) in &known.files {
        let answer = client.http.get(format!("{}/api/v1/files/{id}", client.base)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "an acknowledged file is gone: {id}");
        assert_eq!(answer.bytes().await.unwrap(), bytes);
    }
}

/// Writes one task and reads the event stream from its beginning up to it: revisions only rise. Returns the
/// identity of the log and the task's revision.
async fn head(client: &Client) -> (String, u64) {
    let url = format!("{}/api/v1/events?after=0", client.base);
    let mut events = client.http.get(url).send().await.unwrap().bytes_stream();
    let (_, probe) = client.post("/api/v1/tasks", json!({"name": "probe", "endpoint": "e", "version": "1"})).await;
    let probe = probe["task_id"].as_str().unwrap();
    let (mut text, mut last, mut log) = (String::new(), 0, String::new());
    loop {
        let piece = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(&piece));
        while let Some((event, rest)) = text.split_once("\n\n") {
            let bookmark = event.contains("event: bookmark");
            let id = event.lines().filter(|_| !bookmark).find_map(|line| line.strip_prefix("id: ")).map(str::to_owned);
            let found = event.contains(probe);
            text = rest.to_owned();
            if let Some(id) = id {
                let (log_id, rev) = id.split_once(':').unwrap();
                let rev: u64 = rev.parse().unwrap();
                assert!(rev > last, "revisions rise: {rev} after {last}");
                (last, log) = (rev, log_id.to_owned());
            }
            if found {
                return (log, last);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_kills_under_sixteen_writers_lose_nothing_and_reuse_no_revision() {
    let dir = tempfile::tempdir().unwrap();
    let load = Arc::new(Load {
        stop: AtomicBool::new(false),
        writes: AtomicU64::new(0),
        acknowledged: Mutex::new(Acknowledged::default()),
    });
    let mut before: Option<(String, u64)> = None;
    for cycle in 0..30u64 {
        let daemon = Daemon::start(dir.path(), "sms");
        let client = Client::new(&daemon.sms());
        let (log, rev) = head(&client).await;
        if let Some((old_log, old_rev)) = before.replace((log.clone(), rev)) {
            assert_eq!(log, old_log, "the log is the same");
            assert!(rev > old_rev, "revision {rev} after {old_rev} was acknowledged");
        }
        if cycle % 5 == 4 {
            let known = load.acknowledged.lock().unwrap().clone();
            verify(&client, &known).await;
        }
        let from = load.writes.load(Ordering::Relaxed);
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let (client, load) = (Client::new(&client.base), load.clone());
                tokio::spawn(async move { write(&client, &load, writer).await })
            })
            .collect();
        // At a moment that differs from cycle to cycle, but with writes on the way.
        while load.writes.load(Ordering::Relaxed) < from + 10 + cycle * 7 % 50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        daemon.kill();
        for writer in writers {
            // The connection broke: that is the point. Anything else is a failure of the test.
            drop(writer.await.unwrap());
        }
        if cycle % 3 == 2 {
            // Once more while it recovers.
            let args = crate::support::serve("sms");
            let mut child =
                crate::support::spear(dir.path()).args(args).stderr(std::process::Stdio::null()).spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(1 + cycle * 3)).await;
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    let daemon = Daemon::start(dir.path(), "sms");
    let known = load.acknowledged.lock().unwrap().clone();
    assert!(known.nodes.len() > 50 && known.tasks.len() > 50 && known.files.len() > 50, "the load was real");
    verify(&Client::new(&daemon.sms()), &known).await;
}
