//! Group commit against one-by-one commits: the same store, the same disk, in turns, in one run.
//!
//!     cargo run --release --manifest-path bench/Cargo.toml -p bench-store -- [DIRECTORY] [ROUNDS] [SECONDS]
//!
//! One by one: a single writer that waits for each commit. Group: 64 writers that do the same, so that the
//! committer finds many batches waiting. Every acknowledged commit is on the disk (fsync) in both.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use store::{Batch, DataDir, Redb, Store, redb::Config};
use supervise::{Budget, Phase, Supervisor};
use types::SystemClock;

const WRITERS: usize = 64;
/// About the size of a task's record.
const VALUE: usize = 400;

struct Round {
    per_second: f64,
    /// Time of one commit, median and 99th of a hundred.
    median: Duration,
    slow: Duration,
}

/// Lets so many writers commit for a while.
async fn round(store: &Store, writers: usize, lasts: Duration) -> Round {
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while start.elapsed() < lasts {
                    let key = format!("bench/{writer}/{}", times.len() % 1000);
                    let begun = Instant::now();
                    store.commit(Batch::new().put(key, vec![b'x'; VALUE])).await.expect("the store takes it");
                    times.push(begun.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a writer ends"));
    }
    let took = start.elapsed();
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    Round { per_second: times.len() as f64 / took.as_secs_f64(), median: at(0.5), slow: at(0.99) }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn print(name: &str, rounds: &[Round]) -> f64 {
    let millis =
        |pick: fn(&Round) -> Duration| median(rounds.iter().map(|round| pick(round).as_secs_f64() * 1e3).collect());
    let per_second = median(rounds.iter().map(|round| round.per_second).collect());
    let lowest = rounds.iter().map(|round| round.per_second).fold(f64::MAX, f64::min);
    let highest = rounds.iter().map(|round| round.per_second).fold(0.0, f64::max);
    println!(
        "| {name} | {per_second:.0} | {lowest:.0} - {highest:.0} | {:.2} ms | {:.2} ms |",
        millis(|round| round.median),
        millis(|round| round.slow)
    );
    per_second
}

async fn run(dir: &Path, rounds: usize, lasts: Duration) {
    let config = Config::new(DataDir::open(dir).expect("the directory is ours"), Arc::new(SystemClock::new()));
    let supervisor = Supervisor::new(Budget::default());
    let engine = Redb::open(config).expect("the store opens");
    let store = Store::start(Arc::new(engine), &supervisor.scope(Phase::Store, "store"));
    // Warm: the file has grown, the cache is filled.
    round(&store, WRITERS, lasts).await;
    let (mut single, mut group) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        single.push(round(&store, 1, lasts).await);
        group.push(round(&store, WRITERS, lasts).await);
    }
    println!("redb, {rounds} rounds of {} s each, medians, {VALUE} bytes a value", lasts.as_secs());
    println!("| | commits/s | lowest - highest | commit p50 | commit p99 |");
    println!("|---|---|---|---|---|");
    let single = print("one by one, 1 writer", &single);
    let group = print(&format!("group commit, {WRITERS} writers"), &group);
    println!("group commit is {:.1} times as fast", group / single);
    supervisor.run(async {}).await.expect("the store stops in order");
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments
        .next()
        .map_or_else(|| std::env::temp_dir().join(format!("bench-store-{}", std::process::id())), PathBuf::from);
    let number = |argument: Option<String>, usual| argument.map_or(usual, |text| text.parse().expect("a number"));
    let rounds = number(arguments.next(), 7);
    let lasts = number(arguments.next(), 3);
    run(&dir, rounds, Duration::from_secs(lasts as u64)).await;
    std::fs::remove_dir_all(&dir).expect("the directory can be removed");
}
