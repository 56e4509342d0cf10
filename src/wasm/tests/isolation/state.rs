//! What is kept between calls: nothing, unless it is asked for.

use runtime::{
    InstanceSpec, InstanceState, Limits, LogBuffer, Pool, PoolSettings, Preparation, Reuse, Runtime, Streams,
};
use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use types::{ExecutionId, Reason, SystemClock};

use crate::bench::{Bench, Function, call, wasm};

const COMPILERS: [&str; 2] = ["singlepass", "cranelift"];

async fn answer(function: &mut Function, name: &str) -> String {
    let answer = function.invoke(call([name])).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    String::from_utf8(answer.result.to_vec()).unwrap()
}

/// Every instruction that changes what is not put back.
#[tokio::test]
async fn modules_that_change_tables_or_drop_segments_begin_anew_each_time() {
    let bench = Bench::new();
    for (name, change) in [
        ("table.set", "(table.set $t (i32.const 0) (ref.func $two))"),
        ("table.fill", "(table.fill $t (i32.const 0) (ref.func $two) (i32.const 4))"),
        ("table.copy", "(table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 1))"),
        ("table.init", "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))"),
        ("table.grow", "(drop (table.grow $t (ref.func $two) (i32.const 1)))"),
        ("elem.drop", "(elem.drop $e)"),
        ("data.drop", "(data.drop $d)"),
    ] {
        let module = wasm(&format!(
            r#"(module (memory (export "memory") 1) (data $d "abcd") (table $t 4 8 funcref) (elem (table $t) (i32.const 0) func $one $two)
              (elem $e func $two) (elem declare func $two)
              (func $one (result i32) (i32.const 1)) (func $two (result i32) (i32.const 2))
              (func (export "change") {change})
              (func (export "look") (result i32 i32) (call_indirect $t (result i32) (i32.const 0)) (table.size $t))
              (func (export "elements") (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1)))
              (func (export "data") (memory.init $d (i32.const 0) (i32.const 0) (i32.const 4))))"#
        ));
        for compiler in COMPILERS {
            let mut function = bench.function(&module, compiler, InstanceSpec::default()).await.unwrap();
            for round in 0..20 {
                answer(&mut function, "change").await;
                assert!(!function.keeps_one(), "{name}");
                assert_eq!(answer(&mut function, "look").await, "[1,4]", "{name}, round {round}");
                answer(&mut function, "elements").await;
                answer(&mut function, "data").await;
            }
        }
    }
    // The same module without any of it is kept.
    let module = wasm(
        r#"(module (table $t 4 funcref) (elem (table $t) (i32.const 0) func $one) (func $one (result i32) (i32.const 1))
          (func (export "f") (result i32) (drop (table.get $t (i32.const 1))) (call_indirect $t (result i32) (i32.const 0))))"#,
    );
    for compiler in COMPILERS {
        let mut function = bench.function(&module, compiler, InstanceSpec::default()).await.unwrap();
        for _ in 0..20 {
            assert_eq!(answer(&mut function, "f").await, "1");
        }
        assert_eq!(function.made, 1);
    }
}

/// Counts in a global, in memory, in memory that has grown, and in a table.
fn counter(fields: &str) -> Vec<u8> {
    wasm(&format!(
        r#"(module (memory (export "memory") 1 4) (global $g (mut i32) (i32.const 0)) (table $t 1 9 externref) {fields}
          (func (export "count") (result i32 i32 i32 i32)
            (global.set $g (i32.add (global.get $g) (i32.const 1)))
            (i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 1)))
            (drop (memory.grow (i32.const 1))) (drop (table.grow $t (ref.null extern) (i32.const 1)))
            (global.get $g) (i32.load (i32.const 8)) (memory.size) (table.size $t))
          (func (export "trap") (unreachable))
          (func (export "begun") (result i32) (i32.load (i32.const 100))))"#
    ))
}

