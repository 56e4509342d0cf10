//! Calls of a WASI command inside one process, on one thread and on two.
//!
//! Every contender runs the same modules in turn, round by round; what is kept are medians.

use anyhow::{Result, anyhow};
use bench_harness::results::{keep, median};
use runtime::Reuse;
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{module::echo, ours::Ours, peer::Peer};

/// Rounds of each contender.
const ROUNDS: usize = 7;
/// How long a round lasts.
const ROUND: Duration = Duration::from_millis(300);

/// One who calls guests.
pub trait Contender: Send + Sync {
    fn name(&self) -> String;
    /// Calls until the moment; how many calls.
    fn run(&self, input: &[u8], until: Instant) -> Result<u64>;
}

/// One contender in one setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub guest: String,
    pub contender: String,
    pub threads: usize,
    pub bytes: usize,
    /// Of a call on its thread.
    pub micros: f64,
    /// As many times as ours.
    pub times_ours: f64,
}

pub fn run(program: &Path, hello: Option<Vec<u8>>) -> Result<()> {
    let mut modules = Vec::new();
    for pages in [2, 17, 65] {
        modules.push((format!("echo, {} KiB", pages * 64), wat::parse_str(echo(pages))?));
    }
    modules.extend(hello.map(|bytes| ("hello in C".to_owned(), bytes)));
    let mut rows = Vec::new();
    for (name, module) in &modules {
        let contenders: Vec<Box<dyn Contender>> = vec![
            Box::new(Ours::new(program, module, Reuse::Clean)?),
            Box::new(Ours::new(program, module, Reuse::Never)?),
            Box::new(Peer::new(module, true)?),
            Box::new(Peer::new(module, false)?),
        ];
        for (threads, bytes) in [(1, 5), (2, 5), (1, 1 << 10), (1, 64 << 10)] {
            rows.append(&mut compare(name, &contenders, threads, &vec![b'x'; bytes])?);
        }
    }
    keep("call", &rows)
}

fn compare(guest: &str, contenders: &[Box<dyn Contender>], threads: usize, input: &[u8]) -> Result<Vec<Row>> {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (contender, times) in contenders.iter().zip(&mut times) {
            let until = Instant::now() + ROUND;
            let began = Instant::now();
            let calls = std::thread::scope(|scope| -> Result<u64> {
                let all: Vec<_> = (0..threads).map(|_| scope.spawn(|| contender.run(input, until))).collect();
                let mut sum = 0;
                for one in all {
                    sum += one.join().map_err(|_| anyhow!("a contender panicked"))??;
                }
                Ok(sum)
            })?;
            times.push(began.elapsed().as_secs_f64() * 1e6 * threads as f64 / calls as f64);
        }
    }
    println!("{guest}, {threads} threads, {} bytes:", input.len());
    let mut rows: Vec<Row> = Vec::new();
    for (contender, times) in contenders.iter().zip(&times) {
        let micros = median(times);
        let times_ours = micros / rows.first().map_or(micros, |ours| ours.micros);
        println!("  {:<28} {micros:8.2} µs   x{times_ours:.2}", contender.name());
        let (guest, contender) = (guest.to_owned(), contender.name());
        rows.push(Row { guest, contender, threads, bytes: input.len(), micros, times_ours });
    }
    Ok(rows)
}
