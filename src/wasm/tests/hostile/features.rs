//! What guests may not use is refused before anything is compiled, by its name.

use super::Stage;
use types::Reason;

use crate::bench::wasm;

/// A name, a module, and a part of the refusal.
pub fn off() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |fields: &str, body: &str| wasm(&format!("(module {fields} (func $f (export \"_start\") {body}))"));
    let shared = "(memory 1 1 shared)";
    vec![
        ("shared memory", with(shared, ""), "threads must be enabled for shared memories"),
        ("atomic load", with("(memory 1)", "(drop (i32.atomic.load (i32.const 0)))"), "threads support is not enabled"),
        (
            "atomic add",
            with("(memory 1)", "(drop (i64.atomic.rmw.add (i32.const 0) (i64.const 1)))"),
            "threads support is not enabled",
        ),
        (
            "waiting",
            with("(memory 1)", "(drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))"),
            "threads support is not enabled",
        ),
        (
            "notifying",
            with("(memory 1)", "(drop (memory.atomic.notify (i32.const 0) (i32.const 1)))"),
            "threads support is not enabled",
        ),
        ("fence", with("", "(atomic.fence)"), "threads support is not enabled"),
        ("tag", with("(tag)", ""), "exceptions proposal not enabled"),
        ("throw", with("(tag $t)", "(throw $t)"), "exceptions"),
        ("try_table", with("", "(block (try_table (catch_all 0) (nop)))"), "exceptions support is not enabled"),
        ("exnref", with("(global (ref null exn) (ref.null exn))", ""), "exception refs not supported"),
        ("memory of 64 bits", with("(memory i64 1)", ""), "memory64 must be enabled for 64-bit memories"),
        ("table of 64 bits", with("(table i64 1 funcref)", ""), "memory64 must be enabled for 64-bit tables"),
        ("tail call", with("", "(return_call $f)"), "tail calls support is not enabled"),
        (
            "tail call through a table",
            with("(table 1 funcref)", "(return_call_indirect (i32.const 0))"),
            "tail calls support is not enabled",
        ),
        ("struct", with("(type (struct (field i32)))", ""), "without the gc feature"),
        ("array", with("(type (array i8))", ""), "without the gc feature"),
        ("recursive types", with("(rec (type (func)) (type (func)))", ""), "requires `gc` proposal"),
        ("i31", with("", "(drop (ref.i31 (i32.const 1)))"), "gc support is not enabled"),
        ("any", with("(global anyref (ref.null any))", ""), "gc"),
        (
            "typed references",
            with("(type $t (func)) (global (ref null $t) (ref.null $t))", ""),
            "function-references proposal must be enabled|function references",
        ),
        (
            "call by reference",
            with("(type $t (func))", "(call_ref $t (ref.null $t))"),
            "function references|function-references",
        ),
        ("pages of one byte", with("(memory 1 (pagesize 1))", ""), "custom page sizes"),
        (
            "128 bits",
            with("", "(i64.add128 (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1)) (drop) (drop)"),
            "wide arithmetic support is not enabled",
        ),
        (
            "stack switching",
            with("(type $f (func)) (type (cont $f))", ""),
            "stack-switching|stack switching|continuation",
        ),
        (
            "memory control",
            with("(memory 1)", "(memory.discard (i32.const 0) (i32.const 65536))"),
            "memory control support is not enabled",
        ),
        ("a component", b"\0asm\x0d\0\x01\0".to_vec(), "a component; this build runs core modules"),
        ("a component's text made binary", wasm("(component)"), "a component; this build runs core modules"),
        (
            "WASIX",
            wasm(
                "(module (import \"wasix_32v1\" \"thread_spawn_v2\" (func (param i32) (result i32))) (func (export \"_start\")))",
            ),
            "it needs WASIX (it imports wasix_32v1.thread_spawn_v2)",
        ),
        (
            "wasi threads",
            wasm(
                "(module (import \"wasi\" \"thread-spawn\" (func (param i32) (result i32))) (func (export \"_start\")))",
            ),
            "it needs WASIX",
        ),
        (
            "an imported memory",
            wasm("(module (import \"env\" \"memory\" (memory 1)) (func (export \"_start\")))"),
            "imports that this runtime does not have: env.memory",
        ),
        (
            "an imported table",
            wasm("(module (import \"env\" \"table\" (table 1 funcref)) (func (export \"_start\")))"),
            "env.table",
        ),
        (
            "an imported global",
            wasm("(module (import \"env\" \"g\" (global (mut i32))) (func (export \"_start\")))"),
            "env.g",
        ),
        (
            "a later preview",
            wasm("(module (import \"wasi:cli/run@0.2.0\" \"run\" (func)) (func (export \"_start\")))"),
            "wasi:cli/run@0.2.0.run",
        ),
        (
            "the runtime's own export",
            wasm("(module (func (export \"_start\")) (func (export \"\\00start\")))"),
            "a name that is reserved",
        ),
    ]
}

