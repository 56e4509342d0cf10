//! Memory, stack, places: guests at their walls.

use std::{sync::Arc, time::Duration};
use types::Reason;

use crate::{
    bench::{Bench, wasm},
    programs::{command, full},
};

const PAGE: u64 = 65_536;

#[tokio::test]
async fn growth_over_the_limit_is_refused_and_a_guest_that_copes_ends_well() {
    // Grows by 16 pages until refused, then ends with the number of pages it has as its exit code, or well.
    let grow =
        |end: &str| command(&format!("(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) {end}"));
    let bench = Bench::new();
    let limit = 100 * PAGE;
    let copes = bench.wat(&grow(""), |call| call.limits.memory_bytes = limit).await.ok();
    assert_eq!(copes.ended.usage.peak_memory_bytes, 98 * PAGE, "2 + 6 × 16 pages fit below 100");
    let fails = grow("(call $proc_exit (i32.const 3))");
    let message = bench.wat(&fails, |call| call.limits.memory_bytes = limit).await.failed(Reason::Memory);
    assert_eq!(message, "it asked for more memory than its limit of 6553600 bytes, then ended with exit code 3");
    let traps = grow("(unreachable)");
    bench.wat(&traps, |call| call.limits.memory_bytes = limit).await.failed(Reason::Memory);
    let exact = command("(if (i32.eq (memory.grow (i32.const 98)) (i32.const -1)) (then (unreachable)))");
    bench.wat(&exact, |call| call.limits.memory_bytes = limit).await.ok();
}

#[tokio::test]
async fn a_module_that_begins_over_the_limit_is_refused_at_start() {
    let bench = Bench::new();
    for memories in [
        "(memory (export \"memory\") 65536)",
        "(memory (export \"memory\") 2049)",
        "(memory 1000) (memory 1000) (memory 49)",
    ] {
        let wat = format!("(module {memories} (func (export \"_start\")))");
        let message = bench.wat(&wat, |_| {}).await.failed(Reason::Memory);
        assert!(message.contains("the limit is 134217728 bytes"), "{message}");
    }
    bench.wat("(module (memory 1000) (memory 1000) (memory 48) (func (export \"_start\")))", |_| {}).await.ok();
}

#[tokio::test]
async fn all_memories_together_have_one_limit() {
    let bench = Bench::new();
    let memories = "(memory $m1 1) (memory $m2 1) (memory $m3 1)";
    let grow = |name: &str| format!("(loop (br_if 0 (i32.ne (memory.grow {name} (i32.const 7)) (i32.const -1))))");
    let body = format!("{}{}{}", grow("$m1"), grow("$m2"), grow("$m3"));
    let ran = bench.wat(&full(memories, &body), |call| call.limits.memory_bytes = 50 * PAGE).await.ok();
    assert!(ran.ended.usage.peak_memory_bytes <= 50 * PAGE && ran.ended.usage.peak_memory_bytes > 40 * PAGE);
}

#[tokio::test]
async fn tables_count_and_cannot_grow_without_end() {
    let bench = Bench::new();
    let large = "(module (table 10000000 funcref) (func (export \"_start\")))";
    bench.wat(large, |_| {}).await.failed(Reason::Memory);
    let grows = "(module (table $t 1 externref) (func (export \"_start\")
      (loop (br_if 0 (i32.ne (table.grow $t (ref.null extern) (i32.const 1000)) (i32.const -1))))
      (if (i32.gt_u (table.size $t) (i32.const 20000)) (then (unreachable)))))";
    bench.wat(grows, |_| {}).await.ok();
}

#[tokio::test]
async fn deep_recursion_is_a_trap_with_any_frame_and_through_any_call() {
    let bench = Bench::new();
    let locals: String = (0..400).map(|index| format!("(local $l{index} i64)")).collect();
    let sets: String =
        (0..400).map(|i| format!("(local.set $l{i} (i64.add (local.get $x) (i64.const {i})))")).collect();
    let uses: String =
        (0..400).map(|i| format!("(global.set $g (i64.xor (global.get $g) (local.get $l{i})))")).collect();
    for (fields, body) in [
        ("(func $r (call $r) (nop))".to_owned(), "(call $r)"),
        ("(func $r (param i32) (result i32) (i32.add (i32.const 1) (call $r (local.get 0))))".to_owned(), "(drop (call $r (i32.const 1)))"),
        (
            format!("(global $g (mut i64) (i64.const 0)) (func $r (param $x i64) {locals} {sets} (call $r (i64.add (local.get $x) (i64.const 1))) {uses})"),
            "(call $r (i64.const 1))",
        ),
        ("(func $r (drop (call $sched_yield)) (call $r) (drop (call $sched_yield)))".to_owned(), "(call $r)"),
        ("(func $r (drop (memory.grow (i32.const 0))) (memory.fill (i32.const 0) (i32.const 0) (i32.const 9)) (call $r) (nop))".to_owned(), "(call $r)"),
        ("(table 1 funcref) (elem (i32.const 0) $r) (func $r (call_indirect (i32.const 0)) (nop))".to_owned(), "(call $r)"),
    ] {
        for stack in [0, 1 << 20, 3 << 20] {
            let ran = bench.wat(&full(&fields, body), |call| call.limits.stack_bytes = stack).await;
            let message = ran.failed(Reason::Trap);
            assert!(message.contains("call stack exhausted"), "{message}");
        }
    }
}

#[tokio::test]
async fn a_call_that_finds_no_place_in_time_says_so() {
    let bench = Bench::with(|config| config.concurrency = 1);
    let module = wasm(&command("(loop (br 0))"));
    bench.prepare(&module).await.unwrap();
    let cancel = tokio_util::sync::CancellationToken::new();
    let first = bench.call(&module, |call| call.cancel = cancel.clone());
    let second = async {
        // The first one is polled first, so it has the place.
        let ran = bench.call(&module, |call| call.deadline = Duration::from_millis(100)).await;
        cancel.cancel();
        ran
    };
    let (first, second) = tokio::join!(biased; first, second);
    first.failed(Reason::Cancelled);
    assert_eq!(second.failed(Reason::Queue), "all 1 places for guests were taken for 100ms");
}

#[tokio::test]
async fn many_calls_share_few_places() {
    let bench = Arc::new(Bench::with(|config| config.concurrency = 2));
    let module = wasm(crate::programs::ECHO);
    let calls = (0..20).map(|index| {
        let (bench, module) = (bench.clone(), module.clone());
        async move {
            let text = format!("call {index}");
            let ran = bench.call(&module, |call| call.body = text.clone().into()).await;
            assert_eq!(ran.text(), text);
        }
    });
    futures_util::future::join_all(calls).await;
}
