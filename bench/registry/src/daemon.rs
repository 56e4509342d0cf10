//! A process under measurement; killed by its pid when dropped.

use anyhow::{Context, Result};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

pub struct Daemon {
    child: Child,
    pub address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Daemon {
    /// A registry on a free port with an empty disk.
    pub fn spear(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--role", "sms", "--log-format", "json", "--log-level", "info"]);
        command.args(["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]);
        Self::start(command, |line| {
            let from = line.find("sms/http").and(line.find("\"address\":\""))? + "\"address\":\"".len();
            line.get(from..)?.split('"').next()?.parse().ok()
        })
    }

    /// The floor.
    pub fn bare() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare");
        Self::start(command, |line| line.strip_prefix("listening ")?.parse().ok())
    }

    fn start(mut command: Command, address: fn(&str) -> Option<SocketAddr>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        command.current_dir(dir.path()).env("HOME", dir.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| address(&line));
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address: address.context("the process ended before it listened")?, _dir: dir })
    }

    /// Resident memory.
    pub fn resident_kib(&self) -> Result<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