const BEGINS: &str =
    "(func $s (i32.store (i32.const 100) (i32.add (i32.load (i32.const 100)) (i32.const 1)))) (start $s)";

#[tokio::test]
async fn state_is_kept_when_that_is_asked_for_and_only_then() {
    let bench = Bench::new();
    let module = counter(BEGINS);
    for compiler in COMPILERS {
        let mut usual = bench.function(&module, compiler, InstanceSpec::default()).await.unwrap();
        let keeping = InstanceSpec { reuse: Reuse::Kept, ..InstanceSpec::default() };
        let mut keeps = bench.function(&module, compiler, keeping.clone()).await.unwrap();
        let mut other = bench.function(&module, compiler, keeping).await.unwrap();
        for round in 1..=3 {
            assert_eq!(answer(&mut usual, "count").await, "[1,1,2,2]");
            assert_eq!(answer(&mut usual, "begun").await, "1", "the start function runs before each call");
            let (pages, elements) = (round + 1, round + 1);
            assert_eq!(answer(&mut keeps, "count").await, format!("[{round},{round},{pages},{elements}]"));
            assert_eq!(answer(&mut keeps, "begun").await, "1", "the start function ran once");
        }
        assert_eq!(answer(&mut other, "count").await, "[1,1,2,2]", "another function's instance is another");
        // What trapped is given up, with its state.
        assert_eq!(keeps.invoke(call(["trap"])).await.unwrap_err().reason, Reason::Trap);
        assert!(!keeps.keeps_one());
        assert_eq!(answer(&mut keeps, "count").await, "[1,1,2,2]");
    }
}

#[tokio::test]
async fn an_instance_is_given_up_after_its_uses() {
    let bench = Bench::new();
    let module = counter("");
    let prepared = bench.wasm.prepare(&bench.artifact(&module), &Preparation::from(&Limits::default())).await.unwrap();
    let spec = InstanceSpec { reuse: Reuse::Kept, ..InstanceSpec::default() };
    let settings = PoolSettings { uses: 3, ..PoolSettings::default() };
    let pool = Pool::new(Arc::new(bench.wasm.clone()), prepared, spec, settings, Arc::new(AtomicU64::new(1)));
    let (logs, _buffer) = LogBuffer::new(Arc::new(SystemClock::new()), 0, 1);
    let mut seen = Vec::new();
    for _ in 0..8 {
        let mut lease = pool.checkout(&CancellationToken::new()).await.unwrap();
        let answer = lease.invoke(ExecutionId::new(), call(["count"]), Streams::logged(logs.clone())).await.unwrap();
        let text = String::from_utf8(answer.result.to_vec()).unwrap();
        seen.push(text[1..].split(',').next().unwrap().to_owned());
    }
    assert_eq!(seen, ["1", "2", "3", "1", "2", "3", "1", "2"], "after three calls another one");
}

/// A guest that is not stopped at the end of its stack, but needed the engine's reserve, is as good as new afterwards.
#[tokio::test]
async fn a_kept_instance_is_not_stopped_by_what_stopped_nobody() {
    let bench = Bench::new();
    let module = wasm(
        r#"(module (memory (export "memory") 1)
          (func (export "fine") (result i32) (i32.const 7))
          (func $dive (export "dive") (param i32)
            (if (local.get 0)
              (then (call $dive (i32.sub (local.get 0) (i32.const 1))))
              (else (memory.fill (i32.const 0) (i32.const 0) (i32.const 9))))))"#,
    );
    for compiler in COMPILERS {
        let limits = Limits { stack_bytes: 64 << 10, ..Limits::default() };
        let spec = InstanceSpec { reuse: Reuse::Kept, limits, ..InstanceSpec::default() };
        let mut function = bench.function(&module, compiler, spec).await.unwrap();
        let mut went_well = 0;
        for depth in (100..6_000).step_by(7) {
            let dived = function.invoke(call(["dive", &depth.to_string()])).await;
            went_well += u32::from(dived.is_ok());
            let fine = function.invoke(call(["fine"])).await;
            assert_eq!(fine.unwrap_or_else(|error| panic!("{compiler}, after {depth}: {error}")).result, "7");
            if dived.is_err() && depth > 5_000 {
                break;
            }
        }
        assert!(went_well > 10, "{compiler}: {went_well}");
    }
}

