//! Modules that do not fit into themselves: segments, start functions, first functions.

use super::{End, Stage};
use runtime::InstanceSpec;
use types::Reason;

use crate::bench::wasm;
use api::Invocation;

const MEMORY: &str = "out of bounds memory access";
const TABLE: &str = "out of bounds table access";

fn trap(message: &str) -> End {
    End::Fails(Reason::Trap, message.to_owned())
}

/// A module with these fields and a `_start` that does nothing.
fn plain(fields: &str) -> String {
    format!("(module {fields} (func (export \"_start\")))")
}

/// The same with a memory, the usual imports, and this body of `_start`.
fn usual(fields: &str, body: &str) -> String {
    crate::programs::full(fields, body)
}

pub fn cases() -> Vec<(&'static str, String, End)> {
    let well = || End::Answer(String::new());
    let exits = |code| End::Exit(code);
    vec![
        ("data that fits exactly", plain("(memory 1) (data (i32.const 65534) \"ab\")"), well()),
        ("data one over the end", plain("(memory 1) (data (i32.const 65535) \"ab\")"), trap(MEMORY)),
        ("data behind the end", plain("(memory 1) (data (i32.const 65536) \"a\")"), trap(MEMORY)),
        ("data at the last address", plain("(memory 1) (data (i32.const -1) \"a\")"), trap(MEMORY)),
        ("data that wraps", plain("(memory 1) (data (i32.const -1) \"ab\")"), trap(MEMORY)),
        ("no data at the end", plain("(memory 1) (data (i32.const 65536) \"\")"), well()),
        ("no data behind the end", plain("(memory 1) (data (i32.const 65537) \"\")"), trap(MEMORY)),
        ("data for a memory without pages", plain("(memory 0) (data (i32.const 0) \"a\")"), trap(MEMORY)),
        ("no data for a memory without pages", plain("(memory 0) (data (i32.const 0) \"\")"), well()),
        ("data at a sum", plain("(memory 1) (data (i32.add (i32.const 65535) (i32.const 1)) \"a\")"), trap(MEMORY)),
        ("data at a sum that wraps", plain("(memory 1) (data (i32.add (i32.const -1) (i32.const 1)) \"a\")"), well()),
        ("data at a product", plain("(memory 1) (data (i32.mul (i32.const 65536) (i32.const 65535)) \"a\")"), trap(MEMORY)),
                ("the second of two data", plain("(memory 1) (data (i32.const 0) \"a\") (data (i32.const 65536) \"a\")"), trap(MEMORY)),
        ("data for the second memory", plain("(memory 2) (memory $m 1) (data (memory $m) (i32.const 65536) \"a\")"), trap(MEMORY)),
        ("passive data is not looked at", plain("(memory 0) (data \"abc\")"), well()),
        ("elements that fit exactly", plain("(table 2 funcref) (elem (i32.const 0) 0 0)"), well()),
        ("elements one over the end", plain("(table 2 funcref) (elem (i32.const 1) 0 0)"), trap(TABLE)),
        ("elements behind the end", plain("(table 2 funcref) (elem (i32.const 2) 0)"), trap(TABLE)),
        ("elements at the last address", plain("(table 2 funcref) (elem (i32.const -1) 0)"), trap(TABLE)),
        ("no elements behind the end", plain("(table 2 funcref) (elem (i32.const 3) func)"), trap(TABLE)),
        ("no elements at the end", plain("(table 2 funcref) (elem (i32.const 2) func)"), well()),
        ("elements for an empty table", plain("(table 0 funcref) (elem (i32.const 0) 0)"), trap(TABLE)),
        ("elements of a second table", plain("(table 9 funcref) (table $t 1 funcref) (elem (table $t) (i32.const 1) func 0)"), trap(TABLE)),
        ("null elements over the end", plain("(table 1 externref) (elem (i32.const 1) externref (ref.null extern))"), trap(TABLE)),
        ("data and elements over the end", plain("(memory 0) (table 0 funcref) (elem (i32.const 0) 0) (data (i32.const 0) \"a\")"), End::Fails(Reason::Trap, format!("{MEMORY}|{TABLE}"))),
        ("a start function that traps", plain("(func $s (unreachable)) (start $s)"), trap("unreachable")),
        ("a start function that divides by zero", plain("(func $s (drop (i32.div_u (i32.const 1) (i32.const 0)))) (start $s)"), trap("integer divide by zero")),
        ("a start function without end of its stack", plain("(func $s (call $s)) (start $s)"), trap("call stack exhausted")),
        ("a start function that looks behind memory", plain("(memory 1) (func $s (drop (i32.load (i32.const 65536)))) (start $s)"), trap(MEMORY)),
        ("a start function that grows memory", plain("(memory 0 1) (func $s (drop (memory.grow (i32.const 1))) (i32.store (i32.const 65532) (i32.const 1))) (start $s)"), well()),
        ("a start function that exits", usual("(func $s (call $proc_exit (i32.const 5))) (start $s)", "(unreachable)"), exits(5)),
        ("a start function that exits well", usual("(func $s (call $proc_exit (i32.const 0))) (start $s)", "(unreachable)"), exits(0)),
        (
            "a start function with a signal",
            r#"(module (import "wasi_snapshot_preview1" "proc_raise" (func $raise (param i32) (result i32))) (memory (export "memory") 1)
               (func $s (drop (call $raise (i32.const 6)))) (start $s) (func (export "_start") (unreachable)))"#.to_owned(),
            exits(134),
        ),
        ("a host function as the start function", r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
               (func $s (call $exit (i32.const 6))) (start $s) (func (export "_start")))"#.to_owned(), exits(6)),
        ("a first function that traps", "(module (func (export \"_initialize\") (unreachable)) (func (export \"f\")))".to_owned(), trap("unreachable")),
        ("a first function that exits", usual("(func (export \"_initialize\") (call $proc_exit (i32.const 8)))", "(unreachable)"), exits(8)),
        ("a start function before a first function", usual("(func $s (call $proc_exit (i32.const 1))) (start $s) (func (export \"_initialize\") (call $proc_exit (i32.const 2)))", ""), exits(1)),
        ("a first function that takes something", "(module (func (export \"_initialize\") (param i32) (unreachable)) (func (export \"f\")))".to_owned(), well()),
        ("an export that is a host function", r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func $y (result i32))) (memory (export "memory") 1) (export "f" (func $y)))"#.to_owned(), End::Answer("0".to_owned())),
        ("an export that is a host function that exits", r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $e (param i32))) (memory (export "memory") 1) (func (export "f") (call $e (i32.const 3))))"#.to_owned(), exits(3)),
        ("a command that is a host function", r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))) (memory (export "memory") 1) (func $f) (export "_start" (func $f)) (export "main" (func $f)))"#.to_owned(), well()),
        ("globals at their walls", plain("(global (mut i32) (i32.add (i32.const 2147483647) (i32.const 1))) (global i64 (i64.mul (i64.const -1) (i64.const -9223372036854775808)))"), well()),
        ("many exports of one function", plain(&(0..5_000).map(|index| format!("(export \"e{index}\" (func 0))")).collect::<String>()), well()),
        ("sixteen memories", plain(&"(memory 1)".repeat(16)), well()),
        ("sixty-four tables", plain(&"(table 1 funcref)".repeat(64)), well()),
    ]
}

