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
    fn fail_7(&self) -> Vec<u8> {
        wasm(&command("(call $proc_exit (i32.const 7))"))
    }
    fn trap(&self) -> Vec<u8> {
        wasm(&command("(unreachable)"))
    }
    fn endless(&self) -> Vec<u8> {
        wasm(&command("(loop (br 0))"))
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
    runtime::conformance::run(&bench.wasm, &Programs, &dir).await;
}
