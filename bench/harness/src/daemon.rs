//! A process under measurement; killed by its pid when dropped.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

pub struct Daemon {
    child: Child,
    addresses: HashMap<String, SocketAddr>,
    silent: Arc<AtomicUsize>,
    dir: tempfile::TempDir,
}

impl Daemon {
    /// A registry on free ports with an empty disk.
    pub fn spear(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--role", "sms", "--log-format", "json", "--log-level", "info"]);
        command.args(["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]);
        Self::start(command)
    }

    /// A registry with its agent in one process, on free ports with an empty disk.
    pub fn all(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--role", "all", "--log-format", "json", "--log-level", "info"]);
        for listener in ["--grpc-addr", "--http-addr", "--spearlet-grpc-addr", "--spearlet-http-addr"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        Self::start(command)
    }

    /// The floor of requests: the program that measures again, with a bare handler.
    pub fn bare() -> Result<Self> {
        Self::own(["bare"])
    }

    /// The program that measures again, as another server: it says what [`announce`] says.
    pub fn own<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args);
        Self::start(command)
    }

    fn start(mut command: Command) -> Result<Self> {
        // Beside the program and not in /tmp, which may be in memory: what is measured is a disk.
        let here = std::env::current_exe()?;
        let dir = tempfile::tempdir_in(here.parent().context("a program lies in a directory")?)?;
        command.current_dir(dir.path()).env("HOME", dir.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        let mut addresses = HashMap::new();
        loop {
            let Some(Ok(line)) = lines.next() else { bail!("the process ended before it was ready") };
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            match event["message"].as_str() {
                Some("listening") => {
                    let text = |field: &str| event[field].as_str().context("a listener has a name and an address");
                    addresses.insert(text("listener")?.to_owned(), text("address")?.parse()?);
                }
                Some("ready") => break,
                _ => {}
            }
        }
        let silent = Arc::new(AtomicUsize::new(0));
        let count = silent.clone();
        // What it goes on to say must not fill the pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains("node is silent and now offline") {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { child, addresses, silent, dir })
    }

    /// Where it answers REST.
    pub fn http(&self) -> SocketAddr {
        self.addresses["sms/http"]
    }

    /// Where an agent answers REST.
    pub fn agent(&self) -> SocketAddr {
        self.addresses["spearlet/http"]
    }

    /// Where it answers gRPC.
    pub fn grpc(&self) -> SocketAddr {
        self.addresses["sms/grpc"]
    }

    /// Nodes that it found silent.
    pub fn silent(&self) -> usize {
        self.silent.load(Ordering::Relaxed)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Resident memory.
    pub fn resident_kib(&self) -> Result<usize> {
        resident_kib(self.child.id())
    }

    /// Processor time since its start, seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.child.id())
    }
}

/// Says what is waited for before a server is asked.
pub fn announce(address: SocketAddr) {
    eprintln!(r#"{{"message":"listening","listener":"sms/http","address":"{address}"}}"#);
    eprintln!(r#"{{"message":"ready"}}"#);
}

pub fn resident_kib(pid: u32) -> Result<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

pub fn cpu_seconds(pid: u32) -> Result<f64> {
    // proc(5): after the name in parentheses, user and system time are the 12th and 13th field, in ticks of 1/100 s.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| anyhow::Ok(fields.get(at).context("stat is short")?.parse::<f64>()?);
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
