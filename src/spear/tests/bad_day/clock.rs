//! The wall clock jumps by an hour, to and fro, at both ends: nothing is decided by it.

use serde_json::{Value, json};
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::seen::{Event, events, show, until};
use crate::{
    outage::slow,
    remote::agent,
    support::{Client, Daemon, guest, sample, serve, spear},
};

/// The library that stands between a program and the wall clock.
fn library() -> PathBuf {
    let there = |dir: fs::DirEntry| {
        let library = dir.path().join("faketime/libfaketimeMT.so.1");
        library.exists().then_some(library)
    };
    let found = fs::read_dir("/usr/lib").unwrap().flatten().find_map(there);
    found.expect("this test turns the clock of a process: install libfaketime (apt-get install libfaketime)")
}

/// A daemon's clock, ahead of the true one by what a file says.
struct Clock(PathBuf);

impl Clock {
    fn of(dir: &Path) -> Self {
        let clock = Self(dir.join("clock"));
        clock.jump(0);
        clock
    }

    fn jump(&self, seconds: i64) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).unwrap();
        fs::rename(new, &self.0).unwrap();
    }

    /// Time that only passes is left alone, as a true clock that is set leaves it alone.
    fn wear(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library()).env("FAKETIME_TIMESTAMP_FILE", &self.0).env("FAKETIME_NO_CACHE", "1");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
    }
}

/// What the registry shows of its clock, seconds.
async fn shown(client: &Client) -> i64 {
    let health = client.get("/health").await.1;
    let text = health["timestamp"].as_str().unwrap_or_else(|| panic!("{health}"));
    // RFC 3339, UTC: the hours are enough.
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    number(8..10) * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19)
}

fn online(node: &Value) -> bool {
    node["status"] == json!("online")
}

#[tokio::test]
async fn nodes_deadlines_events_and_ids_do_not_care_when_the_clock_jumps_by_an_hour() {
    let (sms_dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (here, there) = (Clock::of(sms_dir.path()), Clock::of(agent_dir.path()));
    // An hour is more than each of these.
    let mut command = spear(sms_dir.path());
    command.args(serve("sms")).env("SMS_CLEANUP_INTERVAL", "1").env("SMS_HEARTBEAT_INTERVAL", "1");
    command.env("SMS_REMOVE_AFTER", "600").env("SMS_LOST_AFTER", "300");
    here.wear(&mut command);
    let sms = Daemon::launch(command);
    let mut command = spear(agent_dir.path());
    command.args(agent(&sms));
    there.wear(&mut command);
    let _agent = Daemon::launch(command);
    let client = Client::new(&sms.sms());
    let nodes =
        client.until("/api/v1/nodes", |nodes| nodes["nodes"].as_array().is_some_and(|all| all.len() == 1)).await;
    let node = format!("/api/v1/nodes/{}", nodes["nodes"][0]["uuid"].as_str().unwrap());
    let (slow, hello) = (client.upload("slow.wasm", slow()).await, client.upload("hello.wasm", sample("hello")).await);
    let endless = guest(r#"(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))"#);
    let endless = client.upload("endless.wasm", endless).await;
    let mut ids = HashSet::new();
    for (round, (sms_jump, agent_jump)) in
        [(3600, 3600), (0, 0), (-3600, -3600), (3600, -3600), (-3600, 3600)].into_iter().enumerate()
    {
        let (_, running) = client.task(&format!("slow {round}"), &slow, json!({})).await;
        let (_, limited) =
            client.task(&format!("endless {round}"), &endless, json!({"config": {"timeout_ms": "1500"}})).await;
        let path = format!("/api/v1/executions/{running}");
        client.until(&path, |now| now["status"] == json!("running") && now["progress"]["phase"] == json!("run")).await;
        let before = shown(&client).await;
        here.jump(sms_jump);
        there.jump(agent_jump);
        let after = shown(&client).await;
        if round == 0 {
            assert!((3500..4000).contains(&(after - before)), "the clock did not jump: {before} {after}");
        }
        // What ran when it jumped ends as it would have: no deadline came early, none late.
        let ended = client.ended(&running).await;
        assert_eq!((&ended["status"], &ended["attempt"]), (&json!("completed"), &json!(1)), "{ended}");
        let ended = client.ended(&limited).await;
        assert_eq!((&ended["status"], &ended["reason"]), (&json!("timeout"), &json!("deadline")), "{ended}");
        let log = client.until(&format!("{path}/logs"), |log| log["completed"] == json!(true)).await;
        let last = log["lines"].as_array().unwrap().last().unwrap()["message"].as_str().unwrap().to_owned();
        show("the last line of a log over which the clock jumped", &last);
        let took: i64 = last.split_whitespace().rev().nth(1).unwrap().parse().unwrap_or_else(|_| panic!("{last}"));
        assert!((2000..3_000_000).contains(&took), "time that passed is not what the clock says: {last}");
        // Sweeps pass, heartbeats come: the node stays, and new work runs.
        for _ in 0..2 {
            let heard = client.get(&node).await.1["node"]["last_heartbeat"].clone();
            let beat = |now: &Value| {
                assert!(online(&now["node"]), "{now}");
                now["node"]["last_heartbeat"] != heard
            };
            client.until(&node, beat).await;
        }
        let (task, execution) = client.task(&format!("hello {round}"), &hello, json!({})).await;
        assert_eq!(client.ended(&execution).await["status"], json!("completed"));
        for id in [task, execution, running, limited] {
            assert!(ids.insert(id), "an id was given twice");
        }
    }
    let seen = events(&client).await;
    assert!(seen.windows(2).all(|pair| pair[0].rev <= pair[1].rev), "events come in the order of their revisions");
    let text = |event: &Event| event.text.clone();
    let gone: Vec<_> = seen.iter().map(text).filter(|text| text.contains("\"offline\"")).collect();
    assert!(gone.is_empty(), "nobody expired: {gone:?}");
    until("the node is there", async || online(&client.get(&node).await.1["node"])).await;
    let log = sms.log();
    for word in ["offline", "removed", "paused", "stopped for"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
}
