//! Where the log goes, and that nothing that befalls it stops the process.

use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Client, Daemon, PATIENCE, serve, spear};

/// Waits until a file's text is as wanted.
async fn written(path: &Path, wanted: impl Fn(&str) -> bool) -> String {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if wanted(&text) {
            return text;
        }
        assert!(Instant::now() < give_up, "{} stayed:\n{text}", path.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn signal(child: &Child, signal: Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

/// The registry's address in the lines of a log.
fn address(log: &str) -> Option<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.into_iter().find(|line| line["listener"] == "sms/http" && line["message"] == "listening")?;
    Some(format!("http://{}", line["address"].as_str()?))
}

#[tokio::test]
async fn a_log_file_that_was_moved_away_is_opened_anew_on_sighup() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("logs/spear.log"), dir.path().join("logs/spear.log.1"));
    let mut args = serve("sms");
    args.extend(["--log-file".to_owned(), path.display().to_string()]);
    let daemon = Ended(spear(dir.path()).args(args).stderr(Stdio::null()).spawn().unwrap());
    written(&path, |log| log.contains("\"message\":\"ready\"")).await;
    fs::rename(&path, &moved).unwrap();
    signal(&daemon.0, Signal::HUP);
    let log = written(&path, |log| log.contains("configuration read again")).await;
    assert!(!log.contains("\"message\":\"ready\""), "{log}");
    assert!(!fs::read_to_string(&moved).unwrap().contains("configuration read again"));
}

#[tokio::test]
async fn a_full_disk_under_the_log_is_no_reason_to_stop_and_the_lost_lines_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (path, real) = (dir.path().join("spear.log"), dir.path().join("real.log"));
    symlink(&real, &path).unwrap();
    let mut args = serve("sms");
    args.extend(["--log-level", "debug", "--log-file", "spear.log"].map(str::to_owned));
    let daemon = Ended(spear(dir.path()).args(args).stderr(Stdio::null()).spawn().unwrap());
    let log = written(&real, |log| log.contains("\"message\":\"ready\"")).await;
    let client = Client::new(&address(&log).unwrap());
    let point_at = |target: &Path| {
        fs::remove_file(&path).unwrap();
        symlink(target, &path).unwrap();
        signal(&daemon.0, Signal::HUP);
    };
    point_at(Path::new("/dev/full"));
    // Until the new target is in use, lines still come to the old one.
    let give_up = Instant::now() + PATIENCE;
    loop {
        let before = fs::metadata(&real).unwrap().len();
        for _ in 0..10 {
            assert_eq!(client.get("/api/v1/nodes").await.0, 200);
        }
        if fs::metadata(&real).unwrap().len() == before {
            break;
        }
        assert!(Instant::now() < give_up, "the log is not opened anew");
    }
    point_at(&real);
    let log = written(&real, |log| log.contains("log lines were lost")).await;
    let told: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["message"] == "log lines were lost")
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0]["lost"].as_u64().unwrap() >= 10, "{told:?}");
    assert!(told[0]["error"].as_str().unwrap().contains("No space left"), "{told:?}");
    assert_eq!(client.get("/api/v1/nodes").await.0, 200);
}

#[tokio::test]
async fn a_reader_of_the_log_that_stands_still_or_goes_away_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = serve("sms");
    args.extend(["--log-level", "trace"].map(str::to_owned));
    let mut daemon = Ended(spear(dir.path()).args(args).stderr(Stdio::piped()).spawn().unwrap());
    let mut reader = BufReader::new(daemon.0.stderr.take().unwrap());
    let mut log = String::new();
    while !log.contains("\"message\":\"ready\"") {
        assert_ne!(reader.read_line(&mut log).unwrap(), 0, "{log}");
    }
    let client = Client::new(&address(&log).unwrap());
    // Far more than a pipe and the queue before it hold, and nobody reads.
    for _ in 0..800 {
        assert_eq!(client.get("/api/v1/nodes").await.0, 200);
    }
    drop(reader);
    for _ in 0..100 {
        assert_eq!(client.get("/api/v1/nodes").await.0, 200);
    }
    signal(&daemon.0, Signal::TERM);
    let give_up = Instant::now() + PATIENCE;
    while daemon.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < give_up, "it still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(daemon.0.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn at_the_journal_lines_have_a_priority_and_elsewhere_an_inherited_variable_means_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stderr");
    for (journal, name) in [(true, "one"), (false, "two")] {
        let file = fs::File::create(&path).unwrap();
        let found = file.metadata().unwrap();
        let stream = if journal { format!("{}:{}", found.dev(), found.ino()) } else { "1:1".to_owned() };
        let mut args = serve("sms");
        args.retain(|arg| arg != "--log-format" && arg != "json");
        args.extend(["--db-path".to_owned(), name.to_owned()]);
        let mut command = spear(dir.path());
        let _daemon = Ended(command.args(args).env("JOURNAL_STREAM", stream).stderr(file).spawn().unwrap());
        let log = written(&path, |log| log.contains("ready")).await;
        if journal {
            assert!(log.lines().all(|line| line.starts_with("<6>")) && log.contains("<6>listening listener="), "{log}");
        } else {
            assert!(log.lines().all(|line| line.starts_with("{\"timestamp\"")), "{log}");
        }
    }
}

#[tokio::test]
async fn a_rotated_log_is_written_to_a_dated_file_behind_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = serve("sms");
    args.extend(["--log-file", "logs/spear.log", "--log-rotation", "daily", "--log-keep", "3"].map(str::to_owned));
    let _daemon = Ended(spear(dir.path()).args(args).stderr(Stdio::null()).spawn().unwrap());
    let path = dir.path().join("logs/spear.log");
    written(&path, |log| log.contains("\"message\":\"ready\"")).await;
    let dated = fs::read_link(&path).unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    assert!(dated.starts_with("spear.log.20"), "{dated}");
}

#[test]
fn the_last_lines_are_written_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "sms");
    daemon.signal(Signal::TERM);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0));
    assert!(log.contains("\"message\":\"stopping\""), "{log}");
}
