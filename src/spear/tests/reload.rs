//! SIGHUP: what changes at once, what waits for a restart, and what a broken file does.

use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{Client, Daemon, PATIENCE, serve, spear};

/// A registry with `spear.toml` in its directory.
fn start(dir: &Path, settings: &str) -> Daemon {
    fs::write(dir.join("spear.toml"), settings).unwrap();
    let mut args = serve("sms");
    args.extend(["--config", "spear.toml"].map(str::to_owned));
    Daemon::start_with(dir, args)
}

/// Waits until the log has so many lines of a kind; those.
async fn logged(daemon: &Daemon, message: &str, times: usize) -> Vec<Value> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let lines = daemon.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Value>>();
        let found: Vec<Value> = lines.into_iter().filter(|line| line["message"] == message).collect();
        if found.len() >= times {
            return found;
        }
        assert!(Instant::now() < give_up, "{message:?} was not logged {times} times:\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const READ_AGAIN: &str = "configuration read again";

async fn reload(daemon: &Daemon, settings: (&Path, &str), times: usize) -> Value {
    fs::write(settings.0.join("spear.toml"), settings.1).unwrap();
    daemon.signal(Signal::HUP);
    logged(daemon, READ_AGAIN, times).await.remove(times - 1)
}

async fn uploaded(client: &Client, bytes: usize) -> u16 {
    let url = format!("{}/api/v1/files", client.base);
    client.http.post(url).header("x-file-name", "f").body(vec![0; bytes]).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_limit_changes_at_once_and_what_needs_a_restart_is_named_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), "max_upload_bytes = 10\n");
    let client = Client::new(&daemon.sms());
    assert_eq!((uploaded(&client, 10).await, uploaded(&client, 11).await), (200, 413));
    let settings = "max_upload_bytes = 20\n[shutdown]\ntimeout = 5\n";
    let done = reload(&daemon, (dir.path(), settings), 1).await;
    assert_eq!((&done["live"], &done["need_restart"]), (&1.into(), &1.into()));
    assert_eq!((uploaded(&client, 20).await, uploaded(&client, 21).await), (200, 413));
    let changed = logged(&daemon, "setting changed", 1).await.remove(0);
    assert_eq!(
        (&changed["key"], &changed["old"], &changed["new"]),
        (&"max_upload_bytes".into(), &"10".into(), &"20".into())
    );
    assert!(changed["origin"].as_str().unwrap().ends_with("spear.toml:1"), "{changed}");
    let named = logged(&daemon, "setting changed: it needs a restart", 1).await.remove(0);
    assert_eq!(
        (&named["key"], &named["old"], &named["new"]),
        (&"shutdown.timeout".into(), &"20s".into(), &"5s".into())
    );
    let done = reload(&daemon, (dir.path(), settings), 2).await;
    assert_eq!(
        (&done["live"], &done["need_restart"]),
        (&0.into(), &1.into()),
        "it still waits, and nothing else is new"
    );
}

