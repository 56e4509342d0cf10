//! Load by wrk, which takes little of the machine itself: many clients that send one request again and again.

use anyhow::{Context, Result, ensure};
use std::{fmt::Write, fs, net::SocketAddr, process::Command};

/// What its clients saw.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Answers in a second.
    pub rate: f64,
    /// Microseconds within which so much of the answers came.
    pub p50: f64,
    pub p99: f64,
}

/// POSTs `body` from so many clients for so many seconds; every answer must have a status of 2xx.
pub fn post(address: SocketAddr, path: &str, body: &[u8], clients: usize, seconds: u32) -> Result<Seen> {
    let mut script = String::from("wrk.method = \"POST\"\nwrk.body = \"");
    for byte in body {
        write!(script, "\\{byte:03}")?;
    }
    script.push_str("\"\nwrk.headers[\"Content-Type\"] = \"application/octet-stream\"\n");
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("post.lua");
    fs::write(&file, script)?;
    let mut wrk = Command::new("wrk");
    wrk.args(["--latency", "-t", "1", "-c", &clients.to_string(), "-d", &format!("{seconds}s"), "-s"]);
    let output = wrk.arg(&file).arg(format!("http://{address}{path}")).output();
    let output = output.context("wrk cannot be run: apt-get install wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    let fails = ["Non-2xx", "Socket errors"].iter().any(|words| text.contains(words));
    ensure!(!fails, "not every request was answered well: {text}");
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).with_context(|| format!("wrk does not tell {name}: {text}"))
    };
    let rate = field("Requests/sec:")?.parse()?;
    Ok(Seen { rate, p50: micros(field("50%")?)?, p99: micros(field("99%")?)? })
}

fn micros(text: &str) -> Result<f64> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let factor = match &text[digits.len()..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        other => anyhow::bail!("{other:?} is no unit of time"),
    };
    Ok(digits.parse::<f64>()? * factor)
}
