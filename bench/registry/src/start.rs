//! From exec to ready, and what an idle process holds, beside a bare handler and a program that does nothing.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bench_harness::{
    daemon::{cpu_seconds, resident_kib},
    results::{keep, median},
};

use crate::pages::millis;

const TIMES: usize = 21;

#[derive(Clone, Serialize, Deserialize)]
pub struct Row {
    pub what: String,
    pub median_ms: f64,
    pub lowest_ms: f64,
    pub highest_ms: f64,
    pub cpu_ms: f64,
}

#[derive(Serialize, Deserialize)]
pub struct Figures {
    pub rows: Vec<Row>,
    pub idle_kib: usize,
    pub bare_kib: usize,
    pub binary_bytes: u64,
}

/// A process that says to a socket when it is ready, as it would to systemd.
struct Started {
    child: Child,
    millis: f64,
    cpu: f64,
}

impl Drop for Started {
    fn drop(&mut self) {
        // In order: the next start finds what a stop leaves.
        drop(Command::new("kill").arg(self.child.id().to_string()).status());
        drop(self.child.wait());
    }
}

fn ready(mut command: Command, dir: &Path) -> Result<Started> {
    let path = dir.join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    command.current_dir(dir).env_clear().env("HOME", dir).env("NOTIFY_SOCKET", &path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let child = command.spawn()?;
    let mut started = Started { child, millis: 0.0, cpu: 0.0 };
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).context("it never said READY=1")?;
        if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            break;
        }
    }
    started.millis = millis(begun);
    started.cpu = cpu_seconds(started.child.id())? * 1000.0;
    fs::remove_file(&path)?;
    Ok(started)
}

fn all(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["serve", "--role", "all"]);
    for flag in ["--grpc-addr", "--http-addr", "--spearlet-grpc-addr", "--spearlet-http-addr"] {
        command.args([flag, "127.0.0.1:0"]);
    }
    command
}

fn bare() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare");
    Ok(command)
}

fn row(what: &str, times: &[(f64, f64)]) -> Row {
    let millis: Vec<f64> = times.iter().map(|(millis, _)| *millis).collect();
    let cpu: Vec<f64> = times.iter().map(|(_, cpu)| *cpu).collect();
    let row = Row {
        what: what.to_owned(),
        median_ms: median(&millis),
        lowest_ms: millis.iter().copied().fold(f64::MAX, f64::min),
        highest_ms: millis.iter().copied().fold(0.0, f64::max),
        cpu_ms: median(&cpu),
    };
    println!(
        "{:<40} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
        row.what, row.median_ms, row.lowest_ms, row.highest_ms, row.cpu_ms
    );
    row
}

/// A program that runs to its end.
fn whole(program: &Path, args: &[&str]) -> Result<(f64, f64)> {
    let begun = Instant::now();
    let ended = Command::new(program).args(args).stdout(Stdio::null()).status()?;
    ensure!(ended.success(), "{} ended with {ended}", program.display());
    Ok((millis(begun), 0.0))
}

pub fn run(program: &Path) -> Result<()> {
    let here = std::env::current_exe()?;
    let beside = here.parent().context("a program lies in a directory")?;
    let kept = tempfile::tempdir_in(beside)?;
    drop(ready(all(program), kept.path())?);
    let mut times: [Vec<(f64, f64)>; 6] = Default::default();
    for _ in 0..TIMES {
        let fresh = tempfile::tempdir_in(beside)?;
        let measured = [
            whole(Path::new("/bin/true"), &[])?,
            whole(program, &["--version"])?,
            whole(program, &["sample", "ls"])?,
            ready(bare()?, fresh.path()).map(|started| (started.millis, started.cpu))?,
            ready(all(program), kept.path()).map(|started| (started.millis, started.cpu))?,
            ready(all(program), fresh.path()).map(|started| (started.millis, started.cpu))?,
        ];
        times.iter_mut().zip(measured).for_each(|(times, one)| times.push(one));
    }
    println!("{:<40} {:>9} {:>9} {:>9} {:>9}", "ms", "median", "lowest", "highest", "CPU");
    let names = [
        "/bin/true",
        "spear --version",
        "spear sample ls",
        "a bare axum handler, to ready",
        "spear serve --role all, to ready",
        "the same, with its first data directory",
    ];
    let rows = names.iter().zip(&times).map(|(name, times)| row(name, times)).collect();
    let idle = |started: &Started| {
        std::thread::sleep(Duration::from_secs(15));
        resident_kib(started.child.id())
    };
    let idle_kib = idle(&ready(all(program), kept.path())?)?;
    let bare_kib = idle(&ready(bare()?, kept.path())?)?;
    let binary_bytes = fs::metadata(program)?.len();
    println!("idle: {idle_kib} KiB, bare {bare_kib} KiB; binary {binary_bytes} bytes");
    keep("start", &Figures { rows, idle_kib, bare_kib, binary_bytes })
}