/// An instance is never in two calls, and what one knows no other does, also with many at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_do_not_see_one_another() {
    let bench = Bench::with(|config| config.concurrency = 8);
    let module = wasm(
        r#"(module (memory (export "memory") 1) (global $g (mut i64) (i64.const 0))
          (func (export "hold") (param i64) (result i64) (local i32)
            (global.set $g (local.get 0)) (i64.store (i32.const 40000) (local.get 0))
            (loop (br_if 0 (i32.lt_u (local.tee 1 (i32.add (local.get 1) (i32.const 1))) (i32.const 20000))))
            (i64.add (global.get $g) (i64.load (i32.const 40000)))))"#,
    );
    let calls = (0..8u64).map(|tenant| {
        let (bench, module) = (&bench, &module);
        async move {
            let mut function = bench.function(module, "cranelift", InstanceSpec::default()).await.unwrap();
            for round in 0..100 {
                let secret = tenant * 1_000_000 + round;
                let seen = function.invoke(call(["hold", &secret.to_string()])).await.unwrap();
                assert_eq!(seen.result, (2 * secret).to_string());
            }
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn what_is_kept_warm_has_its_memory_before_anybody_calls() {
    let bench = Bench::new();
    let module = counter("");
    let prepared = bench.wasm.prepare(&bench.artifact(&module), &Preparation::from(&Limits::default())).await.unwrap();
    let settings = PoolSettings { warm_min: 2, ..PoolSettings::default() };
    let pool = Pool::new(Arc::new(bench.wasm.clone()), prepared, InstanceSpec::default(), settings, Arc::default());
    pool.tend().await.unwrap();
    let memory: Vec<u64> = pool.instances().iter().map(|instance| instance.memory_bytes).collect();
    assert!(memory.len() == 2 && memory.iter().all(|bytes| *bytes >= 65_536), "{memory:?}");
    let mut lease = pool.checkout(&CancellationToken::new()).await.unwrap();
    assert!(!lease.cold());
    let (logs, _buffer) = LogBuffer::new(Arc::new(SystemClock::new()), 0, 1);
    let answer = lease.invoke(ExecutionId::new(), call(["count"]), Streams::logged(logs)).await.unwrap();
    assert!(answer.result.starts_with(b"[1,"), "{:?}", answer.result);
}

#[tokio::test]
async fn who_looks_during_the_first_call_of_an_instance_sees_its_memory() {
    let bench = Bench::new();
    let module = wasm(r#"(module (memory (export "memory") 3) (func (export "spin") (loop (br 0))))"#);
    let prepared = bench.wasm.prepare(&bench.artifact(&module), &Preparation::from(&Limits::default())).await.unwrap();
    let (runtime, settings) = (Arc::new(bench.wasm.clone()), PoolSettings::default());
    let pool = Pool::new(runtime, prepared, InstanceSpec::default(), settings, Arc::default());
    let mut lease = pool.checkout(&CancellationToken::new()).await.unwrap();
    let (logs, _buffer) = LogBuffer::new(Arc::new(SystemClock::new()), 0, 1);
    let seen = async {
        loop {
            if let [view] = &*pool.instances()
                && view.memory_bytes > 0
            {
                assert!(pool.kill(view.id), "it is at work");
                return (view.state, view.memory_bytes);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (seen, ended) = tokio::join!(seen, lease.invoke(ExecutionId::new(), call(["spin"]), Streams::logged(logs)));
    assert_eq!((seen, ended.unwrap_err().reason), ((InstanceState::Busy, 3 * 65_536), Reason::Cancelled));
}
