//! Measures calls of guests in one process, beside wasmtime as it comes and wasmtime tuned in the same way.
//!
//!     cargo run --release -p bench-guests -- call ../target/release/spear ../samples/build/hello.wasm
//!
//! Every contender runs the same modules in turn, round by round; what is printed are medians, and ratios to ours.

mod ours;
mod peer;

use anyhow::{Context, Result, bail};
use std::{
    path::Path,
    time::{Duration, Instant},
};

use ours::Ours;
use peer::Peer;

/// Rounds of each contender.
const ROUNDS: usize = 7;
/// How long a round lasts.
const ROUND: Duration = Duration::from_millis(300);

/// A WASI command with so many pages of memory that copies its input to its output.
fn echo(pages: u32) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") {pages})
          (func (export "_start")
            (i32.store (i32.const 0) (i32.const 1024))
            (loop
              (i32.store (i32.const 4) (i32.const 65536))
              (br_if 1 (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
              (if (i32.eqz (i32.load (i32.const 8))) (then return))
              (i32.store (i32.const 4) (i32.load (i32.const 8)))
              (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
              (br 0))))"#
    )
}

/// One who calls guests.
pub trait Contender: Send + Sync {
    fn name(&self) -> String;
    /// Calls until the moment; how many calls.
    fn run(&self, input: &[u8], until: Instant) -> Result<u64>;
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("call") => {
            let program = args.next().context("the path of the spear binary is missing")?;
            let hello = args.next().map(std::fs::read).transpose()?;
            calls(Path::new(&program), hello)
        }
        other => bail!("unknown measurement {other:?}: call"),
    }
}

fn calls(program: &Path, hello: Option<Vec<u8>>) -> Result<()> {
    let mut modules = vec![("echo 128 KiB".to_owned(), wat::parse_str(echo(2))?)];
    modules.extend(
        [17, 65].map(|pages| (format!("echo {} KiB", pages * 64), wat::parse_str(echo(pages)).unwrap_or_default())),
    );
    modules.extend(hello.map(|bytes| ("hello in C".to_owned(), bytes)));
    for (name, module) in &modules {
        let contenders: Vec<Box<dyn Contender>> = vec![
            Box::new(Ours::new(program, module, false)?),
            Box::new(Ours::new(program, module, true)?),
            Box::new(Peer::new(module, false)?),
            Box::new(Peer::new(module, true)?),
        ];
        for (threads, bytes) in [(1, 5), (2, 5), (1, 1024), (1, 65_536)] {
            compare(name, &contenders, threads, &vec![b'x'; bytes])?;
        }
    }
    Ok(())
}

fn compare(name: &str, contenders: &[Box<dyn Contender>], threads: usize, input: &[u8]) -> Result<()> {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (contender, times) in contenders.iter().zip(&mut times) {
            let until = Instant::now() + ROUND;
            let began = Instant::now();
            let calls = std::thread::scope(|scope| -> Result<u64> {
                let all: Vec<_> = (0..threads).map(|_| scope.spawn(|| contender.run(input, until))).collect();
                let mut sum = 0;
                for one in all {
                    sum += one.join().map_err(|_| anyhow::anyhow!("a contender panicked"))??;
                }
                Ok(sum)
            })?;
            times.push(began.elapsed().as_secs_f64() * 1e6 * threads as f64 / calls as f64);
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    let ours = medians.first().copied().unwrap_or(1.0);
    println!("{name}, {threads} threads, {} bytes:", input.len());
    for (contender, median) in contenders.iter().zip(&medians) {
        println!("  {:<28} {median:8.2} µs   x{:.2}", contender.name(), median / ours);
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
