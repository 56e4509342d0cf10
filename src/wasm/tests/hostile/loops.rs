//! Guests that do not want to end, or to end this process.

use std::time::Duration;
use types::Reason;

use super::Stage;
use crate::{
    bench::{Bench, wasm},
    programs::{ECHO, command, full},
};
use api::Invocation;
use runtime::InstanceSpec;

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

/// More of them, for the deadline alone.
pub fn stubborn() -> Vec<(&'static str, String)> {
    let thousand = "(i64.const 1)".repeat(100);
    let params = " i64".repeat(100);
    vec![
        ("loops in loops", command("(loop $a (loop $b (loop $c (br_if $a (i32.const 0)) (br_if $b (i32.const 0)) (br $c))))")),
        ("a loop that leaves by the outermost", command("(loop $a (loop $b (loop $c (br $a))))")),
        ("a loop with parameters", command("(i32.const 0) (loop (param i32) (br 0 (i32.add (i32.const 1))))")),
        ("a loop with a result", command("(drop (loop (result i32) (br 0)))")),
        ("a loop of two", full("(func $a (loop (call $b) (br 0))) (func $b (nop))", "(call $a)")),
        ("two that call one another and come back", full("(func $a (param i32) (if (local.get 0) (then (call $b (i32.sub (local.get 0) (i32.const 1)))))) (func $b (param i32) (if (local.get 0) (then (call $a (i32.sub (local.get 0) (i32.const 1))))))", "(loop (call $a (i32.const 500)) (br 0))")),
        ("a tree of calls", full("(func $t (param i32) (if (local.get 0) (then (call $t (i32.sub (local.get 0) (i32.const 1))) (call $t (i32.sub (local.get 0) (i32.const 1))))))", "(call $t (i32.const 100))")),
        ("a tree of calls through a table", full("(type $f (func (param i32))) (table 1 funcref) (elem (i32.const 0) $t) (func $t (param i32) (if (local.get 0) (then (call_indirect (type $f) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)) (call_indirect (type $f) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))))", "(call $t (i32.const 100))")),
        ("if and else", full("(global $g (mut i32) (i32.const 0))", "(loop (if (global.get $g) (then (br 1)) (else (br 1))))")),
        ("an endless table of branches", command("(loop (br_table 0 0 0 0 (i32.const 9)))")),
        ("a wide table of branches", command(&format!("(local i32) (loop $l (block $x (br_table {} $l (local.tee 0 (i32.add (local.get 0) (i32.const 1))))) (br $l))", "$l $x ".repeat(2_000)))),
        ("counting to 2^64", command("(local i64) (loop (br_if 0 (i64.ne (local.tee 0 (i64.add (local.get 0) (i64.const 1))) (i64.const 0))))")),
        ("counting by halves", command("(local f64) (loop (local.set 0 (f64.mul (f64.add (local.get 0) (f64.const 1)) (f64.const 0.5))) (br_if 0 (f64.lt (local.get 0) (f64.const 2))))")),
        ("reading one byte again and again", command("(loop (br_if 0 (i32.eqz (i32.load8_u (i32.const 77)))))")),
        ("writing one byte again and again", command("(loop (i32.store8 (i32.const 77) (i32.const 1)) (br 0))")),
        ("through all of memory", command("(local i32) (drop (memory.grow (i32.const 1000))) (loop (i32.store (i32.rem_u (local.tee 0 (i32.add (local.get 0) (i32.const 4096))) (i32.const 65000000)) (i32.const 1)) (br 0))")),
        ("a global that counts", full("(global $g (mut i64) (i64.const 0))", "(loop (global.set $g (i64.add (global.get $g) (i64.const 1))) (br 0))")),
        ("many parameters", full(&format!("(func $f (param{params}))"), &format!("(loop {thousand} (call $f) (br 0))"))),
        ("many results", full(&format!("(func $f (result{params}) {thousand})"), &format!("(loop (call $f) {} (br 0))", "(drop)".repeat(100)))),
        ("memory.init", full("(data $d \"0123456789abcdef\")", "(loop (memory.init $d (i32.const 0) (i32.const 0) (i32.const 16)) (br 0))")),
        ("small fills", command("(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 1)) (br 0))")),
        ("empty fills", command("(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 0)) (br 0))")),
        ("memory.size", command("(loop (drop (memory.size)) (br 0))")),
        ("growth that is refused", command("(loop (drop (memory.grow (i32.const -1))) (br 0))")),
        ("growth by nothing", command("(loop (drop (memory.grow (i32.const 0))) (br 0))")),
        ("table.set", full("(table $t 1 funcref)", "(loop (table.set $t (i32.const 0) (ref.null func)) (br 0))")),
        ("table.get", full("(table $t 1 funcref)", "(loop (drop (table.get $t (i32.const 0))) (br 0))")),
        ("table.grow", full("(table $t 1 funcref)", "(loop (drop (table.grow $t (ref.null func) (i32.const 1))) (br 0))")),
        ("table.fill", full("(table $t 1000000 externref)", "(loop (table.fill $t (i32.const 0) (ref.null extern) (i32.const 1000000)) (br 0))")),
        ("table.copy", full("(table $t 1000000 externref)", "(loop (table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 999999)) (br 0))")),
        ("table.init", full("(table $t 2 funcref) (elem $e func $f) (func $f)", "(loop (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1)) (br 0))")),
        ("ref.func", full("(elem declare func $f) (func $f)", "(loop (drop (ref.func $f)) (br 0))")),
        ("square roots", command("(local f64) (loop (local.set 0 (f64.sqrt (f64.nearest (f64.ceil (local.get 0))))) (br 0))")),
        ("divisions", full("(global $g (mut i64) (i64.const 3))", "(loop (global.set $g (i64.div_s (i64.const 9223372036854775807) (global.get $g))) (br_if 0 (i64.ne (global.get $g) (i64.const 0))))")),
        ("an input that is over", command("(i32.store (i32.const 4) (i32.const 9)) (loop (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))")),
        ("a poll for an input that is over", command("(i32.store8 (i32.const 8) (i32.const 1)) (loop (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200))) (br 0))")),
        ("polls that are wrong", command("(loop (drop (call $poll_oneoff (i32.const -1) (i32.const -1) (i32.const 1) (i32.const -1))) (br 0))")),
        ("short sleeps", command("(i64.store (i32.const 24) (i64.const 1000)) (loop (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200))) (br 0))")),
        ("one long sleep", command("(i64.store (i32.const 24) (i64.const 9223372036854775807)) (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))")),
        ("a sleep until the end of time", command("(i64.store (i32.const 24) (i64.const -1)) (i32.store16 (i32.const 40) (i32.const 1)) (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))")),
        ("a first function", "(module (func (export \"_initialize\") (loop (br 0))) (func (export \"f\")))".to_owned()),
        ("the second of two first functions", "(module (func $s (nop)) (start $s) (func (export \"_initialize\") (loop (br 0))) (func (export \"_start\")))".to_owned()),
        ("a start function that sleeps", full("(func $s (i64.store (i32.const 24) (i64.const 9223372036854775807)) (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))) (start $s)", "")),
        ("to the end of the stack and back, for ever", full("(func $r (param i32) (if (local.get 0) (then (call $r (i32.sub (local.get 0) (i32.const 1))))))", "(loop (call $r (i32.const 12000)) (br 0))")),
        ("a loop at the end of the stack", full("(func $r (param i32) (if (local.get 0) (then (call $r (i32.sub (local.get 0) (i32.const 1)))) (else (loop (br 0)))) (nop))", "(call $r (i32.const 12000))")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stubborn_guest_outlives_its_deadline_with_either_compiler() {
    let mut stage = Stage::new().await;
    let deadline = Duration::from_millis(20);
    for (name, text) in endless().into_iter().chain(stubborn()) {
        for compiler in super::COMPILERS {
            let made = stage.bench.function(&wasm(&text), compiler, InstanceSpec::default()).await;
            let mut function = made.unwrap_or_else(|error| panic!("{name} ({compiler}): {error}"));
            let call = Invocation { deadline: Some(deadline), ..Invocation::default() };
            let error = function.invoke(call).await.expect_err(name);
            assert_eq!(error.reason, Reason::Deadline, "{name} ({compiler}): {error}");
            assert_eq!(error.message, "still running at its deadline of 20ms", "{name} ({compiler})");
            assert!(!function.keeps_one(), "{name}: what was stopped is not kept");
            stage.echo(name).await;
        }
    }
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
