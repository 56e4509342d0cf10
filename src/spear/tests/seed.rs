//! The original's example files start the real program unchanged.

use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{PATIENCE, spear};

const SMS: &str = include_str!("seed/sms.toml");
const SPEARLET: &str = include_str!("seed/spearlet.toml");

/// A running program whose log is a file.
struct Started {
    child: Child,
    log: String,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Starts with nothing but the file; with free ports where the usual ones are taken.
fn start(dir: &Path, role: &str, text: &str, log: &str, free: [&str; 4]) -> Started {
    fs::write(dir.join("config.toml"), text).unwrap();
    let args = ["serve", "--role", role, "--config", "config.toml"];
    let wait = |command: &mut Command| {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let give_up = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(dir.join(log)).unwrap_or_default();
            if log.contains("ready") && log.contains("listening") && !log.contains("not ready") {
                return Ok(Started { child, log });
            }
            if let Some(status) = child.try_wait().unwrap() {
                return Err((status, log));
            }
            assert!(Instant::now() < give_up, "not ready:\n{log}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    };
    match wait(spear(dir).args(args)) {
        Ok(started) => started,
        Err((status, _)) if status.code() == Some(75) => {
            fs::remove_file(dir.join(log)).unwrap();
            let started = wait(spear(dir).args(args).args(free));
            started.unwrap_or_else(|(status, log)| panic!("ended with {status}:\n{log}"))
        }
        Err((status, log)) => panic!("ended with {status}:\n{log}"),
    }
}

#[test]
fn the_registrys_file_starts_with_one_warning_and_makes_what_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let free = ["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
    let mut started = start(dir.path(), "sms", SMS, "logs/sms.log", free);
    let lines: Vec<Value> = started.log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let warnings: Vec<&Value> = lines.iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0]["message"].as_str().unwrap().contains("sled means redb here"), "{warnings:?}");
    assert!(lines.iter().any(|line| line["level"] == "DEBUG"), "the file says debug");
    assert!(dir.path().join("data/sms.db/store.redb").is_file());
    rustix::process::kill_process(rustix::process::Pid::from_child(&started.child), Signal::TERM).unwrap();
    assert_eq!(started.child.wait().unwrap().code(), Some(0));
    // And again, on what it left.
    start(dir.path(), "sms", SMS, "logs/sms.log", free);
}

#[test]
fn the_agents_file_starts_and_lets_nobody_in_without_the_token_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let free = ["--grpc-addr", "0.0.0.0:0", "--http-addr", "0.0.0.0:0"];
    let started = start(dir.path(), "spearlet", SPEARLET, "logs/spearlet.log", free);
    let token = dir.path().join("data/spearlet/token");
    assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    let address =
        started.log.lines().find(|line| line.contains("listening") && line.contains("spearlet/http")).unwrap();
    let port: u16 = address.rsplit(':').next().unwrap().trim().parse().unwrap();
    let ask = |token: Option<&str>| {
        let request = format!("GET /status HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n");
        let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        std::io::Write::write_all(&mut stream, format!("{request}{bearer}\r\n").as_bytes()).unwrap();
        std::io::read_to_string(stream).unwrap()
    };
    assert!(ask(None).starts_with("HTTP/1.1 401"));
    let made = fs::read_to_string(&token).unwrap();
    assert!(ask(Some(made.trim())).starts_with("HTTP/1.1 200"));
    assert!(!started.log.contains(made.trim()), "a token is never logged");
    for said in ["cors_enabled", "compression_enabled"] {
        assert!(
            started.log.lines().any(|line| line.contains("WARN") && line.contains(said)),
            "{said}:\n{}",
            started.log
        );
    }
}

#[test]
fn a_path_that_holds_a_database_of_the_original_is_refused_and_left_as_it_was() {
    for (names, told) in [(&["conf", "db", "blobs/0"][..], "sled"), (&["CURRENT", "IDENTITY", "LOCK"], "RocksDB")] {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("data/sms.db");
        for name in names {
            let path = store.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "theirs").unwrap();
        }
        let before = listing(&store);
        fs::write(dir.path().join("config.toml"), SMS).unwrap();
        let args = ["serve", "--role", "sms", "--config", "config.toml", "--log-format", "json"];
        let free = ["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
        let output = spear(dir.path()).args(args).args(free).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(told) && said.contains("data/sms.db") && said.lines().count() == 1, "{said}");
        assert_eq!(listing(&store), before);
    }
    // A file where the directory should be.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/sms.db"), "theirs").unwrap();
    fs::write(dir.path().join("config.toml"), SMS).unwrap();
    let args = [
        "serve",
        "--role",
        "sms",
        "--config",
        "config.toml",
        "--grpc-addr",
        "127.0.0.1:0",
        "--http-addr",
        "127.0.0.1:0",
    ];
    let output = spear(dir.path()).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read_to_string(dir.path().join("data/sms.db")).unwrap(), "theirs");
}

/// Every file with its bytes.
fn listing(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => dirs.push(path),
                false => found.push((path.display().to_string(), fs::read(&path).unwrap())),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_broken_file_ends_the_start_with_exit_code_2_and_config_check_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), "[http]\nadr = \"127.0.0.1:1\"\n\n[log]\nlevel = \"loud\"\n").unwrap();
    for args in [
        &["serve", "--role", "sms", "-c", "config.toml"][..],
        &["config", "check", "--role", "sms", "-c", "config.toml"],
    ] {
        let output = spear(dir.path()).args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert_eq!(lines[0], "spear: config.toml:2: unknown key http.adr; did you mean http.addr?");
        assert!(lines[1].starts_with("spear: config.toml:5: log.level is \"loud\"; expected one of"), "{said}");
    }
    let output = spear(dir.path()).args(["config", "print", "-o", "json", "--role", "sms"]).output().unwrap();
    let settings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let one = settings.as_array().unwrap().iter().find(|one| one["name"] == "heartbeat_timeout").unwrap();
    assert_eq!(
        one,
        &serde_json::json!({"name": "heartbeat_timeout", "value": "90s", "source": "default", "live": true})
    );
    let output = spear(dir.path()).args(["config", "schema"]).output().unwrap();
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["properties"]["spearlet"]["properties"]["runtime"]["type"], "object");
}
