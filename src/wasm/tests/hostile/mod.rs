//! Guests that do not want to end, or to end this process.

mod stack;

use std::time::Duration;
use types::Reason;

use crate::{
    bench::{Bench, wasm},
    programs::{ECHO, command, full},
};

/// Programs that never end by themselves, with a name.
pub fn endless() -> Vec<(&'static str, String)> {
    let subscription = "(i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const -1))";
    vec![
        ("plain loop", command("(loop (br 0))")),
        ("loop with a condition", full("(global $g (mut i32) (i32.const 1))", "(loop (br_if 0 (global.get $g)))")),
        (
            "br_table loop",
            full("", "(local $i i32) (loop $a (loop $b (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_table $a $b $a (i32.and (local.get $i) (i32.const 3)))))"),
        ),
        (
            "recursion without end that stays shallow",
            full("(func $fib (param i32) (result i32)
                (if (result i32) (i32.lt_u (local.get 0) (i32.const 2)) (then (local.get 0))
                  (else (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1))) (call $fib (i32.sub (local.get 0) (i32.const 2)))))))",
                "(drop (call $fib (i32.const 200)))"),
        ),
        ("host calls", command("(loop (drop (call $sched_yield)) (br 0))")),
        ("clock", command("(loop (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 0))) (br 0))")),
        ("start function", full("(func $s (loop (br 0))) (start $s)", "")),
        ("host calls in the start function", full("(func $s (loop (drop (call $sched_yield)) (br 0))) (start $s)", "")),
        (
            "poll that sleeps for ever",
            command(&format!("{subscription} (loop (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200))) (br 0))")),
        ),
        (
            "poll without waiting",
            command("(loop (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200))) (br 0))"),
        ),
        ("memory.grow", command("(loop (drop (memory.grow (i32.const 1))) (br 0))")),
        (
            "memory.fill",
            command("(drop (memory.grow (i32.const 1000))) (loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 65000000)) (br 0))"),
        ),
        (
            "memory.copy",
            command("(drop (memory.grow (i32.const 1000))) (loop (memory.copy (i32.const 0) (i32.const 1) (i32.const 65000000)) (br 0))"),
        ),
        ("random", command("(drop (memory.grow (i32.const 1000))) (loop (drop (call $random_get (i32.const 0) (i32.const 65000000))) (br 0))")),
        ("failing host calls", command("(loop (drop (call $fd_read (i32.const 9) (i32.const 0) (i32.const 1) (i32.const 0))) (br 0))")),
        (
            "standard error without end",
            command("(i32.store (i32.const 4) (i32.const 60000)) (loop (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))"),
        ),
        (
            "empty writes",
            command("(loop (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))"),
        ),
        (
            "indirect calls",
            full("(table 2 funcref) (elem (i32.const 0) $a $a) (func $a)", "(loop (call_indirect (i32.const 1)) (br 0))"),
        ),
        (
            "recursion to the end of the stack, again and again, each time unwound by hand",
            full("(func $r (param i32) (if (local.get 0) (then (call $r (i32.sub (local.get 0) (i32.const 1))))))", "(loop (call $r (i32.const 3000)) (br 0))"),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_guest_outlives_its_deadline() {
    let bench = Bench::new();
    for (name, wat) in endless() {
        let module = wasm(&wat);
        bench.prepare(&module).await.unwrap();
        let ran = bench.call(&module, |call| call.deadline = Duration::from_millis(60)).await;
        let message = ran.failed(Reason::Deadline);
        assert_eq!(message, "still running at its deadline of 60ms", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_guest_can_be_cancelled_and_ends_when_nobody_waits() {
    let bench = Bench::with(|config| config.concurrency = 2);
    for (name, wat) in endless() {
        let module = wasm(&wat);
        bench.prepare(&module).await.unwrap();
        let cancel = tokio_util::sync::CancellationToken::new();
        let ran = bench.call(&module, |call| call.cancel = cancel.clone());
        let stop = async {
            // Whenever it comes it must be obeyed; usually the guest runs by now.
            tokio::time::sleep(Duration::from_millis(20)).await;
            cancel.cancel();
        };
        let (ran, ()) = tokio::join!(ran, stop);
        assert_eq!(ran.failed(Reason::Cancelled), "cancelled", "{name}");
        // A call whose future is dropped gives its place back: with two places, forty drops would fill them.
        let dropped = tokio::time::timeout(Duration::from_millis(20), bench.call(&module, |_| {})).await;
        assert!(dropped.is_err(), "{name}");
    }
    assert_eq!(bench.wat(ECHO, |call| call.body = "alive".into()).await.text(), "alive");
}

#[tokio::test]
async fn an_input_that_never_comes_does_not_outlive_the_deadline() {
    let bench = Bench::new();
    let poll = command(
        "(i32.store8 (i32.const 8) (i32.const 1))
         (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))",
    );
    for wat in [ECHO, poll.as_str()] {
        bench.prepare(&wasm(wat)).await.unwrap();
        let ran = bench.wat(wat, |call| {
            call.body = api::invocation::pending();
            call.deadline = Duration::from_millis(60);
        });
        ran.await.failed(Reason::Deadline);
    }
}

#[tokio::test]
async fn a_flood_of_output_ends_the_guest_and_what_fits_is_in_the_log() {
    let bench = Bench::new();
    let flood = command(
        "(memory.fill (i32.const 100) (i32.const 65) (i32.const 60000))
         (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 60000))
         (loop (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))",
    );
    let ran = bench.wat(&flood, |call| call.limits.stdout_bytes = 100_000).await;
    assert_eq!(ran.lines.iter().map(|line| line.message.len()).sum::<usize>(), 100_000);
    assert_eq!(ran.failed(Reason::Output), "standard output is over its limit of 100000 bytes");
}

#[tokio::test]
async fn standard_error_without_end_is_cut_and_counted() {
    let bench = Bench::new();
    let wat = command(
        "(local $i i32) (memory.fill (i32.const 100) (i32.const 65) (i32.const 60000))
         (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 60000))
         (loop (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
           (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))",
    );
    let ran = bench.wat(&wat, |call| call.limits.stderr_bytes = 50_000).await;
    let cut: Vec<_> = ran.lines.iter().filter(|line| line.stream == types::LogStream::System).collect();
    assert_eq!(cut.len(), 1);
    assert_eq!(cut[0].message, "stderr: 5950000 more bytes were not kept (limit 50000)");
    assert_eq!(ran.ok().ended.exit_code, 0, "the guest ends as it wants to");
}
