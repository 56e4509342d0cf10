//! Makes `docs/performance.md` and its curves from the figures that are kept.

use anyhow::{Context, Result, ensure};
use std::{fmt::Write, fs, path::Path};

use bench_harness::results::{Machine, read};

use crate::{
    chart::{Axis, Series, chart},
    events, heartbeats, nodes, pages, slow, start,
};

const OPENING: &str = "\
# Performance

What a registry and an idle process cost, measured from outside with the released program. Every figure has something
beside it that ran in the same minutes on the same machine (a bare handler, the raw disk, a small registry): the ratio
is what should hold elsewhere, the rest depends on the machine. Times are medians where nothing else is said.

`make bench` measures everything anew and writes this page; single measurements:
`cargo run --release --manifest-path bench/Cargo.toml -p bench-registry -- start|nodes|pages|events|slow|heartbeats|readyz
target/release/spear`, then `… draw docs`.
";

struct Page {
    text: String,
    machines: Vec<Machine>,
}

impl Page {
    fn say(&mut self, text: impl AsRef<str>) {
        writeln!(self.text, "{}", text.as_ref()).expect("writing to a string cannot fail");
    }

    fn measured(&mut self, machine: Machine) {
        if !self.machines.contains(&machine) {
            self.machines.push(machine);
        }
    }
}

pub fn run(docs: &Path) -> Result<()> {
    let curves = docs.join("performance");
    fs::create_dir_all(&curves)?;
    let mut page = Page { text: String::new(), machines: Vec::new() };
    let drawn = [
        heartbeat(&mut page, &curves)?,
        registration(&mut page, &curves)?,
        list_pages(&mut page)?,
        event_streams(&mut page)?,
        slow_clients(&mut page)?,
        starting(&mut page)?,
    ];
    ensure!(drawn.contains(&true), "nothing was measured yet");
    let machines: Vec<String> = page.machines.iter().map(machine).collect();
    let whole = format!("{OPENING}\n## The machine\n\n{}\n{}", machines.join("\n"), page.text);
    fs::write(docs.join("performance.md"), whole).context("docs/performance.md")
}

fn machine(machine: &Machine) -> String {
    let Machine { processor, cores, memory_gib, kernel, disk } = machine;
    format!("{processor}, {cores} cores, {memory_gib} GiB; {disk}; Linux {kernel}; generator on the same machine.\n")
}

fn heartbeat(page: &mut Page, curves: &Path) -> Result<bool> {
    let Some((machine, figures)) = read::<heartbeats::Figures>("heartbeats")? else { return Ok(false) };
    page.measured(machine);
    let times = |what: &str, field: &str| figures.summary[what]["latency"][field].as_f64().unwrap_or_default();
    let whole = |field: &str| figures.summary[field].as_u64().unwrap_or_default();
    page.say(format!(
        "## {} nodes at one heartbeat per 10 s\n\nSimulated agents (`spear simulate`) with the real protocol: each \
         registers, beats, tells its load and follows its work list. {:.0} minutes.\n",
        figures.nodes, figures.minutes
    ));
    page.say("| | measured | goal |\n|---|---|---|");
    page.say(format!("| processors, all nodes there | {:.2} | < 0.5 |", figures.steady_cores));
    page.say(format!("| processors, with the beginning | {:.2} | |", figures.cores));
    page.say(format!("| nodes taken for gone that were not | {} | 0 |", figures.false_expiries));
    page.say(format!(
        "| heartbeats answered, failed | {}, {} | |",
        figures.summary["heartbeats"]["done"],
        whole("heartbeats_failed")
    ));
    page.say(format!(
        "| heartbeat to answer, p50, p99, longest | {:.2} ms, {:.1} ms, {:.0} ms | p99 < 20 ms |",
        times("heartbeats", "p50_ms"),
        times("heartbeats", "p99_ms"),
        times("heartbeats", "max_ms")
    ));
    let most = figures.samples.iter().map(|sample| sample.resident_kib).max().unwrap_or_default();
    page.say(format!(
        "| resident at most | {} MiB: {:.1} KiB a node, its share of a connection and its open stream included | < 400 \
         MiB |",
        most / 1024,
        figures.bytes_each as f64 / 1024.0
    ));
    let cores = Series {
        name: "processors".to_owned(),
        points: figures.samples.iter().map(|sample| (sample.seconds / 60.0, sample.cores)).collect(),
    };
    let axis = Axis { name: "processors", limit: Some(0.5) };
    fs::write(curves.join("heartbeats.svg"), chart("Registry: processors in use", "minutes", &axis, &[cores]))?;
    page.say("\n![processors over time](performance/heartbeats.svg)\n");
    Ok(true)
}