#[tokio::test]
async fn the_level_of_the_log_changes_and_a_broken_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), "[log]\nlevel = \"info\"\n");
    let client = Client::new(&daemon.sms());
    client.get("/api/v1/nodes").await;
    assert!(!daemon.log().contains("\"DEBUG\""), "{}", daemon.log());
    reload(&daemon, (dir.path(), "[log]\nlevel = \"debug\"\n"), 1).await;
    client.get("/api/v1/nodes").await;
    logged(&daemon, "answered", 1).await;
    for (broken, told) in [
        ("[log]\nlevel = \"loud\"\n", "spear.toml:2: log.level is \"loud\""),
        ("max_upload_bytes = 1\nmax_uplod_bytes = 2\n", "did you mean max_upload_bytes?"),
        ("[log\n", "spear.toml:1: not valid TOML"),
        ("max_upload_bytes = 1\n[auth]\ntoken_file = \"absent\"\n", "absent"),
    ] {
        let before = daemon.log().lines().count();
        fs::write(dir.path().join("spear.toml"), broken).unwrap();
        daemon.signal(Signal::HUP);
        let give_up = Instant::now() + PATIENCE;
        let refused = |line: &str| line.contains("everything stays as it is") && line.contains("\"ERROR\"");
        loop {
            let log = daemon.log();
            if let Some(line) = log.lines().skip(before).find(|line| refused(line)) {
                let line: Value = serde_json::from_str(line).unwrap();
                assert!(line["problem"].as_str().unwrap().contains(told), "{line}");
                break;
            }
            assert!(Instant::now() < give_up, "{broken:?} was not refused:\n{log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(uploaded(&client, 100).await, 200, "{broken:?} has changed something");
    }
    let answered = logged(&daemon, "answered", 1).await.len();
    client.get("/api/v1/nodes").await;
    logged(&daemon, "answered", answered + 1).await;
    assert_eq!(logged(&daemon, READ_AGAIN, 1).await.len(), 1);
}

#[tokio::test]
async fn a_token_is_rotated_without_a_restart_of_the_registry_or_its_agent() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = ("the-first-token-0123456789", "the-second-token-0123456789");
    let token = dir.path().join("token");
    fs::write(&token, old).unwrap();
    let with_token = |role: &str| {
        let mut args = serve(role);
        args.extend(["--token-file".to_owned(), token.display().to_string()]);
        args
    };
    let registry = Daemon::start_with(dir.path(), with_token("sms"));
    let (grpc, http) = (registry.address("sms/grpc").to_string(), registry.address("sms/http").to_string());
    let mut args = with_token("spearlet");
    args.extend(["--sms-addr", &grpc, "--sms-http-addr", &http].map(str::to_owned));
    let agent = Daemon::start_with(dir.path(), args);
    let of = |token: &str| {
        let value = format!("Bearer {token}").parse().unwrap();
        let headers = [(reqwest::header::AUTHORIZATION, value)].into_iter().collect();
        let http = reqwest::Client::builder().timeout(PATIENCE).default_headers(headers).build().unwrap();
        Client { base: registry.sms(), http }
    };
    let (first, second) = (of(old), of(new));
    first.until("/api/v1/nodes", |nodes| nodes["nodes"][0]["status"] == "online").await;
    assert_eq!(second.get("/api/v1/nodes").await.0, 401);
    fs::write(&token, new).unwrap();
    for daemon in [&registry, &agent] {
        daemon.signal(Signal::HUP);
        logged(daemon, READ_AGAIN, 1).await;
        logged(daemon, "the token is another one: callers need the new one from now on", 1).await;
    }
    assert_eq!((first.get("/api/v1/nodes").await.0, second.get("/api/v1/nodes").await.0), (401, 200));
    // The agent fetches the module and reports the result with the new token.
    let uri = second.upload("hello.wasm", crate::support::sample("hello")).await;
    let (_, execution) = second.task("hello", &uri, serde_json::json!({})).await;
    assert_eq!(second.ended(&execution).await["status"], "completed");
    for daemon in [&registry, &agent] {
        assert!(!daemon.log().contains(old) && !daemon.log().contains(new), "a token is in the log");
    }
}

#[tokio::test]
async fn a_token_that_was_made_is_read_again_when_its_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = serve("sms");
    for address in args.iter_mut().filter(|arg| *arg == "127.0.0.1:0") {
        "0.0.0.0:0".clone_into(address);
    }
    let daemon = Daemon::start_with(dir.path(), args);
    let path = dir.path().join("data/sms/token");
    let old = fs::read_to_string(&path).unwrap();
    let url = format!("http://127.0.0.1:{}/api/v1/nodes", daemon.address("sms/http").port());
    let http = reqwest::Client::new();
    let status = async |token: &str| http.get(&url).bearer_auth(token.trim()).send().await.unwrap().status().as_u16();
    assert_eq!(status(&old).await, 200);
    fs::remove_file(&path).unwrap();
    daemon.signal(Signal::HUP);
    logged(&daemon, READ_AGAIN, 1).await;
    let new = fs::read_to_string(&path).unwrap();
    assert_ne!(old, new);
    assert_eq!((status(&old).await, status(&new).await), (401, 200));
}

#[tokio::test]
async fn the_service_manager_hears_of_a_reload_and_of_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = spear(dir.path());
    command.args(serve("sms")).env("NOTIFY_SOCKET", dir.path().join("notify"));
    let daemon = Daemon::launch(command);
    let heard = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("the manager hears something");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!(heard().trim(), "READY=1");
    daemon.signal(Signal::HUP);
    let reloading = heard();
    assert!(reloading.contains("RELOADING=1\n") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert_eq!(heard().trim(), "READY=1");
    daemon.signal(Signal::TERM);
    assert_eq!(heard().trim(), "STOPPING=1");
    assert_eq!(daemon.wait().0.code(), Some(0));
}
