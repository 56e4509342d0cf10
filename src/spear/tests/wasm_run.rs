//! `spear wasm run`: bytes go in and come out, and the exit code is the guest's.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Output, Stdio},
};

use crate::support::{guest, sample, spear};

/// Runs a module in a directory.
fn run(dir: &Path, flags: &[&str], module: &[u8], input: &[u8]) -> Output {
    std::fs::write(dir.join("guest.wasm"), module).unwrap();
    let mut command = spear(dir);
    command.args(["wasm", "run", "--compiler", "singlepass"]).args(flags).arg("guest.wasm").args(["one", "two"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn standard_input_and_output_are_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let input: Vec<u8> = (0..300_000u32).map(|number| (number * 7 % 256) as u8).collect();
    let output = run(dir.path(), &[], &sample("echo"), &input);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == input, "{} bytes of {}", output.stdout.len(), input.len());
}

#[test]
fn how_a_guest_ends_is_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let exit = guest(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1)
          (func (export "_start") (call $exit (i32.const 33))))"#,
    );
    assert_eq!(text(&run(dir.path(), &[], &exit, b"")), (Some(33), String::new(), String::new()));
    let (code, out, error) = text(&run(dir.path(), &[], &sample("trap"), b""));
    assert_eq!((code, &*out), (Some(134), ""));
    assert!(error.starts_with("spear: guest.wasm: unreachable") && error.ends_with('\n'), "{error}");
    let (code, _, error) = text(&run(dir.path(), &["--timeout", "200ms"], &sample("spin"), b""));
    assert_eq!(code, Some(124), "{error}");
    let (code, _, error) = text(&run(dir.path(), &[], b"no module", b""));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.starts_with("spear: guest.wasm is neither"), "{error}");
}

#[test]
fn what_is_written_comes_before_the_guest_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("guest.wasm"), sample("echo")).unwrap();
    let mut command = spear(dir.path());
    command.args(["wasm", "run", "guest.wasm"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for piece in [b"first", b"other"] {
        stdin.write_all(piece).unwrap();
        stdin.flush().unwrap();
        let mut back = [0; 5];
        stdout.read_exact(&mut back).unwrap();
        assert_eq!(&back, piece);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_directory_is_seen_under_its_name_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let rooms = dir.path().join("rooms");
    std::fs::create_dir_all(dir.path().join("granted")).unwrap();
    std::fs::create_dir(&rooms).unwrap();
    let making = wat::parse_str(
        r#"(module
          (import "wasi_snapshot_preview1" "path_create_directory" (func $make (param i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $name (param i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "\08\00\00\00\05\00\00\00")
          (data (i32.const 100) "made")
          (func (export "_start")
            (drop (call $make (i32.const 3) (i32.const 100) (i32.const 4)))
            (drop (call $name (i32.const 3) (i32.const 8) (i32.const 5)))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 50)))))"#,
    )
    .unwrap();
    std::fs::write(dir.path().join("guest.wasm"), making).unwrap();
    let mut command = spear(dir.path());
    let output = command.env("TMPDIR", &rooms).args(["wasm", "run", "--dir", "granted::/data", "guest.wasm"]).output();
    assert_eq!(text(&output.unwrap()), (Some(0), "/data".to_owned(), String::new()));
    assert!(dir.path().join("granted/made").is_dir());
    assert_eq!(std::fs::read_dir(rooms).unwrap().count(), 0);
}
