//! What is refused before it runs, what the compiling child survives, what is kept.

use ::wasm::{Config, Wasm};
use runtime::{Preparation, Runtime};
use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};
use types::Reason;

use crate::{
    bench::{Bench, program, wasm},
    programs::{ECHO, command, full},
};

async fn refused(bench: &Bench, module: &[u8]) -> String {
    bench.call(module, |_| {}).await.failed(Reason::InvalidModule)
}

#[tokio::test]
async fn what_is_no_module_is_refused_with_what_it_is() {
    let bench = Bench::new();
    let echo = wasm(ECHO);
    for (bytes, expected) in [
        (&b""[..], "not a WebAssembly module: only 0 bytes"),
        (b"\0as", "not a WebAssembly module: only 3 bytes"),
        (b"\0asm", "it ends within its header"),
        (b"\x7fELF\x02\x01\x01", "it does not begin with \\0asm"),
        (b"  (module)", "it looks like the text format"),
        (b"\0asm\x0d\0\x01\0", "a component; this build runs core modules"),
        (b"\0asm\x02\0\0\0", "version 2 of the format; this build knows 1"),
        (b"\0asm\x01\0\0\0", "no exported function _start"),
        (b"\0asm\x01\0\0\0\xff\xff\xff\xff", "not a valid module"),
    ] {
        let message = refused(&bench, bytes).await;
        assert!(message.contains(expected), "{bytes:?}: {message}");
    }
    for length in (9..echo.len()).step_by(7) {
        refused(&bench, &echo[..length]).await;
    }
}

