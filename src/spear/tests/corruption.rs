//! A damaged store is found and refused with its path and what to do; it never gives a wrong answer.

use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::{Client, Daemon, serve, spear};

/// A data directory with some nodes and tasks, closed in order, and the ids in it.
async fn filled(dir: &Path) -> Vec<String> {
    let daemon = Daemon::start(dir, "sms");
    let client = Client::new(&daemon.sms());
    let mut tasks = Vec::new();
    for number in 0..40 {
        let body = json!({"name": format!("task {number}"), "endpoint": "e", "version": "1"});
        tasks.push(client.post("/api/v1/tasks", body).await.1["task_id"].as_str().unwrap().to_owned());
    }
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().0.success());
    tasks
}

fn store(dir: &Path) -> PathBuf {
    dir.join("data/sms/store.redb")
}

#[tokio::test]
async fn a_truncated_or_overwritten_store_ends_the_start_with_its_path_and_leaves_it_untouched() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let good = fs::read(store(dir.path())).unwrap();
    let mut foreign = vec![0u8; 64 * 1024];
    foreign[..16].copy_from_slice(b"SQLite format 3\0");
    for bad in [good[..good.len() / 2].to_vec(), good[..100].to_vec(), foreign] {
        fs::write(store(dir.path()), &bad).unwrap();
        let (status, log) = Daemon::try_start(dir.path(), serve("sms")).err().expect("a damaged store is refused");
        assert!(!status.success() && status.code().is_some(), "an exit, not a crash: {status}");
        assert!(log.contains("store.redb"), "the path is named:\n{log}");
        assert_eq!(fs::read(store(dir.path())).unwrap(), bad, "the file is left as it is");
        let check = spear(dir.path()).args(["store", "check", "data/sms"]).output().unwrap();
        assert!(!check.status.success(), "spear store check finds it too");
    }
}

#[tokio::test]
async fn a_flipped_bit_is_found_or_harmless_and_never_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    let tasks = filled(dir.path()).await;
    let good = fs::read(store(dir.path())).unwrap();
    for trial in 0..24usize {
        let mut bad = good.clone();
        let at = trial.wrapping_mul(2_654_435_761) % bad.len();
        bad[at] ^= 1 << (trial % 8);
        fs::write(store(dir.path()), &bad).unwrap();
        let daemon = match Daemon::try_start(dir.path(), serve("sms")) {
            Ok(daemon) => daemon,
            Err((status, log)) => {
                assert!(status.code().is_some() && log.contains("store.redb"), "byte {at}: {status}\n{log}");
                continue;
            }
        };
        let client = Client::new(&daemon.sms());
        for (number, task) in tasks.iter().enumerate() {
            let (status, answer) = client.get(&format!("/api/v1/tasks/{task}")).await;
            match status {
                200 => assert_eq!(answer["name"], json!(format!("task {number}")), "byte {at}"),
                500 | 503 => {}
                other => panic!("byte {at}: {other} {answer}"),
            }
        }
    }
}
