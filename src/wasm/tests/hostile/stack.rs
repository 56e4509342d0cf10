//! Guests at the end of their stack. The engine's own code runs on it too, for traps and for operations on tables and
//! memories: it must never be what meets the end, because it holds locks of the process.
//!
//! A guest cannot run the host's stack out: host functions call no guest, so there is no way from guest to host to guest.

use std::time::Duration;

use super::{COMPILERS, Group};
use api::Invocation;
use runtime::{InstanceSpec, InvokeError, Limits};
use types::Reason;

use crate::bench::{Bench, Function, call, wasm};

/// Calls without end.
fn bottomless() -> Group {
    let many = " i64".repeat(1000);
    let gets: String = (0..1000).map(|index| format!("(local.get {index}) ")).collect();
    let numbers = "(i64.const 1)".repeat(1000);
    let locals: String = (0..400).map(|index| format!("(local $l{index} i64)")).collect();
    let sets: String =
        (0..400).map(|i| format!("(local.set $l{i} (i64.add (local.get $x) (i64.const {i})))")).collect();
    let uses: String =
        (0..400).map(|i| format!("(global.set $g (i64.xor (global.get $g) (local.get $l{i})))")).collect();
    let mut group = Group::new(
        "calls without end",
        format!(
            r#"(global $g (mut i64) (i64.const 0)) (type $none (func)) (type $many (func (param{many}) (result{many})))
               (table $t 2 funcref) (elem (table $t) (i32.const 0) func $indirect $manyindirect)
               (func $self (call $self) (nop))
               (func $counts (param i32) (result i32) (i32.add (i32.const 1) (call $counts (i32.add (local.get 0) (i32.const 1)))))
               (func $a (call $b) (nop)) (func $b (call $c) (nop)) (func $c (call $a) (nop))
               (func $locals (param $x i64) {locals} {sets} (call $locals (i64.add (local.get $x) (i64.const 1))) {uses})
               (func $indirect (call_indirect $t (type $none) (i32.const 0)) (nop))
               (func $many (param{many}) (result{many}) {gets} (call $many))
               (func $manyindirect (param{many}) (result{many}) {gets} (call_indirect $t (type $many) (i32.const 1)))
               (func $results (result{many}) (call $results))
               (func $host (drop (call $sched_yield)) (call $host) (drop (call $sched_yield)))
               (func $grows (drop (memory.grow (i32.const 0))) (call $grows) (nop))
               (func $fills (memory.fill (i32.const 0) (i32.const 0) (i32.const 9)) (call $fills) (nop))
               (func $inner (block (block (loop (if (i32.const 1) (then (call $inner)))))) (nop))
               (func $loops (loop (call $loops) (br 0)))
               (func $float (param f64) (result f64) (f64.mul (f64.const 2) (call $float (f64.add (local.get 0) (f64.const 1)))))
               (func $reads (param i32) (result i32) (i32.add (i32.load (local.get 0)) (call $reads (i32.const 4))))
               (func $writes (param i32) (i32.store (i32.const 8) (local.get 0)) (call $writes (i32.load (i32.const 8))) (nop))"#
        ),
    )
    .long();
    for (name, text) in [
        ("itself", "(call $self)".to_owned()),
        ("itself, counting", "(drop (call $counts (i32.const 0)))".to_owned()),
        ("three in a ring", "(call $a)".to_owned()),
        ("with four hundred numbers each", "(call $locals (i64.const 1))".to_owned()),
        ("through a table", "(call $indirect)".to_owned()),
        ("with a thousand parameters and results", format!("{numbers} (call $many) {}", "(drop)".repeat(1000))),
        ("with a thousand through a table", format!("{numbers} (call $manyindirect) {}", "(drop)".repeat(1000))),
        ("with a thousand results", format!("(call $results) {}", "(drop)".repeat(1000))),
        ("with host functions between", "(call $host)".to_owned()),
        ("with growth between", "(call $grows)".to_owned()),
        ("with fills between", "(call $fills)".to_owned()),
        ("inside blocks", "(call $inner)".to_owned()),
        ("inside loops", "(call $loops)".to_owned()),
        ("with fractions", "(drop (call $float (f64.const 1)))".to_owned()),
        ("reading memory", "(drop (call $reads (i32.const 0)))".to_owned()),
        ("writing memory", "(call $writes (i32.const 0))".to_owned()),
    ] {
        group.traps(name, &text, "call stack exhausted");
    }
    group
}

