//! What ordinary guests see.

use futures_util::{StreamExt, stream};
use runtime::Runtime;
use std::{sync::Arc, time::Duration};
use types::Reason;

use crate::{
    bench::{Bench, wasm},
    programs::{ECHO, command, full},
};

#[tokio::test]
async fn the_fingerprint_names_engine_compiler_and_interfaces() {
    let print = Bench::new().wasm.fingerprint().await;
    assert!(print.available);
    assert_eq!(print.version, "7.4.2");
    assert_eq!(print.details["compiler"], "singlepass, then cranelift");
    assert_eq!(print.details["wasi"], "wasi_snapshot_preview1, wasi_unstable");
}

#[tokio::test]
async fn arguments_environment_and_name_reach_the_guest() {
    // Writes argv and environ, one after the other.
    let wat = r#"(module
      (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start")
        (drop (call $args_sizes (i32.const 0) (i32.const 4)))
        (drop (call $args (i32.const 1000) (i32.const 4096)))
        (drop (call $env_sizes (i32.const 8) (i32.const 12)))
        (drop (call $env (i32.const 2000) (i32.add (i32.const 4096) (i32.load (i32.const 4)))))
        (i32.store (i32.const 16) (i32.const 4096))
        (i32.store (i32.const 20) (i32.add (i32.load (i32.const 4)) (i32.load (i32.const 12))))
        (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))))"#;
    let bench = Bench::new();
    let ran = bench.wat(wat, |call| {
        call.args = vec!["one".into(), "zwei drei".into()];
        call.env = [("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())].into();
    });
    assert_eq!(ran.await.text(), "guest\0one\0zwei drei\0A=1\0B=2\0");
}

#[tokio::test]
async fn output_is_both_result_and_log_and_errors_are_log_alone() {
    let wat = full(
        r#"(data (i32.const 100) "out\n") (data (i32.const 200) "err\n")"#,
        "(i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 4))
         (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
         (i32.store (i32.const 0) (i32.const 200))
         (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))",
    );
    let ran = Bench::new().wat(&wat, |_| {}).await;
    let lines: Vec<_> = ran.lines.iter().map(|line| format!("{}: {}", line.stream.as_str(), line.message)).collect();
    assert_eq!(lines, ["stdout: out", "stderr: err"]);
    let outcome = ran.ok();
    assert_eq!(outcome.result, "out\n");
    assert_eq!(outcome.ended.exit_code, 0);
    assert!(outcome.ended.usage.wall > Duration::ZERO);
    assert_eq!(outcome.ended.usage.peak_memory_bytes, 2 * 65_536);
}

#[tokio::test]
async fn exit_codes_are_kept_whole() {
    let bench = Bench::new();
    for (code, expected) in [(0, 0), (1, 1), (7, 7), (255, 255), (70_000, 70_000), (-1, -1)] {
        let ran = bench.wat(&command(&format!("(call $proc_exit (i32.const {code}))")), |_| {}).await;
        assert_eq!(ran.ok().ended.exit_code, expected);
    }
}

#[tokio::test]
async fn large_input_goes_through_in_order() {
    let bench = Bench::new();
    let input: Vec<u8> = (0..3_000_000u32).flat_map(|number| number.to_le_bytes()).take(3_000_000).collect();
    let pieces: Vec<_> = input.chunks(70_001).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect();
    let ran = bench.wat(ECHO, |call| {
        call.body = api::Body::stream(stream::iter(pieces));
        call.limits.stdout_bytes = 4_000_000;
    });
    assert!(ran.await.ok().result == input, "3 MB in 43 pieces come back as they were");
}

#[tokio::test]
async fn an_input_that_breaks_off_ends_the_guest() {
    let bench = Bench::new();
    let broken = stream::iter([Ok("half".into()), Err(std::io::Error::other("connection reset"))]).boxed();
    let message = bench.wat(ECHO, |call| call.body = api::Body::Stream(broken)).await.failed(Reason::Cancelled);
    assert_eq!(message, "the input broke off: connection reset");
}

#[tokio::test]
async fn an_input_nobody_reads_does_not_keep_the_guest() {
    let bench = Bench::new();
    let endless = stream::repeat_with(|| Ok(vec![0u8; 100_000].into())).boxed();
    assert_eq!(bench.wat(&command(""), |call| call.body = api::Body::Stream(endless)).await.ok().ended.exit_code, 0);
}

#[tokio::test]
async fn traps_say_what_and_where() {
    let bench = Bench::new();
    for (body, expected) in [
        ("(unreachable)", "unreachable"),
        ("(drop (i32.load (i32.const -4)))", "out of bounds memory access"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "integer divide by zero"),
        ("(call_indirect (i32.const 0))", "uninitialized element"),
    ] {
        let wat = full("(table 1 funcref) (func $inner (export \"inner\") (nop))", body);
        let message = bench.wat(&wat, |_| {}).await.failed(Reason::Trap);
        assert!(message.contains(expected), "{message}");
    }
    let message = bench.wat(include_str!("../../../samples/wat/trap.wat"), |_| {}).await.failed(Reason::Trap);
    assert_eq!(message, "unreachable (in function deliberately)");
}

#[tokio::test]
async fn the_start_function_runs_first_and_may_call_the_host() {
    let wat = full(
        r#"(data (i32.const 100) "start ")
           (func $begin
             (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 6))
             (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
           (start $begin)"#,
        "(call $begin)",
    );
    let bench = Bench::new();
    assert_eq!(bench.wat(&wat, |_| {}).await.text(), "start start ");
    let exits = full("(func $begin (call $proc_exit (i32.const 5))) (start $begin)", "(unreachable)");
    assert_eq!(bench.wat(&exits, |_| {}).await.ok().ended.exit_code, 5);
    let traps = full("(func $begin (unreachable)) (start $begin)", "");
    bench.wat(&traps, |_| {}).await.failed(Reason::Trap);
}

#[tokio::test]
async fn memory_is_fresh_in_every_call() {
    let bench = Bench::new();
    let wat = full(
        "(global $count (mut i32) (i32.const 0))",
        "(if (i32.or (i32.load (i32.const 100)) (global.get $count)) (then (call $proc_exit (i32.const 1))))
         (i32.store (i32.const 100) (i32.const 1)) (global.set $count (i32.const 1))",
    );
    for _ in 0..3 {
        assert_eq!(bench.wat(&wat, |_| {}).await.ok().ended.exit_code, 0, "nothing is left of the call before");
    }
}

#[tokio::test]
async fn one_instance_can_be_called_again() {
    use runtime::{InstanceSpec, Limits, LogBuffer, Streams};
    use std::sync::Arc;
    let bench = Bench::new();
    let module = crate::bench::wasm(ECHO);
    let prepared =
        bench.wasm.prepare(&bench.artifact(&module), &runtime::Preparation::from(&Limits::default())).await.unwrap();
    let (sink, _buffer) = LogBuffer::new(Arc::new(types::SystemClock::new()), 1000, 1);
    let spec = Arc::new(InstanceSpec { name: "guest".into(), ..InstanceSpec::default() });
    let mut instance = bench.wasm.start(&prepared, &spec).await.unwrap();
    for text in ["one", "two"] {
        let answer = instance.invoke(api::Invocation::new(text), Streams::logged(sink.clone())).await.unwrap();
        assert_eq!(answer.result, text);
        assert!(instance.reusable());
    }
}

#[tokio::test]
async fn the_older_interface_is_served_too() {
    let wat = r#"(module
      (import "wasi_unstable" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "\10\00\00\00\03\00\00\00") (data (i32.const 16) "old")
      (func (export "_start") (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
    assert_eq!(Bench::new().wat(wat, |_| {}).await.text(), "old");
}

/// A clock of the host that fails when it is asked.
struct Broken;

impl types::Clock for Broken {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn wall(&self) -> types::Timestamp {
        panic!("no clock")
    }
}

#[tokio::test]
async fn a_panic_in_a_host_function_fails_that_call_and_nothing_else() {
    let bench = Bench::with(|config| config.clock = Arc::new(Broken));
    let asking = wasm(
        r#"(module
          (import "wasi_snapshot_preview1" "clock_time_get" (func $now (param i32 i64 i32) (result i32)))
          (memory (export "memory") 1)
          (func (export "_start") (drop (call $now (i32.const 0) (i64.const 1) (i32.const 8)))))"#,
    );
    let other = wasm(r#"(module (memory (export "memory") 1) (func (export "_start")))"#);
    for _ in 0..20 {
        let message = bench.call(&asking, |_| {}).await.failed(Reason::Internal);
        assert!(message.contains("failed while the guest ran"), "{message}");
        assert_eq!(bench.call(&other, |_| {}).await.ok().ended.exit_code, 0);
    }
}
