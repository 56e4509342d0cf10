//! `process_*`: what Linux knows of this process, read from /proc.

use std::{fs, io};

use crate::metrics::Metrics;

/// Ticks per second of the times in /proc; the same on every architecture that Rust's tier 1 and 2 have.
const TICKS: f64 = 100.0;

pub(crate) fn register(metrics: &Metrics) {
    metrics.read("process_cpu_seconds_total", "Processor time used, user and system.", || {
        let (user, system) = (stat(11)?, stat(12)?);
        Some((user + system) / TICKS)
    });
    metrics.read("process_resident_memory_bytes", "Memory that is in RAM.", || kilobytes("VmRSS:"));
    metrics.read("process_virtual_memory_bytes", "Address space in use.", || kilobytes("VmSize:"));
    metrics.read("process_threads", "Threads of the process.", || field(&status().ok()?, "Threads:"));
    metrics.read("process_open_fds", "Open file descriptors.", || {
        Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64)
    });
    metrics.read("process_max_fds", "File descriptors that may be open.", || {
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let soft = line.split_whitespace().next()?;
        if soft == "unlimited" { Some(f64::INFINITY) } else { soft.parse().ok() }
    });
    let started = started();
    metrics.read("process_start_time_seconds", "When the process began, in seconds since 1970.", move || started);
}

/// A field of /proc/self/stat, counted from 0 after the name of the program, which may contain anything.
fn stat(index: usize) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(index)?.parse().ok()
}

/// Boot time and ticks since then: neither needs a look at the clock.
fn started() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = field(&text, "btime")?;
    Some(booted + stat(19)? / TICKS)
}

fn status() -> io::Result<String> {
    fs::read_to_string("/proc/self/status")
}

fn kilobytes(name: &str) -> Option<f64> {
    Some(field(&status().ok()?, name)? * 1024.0)
}

/// The first number of the line that begins with a word.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
