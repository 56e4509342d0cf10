//! Output without end, input without sense, arguments by the megabyte, and readers that do not read.

use super::{End, Group, Stage};
use futures_util::FutureExt;
use runtime::{InstanceSpec, Limits, Streams, reply};
use std::{collections::BTreeMap, time::Duration};
use types::Reason;

use crate::{
    bench::{Bench, call, wasm},
    programs::command,
};
use api::Invocation;

/// Writes the bytes at 64, that many, to a stream, again and again.
fn flood(stream: u32, bytes: u32, rounds: &str) -> String {
    format!(
        "(local i32) (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const {bytes}))
         (loop (drop (call $fd_write (i32.const {stream}) (i32.const 0) (i32.const 1) (i32.const 8)))
           (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const {rounds}))))"
    )
}

fn floods() -> Group {
    let mut group = Group::new("floods", "");
    group.limits = Limits { stdout_bytes: 10_000, stderr_bytes: 10_000, ..group.limits };
    let over = || End::Fails(Reason::Output, "standard output is over its limit of 10000 bytes".to_owned());
    group.ends("without end", &flood(1, 1000, "-1"), over());
    group.ends("one byte at a time", &flood(1, 1, "-1"), over());
    group.ends("one byte too many", &flood(1, 1, "10001"), over());
    group.ends("ten bytes too many", &flood(1, 1001, "10"), over());
    group.ends("in one piece", &flood(1, 100_000, "1"), over());
    group.ends("to the limit", &format!("{} (call $proc_exit (i32.const 9))", flood(1, 1000, "10")), End::Exit(9));
    group.ends(
        "to the log without end, then an exit",
        &format!("{} (call $proc_exit (i32.const 9))", flood(2, 100_000, "50")),
        End::Exit(9),
    );
    group.ends(
        "to both",
        "(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 100))
         (loop (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
           (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))",
        over(),
    );
    group.ends("caught by a guest that goes on", &format!("{} (loop (br 0))", flood(1, 20_000, "1")), over());
    group.ends(
        "to what is no stream",
        &format!("{} (call $proc_exit (i32.const 1))", flood(7, 100, "1000")),
        End::Exit(1),
    );
    group.ends(
        "to standard input",
        &format!("{} (call $proc_exit (i32.const 1))", flood(0, 100, "1000")),
        End::Exit(1),
    );
    group
}

pub fn groups() -> Vec<Group> {
    vec![floods()]
}

#[tokio::test]
async fn floods_end_at_their_limit() {
    super::run(groups()).await;
}

#[tokio::test]
async fn arguments_and_variables_by_the_megabyte_are_refused_or_arrive() {
    let mut stage = Stage::new().await;
    let module = wasm(&floods().text());
    let mut function = stage.bench.function(&module, "singlepass", InstanceSpec::default()).await.unwrap();
    let big = "x".repeat(3 << 20);
    let many: Vec<String> = (0..20_000).map(|index| index.to_string()).collect();
    let env = |name: &str, value: &str| {
        let env = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        Invocation { env, ..call(["fine"]) }
    };
    let variables = (0..20_000).map(|index| (format!("N{index}"), String::new())).collect();
    for (what, invocation, expected) in [
        ("a long argument", call(["fine", &big]), "the limits are 2097152 bytes and 16384 strings each"),
        ("many arguments", call(many.iter().map(String::as_str)), "the limits are"),
        ("a zero byte", call(["fine", "a\0b"]), "args[2]: has a zero byte"),
        ("a long variable", env("BIG", &big), "the limits are"),
        ("a name with =", env("A=B", "c"), "is not a variable's name"),
        ("an empty name", env("", "c"), "is not a variable's name"),
        ("a zero byte in a variable", env("A", "b\0c"), "has a zero byte"),
        ("many variables", Invocation { env: variables, ..call(["fine"]) }, "the limits are"),
        ("a function that is not there", call(["nothing"]), "no function nothing"),
        ("a function of the runtime's own", call(["\u{1}start"]), "no function"),
        ("parameters too many", call(["fine", "1"]), "fine takes (), not 1 parameters"),
    ] {
        let error = function.invoke(invocation).await.expect_err(what);
        assert_eq!(error.reason, Reason::Task, "{what}: {error}");
        assert!(error.message.contains(expected), "{what}: {error}");
        stage.echo(what).await;
    }
    // What just fits arrives.
    let fits = "x".repeat((2 << 20) - 100);
    let args = command(
        "(drop (memory.grow (i32.const 100))) (drop (call $fd_read (i32.const 9) (i32.const 0) (i32.const 0) (i32.const 0)))",
    );
    let ran = stage.bench.wat(&args, |call| call.args = vec![fits]).await;
    assert_eq!(ran.ok().ended.exit_code, 0);
}

#[tokio::test]
async fn inputs_that_are_no_parameters_are_refused() {
    let mut group = Group::new("parameters", "");
    group.function("add", "(param i32 i64 f32 f64) (result i32) (local.get 0)");
    let mut stage = Stage::new().await;
    let mut function = stage.bench.function(&wasm(&group.text()), "singlepass", InstanceSpec::default()).await.unwrap();
    let deep = "[".repeat(60_000);
    let long = format!("[1,2,3,{}]", "9".repeat(70_000));
    for (body, expected) in [
        ("{", "its input is no JSON array of numbers"),
        ("7", "its input is no JSON array of numbers"),
        ("[1,2,3", "its input is no JSON array of numbers"),
        (&deep, "its input is no JSON array of numbers"),
        (&long, "its input is too long or did not come"),
        ("", "add takes (i32, i64, f32, f64), not 0 parameters"),
        ("[]", "not 0 parameters"),
        ("[1,2,3,4,5]", "not 5 parameters"),
        ("[null,2,3,4]", "parameter 0 of add: null is no i32"),
        ("[4294967296,2,3,4]", "is no i32"),
        ("[-2147483649,2,3,4]", "is no i32"),
        ("[1.5,2,3,4]", "is no i32"),
        ("[1,18446744073709551616,3,4]", "is no i64"),
        ("[1,2,\"x\",4]", "is no f32"),
        ("[1,2,[3],4]", "is no f32"),
        ("[1,2,3,{}]", "is no f64"),
        ("\u{feff}[1,2,3,4]", "its input is no JSON array of numbers"),
    ] {
        let invocation = Invocation { body: body.to_owned().into(), ..call(["add"]) };
        let shown: String = body.chars().take(40).collect();
        let error = function.invoke(invocation).await.expect_err(&shown);
        assert_eq!(error.reason, Reason::Task, "{shown}: {error}");
        assert!(error.message.contains(expected) && error.message.len() < 600, "{shown}: {error}");
        stage.echo(&shown).await;
    }
    let right = Invocation { body: "[\"4294967295\",\"-1\",\"NaN\",1e400]".into(), ..call(["add"]) };
    assert!(function.invoke(right).await.is_err(), "1e400 is no number of JSON");
    let right = Invocation { body: "[\"4294967295\",\"-1\",\"NaN\",\"-inf\"]".into(), ..call(["add"]) };
    assert_eq!(function.invoke(right).await.unwrap().result, "-1");
}

/// A command that writes 60,000 bytes at a time, that many times, or for ever.
fn writer(times: &str) -> Vec<u8> {
    wasm(&command(&flood(1, 60_000, times)))
}

fn streamed(limits: Limits) -> InstanceSpec {
    InstanceSpec { limits, ..InstanceSpec::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_does_not_keep_the_guest() {
    let bench = Bench::new();
    let limits = Limits { stdout_bytes: 1 << 30, wall: Duration::from_millis(100), ..Limits::default() };
    for compiler in super::COMPILERS {
        let mut function = bench.function(&writer("-1"), compiler, streamed(limits.clone())).await.unwrap();
        let (writer, reader) = reply();
        let streams = Streams { logs: function.logs(), logs_stdout: false, reply: Some(writer) };
        let error = function.invoke_with(Invocation::default(), streams).await.unwrap_err();
        assert_eq!(error.reason, Reason::Deadline, "{error}");
        drop(reader);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_ends_the_guest() {
    let bench = Bench::new();
    let limits = Limits { stdout_bytes: 1 << 30, wall: Duration::from_secs(60), ..Limits::default() };
    for pieces in [0, 1, 3] {
        let mut function = bench.function(&writer("-1"), "singlepass", streamed(limits.clone())).await.unwrap();
        let (writer, mut reader) = reply();
        let streams = Streams { logs: function.logs(), logs_stdout: false, reply: Some(writer) };
        let read = async move {
            for _ in 0..pieces {
                assert!(reader.next().await.is_some());
            }
        };
        let (ended, ()) = tokio::join!(function.invoke_with(Invocation::default(), streams), read);
        let error = ended.unwrap_err();
        assert_eq!((error.reason, &*error.message), (Reason::Cancelled, "nobody reads its answer any more"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_every_byte_and_the_limit_holds_for_streams_too() {
    let bench = Bench::new();
    for (most, reason) in [(6_000_000, None), (5_999_999, Some(Reason::Output))] {
        let limits = Limits { stdout_bytes: most, wall: Duration::from_secs(60), ..Limits::default() };
        let mut function = bench.function(&writer("100"), "singlepass", streamed(limits)).await.unwrap();
        let (writer, mut reader) = reply();
        let streams = Streams { logs: function.logs(), logs_stdout: false, reply: Some(writer) };
        let read = async move {
            let mut sum = 0;
            while let Some(runtime::Piece::Bytes(piece)) = reader.next().await {
                sum += piece.len();
                tokio::task::yield_now().await;
            }
            sum
        };
        let (ended, sum) = tokio::join!(function.invoke_with(Invocation::default(), streams), read);
        assert_eq!(ended.err().map(|error| error.reason), reason);
        assert_eq!(sum, most, "every byte up to the limit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_waits_for_its_reader_is_cancelled() {
    let bench = Bench::new();
    let limits = Limits { stdout_bytes: 1 << 30, wall: Duration::from_secs(60), ..Limits::default() };
    let mut function = bench.function(&writer("-1"), "singlepass", streamed(limits)).await.unwrap();
    let (writer, mut reader) = reply();
    let streams = Streams { logs: function.logs(), logs_stdout: false, reply: Some(writer) };
    let invocation = Invocation::default();
    let cancel = invocation.cancel.clone();
    let stop = async move {
        assert!(reader.next().await.is_some());
        cancel.cancel();
        // It stays, and does not read.
        reader
    };
    let (ended, mut reader) = tokio::join!(function.invoke_with(invocation, streams), stop);
    assert_eq!(ended.unwrap_err().reason, Reason::Cancelled);
    while reader.next().now_or_never().flatten().is_some() {}
    assert_eq!(reader.next().await, None, "the answer is over");
}
