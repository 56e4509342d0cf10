//! Directories that a function is granted, and a scratch directory of each call, as programs in C use them.

use runtime::{Answer, Directory, Grants, InstanceSpec, InvokeError, Limits, LogBuffer, Scratch, Streams};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    time::Duration,
};
use types::{Reason, SystemClock};

use crate::bench::{Bench, call, wasm};
use api::{Body, Invocation};

/// A case of samples/wasi-c, built by the Makefile.
fn case(name: &str) -> Vec<u8> {
    static BUILD: OnceLock<tempfile::TempDir> = OnceLock::new();
    let build = BUILD.get_or_init(|| {
        let build = tempfile::tempdir().unwrap();
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
        let made = Command::new("make").arg("-C").arg(samples).arg("wasi").arg(build_argument(build.path())).output();
        let made = made.expect("make is installed");
        assert!(made.status.success(), "samples/Makefile failed: {}", String::from_utf8_lossy(&made.stderr));
        build
    });
    fs::read(build.path().join(format!("wasi/{name}.wasm"))).unwrap()
}

fn build_argument(build: &Path) -> String {
    format!("BUILD={}", build.display())
}

fn scratch(bytes: u64, entries: u64) -> Grants {
    Grants { scratch: Some(Scratch { guest: "/data".to_owned(), bytes, entries }), ..Grants::default() }
}

fn granted(host: &Path, writable: bool) -> Grants {
    let directory = Directory { host: host.to_owned(), guest: "/data".to_owned(), writable };
    Grants { directories: vec![directory], ..Grants::default() }
}

/// Calls a module with grants; what it wrote to standard error comes with an exit code that is not 0.
async fn run(bench: &Bench, module: &[u8], grants: Grants, body: impl Into<Body>) -> Result<Answer, InvokeError> {
    let limits = Limits { wall: Duration::from_secs(60), cpu: Duration::from_secs(60), ..Limits::default() };
    let spec = InstanceSpec { name: "guest".to_owned(), grants, limits, ..InstanceSpec::default() };
    let mut function = bench.function(module, "singlepass", spec).await.unwrap();
    let (logs, buffer) = LogBuffer::new(Arc::new(SystemClock::new()), 1 << 20, 1);
    let streams = Streams { logs, logs_stdout: false, reply: None };
    let answer = function.invoke_with(Invocation::new(body), streams).await;
    if answer.as_ref().is_ok_and(|answer| answer.ended.exit_code != 0) {
        let lines: Vec<_> = buffer.drain().into_iter().map(|line| line.message).collect();
        panic!("{answer:?}\n{}", lines.join("\n"));
    }
    answer
}

const FINE: &str = "all as it should be\n";

#[tokio::test]
async fn programs_in_c_do_with_files_what_they_do_elsewhere() {
    let bench = Bench::new();
    for name in ["files", "directories"] {
        let answer = run(&bench, &case(name), scratch(100 << 20, 2000), Body::EMPTY).await.unwrap();
        assert_eq!(answer.result, FINE, "{name}, in a scratch directory");
        let dir = tempfile::tempdir().unwrap();
        let answer = run(&bench, &case(name), granted(dir.path(), true), Body::EMPTY).await.unwrap();
        assert_eq!(answer.result, FINE, "{name}, in a granted one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "they leave nothing behind");
    }
}

#[tokio::test]
async fn a_scratch_directory_is_full_when_its_bounds_say_so() {
    let bench = Bench::new();
    let answer = run(&bench, &case("full"), scratch(100_000, 10), Body::EMPTY).await.unwrap();
    assert_eq!(answer.result, FINE);
}

#[tokio::test]
async fn programs_in_c_wait_for_time_and_input() {
    let bench = Bench::new();
    assert_eq!(run(&bench, &case("waiting"), Grants::default(), "now").await.unwrap().result, FINE);
}

/// Makes a file in its directory and exits with the error number of that.
const MAKER: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "file")
  (func (export "_start")
    (call $proc_exit (call $path_open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 4)
      (i32.const 5) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 200)))))"#;

/// Its exit codes, call after call of one function.
async fn codes(bench: &Bench, grants: Grants, calls: usize) -> Vec<i32> {
    let spec = InstanceSpec { name: "guest".to_owned(), grants, ..InstanceSpec::default() };
    let mut function = bench.function(&wasm(MAKER), "singlepass", spec).await.unwrap();
    let mut codes = Vec::new();
    for _ in 0..calls {
        codes.push(function.invoke(call([])).await.unwrap().ended.exit_code);
    }
    codes
}

#[tokio::test]
async fn a_scratch_directory_is_empty_for_each_call_and_gone_after_it() {
    let room = tempfile::tempdir().unwrap();
    let path: PathBuf = room.path().join("scratch");
    let bench = Bench::with(|config| config.scratch_dir.clone_from(&path));
    assert_eq!(codes(&bench, scratch(1000, 1), 3).await, [0, 0, 0], "what one call made the next does not find");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_granted_to_be_read_is_not_changed() {
    const EXIST: i32 = 20;
    const PERM: i32 = 63;
    const BADF: i32 = 8;
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(codes(&bench, granted(dir.path(), false), 2).await, [PERM, PERM]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(codes(&bench, granted(dir.path(), true), 2).await, [0, EXIST], "what is granted stays");
    assert_eq!(codes(&bench, Grants::default(), 1).await, [BADF], "without a grant there is no directory");
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named() {
    let bench = Bench::new();
    let spec = InstanceSpec { grants: granted(Path::new("/no/such/place"), true), ..InstanceSpec::default() };
    let mut function = bench.function(&wasm(MAKER), "singlepass", spec).await.unwrap();
    let error = function.invoke(call([])).await.unwrap_err();
    assert_eq!(error.reason, Reason::Task);
    assert!(error.message.contains("/no/such/place"), "{error}");
}
