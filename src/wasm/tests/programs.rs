//! Guests in the text format, and the conformance suite that every runtime runs.

use crate::bench::{Bench, wasm};

pub const ECHO: &str = include_str!("../../../samples/wat/echo.wat");

/// A command with the usual imports, a memory of one page and this body.
pub fn command(body: &str) -> String {
    full("", body)
}

/// The same with more fields of the module.
pub fn full(fields: &str, body: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
          (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "sched_yield" (func $sched_yield (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
          (memory (export "memory") 2)
          {fields}
          (func (export "_start") {body}))"#
    )
}

struct Programs;

impl runtime::conformance::Programs for Programs {
    fn echo(&self) -> Vec<u8> {
        wasm(ECHO)
    }
    fn fail(&self, code: u8) -> Vec<u8> {
        wasm(&command(&format!("(call $proc_exit (i32.const {code}))")))
    }
    fn trap(&self) -> Vec<u8> {
        wasm(&command("(unreachable)"))
    }
    fn endless(&self) -> Vec<(&'static str, Vec<u8>)> {
        let asleep = "(i32.store8 (i32.const 8) (i32.const 0)) (i64.store (i32.const 24) (i64.const 3600000000000))
             (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))";
        let in_host = "(loop (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 0))) (br 0))";
        let growing = "(loop (drop (memory.grow (i32.const 1))) (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br 0))";
        let reading = "(i32.store (i32.const 4) (i32.const 100))
             (loop (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))";
        [
            ("loop", command("(loop (br 0))")),
            ("table", command("(loop (br_table 0 0 0 (i32.const 1)))")),
            ("start", full("(start $s) (func $s (loop (br 0)))", "")),
            ("call", full("(func $f (param i32)) (func $g (loop (call $f (i32.const 1)) (br 0)))", "(call $g)")),
            ("host", command(in_host)),
            ("growing", command(growing)),
            ("asleep", command(asleep)),
            ("reading-the-end", command(reading)),
        ]
        .map(|(place, text)| (place, wasm(&text)))
        .into()
    }
    fn hungry(&self) -> Vec<u8> {
        wasm(&command("(if (i32.eq (memory.grow (i32.const 2000)) (i32.const -1)) (then unreachable))"))
    }
    fn deep(&self) -> Vec<u8> {
        wasm(&full("(func $f (call $f))", "(call $f)"))
    }
    fn flood(&self) -> Vec<u8> {
        wasm(&command(
            "(i32.store (i32.const 4) (i32.const 60000))
             (loop (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))",
        ))
    }
    fn garbage(&self) -> Vec<u8> {
        b"this is not a module".to_vec()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wasm_runtime_conforms() {
    let bench = Bench::new();
    let dir = bench.dir.path().join("suite");
    std::fs::create_dir(&dir).unwrap();
    runtime::conformance::run(std::sync::Arc::new(bench.wasm.clone()), &Programs, &dir).await;
}
