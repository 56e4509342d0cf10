//! The samples run, and those in C are built the way users build them.

use std::{path::Path, process::Command, time::Duration};
use types::Reason;

use crate::bench::Bench;

fn samples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples")
}

#[tokio::test]
async fn the_samples_in_the_text_format_do_what_they_say() {
    let bench = Bench::new();
    let read = |name: &str| std::fs::read_to_string(samples().join(format!("wat/{name}.wat"))).unwrap();
    assert_eq!(bench.wat(&read("hello"), |_| {}).await.text(), "hello from spear\n");
    let echo = bench.wat(&read("echo"), |call| call.body = "over and out".into()).await;
    assert_eq!(echo.text(), "over and out");
    assert_eq!(bench.wat(&read("count"), |_| {}).await.text(), "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    bench.wat(&read("trap"), |_| {}).await.failed(Reason::Trap);
    let spin = bench.wat(&read("spin"), |call| call.deadline = Duration::from_millis(300)).await;
    spin.failed(Reason::Deadline);
}

#[tokio::test]
async fn the_samples_in_c_are_built_by_their_makefile_and_run() {
    let bench = Bench::new();
    let build = bench.dir.path().join("build");
    let made = Command::new("make").arg("-C").arg(samples()).arg(format!("BUILD={}", build.display())).output();
    let made = made.expect("make is installed");
    assert!(made.status.success(), "samples/Makefile failed: {}", String::from_utf8_lossy(&made.stderr));
    let module = |name: &str| std::fs::read(build.join(format!("{name}.wasm"))).unwrap();
    assert_eq!(bench.call(&module("hello"), |_| {}).await.text(), "hello spear wasm\n");
    let text = "line\n".repeat(50_000);
    let echo = bench.call(&module("echo"), |call| call.body = text.clone().into()).await;
    assert_eq!(echo.text(), text);
    let args = bench
        .call(&module("args"), |call| {
            call.args = vec!["one".to_owned(), "two words".to_owned()];
            call.env = [("GREETING".to_owned(), "grüezi".to_owned())].into();
        })
        .await;
    let outcome = args.ok();
    assert_eq!(outcome.ended.exit_code, 2);
    assert_eq!(outcome.result, "argument 1: one\nargument 2: two words\nGREETING: grüezi\n");
}
