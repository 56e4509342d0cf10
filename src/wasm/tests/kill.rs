//! Many kills at once: the process survives each of them.

use std::{sync::Arc, time::Duration};
use types::Reason;

use crate::{
    bench::{Bench, block_on, wasm},
    hostile::endless,
};

/// Kills per thread; four threads.
const KILLS: usize = 300;

#[test]
fn twelve_hundred_kills_in_four_threads_and_every_one_ends() {
    let bench = Arc::new(Bench::new());
    let modules: Arc<Vec<_>> = Arc::new(endless().into_iter().map(|(name, wat)| (name, wasm(&wat))).collect());
    block_on(async {
        for (_, module) in modules.iter() {
            bench.prepare(module).await.unwrap();
        }
    });
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (bench, modules) = (bench.clone(), modules.clone());
            std::thread::spawn(move || {
                block_on(async {
                    for round in 0..KILLS {
                        let (name, module) = &modules[(round * 7 + thread * 5) % modules.len()];
                        let deadline = Duration::from_micros(500 + (round as u64 * 797) % 6000);
                        let ran = bench.call(module, |call| call.deadline = deadline).await;
                        let reason = ran.outcome.as_ref().expect_err(name).reason;
                        assert_eq!(reason, Reason::Deadline, "{name}: {:?}", ran.outcome);
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let after = block_on(bench.wat(crate::programs::ECHO, |call| call.body = "alive".into()));
    assert_eq!(after.text(), "alive", "guests run as before");
}

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_calls_leave_no_threads_descriptors_or_mappings_behind() {
    let bench = Bench::with(|config| config.concurrency = 4);
    let modules: Vec<_> =
        ["", "(unreachable)", "(call $proc_exit (i32.const 3))", "(drop (memory.grow (i32.const 10)))"]
            .iter()
            .map(|body| wasm(&crate::programs::command(body)))
            .chain(endless().into_iter().take(3).map(|(_, wat)| wasm(&wat)))
            .collect();
    let round = async || {
        let calls = modules
            .iter()
            .map(|module| bench.call(module, |call| call.deadline = Duration::from_millis(5)))
            .collect::<Vec<_>>();
        futures_util::future::join_all(calls).await
    };
    for _ in 0..20 {
        round().await;
    }
    let before = (count("task"), count("fd"), mappings());
    for _ in 0..300 {
        round().await;
    }
    let after = (count("task"), count("fd"), mappings());
    assert!(after.0 <= before.0 + 2, "threads: {before:?} {after:?}");
    assert!(after.1 <= before.1 + 2, "descriptors: {before:?} {after:?}");
    assert!(after.2 <= before.2 + 40, "mappings: {before:?} {after:?}");
}
