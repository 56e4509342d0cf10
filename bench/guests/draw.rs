//! Makes `docs/performance-functions.md` from the figures that are kept.

use anyhow::{Context, Result};
use bench_harness::results::{Machine, read};
use std::{fmt::Write, fs, path::Path};

use crate::{call, cold, http};

const OPENING: &str = "\
# Performance of functions

What a call of a WebAssembly function costs, beside wasmtime (as it comes, and tuned in the same way: pooled memories
whose touched pages the kernel tells), a bare handler and a process for each request, in one run on the same machine.
The ratios are what should hold elsewhere. Every call finds a clean instance: one that was put back, or, where that is
said, a fresh one. Times are medians.

`cargo build --release`, then `cargo run --release --manifest-path bench/Cargo.toml -p bench-guests -- call|http|cold
target/release/spear`, then `… draw docs`. `http` needs wrk.
";

pub fn run(docs: &Path) -> Result<()> {
    let mut page = String::from(OPENING);
    let mut machines: Vec<Machine> = Vec::new();
    calls(&mut page, &mut machines)?;
    requests(&mut page, &mut machines)?;
    cold_starts(&mut page, &mut machines)?;
    for Machine { processor, cores, memory_gib, kernel, .. } in machines {
        writeln!(
            page,
            "\nMeasured on: {processor}, {cores} cores, {memory_gib} GiB; Linux {kernel}; everything on the same machine."
        )?;
    }
    fs::write(docs.join("performance-functions.md"), page).context("docs/performance-functions.md")
}

fn seen(machine: Machine, machines: &mut Vec<Machine>) {
    if !machines.contains(&machine) {
        machines.push(machine);
    }
}

fn calls(page: &mut String, machines: &mut Vec<Machine>) -> Result<()> {
    let Some((machine, rows)) = read::<Vec<call::Row>>("call")? else { return Ok(()) };
    seen(machine, machines);
    page.push_str("\n## In one process\n\nA WASI command that reads its input and answers; microseconds of a call on its thread.\n");
    page.push_str("\n| guest | threads | bytes | spear | fresh instance | wasmtime, tuned | wasmtime | tuned / spear | as it comes / spear |\n");
    page.push_str("|---|---|---|---|---|---|---|---|---|\n");
    for setting in
        rows.chunk_by(|one, other| (&one.guest, one.threads, one.bytes) == (&other.guest, other.threads, other.bytes))
    {
        let [ours, fresh, tuned, plain] = setting else { continue };
        writeln!(
            page,
            "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
            ours.guest,
            ours.threads,
            ours.bytes,
            ours.micros,
            fresh.micros,
            tuned.micros,
            plain.micros,
            tuned.times_ours,
            plain.times_ours
        )?;
    }
    Ok(())
}

fn requests(page: &mut String, machines: &mut Vec<Machine>) -> Result<()> {
    let Some((machine, rows)) = read::<Vec<http::Row>>("http")? else { return Ok(()) };
    seen(machine, machines);
    page.push_str("\n## Through HTTP\n\n`POST` with so many bytes in and out from so many clients (wrk), each server with two threads. `isolated`: no call\nruns on the thread of its connection.\n");
    page.push_str("\n| function | bytes | clients | server | requests/s | p50, µs | p99, µs | of bare |\n|---|---|---|---|---|---|---|---|\n");
    for row in rows {
        let http::Row { what, server, bytes, clients, rate, p50, p99, of_bare } = row;
        writeln!(page, "| {what} | {bytes} | {clients} | {server} | {rate:.0} | {p50:.0} | {p99:.0} | {of_bare:.2} |")?;
    }
    Ok(())
}

fn cold_starts(page: &mut String, machines: &mut Vec<Machine>) -> Result<()> {
    let Some((machine, figures)) = read::<cold::Figures>("cold")? else { return Ok(()) };
    seen(machine, machines);
    let cold::Figures { module_bytes, first, first_peer, uploaded_bytes, deployed, idle_kib } = figures;
    page.push_str("\n## Before it is warm\n\n| | measured |\n|---|---|\n");
    writeln!(
        page,
        "| first call, {module_bytes} bytes of WebAssembly, compiled code on the disk | {first:.1} ms (wasmtime: {first_peer:.1} ms) |"
    )?;
    writeln!(page, "| from the upload of {uploaded_bytes} bytes to the first answer | {deployed:.0} ms |")?;
    writeln!(page, "| memory of an idle instance with two pages | {idle_kib:.1} KiB |")?;
    Ok(())
}
