//! `spear top`: what every function of an agent does, made of two readings of what it has done.
//!
//! The first look takes two readings a second apart; every later one compares with the one before.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

use super::{
    agent::AgentArgs,
    client::Client,
    list::{Found, Watch, time},
    show::{Cell, Column, Form, Noun, Tone, cell},
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear top                                  the agent on this machine, anew every 2 seconds
  spear top --agent 10.0.0.7:8081 --interval 500ms
  spear top --once -o json | jq '.functions[] | select(.p99_us > 100000)'

The busiest function comes first. P50 and P99 are of the calls since the look before, at most a quarter too large.";

const FUNCTIONS: &str = "/api/v1/functions";
/// Between the two readings of the first look.
const FIRST: Duration = Duration::from_secs(1);
const LEAST: Duration = Duration::from_millis(100);

/// Show what the functions of an agent do, live: calls, errors, latency, instances, memory
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Top {
    /// Look once; so do all forms but tables
    #[arg(long)]
    once: bool,
    /// Time between looks
    #[arg(long, value_name = "SECONDS", default_value = "2s", value_parser = time)]
    interval: Duration,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

const FUNCTION: Noun = Noun {
    kind: "function",
    list: "functions",
    id: "task_id",
    columns: &[
        Column::new("FUNCTION", |row, _| cell::of(row, "name")),
        Column::new("CALLS/S", |row, _| rate(row, "calls_per_second")),
        Column::new("ERRORS/S", |row, _| wrong(row, "errors_per_second")),
        Column::new("REFUSED/S", |row, _| wrong(row, "refused_per_second")),
        Column::new("P50", |row, _| micros(row, "p50_us")),
        Column::new("P99", |row, _| micros(row, "p99_us")),
        Column::new("MEAN", |row, _| micros(row, "mean_us")).wide(),
        Column::new("RUNNING", |row, _| cell::of(row, "in_flight")),
        Column::new("WAITING", |row, _| cell::of(row, "waiting")),
        Column::new("BUSY", |row, _| cell::of(row, "busy_instances")),
        Column::new("IDLE", |row, _| cell::of(row, "idle_instances")),
        Column::new("MEMORY", |row, _| cell::size(row, "memory_bytes")),
        Column::new("TOTAL", |row, _| cell::of(row, "calls")).wide(),
        Column::new("TASK", |row, _| cell::of(row, "task_id")).wide().whole(),
    ],
};

fn rate(row: &Value, member: &str) -> Cell {
    match row[member].as_f64() {
        Some(0.0) => cell::text("0"),
        Some(rate) if rate < 10.0 => cell::text(format!("{rate:.1}")),
        Some(rate) => cell::text(format!("{rate:.0}")),
        None => cell::text("-"),
    }
}

fn wrong(row: &Value, member: &str) -> Cell {
    let bad = row[member].as_f64().is_some_and(|rate| rate > 0.0);
    rate(row, member).tone(if bad { Tone::Bad } else { Tone::Plain })
}

fn micros(row: &Value, member: &str) -> Cell {
    match row[member].as_u64() {
        Some(micros @ ..1000) => cell::text(format!("{micros}us")),
        Some(micros @ 1000..1_000_000) => cell::text(format!("{:.1}ms", micros as f64 / 1000.0)),
        Some(micros) => cell::text(cell::duration(Duration::from_micros(micros))),
        None => cell::text("-"),
    }
}

/// What an agent says its functions have done.
#[derive(Clone, Debug, Default, Deserialize)]
struct Reading {
    functions: Vec<Function>,
    at_ms: u64,
    #[serde(default)]
    node: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Function {
    task_id: String,
    name: String,
    calls: u64,
    failures: u64,
    #[serde(default)]
    refused: u64,
    total_us: u64,
    #[serde(default)]
    latency_us: Vec<(u64, u64)>,
    in_flight: u64,
    waiting: u64,
    idle_instances: u64,
    busy_instances: u64,
    memory_bytes: u64,
}

impl Function {
    /// Since an earlier reading; one that was made ready anew begins at nothing.
    fn since(&self, before: Option<&Self>, seconds: f64) -> Value {
        let nothing = Self::default();
        let before = before.filter(|before| before.calls <= self.calls && before.total_us <= self.total_us);
        let before = before.unwrap_or(&nothing);
        let calls = self.calls - before.calls;
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let earlier: BTreeMap<u64, u64> = before.latency_us.iter().copied().collect();
        let fresh = |(bound, count): &(u64, u64)| (*bound, count.saturating_sub(*earlier.get(bound).unwrap_or(&0)));
        let buckets: Vec<(u64, u64)> = self.latency_us.iter().map(fresh).collect();
        json!({
            "task_id": self.task_id,
            "name": self.name,
            "calls_per_second": rate(self.calls, before.calls),
            "errors_per_second": rate(self.failures, before.failures),
            "refused_per_second": rate(self.refused, before.refused),
            "p50_us": quantile(&buckets, 0.5),
            "p99_us": quantile(&buckets, 0.99),
            "mean_us": (calls > 0).then(|| (self.total_us - before.total_us) / calls),
            "in_flight": self.in_flight,
            "waiting": self.waiting,
            "busy_instances": self.busy_instances,
            "idle_instances": self.idle_instances,
            "memory_bytes": self.memory_bytes,
            "calls": self.calls,
            "failures": self.failures,
        })
    }
}

/// The bound below which a share of the calls lies; none without calls.
fn quantile(buckets: &[(u64, u64)], share: f64) -> Option<u64> {
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    let mut left = (all as f64 * share).ceil();
    buckets.iter().filter(|(_, count)| *count > 0).find_map(|(bound, count)| {
        left -= *count as f64;
        (left <= 0.0).then_some(*bound)
    })
}

/// What was done between two readings, the busiest first.
fn sample(before: &Reading, now: &Reading) -> Value {
    let restarted = now.at_ms <= before.at_ms;
    let elapsed = if restarted { now.at_ms } else { now.at_ms - before.at_ms };
    let seconds = Duration::from_millis(elapsed.max(1)).as_secs_f64();
    let then = |id: &str| before.functions.iter().find(|one| one.task_id == id).filter(|_| !restarted);
    let mut functions: Vec<Value> = now.functions.iter().map(|one| one.since(then(&one.task_id), seconds)).collect();
    let busy = |row: &Value| row["calls_per_second"].as_f64().unwrap_or_default();
    functions.sort_by(|one, other| {
        let names = || one["name"].as_str().cmp(&other["name"].as_str());
        busy(other).total_cmp(&busy(one)).then_with(names)
    });
    json!({ "functions": functions, "interval_ms": elapsed, "node": now.node })
}

impl Top {
    pub(super) async fn run(self, client: &Client) -> Result<(), Stopped> {
        let table = matches!(client.show.form, Form::Table | Form::Wide) && !client.show.quiet;
        let interval = self.interval.max(LEAST);
        let watch = Watch { watch: (table && !self.once).then_some(interval) };
        let mut before: Option<Reading> = None;
        let look = async || {
            let then = match before.take() {
                Some(then) => then,
                None => {
                    let first = client.get(FUNCTIONS).await?;
                    tokio::time::sleep(FIRST.min(interval)).await;
                    first
                }
            };
            let now: Reading = client.get(FUNCTIONS).await?;
            let body = sample(&then, &now);
            before = Some(now);
            Ok(Found::list(&FUNCTION, body))
        };
        client.watch(&FUNCTION, &watch, look).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn function(name: &str, calls: u64, latency_us: &[(u64, u64)]) -> Function {
        let total_us = calls * 10;
        let (task_id, name) = (name.to_owned(), name.to_owned());
        Function {
            task_id,
            name,
            calls,
            failures: calls / 2,
            total_us,
            latency_us: latency_us.to_vec(),
            ..Function::default()
        }
    }

    fn reading(at_ms: u64, functions: Vec<Function>) -> Reading {
        Reading { functions, at_ms, node: Value::Null }
    }

    #[test]
    fn rates_and_quantiles_are_of_what_was_done_between_two_readings() {
        let before = reading(1000, vec![function("a", 100, &[(10, 100)]), function("b", 4, &[(10, 4)])]);
        let now = reading(3000, vec![function("a", 100, &[(10, 100)]), function("b", 104, &[(10, 54), (500, 50)])]);
        let body = sample(&before, &now);
        assert_eq!(body["interval_ms"], 2000);
        let (first, second) = (&body["functions"][0], &body["functions"][1]);
        assert_eq!(
            (&first["name"], &first["calls_per_second"], &first["errors_per_second"]),
            (&json!("b"), &json!(50.0), &json!(25.0))
        );
        assert_eq!((&first["p50_us"], &first["p99_us"], &first["mean_us"]), (&json!(10), &json!(500), &json!(10)));
        assert_eq!((&second["calls_per_second"], &second["p99_us"]), (&json!(0.0), &Value::Null), "nobody called it");
    }

    #[test]
    fn what_began_anew_is_counted_from_nothing() {
        let before = reading(60_000, vec![function("a", 1000, &[(10, 1000)])]);
        // The function was made ready again; the whole agent was started again; the function is new.
        for (at_ms, functions) in
            [(62_000, vec![function("a", 4, &[(20, 4)])]), (2000, vec![function("a", 4, &[(20, 4)])])]
        {
            let body = sample(&before, &reading(at_ms, functions));
            assert_eq!(
                (&body["functions"][0]["calls_per_second"], &body["functions"][0]["p50_us"]),
                (&json!(2.0), &json!(20))
            );
        }
        let body = sample(&reading(0, vec![]), &reading(1000, vec![function("a", 4, &[(20, 4)])]));
        assert_eq!(body["functions"][0]["calls_per_second"], 4.0);
    }

    #[test]
    fn a_latency_is_shown_in_a_unit_that_fits() {
        for (micros, expected) in [(7, "7us"), (1500, "1.5ms"), (12_000_000, "12s")] {
            assert_eq!(super::micros(&json!({"at": micros}), "at").text, expected);
        }
        assert_eq!(super::micros(&json!({}), "at").text, "-");
    }
}