#[tokio::test]
async fn what_guests_may_not_use_is_refused_by_its_name() {
    let mut stage = Stage::new().await;
    let mut wrong = Vec::new();
    for (name, module, parts) in off() {
        for compiler in ["", "singlepass", "cranelift"] {
            let refused = stage.bench.function(&module, compiler, runtime::InstanceSpec::default()).await;
            let error = refused.err().unwrap_or_else(|| panic!("{name} is accepted"));
            assert_eq!(error.reason, Reason::InvalidModule, "{name}: {error}");
            if !parts.split('|').any(|part| error.message.contains(part)) {
                wrong.push(format!("{name}: {error}"));
            }
            assert!(!error.message.contains('\n') && error.message.len() < 400, "{name}: {error}");
        }
        stage.echo(name).await;
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn what_guests_may_use_is_accepted() {
    let stage = Stage::new().await;
    let with = |fields: &str, body: &str| wasm(&format!("(module {fields} (func $f (export \"_start\") {body}))"));
    for (name, module, compilers) in [
        (
            "many memories",
            with("(memory 1) (memory 1)", "(memory.copy 0 1 (i32.const 0) (i32.const 0) (i32.const 9))"),
            &super::COMPILERS[..],
        ),
        (
            "many results",
            with("(func $two (result i32 i64) (i32.const 1) (i64.const 2))", "(call $two) (drop) (drop)"),
            &super::COMPILERS[..],
        ),
        (
            "blocks with parameters",
            with("", "(i32.const 1) (block (param i32) (result i32 i32) (i32.const 2)) (drop) (drop)"),
            &super::COMPILERS[..],
        ),
        ("sign extension", with("", "(drop (i32.extend8_s (i32.const 255)))"), &super::COMPILERS[..]),
        (
            "references",
            with("(table 1 externref)", "(drop (ref.is_null (table.get 0 (i32.const 0))))"),
            &super::COMPILERS[..],
        ),
        ("a sum in a global", with("(global i32 (i32.add (i32.const 1) (i32.const 2)))", ""), &super::COMPILERS[..]),
        (
            "vectors",
            with("", "(drop (i32x4.add (v128.const i64x2 1 2) (v128.const i64x2 3 4)))"),
            &["", "cranelift"][..],
        ),
        (
            "relaxed vectors",
            with(
                "",
                "(drop (f32x4.relaxed_madd (v128.const i64x2 1 2) (v128.const i64x2 3 4) (v128.const i64x2 3 4)))",
            ),
            &["", "cranelift"][..],
        ),
    ] {
        for compiler in compilers {
            let mut function =
                stage.bench.function(&module, compiler, runtime::InstanceSpec::default()).await.unwrap_or_else(
                    |error| {
                        panic!("{name} ({compiler}): {error}");
                    },
                );
            function
                .invoke(api::Invocation::default())
                .await
                .unwrap_or_else(|error| panic!("{name} ({compiler}): {error}"));
        }
    }
}

/// Its code would reach the whole process: see `engine.rs`.
#[tokio::test]
async fn a_memory_without_a_page_is_not_compiled_in_one_pass() {
    let mut stage = Stage::new().await;
    for memories in ["(memory 0)", "(memory 0 0)", "(memory 0 1)", "(memory 1) (memory 0)"] {
        let module = wasm(&format!(
            "(module {memories} (func (export \"f\") (param i32) (result i32) (i32.load8_u (local.get 0))))"
        ));
        let refused = stage.bench.function(&module, "singlepass", runtime::InstanceSpec::default()).await;
        let error = refused.err().unwrap_or_else(|| panic!("{memories} is compiled"));
        assert_eq!(error.reason, Reason::Compile, "{memories}: {error}");
        assert!(error.message.contains("a memory that begins without a page needs the compiler cranelift"), "{error}");
        let mut function = stage.bench.function(&module, "", runtime::InstanceSpec::default()).await.unwrap();
        for address in ["65536", "1000000", "134217728", "2147483648", "-1"] {
            let error = function.invoke(crate::bench::call(["f", address])).await.unwrap_err();
            assert!(error.message.contains("out of bounds memory access"), "{memories} {address}: {error}");
        }
        stage.echo(memories).await;
    }
}

#[tokio::test]
async fn vectors_are_refused_by_the_compiler_that_does_not_know_them() {
    let mut stage = Stage::new().await;
    let module =
        wasm("(module (func (export \"_start\") (drop (i32x4.add (v128.const i64x2 1 2) (v128.const i64x2 3 4)))))");
    let refused = stage.bench.function(&module, "singlepass", runtime::InstanceSpec::default()).await;
    let error = refused.err().expect("singlepass knows no vectors");
    assert_eq!(error.reason, Reason::Compile, "{error}");
    assert!(error.message.starts_with("the module does not compile"), "{error}");
    stage.echo("vectors").await;
}