fn registration(page: &mut Page, curves: &Path) -> Result<bool> {
    let Some((machine, figures)) = read::<nodes::Figures>("nodes")? else { return Ok(false) };
    page.measured(machine);
    let count = figures.windows.last().map_or(0, |last| last.nodes);
    page.say(format!(
        "## Registrations\n\n{count} nodes from {} clients over REST, each answered when it is on the disk; in turns \
         with as many raw group commits of a record of that size to a store on the same disk.\n",
        nodes::CONNECTIONS
    ));
    page.say("| nodes | registrations/s | raw commits/s | of raw | resident MiB |\n|---|---|---|---|---|");
    for window in figures.windows.iter().skip(1).step_by(2) {
        page.say(format!(
            "| {} | {:.0} | {:.0} | {:.2} | {} |",
            window.nodes,
            window.per_second,
            window.raw_per_second,
            window.per_second / window.raw_per_second,
            window.resident_kib / 1024
        ));
    }
    page.say(format!(
        "\nOf the raw rate: {:.2} (goal 0.5). Second half against first half: {:.2} (goal 0.8; the raw store itself: \
         {:.2}). Memory: {:.1} KiB a node over the empty registry (goal 4).\n",
        figures.of_raw,
        figures.second_half_of_first,
        figures.raw_second_half_of_first,
        figures.bytes_each as f64 / 1024.0
    ));
    let line = |name: &str, pick: fn(&nodes::Window) -> f64| Series {
        name: name.to_owned(),
        points: figures.windows.iter().map(|window| (window.nodes as f64, pick(window))).collect(),
    };
    let rates =
        [line("registrations", |window| window.per_second), line("raw group commits", |window| window.raw_per_second)];
    let axis = Axis { name: "per second", limit: None };
    fs::write(curves.join("registrations.svg"), chart("Durable registrations", "nodes", &axis, &rates))?;
    let memory = [line("resident", |window| window.resident_kib as f64 / 1024.0)];
    let axis = Axis { name: "MiB", limit: None };
    fs::write(curves.join("memory.svg"), chart("Registry: resident memory", "nodes", &axis, &memory))?;
    page.say("![rates over nodes](performance/registrations.svg)\n\n![memory over nodes](performance/memory.svg)\n");
    Ok(true)
}

fn list_pages(page: &mut Page) -> Result<bool> {
    let Some((machine, figures)) = read::<pages::Figures>("pages")? else { return Ok(false) };
    page.measured(machine);
    page.say(format!(
        "## Pages of lists\n\nOne client, pages of 50 by cursor, a registry with {} nodes, tasks and executions beside \
         one with {}, asked in turns.\n",
        figures.small, figures.large
    ));
    page.say(format!(
        "| page | {} records, ms | {} records, ms | p99, ms | ratio |\n|---|---|---|---|---|",
        figures.small, figures.large
    ));
    for row in &figures.rows {
        let pages::Row { page: name, small_ms, large_ms, large_p99_ms, ratio } = row;
        page.say(format!("| {name} | {small_ms:.2} | {large_ms:.2} | {large_p99_ms:.2} | {ratio:.2} |"));
    }
    page.say("");
    Ok(true)
}

fn event_streams(page: &mut Page) -> Result<bool> {
    let Some((machine, figures)) = read::<events::Figures>("events")? else { return Ok(false) };
    page.measured(machine);
    page.say(
        "## Event streams\n\nClients of `GET /api/v1/events` in a small and in a large registry. The time runs from the \
         request that makes a change until the event has come to a client; the processor time is the registry's, less \
         that of the same changes without clients.\n",
    );
    page.say("| records | clients | CPU a client and event | memory a client | p50 | p99 |\n|---|---|---|---|---|---|");
    for row in &figures.rows {
        page.say(format!(
            "| {} | {} | {:.0} µs | {:.0} KiB | {:.1} ms | {:.1} ms |",
            row.records, row.clients, row.cpu_micros_per_event_and_client, row.kib_per_client, row.p50_ms, row.p99_ms
        ));
    }
    page.say("");
    Ok(true)
}

fn slow_clients(page: &mut Page) -> Result<bool> {
    let Some((machine, figures)) = read::<slow::Figures>("slow")? else { return Ok(false) };
    page.measured(machine);
    page.say(format!(
        "## Slow clients\n\n{} clients ask for a page of 100 nodes every {} ms, alone and beside {} that send headers \
         or bodies byte by byte, do not read what they asked for, or say nothing.\n",
        slow::GOOD,
        slow::PAUSE.as_millis(),
        slow::SLOW
    ));
    page.say("| round | alone: p50, p99 | beside them: p50, p99 | resident, alone and beside |\n|---|---|---|---|");
    for (round, (alone, beside)) in figures.rounds.iter().enumerate() {
        page.say(format!(
            "| {} | {:.2} ms, {:.2} ms | {:.2} ms, {:.2} ms | {} MiB, {} MiB |",
            round + 1,
            alone.p50_ms,
            alone.p99_ms,
            beside.p50_ms,
            beside.p99_ms,
            alone.resident_kib / 1024,
            beside.resident_kib / 1024
        ));
    }
    page.say(format!("\np99 beside them against alone: {:.2} (goal 2).\n", figures.p99_ratio));
    Ok(true)
}

fn starting(page: &mut Page) -> Result<bool> {
    let Some((machine, figures)) = read::<start::Figures>("start")? else { return Ok(false) };
    page.measured(machine);
    page.say("## Start\n\nFrom exec until `READY=1` has come to the notify socket, or until the program has ended.\n");
    page.say("| | median, ms | lowest | highest | processor time, ms |\n|---|---|---|---|---|");
    for row in &figures.rows {
        let cpu = if row.cpu_ms > 0.0 { format!("{:.0}", row.cpu_ms) } else { String::new() };
        page.say(format!(
            "| {} | {:.1} | {:.1} | {:.1} | {cpu} |",
            row.what, row.median_ms, row.lowest_ms, row.highest_ms
        ));
    }
    page.say(format!(
        "\nIdle after 15 s: {:.1} MiB resident (goal 40), the bare handler {:.1} MiB. The program: {:.1} MiB (goal 60).\n",
        figures.idle_kib as f64 / 1024.0,
        figures.bare_kib as f64 / 1024.0,
        figures.binary_bytes as f64 / f64::from(1 << 20)
    ));
    Ok(true)
}
