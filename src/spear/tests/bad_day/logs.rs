//! Nobody reads the log, or there is no room for it: the product goes on. And a stop that comes while it starts.

use rustix::process::Signal;
use serde_json::json;
use std::{
    fs::{self, File, OpenOptions},
    net::SocketAddr,
    os::{fd::AsFd, unix::process::ExitStatusExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::seen::{show, until};
use crate::support::{Client, Daemon, PATIENCE, sample, serve, spear};

/// A daemon that cannot be asked by its log where it listens.
struct Mute(Child);

impl Mute {
    fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// What it listens on, as the kernel has it.
    fn listens(&self) -> Vec<SocketAddr> {
        let pid = self.0.id();
        let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let links: Vec<_> = links.filter_map(|link| fs::read_link(link.path()).ok()).collect();
        let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
        let listening = table.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let port = u16::from_str_radix(fields[1].rsplit_once(':')?.1, 16).ok()?;
            let ours = Path::new(&format!("socket:[{}]", fields[9])).to_owned();
            (fields[3] == "0A" && links.contains(&ours)).then(|| SocketAddr::from(([127, 0, 0, 1], port)))
        });
        listening.collect()
    }

    /// A client of its REST interface, once it is ready.
    async fn client(&mut self) -> Client {
        let give_up = Instant::now() + PATIENCE;
        loop {
            assert_eq!(self.0.try_wait().unwrap(), None, "it ended");
            for address in self.listens() {
                let client = Client::new(&format!("http://{address}"));
                let health = client.http.get(format!("{}/health", client.base)).send().await;
                let Ok(health) = health else { continue };
                if health.text().await.is_ok_and(|text| text.contains("\"service\":\"sms\"")) {
                    return client;
                }
            }
            assert!(Instant::now() < give_up, "it never answered");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn works_and_stops_in_order(mut self) {
        let client = self.client().await;
        let uri = client.upload("hello.wasm", sample("hello")).await;
        let (_, execution) = client.task("hello", &uri, json!({})).await;
        assert_eq!(client.ended(&execution).await["status"], json!("completed"));
        // Something that is logged for each call.
        for _ in 0..50 {
            client.upload("more", vec![1; 100]).await;
            assert_eq!(client.get("/api/v1/no-such-thing").await.0, 404);
        }
        assert_eq!(client.get("/readyz").await.0, 200);
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert_eq!(self.wait().code(), Some(0), "it stops in order");
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < give_up, "it does not end");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}

/// Both roles, logging everything.
fn chatty(dir: &Path) -> Command {
    let mut command = spear(dir);
    command.args(serve("all")).env("RUST_LOG", "debug");
    command
}

#[tokio::test]
async fn a_log_without_a_reader_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = chatty(dir.path());
    command.stderr(writer);
    let daemon = Mute::start(command);
    drop(reader);
    daemon.works_and_stops_in_order().await;
}

#[tokio::test]
async fn a_full_disk_under_the_log_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = chatty(dir.path());
    command.stderr(full());
    Mute::start(command).works_and_stops_in_order().await;
    // The same with a log file of its own.
    let mut command = chatty(dir.path());
    command.args(["--log-file", "/dev/full"]).stderr(full());
    Mute::start(command).works_and_stops_in_order().await;
}

#[tokio::test]
async fn a_closed_standard_error_stops_nothing_and_no_file_takes_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let inner = chatty(dir.path());
    let mut command = Command::new("/bin/sh");
    command.current_dir(dir.path()).env_clear().envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))));
    command.args(["-c", r#"exec "$0" "$@" 2>&- <&-"#]).arg(inner.get_program()).args(inner.get_args());
    let mut daemon = Mute::start(command);
    drop(daemon.client().await);
    // Were descriptor 2 free, the next file opened would get every line of the log: the store, for instance.
    let second = fs::read_link(format!("/proc/{}/fd/2", daemon.0.id())).unwrap();
    assert_eq!(second, Path::new("/dev/null"));
    daemon.works_and_stops_in_order().await;
}

#[tokio::test]
async fn a_reader_of_the_log_that_stops_reading_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = chatty(dir.path());
    command.stderr(writer);
    let daemon = Mute::start(command);
    daemon.works_and_stops_in_order().await;
    assert!(reader.as_fd().try_clone_to_owned().is_ok(), "the pipe was there all the time");
}

#[test]
fn a_stop_at_any_moment_of_the_start_ends_the_process_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut caught = 0;
    for round in 0..40u32 {
        let mut command = spear(dir.path());
        let log = File::create(dir.path().join("log")).unwrap();
        command.args(serve("all")).stderr(log);
        let mut daemon = Mute::start(command);
        std::thread::park_timeout(Duration::from_millis(u64::from(round * 7 % 120)));
        rustix::process::kill_process(rustix::process::Pid::from_child(&daemon.0), Signal::TERM).unwrap();
        let status = daemon.wait();
        let log = fs::read_to_string(dir.path().join("log")).unwrap();
        // Before the program could say what a signal means to it, the kernel's answer is as good.
        assert!(status.code() == Some(0) || status.signal() == Some(15), "round {round}: {status}\n{log}");
        assert!(!log.contains("panicked"), "{log}");
        caught += u32::from(status.code() == Some(0));
    }
    show("stops during the start that were caught, of 40", caught);
    let daemon = Daemon::start(dir.path(), "all");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().0.code(), Some(0));
}

#[tokio::test]
async fn a_stop_while_the_agent_waits_for_its_registry_is_heeded_at_once() {
    let dir = tempfile::tempdir().unwrap();
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut args = serve("spearlet");
    args.extend(["--sms-addr".to_owned(), silent.local_addr().unwrap().to_string()]);
    args.extend(["--sms-connect-timeout-ms".to_owned(), "600000".to_owned()]);
    let mut command = spear(dir.path());
    let path = dir.path().join("log");
    command.args(args).stderr(File::create(&path).unwrap());
    let mut daemon = Mute::start(command);
    let lock = dir.path().join("data/spearlet/node-id");
    until("it is on its way", async || lock.exists()).await;
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon.0), Signal::TERM).unwrap();
    let status = daemon.wait();
    let log = fs::read_to_string(path).unwrap();
    show("told to stop while starting", &log);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("told to stop before it was ready"), "{log}");
}