#[tokio::test]
async fn damaged_modules_are_refused_or_run_but_never_harm() {
    let bench = Bench::new();
    let echo = wasm(ECHO);
    for place in 8..echo.len() {
        let mut module = echo.clone();
        module[place] ^= 0x55;
        if wasm::scan(&module).is_ok() && place % 3 == 0 {
            let ran = bench.call(&module, |call| call.deadline = Duration::from_millis(50)).await;
            if let Err(error) = ran.outcome {
                assert_ne!(error.reason, Reason::Internal, "byte {place}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn unmet_imports_are_named_and_long_names_are_clipped() {
    let bench = Bench::new();
    let long = "x".repeat(65_000);
    let imports: String = (0..9).map(|index| format!("(import \"env\" \"f{index}\" (func))")).collect();
    for (imports, expected) in [
        ("(import \"env\" \"now\" (func))", "imports that this runtime does not have: env.now"),
        ("(import \"env\" \"memory\" (memory 1))", "env.memory"),
        ("(import \"wasi_snapshot_preview1\" \"fd_dance\" (func))", "wasi_snapshot_preview1.fd_dance"),
        (
            "(import \"wasi_snapshot_preview1\" \"fd_close\" (func (param i64) (result i32)))",
            "wasi_snapshot_preview1.fd_close (its type must be (i32) -> (i32))",
        ),
        ("(import \"wasi_snapshot_preview1\" \"fd_close\" (global i32))", "(it is a function)"),
        (
            "(import \"wasi_unstable\" \"sock_accept\" (func (param i32 i32 i32) (result i32)))",
            "wasi_unstable.sock_accept",
        ),
        (
            "(import \"wasix_32v1\" \"thread_spawn_v2\" (func))",
            "it needs WASIX (it imports wasix_32v1.thread_spawn_v2)",
        ),
        ("(import \"wasi\" \"thread-spawn\" (func))", "it needs WASIX"),
        (imports.as_str(), "env.f0, env.f1, env.f2, env.f3, env.f4 and 4 more"),
    ] {
        let message = refused(&bench, &wasm(&format!("(module {imports} (func (export \"_start\")))"))).await;
        assert!(message.contains(expected), "{message}");
    }
    let module = wasm(&format!("(module (import \"{long}\" \"{long}\" (func)) (func (export \"_start\")))"));
    let message = refused(&bench, &module).await;
    assert!(message.contains("xxx…") && message.len() < 300, "{message}");
}

#[tokio::test]
async fn a_module_that_is_no_command_is_told_what_is_missing() {
    let bench = Bench::new();
    for (wat, expected) in [
        ("(module (memory (export \"memory\") 1))", "no exported function _start"),
        ("(module (func (export \"_initialize\")))", "no exported function _start"),
        ("(module (memory (export \"_start\") 1))", "(its export _start is not a function)"),
        ("(module (func (export \"_start\") (param i32)))", "takes parameters or returns results"),
        ("(module (func (export \"_start\") (result i32) (i32.const 1)))", "takes parameters or returns results"),
        (
            "(module (import \"wasi_snapshot_preview1\" \"sched_yield\" (func (result i32))) (func (export \"_start\")))",
            "no exported memory named \"memory\"",
        ),
        ("(module (func (export \"_start\")) (func (export \"\\00start\")))", "a name that is reserved"),
        ("(module (memory 1 1 shared) (func (export \"_start\")))", "not a valid module"),
        ("(module (memory i64 1) (func (export \"_start\")))", "not a valid module"),
        ("(module (tag) (func (export \"_start\")))", "not a valid module"),
    ] {
        let message = refused(&bench, &wasm(wat)).await;
        assert!(message.contains(expected), "{wat}: {message}");
    }
}

/// `count` locals that are all needed at once.
fn live_locals(functions: usize, count: usize) -> Vec<u8> {
    let mut fields =
        String::from("(global $g (mut i32) (i32.const 1)) (func $f (param i64) (result i64) (local.get 0))\n");
    for function in 0..functions {
        write!(fields, "(func (export \"f{function}\") (result i64) (local").unwrap();
        fields.push_str(&" i64".repeat(count));
        fields.push_str(")\n");
        for index in 0..count {
            // A branch each: what is live is live in every block.
            writeln!(fields, "(if (global.get $g) (then (local.set {index} (call $f (i64.const {index})))))").unwrap();
        }
        fields.push_str("(i64.const 0)\n");
        for index in 0..count {
            writeln!(fields, "(i64.xor (local.get {index}))").unwrap();
        }
        fields.push_str(")\n");
    }
    wasm(&full(&fields, ""))
}

#[tokio::test]
async fn bombs_that_can_be_seen_are_refused_at_once() {
    let bench = Bench::new();
    let deep = "(block ".repeat(60_000) + &")".repeat(60_000);
    let types = "(type (func))".repeat(60_000);
    let memories = "(memory 1)".repeat(17);
    let table = "(block (br_table ".to_owned() + &"0 ".repeat(210_000) + "(i32.const 0)))";
    let custom = "(@custom \"c\" \"\")".repeat(2_000);
    for (module, expected) in [
        (live_locals(1, 20_000), "20000 locals in a function; the limit is 10000"),
        (wasm(&full("", &deep)), "blocks inside one another"),
        (wasm(&format!("(module {types} (func (export \"_start\")))")), "60000 types; the limit is 50000"),
        (wasm(&format!("(module {memories} (func (export \"_start\")))")), "17 memories; the limit is 16"),
        (wasm(&full("", &table)), "targets of a br_table"),
        (wasm(&format!("(module {custom} (func (export \"_start\")))")), "custom sections"),
    ] {
        let message = refused(&bench, &module).await;
        assert!(message.contains(expected), "{message}");
    }
    // A million types, as few bytes as they can be.
    let mut million = b"\0asm\x01\0\0\0\x01".to_vec();
    million.extend_from_slice(&[0xc3, 0x8d, 0xb7, 0x01, 0xc0, 0x84, 0x3d]);
    million.extend_from_slice(&[0x60, 0, 0].repeat(1_000_000));
    assert!(refused(&bench, &million).await.contains("1000000 types"));
}

#[tokio::test]
async fn a_bomb_of_processor_time_ends_with_its_child() {
    let bench = Bench::with(|config| {
        config.compile_cpu_base = Duration::from_secs(1);
        config.compile_cpu_per_megabyte = Duration::ZERO;
    });
    let message = bench.call(&live_locals(20, 5_000), |_| {}).await.failed(Reason::Compile);
    assert_eq!(message, "compiling needs more than its limit of 1 s of processor time");
    nothing_left(&bench);
    assert_eq!(bench.wat(ECHO, |call| call.body = "alive".into()).await.text(), "alive");
}

#[tokio::test]
async fn a_bomb_of_memory_ends_with_its_child() {
    let bench = Bench::with(|config| {
        config.compile_memory_bytes = 500_000_000;
        config.compile_cpu_base = Duration::from_secs(60);
    });
    let message = bench.call(&live_locals(1, 9_000), |_| {}).await.failed(Reason::Compile);
    assert_eq!(message, "compiling needs more than its limit of 500000000 bytes of memory");
    nothing_left(&bench);
    assert_eq!(bench.wat(ECHO, |call| call.body = "alive".into()).await.text(), "alive");
}

/// No half-written artifact.
fn nothing_left(bench: &Bench) {
    assert_eq!(artifacts(bench), Vec::<PathBuf>::new());
}

fn artifacts(bench: &Bench) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        fs::read_dir(bench.dir.path().join("cache")).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_child_that_cannot_be_started_is_a_fault_of_the_node() {
    let bench = Bench::with(|config| config.program = "/nonexistent/program".into());
    let message = bench.wat(ECHO, |_| {}).await.failed(Reason::Internal);
    assert_eq!(message, "the compiling process could not be run");
    let bench = Bench::with(|config| config.program = "/bin/false".into());
    assert!(bench.wat(ECHO, |_| {}).await.failed(Reason::Compile).contains("the compiler failed"));
    let bench = Bench::with(|config| config.program = "/bin/true".into());
    bench.wat(ECHO, |_| {}).await.failed(Reason::Internal);
}

#[tokio::test]
async fn a_module_over_the_size_limit_is_refused() {
    let ran = Bench::new().wat(ECHO, |call| call.limits.artifact_bytes = 100).await;
    assert_eq!(ran.failed(Reason::InvalidModule), "the module is larger than the limit of 100 bytes");
}

#[tokio::test]
async fn a_missing_file_is_a_fault_of_the_artifact() {
    use runtime::{Artifact, Limits, Runtime};
    let artifact = Artifact { digest: "0".repeat(64), path: "/nonexistent/module".into(), size: 1 };
    let error =
        Bench::new().wasm.prepare(&artifact, &runtime::Preparation::from(&Limits::default())).await.unwrap_err();
    assert_eq!(error.reason, Reason::Artifact);
}

#[tokio::test]
async fn a_module_is_compiled_once_and_found_again_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let module = wasm(&command("(call $proc_exit (i32.const 9))"));
    let bench = Bench::with(|config| config.cache_dir = cache.clone());
    let twenty = futures_util::future::join_all((0..20).map(|_| bench.prepare(&module))).await;
    assert!(twenty.into_iter().all(|made| made.is_ok()));
    let files: Vec<_> = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "one artifact, nothing half-written: {files:?}");
    // Where no compiler can be started, only the artifact on disk can help.
    let next = Bench::with(|config| {
        config.cache_dir = cache.clone();
        config.program = "/nonexistent/program".into();
    });
    assert_eq!(next.call(&module, |_| {}).await.ok().ended.exit_code, 9);
    // A damaged one does not; it is removed, and with a compiler made again.
    let mut bytes = fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&files[0], &bytes).unwrap();
    let without = Bench::with(|config| {
        config.cache_dir = cache.clone();
        config.program = "/nonexistent/program".into();
    });
    without.call(&module, |_| {}).await.failed(Reason::Internal);
    assert!(!files[0].exists());
    let with = Bench::with(|config| config.cache_dir = cache.clone());
    assert_eq!(with.call(&module, |_| {}).await.ok().ended.exit_code, 9);
    assert!(files[0].exists());
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_and_the_next_one_compiles() {
    let bench = Bench::with(|config| config.compile_cpu_base = Duration::from_secs(60));
    let module = live_locals(3, 1_500);
    let gone = tokio::time::timeout(Duration::from_millis(50), bench.prepare(&module)).await;
    assert!(gone.is_err(), "compiling this takes longer");
    bench.prepare(&module).await.unwrap();
    assert_eq!(artifacts(&bench).len(), 1);
}

#[test]
fn the_command_line_of_the_child_is_read_back() {
    let args = wasm::CompileArgs {
        input: "/a b".into(),
        output: "/c".into(),
        identity: blake3::hash(b"module"),
        compiler: wasm::Compiler::Singlepass,
        memory_bytes: 1_500_000_000,
        cpu_seconds: 7,
        behind: true,
    };
    let line = args.to_command_line();
    assert_eq!(line[0], wasm::COMPILE_COMMAND);
    assert_eq!(wasm::CompileArgs::parse(line.into_iter().skip(1)), Some(args));
    assert_eq!(wasm::CompileArgs::parse(["--input".into()]), None);
    assert_eq!(wasm::CompileArgs::parse(["--what".into(), "x".into()]), None);
}

#[test]
fn the_child_refuses_what_does_not_compile_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in"), dir.path().join("out"));
    fs::write(&input, b"\0asm\x01\0\0\0\x0a").unwrap();
    let args = wasm::CompileArgs {
        input,
        output: output.clone(),
        identity: blake3::hash(b"module"),
        compiler: wasm::Compiler::Cranelift,
        memory_bytes: 1 << 30,
        cpu_seconds: 5,
        behind: false,
    };
    let ended = std::process::Command::new(program()).args(args.to_command_line()).output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("not a valid module"), "{ended:?}");
    assert!(!output.exists());
}

#[tokio::test]
async fn a_module_over_the_limit_is_refused_also_when_its_code_is_at_hand() {
    let bench = Bench::new();
    let module = wasm(crate::programs::ECHO);
    let artifact = bench.artifact(&module);
    let asked = |artifact_bytes| Preparation { artifact_bytes, compiler: "singlepass".to_owned() };
    let (most, less) = (asked(artifact.size), asked(artifact.size - 1));
    bench.wasm.prepare(&artifact, &most).await.unwrap();
    let again = Wasm::new(Config::new(program(), bench.dir.path().join("cache"))).unwrap();
    for runtime in [&bench.wasm, &again] {
        let refused = runtime.prepare(&artifact, &less).await.unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidModule);
        assert!(refused.message.contains("larger than the limit"), "{refused}");
    }
}