pub fn groups() -> Vec<Group> {
    vec![bottomless()]
}

#[tokio::test]
async fn calls_without_end_are_a_trap() {
    super::run(groups()).await;
}

/// `dive` goes as deep as it is told and then does `last`.
fn diver(fields: &str, last: &str) -> Vec<u8> {
    let mut group = Group::new("diver", fields);
    group.fields.push_str(&format!(
        r#"(func $last (result i32) {last} (i32.const 0))
           (func $dive (export "dive") (param i32) (result i32)
             (if (i32.eqz (local.get 0)) (then (return (call $last))))
             (i32.add (i32.const 1) (call $dive (i32.sub (local.get 0) (i32.const 1)))))"#
    ));
    wasm(&group.text())
}

async fn dive(function: &mut Function, depth: u32, deadline: Option<Duration>) -> Result<String, InvokeError> {
    let answer = function.invoke(Invocation { deadline, ..call(["dive", &depth.to_string()]) }).await?;
    Ok(format!("exit {} {}", answer.ended.exit_code, String::from_utf8_lossy(&answer.result)))
}

fn spec() -> InstanceSpec {
    let limits = Limits { stack_bytes: 64 << 10, wall: Duration::from_secs(20), ..Limits::default() };
    InstanceSpec { name: "diver".into(), limits, ..InstanceSpec::default() }
}

/// How deep `dive` comes before the stack is exhausted, with nothing to do there.
async fn deepest(bench: &Bench, compiler: &str) -> u32 {
    let mut function = bench.function(&diver("", ""), compiler, spec()).await.unwrap();
    let (mut fits, mut over) = (0, 1 << 20);
    while over - fits > 1 {
        let middle = fits + (over - fits) / 2;
        match dive(&mut function, middle, None).await {
            Ok(_) => fits = middle,
            Err(error) => {
                assert!(error.message.contains("call stack exhausted"), "{error}");
                over = middle;
            }
        }
    }
    assert!(fits > 100, "{compiler}: {fits}");
    fits
}

