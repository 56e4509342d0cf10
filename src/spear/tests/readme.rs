//! The README's five minutes, typed as they stand there.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use crate::support::{Daemon, PATIENCE, serve};

const README: &str = include_str!("../../../README.md");

/// The blocks of the README that are marked with a word: <code>```sh run</code>.
fn blocks(mark: &str) -> Vec<String> {
    let fence = format!("```sh {mark}\n");
    README.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Runs a script in a directory; what it wrote to its output.
fn bash(dir: &Path, (registry, agent): (&str, &str), script: &str) -> String {
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", dir.join("bin").display());
    let mut child = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .env("PATH", path)
        .env("SPEAR_ADDR", registry)
        .env("SPEARLET_HTTP_ADDR", agent)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash must be installed");
    let (mut out, mut errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let readers = [
        std::thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).unwrap();
            text
        }),
        std::thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).unwrap();
            text
        }),
    ];
    let give_up = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= give_up {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    };
    let [out, errors] = readers.map(|reader| reader.join().unwrap());
    assert!(status.success(), "{status}\n--- output\n{out}\n--- errors\n{errors}\n--- script\n{script}");
    out
}

#[test]
fn the_five_minutes_of_the_readme_do_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_spear"), dir.path().join("bin/spear")).unwrap();

    let start = blocks("serve");
    let [start] = &start[..] else { panic!("one way to start: {start:?}") };
    assert_eq!(start.trim(), "cargo run --release -- serve --role all");
    let daemon = Daemon::start_with(dir.path(), serve("all"));
    let [http, agent] = ["sms/http", "spearlet/http"].map(|listener| daemon.address(listener).to_string());

    let steps = blocks("run");
    assert_eq!(steps.len(), 6, "write, run, keep, invoke, curl, events");
    let marked: Vec<String> =
        steps.iter().enumerate().map(|(at, step)| format!("{step}\necho '== end of {at}'\n")).collect();
    let script = marked.concat().replace("127.0.0.1:8080", &http);
    let out = bash(dir.path(), (&http, &agent), &script);
    let mut parts = Vec::new();
    let mut rest = &out[..];
    for at in 0..steps.len() {
        let (part, after) = rest.split_once(&format!("== end of {at}\n")).unwrap_or_else(|| panic!("{at}: {out}"));
        parts.push(part);
        rest = after;
    }
    let [written, ran, kept, called, curl, events] = parts[..] else { panic!("{parts:?}") };
    let has = |part: &str, facts: &[&str]| {
        facts.iter().all(|fact| part.contains(fact)).then_some(()).ok_or_else(|| part.to_owned())
    };

    assert!(dir.path().join("hello.wasm").exists());
    has(written, &["hello ", "echo ", "hello.wasm"]).unwrap();
    assert_eq!(ran.trim(), "hello from spear");
    has(kept, &["hello from spear", "completed", "spearlet/grpc"]).unwrap();
    assert_eq!(called.lines().last(), Some("good morning"));
    has(curl, &["\"success\":true", "\"execution_id\":\"", "hello from spear", "\"exit_code\":0"]).unwrap();
    has(events, &["event: file.created", "event: task.created", "event: execution.created"]).unwrap();
}

#[test]
fn the_readme_is_short_and_its_links_lead_somewhere() {
    assert!(README.lines().count() <= 150);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let links = README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    for link in links.filter(|link| !link.starts_with("http")) {
        assert!(root.join(link).exists(), "{link}");
    }
}
