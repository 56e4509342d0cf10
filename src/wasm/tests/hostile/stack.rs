//! Guests at the end of their stack. The engine's own code runs on it too, for traps and for operations on tables and
//! memories: it must never be what meets the end, because it holds locks of the process.

use runtime::{InstanceSpec, Limits};
use std::time::Duration;
use types::Reason;

use crate::bench::{Bench, Function, call, wasm};

pub const COMPILERS: [&str; 2] = ["singlepass", "cranelift"];

/// `dive` goes as deep as it is told and then does `last`.
fn diver(fields: &str, locals: &str, last: &str) -> String {
    format!(
        r#"(module (memory (export "memory") 1) {fields}
          (func (export "fine") (result i32) (i32.const 7))
          (func $dive (export "dive") (param i32) (result i32) {locals}
            (if (i32.eqz (local.get 0)) (then {last}))
            (i32.add (i32.const 1) (call $dive (i32.sub (local.get 0) (i32.const 1))))))"#
    )
}

/// How deep `dive` comes before the stack is exhausted.
async fn depth(function: &mut Function) -> u32 {
    let (mut fits, mut over) = (0, 1 << 20);
    while over - fits > 1 {
        let middle = fits + (over - fits) / 2;
        let error = function.invoke(call(["dive", &middle.to_string()])).await.unwrap_err();
        assert_eq!(error.reason, Reason::Trap, "{error}");
        if error.message.contains("call stack exhausted") { over = middle } else { fits = middle }
    }
    fits
}

async fn every_depth_near_the_end(fields: &str, locals: &str, last: &str, expected: &str) {
    let bench = Bench::with(|config| config.concurrency = 2);
    let module = wasm(&diver(fields, locals, last));
    let shallow = wasm(&diver("", "", "(unreachable)"));
    for compiler in COMPILERS {
        let limits = Limits { stack_bytes: 256 << 10, wall: Duration::from_secs(20), ..Limits::default() };
        let spec = InstanceSpec { name: "diver".into(), limits, ..InstanceSpec::default() };
        let mut function = bench.function(&module, compiler, spec).await.unwrap();
        let deepest = depth(&mut function).await;
        assert!(deepest > 100, "{compiler}: {deepest}");
        for depth in deepest.saturating_sub(600)..deepest + 20 {
            let error = function.invoke(call(["dive", &depth.to_string()])).await.unwrap_err();
            assert_eq!(error.reason, Reason::Trap, "{compiler} {depth} of {deepest}: {error}");
            let known = error.message.contains(expected) || error.message.contains("call stack exhausted");
            assert!(known, "{compiler} {depth}: {error}");
            // Another thread than the one that trapped must not meet a lock that is never given back.
            let other = bench.call(&shallow, |call| call.args = vec!["dive".into(), "1".into()]).await;
            other.failed(Reason::Trap);
        }
        assert_eq!(function.invoke(call(["fine"])).await.unwrap().result, "7");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_at_the_end_of_the_stack_is_only_a_trap() {
    every_depth_near_the_end("", "", "(unreachable)", "unreachable").await;
}