#[tokio::test]
async fn modules_that_do_not_fit_into_themselves_end_and_nothing_else() {
    let mut stage = Stage::new().await;
    for (name, text, end) in cases() {
        // In one pass no memory without pages is compiled.
        let compilers = &super::COMPILERS[usize::from(text.contains("(memory 0"))..];
        for compiler in compilers {
            let spec = InstanceSpec { name: "guest".into(), ..InstanceSpec::default() };
            let mut function = stage.bench.function(&wasm(&text), compiler, spec).await.unwrap_or_else(|error| {
                panic!("{name}: {error}");
            });
            // Three times: the second call may find an instance, if the first one ended well.
            for _ in 0..3 {
                let ended = function.invoke(Invocation::default()).await;
                match (ended, &end) {
                    (Ok(answer), End::Answer(expected)) => assert_eq!(answer.result, *expected, "{name}"),
                    (Ok(answer), End::Exit(code)) => assert_eq!(answer.ended.exit_code, *code, "{name}"),
                    (Err(error), End::Fails(reason, parts)) => {
                        assert_eq!(error.reason, *reason, "{name}: {error}");
                        assert!(parts.split('|').any(|part| error.message.contains(part)), "{name}: {error}");
                    }
                    (ended, expected) => panic!("{name} ({compiler}) ended as {ended:?}, not {expected:?}"),
                }
                stage.echo(name).await;
            }
        }
    }
}