/// Does `last` at many depths near the end; what comes of it contains one of `expected`, or the stack was exhausted.
async fn near_the_end(fields: &str, last: &str, expected: &[&str], deadline: Option<Duration>) {
    let bench = Bench::with(|config| config.concurrency = 2);
    for compiler in COMPILERS {
        let deepest = deepest(&bench, compiler).await;
        let mut function = bench.function(&diver(fields, last), compiler, spec()).await.unwrap();
        let mut shallow = bench.function(&diver("", "(unreachable)"), compiler, spec()).await.unwrap();
        let mut seen = vec![0; expected.len() + 1];
        let step = if deadline.is_some() { 37 } else { 5 };
        for depth in (deepest.saturating_sub(500)..deepest + 10).step_by(step) {
            let ended = match dive(&mut function, depth, deadline).await {
                Ok(ended) => ended,
                Err(error) => format!("{:?}: {error}", error.reason),
            };
            let exhausted = ended.contains("call stack exhausted");
            let which =
                expected.iter().position(|part| ended.contains(part)).or_else(|| exhausted.then_some(expected.len()));
            seen[which.unwrap_or_else(|| panic!("{compiler}, {depth} of {deepest}: {ended}"))] += 1;
            // Another thread than the one that trapped must not meet a lock that is never given back.
            let error = dive(&mut shallow, 1, Some(Duration::from_secs(10))).await.unwrap_err();
            assert_eq!(error.reason, Reason::Trap, "{compiler}, {depth} of {deepest}: {error}");
        }
        println!("{compiler}: {expected:?}, exhausted: {seen:?}");
        assert!(seen[..expected.len()].iter().any(|times| *times > 0), "{compiler}: it never came to what it does");
        assert_eq!(function.invoke(call(["fine"])).await.unwrap().result, "7");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_at_the_end_of_the_stack_is_only_a_trap() {
    near_the_end("", "(unreachable)", &["unreachable"], None).await;
    near_the_end("", "(drop (i32.div_u (i32.const 1) (i32.const 0)))", &["integer divide by zero"], None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_that_do_not_fit_at_the_end_of_the_stack_are_only_a_trap() {
    let fields = "(table $t 2 4 funcref) (data $d \"abc\") (elem $e func $dive)";
    for last in [
        "(memory.fill (i32.const 0) (i32.const 0) (i32.const -1))",
        "(memory.init $d (i32.const 0) (i32.const 0) (i32.const 4))",
        "(drop (table.get $t (i32.const 9)))",
        "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 2))",
    ] {
        near_the_end(fields, last, &["out of bounds"], None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_engine_does_at_the_end_of_the_stack_is_done_or_ends_the_guest() {
    let fields = "(table $t 2 4 funcref) (data $d \"abc\") (elem $e func $dive)";
    for last in [
        "(memory.fill (i32.const 0) (i32.const 0) (i32.const 100)) ",
        "(drop (memory.grow (i32.const 1))) ",
        "(drop (table.grow $t (ref.null func) (i32.const 1))) (elem.drop $e) (data.drop $d) ",
        "(drop (call $random_get (i32.const 0) (i32.const 100))) ",
    ] {
        near_the_end(fields, last, &["exit 0"], None).await;
    }
    near_the_end("", "(call $proc_exit (i32.const 3))", &["exit 3"], None).await;
}

/// Opens the engine's reserve by a call that goes well, and then wants to use it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_gets_nothing_of_the_reserve() {
    let more = "(func $more (call $more) (nop))";
    let fill = "(memory.fill (i32.const 0) (i32.const 0) (i32.const 9))";
    near_the_end(more, &format!("{fill} (call $more)"), &["call stack exhausted"], None).await;
    near_the_end(more, &format!("{fill} (unreachable)"), &["unreachable"], None).await;
    near_the_end("", &format!("{fill} (loop {fill} (br 0))"), &["Deadline"], Some(Duration::from_millis(5))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_stays_at_the_end_of_its_stack_is_stopped() {
    let deadline = Some(Duration::from_millis(5));
    near_the_end("", "(loop (br 0))", &["Deadline"], deadline).await;
    near_the_end("", "(loop (drop (call $sched_yield)) (br 0))", &["Deadline"], deadline).await;
}

/// A thousand results are put aside by sixteen kilobytes that nobody has touched yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_jumps_over_the_end_of_the_stack() {
    let many = " i64".repeat(1000);
    let numbers = "(i64.const -1)".repeat(1000);
    let drops = "(drop)".repeat(1000);
    let fields = format!("(func $wide (result{many}) {numbers})");
    near_the_end(&fields, &format!("(call $wide) {drops} "), &["exit 0", "call stack exhausted"], None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_does_not_end_a_guest_at_the_end_of_its_stack() {
    let bench = Bench::new();
    let kind = tokio::signal::unix::SignalKind::user_defined2();
    let _handled = tokio::signal::unix::signal(kind).unwrap();
    for compiler in COMPILERS {
        let deepest = deepest(&bench, compiler).await;
        let mut function = bench.function(&diver("", "(loop (br 0))"), compiler, spec()).await.unwrap();
        for depth in (deepest - 200..deepest).step_by(40) {
            let signals = async {
                for _ in 0..20 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    signal_guests(libc::SIGUSR2);
                }
            };
            let guest = dive(&mut function, depth, Some(Duration::from_millis(30)));
            let (ended, ()) = tokio::join!(guest, signals);
            let error = ended.unwrap_err();
            let expected = error.reason == Reason::Deadline || error.message.contains("call stack exhausted");
            assert!(expected, "{compiler}, {depth} of {deepest}: {:?}: {error}", error.reason);
        }
    }
}

/// Sends a signal to every thread of a guest.
#[expect(unsafe_code, reason = "signals to threads of this process")]
fn signal_guests(signal: i32) {
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let number = name.trim().strip_prefix("wasm-").is_some_and(|rest| rest.parse::<u32>().is_ok());
        if number {
            let thread: i32 = task.file_name().to_str().unwrap().parse().unwrap();
            // SAFETY: a number of a thread of this process; one that is gone is an error that nobody needs.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
        }
    }
}
