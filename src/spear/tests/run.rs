//! Running things from the command line: the real program, a real registry and agent, real guests.

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::support::{Client, Daemon, PATIENCE, guest, sample, serve, spear};

/// What a command said and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl Said {
    #[track_caller]
    fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        String::from_utf8(self.out).unwrap()
    }

    #[track_caller]
    fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{} {}", self.err, String::from_utf8_lossy(&self.out));
        self.err
    }
}

/// A registry with an agent, and a directory whose commands ask it.
struct Place {
    daemon: Daemon,
    client: Client,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(dir.path(), "all");
        let client = Client::new(&daemon.sms());
        Self { daemon, client, dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), bytes).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = spear(self.path());
        command.env("SPEAR_ADDR", self.daemon.address("sms/http").to_string()).args(args);
        command
    }

    /// Runs a command to its end.
    fn run(&self, args: &[&str]) -> Said {
        self.feed(args, b"")
    }

    /// The same with something on standard input.
    fn feed(&self, args: &[&str], input: &[u8]) -> Said {
        let mut running = Running::new(self.command(args).stdin(Stdio::piped()));
        let (mut stdin, input) = (running.child.stdin.take().unwrap(), input.to_vec());
        let feeding = std::thread::spawn(move || {
            // A command that does not want it may close it.
            drop(stdin.write_all(&input));
        });
        let mut out = Vec::new();
        running.out.read_to_end(&mut out).unwrap();
        feeding.join().unwrap();
        let (status, err) = running.end();
        Said { code: status.code(), out, err }
    }

    /// Starts a command whose output is looked at while it runs.
    fn start(&self, args: &[&str]) -> Running {
        Running::new(&mut self.command(args))
    }

    async fn count(&self, list: &str) -> usize {
        self.client.get(&format!("/api/v1/{list}")).await.1[list].as_array().unwrap().len()
    }

    /// The only execution there is.
    async fn execution(&self) -> Value {
        let all = self.client.get("/api/v1/executions").await.1;
        assert_eq!(all["executions"].as_array().unwrap().len(), 1, "{all}");
        all["executions"][0].clone()
    }
}

/// A command that runs. Killed when it is dropped.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    err: Option<JoinHandle<String>>,
}

impl Running {
    fn new(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, mut stderr) = (BufReader::new(child.stdout.take().unwrap()), child.stderr.take().unwrap());
        let err = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, out, err: Some(err) }
    }

    /// The next line of its output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    /// The next bytes of its output.
    fn piece(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.out.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Lines up to one that has this in it.
    fn until(&mut self, wanted: &str) -> String {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "ended without {wanted:?}: {}", self.err.take().unwrap().join().unwrap());
            if line.contains(wanted) {
                return line;
            }
        }
    }

    fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    /// Waits for its end; what it said on standard error.
    fn end(mut self) -> (ExitStatus, String) {
        let give_up = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < give_up, "still running");
            std::thread::park_timeout(Duration::from_millis(5));
        };
        (status, self.err.take().unwrap().join().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

const WRITE: &str =
    r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))"#;
const EXIT: &str = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;
const POLL: &str =
    r#"(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"#;

/// A guest that writes a text to a stream and ends with a code.
fn says(stream: u8, text: &str, code: u8) -> String {
    let length = text.len();
    format!(
        r#"(module {WRITE} {EXIT} (memory (export "memory") 1) (data (i32.const 64) "{text}")
          (func (export "_start")
            (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const {length}))
            (drop (call $write (i32.const {stream}) (i32.const 0) (i32.const 1) (i32.const 8)))
            (call $exit (i32.const {code}))))"#
    )
}

/// A guest that says `started`, begins another line, then sleeps for a minute.
fn sleeps() -> String {
    format!(
        r#"(module {WRITE} {POLL} (memory (export "memory") 1)
          (data (i32.const 0) "\10\00\00\00\10\00\00\00")
          (data (i32.const 16) "started\nworking.")
          (data (i32.const 80) "\01\00\00\00\00\00\00\00\00\58\47\f8\0d\00\00\00")
          (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 160)))))"#
    )
}

/// A guest that writes its arguments and its environment, each with a zero byte behind it.
const TELLS: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $show (param $length i32)
    (i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (local.get $length))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start")
    (drop (call $args_sizes (i32.const 16) (i32.const 20)))
    (drop (call $args (i32.const 1024) (i32.const 4096)))
    (call $show (i32.load (i32.const 20)))
    (drop (call $env_sizes (i32.const 16) (i32.const 20)))
    (drop (call $env (i32.const 1024) (i32.const 4096)))
    (call $show (i32.load (i32.const 20)))))"#;

#[tokio::test]
async fn one_line_goes_from_a_file_to_its_result_and_leaves_nothing_behind() {
    let place = Place::new();
    place.run(&["sample", "write", "hello"]).good();
    place.run(&["sample", "write", "hello", "--text"]).good();
    for file in ["hello.wasm", "hello.wat"] {
        let said = place.run(&["run", file]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        assert_eq!(said.out, b"hello from spear\n");
    }
    // The module itself can come through a pipe.
    let said = place.feed(&["run", "-"], &sample("hello"));
    assert_eq!(said.good(), "hello from spear\n");
    assert_eq!((place.count("tasks").await, place.count("files").await), (0, 0));
    place.write("oops.wat", says(2, "to stderr", 0));
    let said = place.run(&["run", "oops.wat"]);
    assert_eq!((said.code, &*said.out, &*said.err), (Some(0), &b""[..], "to stderr"));
}

#[tokio::test]
async fn the_exit_code_is_that_of_the_program() {
    let place = Place::new();
    place.write("three.wat", says(1, "no line feed", 3));
    let said = place.run(&["run", "three.wat"]);
    assert_eq!((said.code, &*said.out, &*said.err), (Some(3), &b"no line feed"[..], ""));
    place.write("trap.wasm", sample("trap"));
    let why = place.run(&["run", "trap.wasm"]).failed(1);
    assert!(why.starts_with("spear: failed (trap): unreachable"), "{why}");
    place.write("spin.wasm", sample("spin"));
    let why = place.run(&["run", "spin.wasm", "--timeout", "300ms"]).failed(124);
    assert!(why.starts_with("spear: timeout: ") && why.contains("300ms"), "{why}");
    // A module that is none inside is known as such by the node that compiles it.
    place.write("broken.wasm", b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x0f");
    let why = place.run(&["run", "broken.wasm"]).failed(1);
    assert!(why.starts_with("spear: failed (invalid_module): "), "{why}");
    place.write("text.wasm", "hello");
    let why = place.run(&["run", "text.wasm"]).failed(2);
    assert!(why.starts_with("spear: text.wasm is neither"), "{why}");
    let why = place.run(&["run", "hello.wasm"]).failed(2);
    assert!(why.contains("cannot read hello.wasm") && why.contains("spear sample write hello"), "{why}");
    place.write("hello.wasm", sample("hello"));
    let why = place.run(&["run", "hello.wasm", "--node", "nobody"]).failed(2);
    assert!(why.contains("node_uuid"), "{why}");
    assert_eq!((place.count("tasks").await, place.count("files").await), (0, 0), "also after a refusal");
}

#[tokio::test]
async fn input_and_output_are_byte_exact() {
    let place = Place::new();
    place.write("echo.wasm", sample("echo"));
    // Every byte, in every neighbourhood, lines of all lengths, carriage returns, no line feed at the end.
    let mut state = 1u32;
    let random = (0..1_000_000).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let lines: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    for (what, bytes) in [
        ("random", random.collect()),
        ("many lines", lines.into_bytes()),
        ("one long line", vec![b'x'; 300_000]),
        ("other ends", b"one\r\ntwo\n\n\r\n\xff\n\xc3\nend\r".to_vec()),
        ("nothing", Vec::new()),
    ] {
        let said = place.feed(&["run", "echo.wasm"], &bytes);
        assert_eq!((said.code, &*said.err), (Some(0), ""), "{what}");
        assert!(said.out == bytes, "{what}: {} bytes became {}", bytes.len(), said.out.len());
    }
    let said = place.run(&["run", "echo.wasm", "--input", "text"]);
    assert_eq!(said.good(), "text");
    place.write("input.bin", b"\0\xff");
    assert_eq!(place.run(&["run", "echo.wasm", "--input", "@input.bin"]).out, b"\0\xff");
    let why = place.feed(&["run", "echo.wasm"], &vec![0; (8 << 20) + 1]).failed(2);
    assert!(why.contains("standard input is longer than 8MiB"), "{why}");
}

#[tokio::test]
async fn arguments_and_environment_reach_the_program() {
    let place = Place::new();
    place.write("tells.wat", TELLS);
    let said =
        place.run(&["run", "tells.wat", "--env", "A=1", "-e", "B=x=y", "--env", "A=2", "one", "two words", "-x"]);
    assert_eq!(said.good(), "tells.wat\0one\0two words\0-x\0A=2\0B=x=y\0");
    let said = place.run(&["run", "tells.wat", "--keep", "--", "--keep"]);
    assert_eq!((said.code, &*said.out), (Some(0), &b"tells.wat\0--keep\0"[..]));
    // What is kept can be run again.
    let task = said.err.strip_prefix("kept: spear task run ").unwrap().trim();
    assert_eq!((place.count("tasks").await, place.count("files").await), (1, 1));
    assert_eq!(place.run(&["task", "run", task, "--wait"]).good(), "tells.wat\0--keep\0");
}

#[tokio::test]
async fn output_is_shown_while_it_runs_and_ctrl_c_cancels_it() {
    let place = Place::new();
    place.write("sleeps.wat", sleeps());
    let mut running = place.start(&["run", "sleeps.wat"]);
    assert_eq!(running.line(), "started\n");
    assert_eq!(running.piece(8), "working.", "also what has no end yet");
    assert_eq!(place.execution().await["status"], json!("running"), "the line came while it ran");
    running.interrupt();
    let (status, err) = running.end();
    assert_eq!((status.code(), err.as_str()), (Some(130), ""));
    assert_eq!(place.execution().await["status"], json!("cancelled"));
    assert_eq!((place.count("tasks").await, place.count("files").await), (0, 0));
}

#[test]
fn without_a_registry_it_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hello.wasm"), sample("hello")).unwrap();
    // Nobody can be listening on this port.
    let output = spear(dir.path()).args(["run", "hello.wasm", "--addr", "127.0.0.1:1"]).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{err}");
    assert!(err.contains("127.0.0.1:1 cannot be reached") && err.contains("spear serve"), "{err}");
}

#[tokio::test]
async fn a_program_that_waits_for_a_node_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "sms");
    let place = Place { client: Client::new(&daemon.sms()), daemon, dir };
    place.write("hello.wasm", sample("hello"));
    let mut child = place.command(&["run", "hello.wasm"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("spear: waiting: "), "{said}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(place.execution().await["status"], json!("cancelled"));
}

#[tokio::test]
async fn a_task_is_created_from_json_yaml_or_flags_and_run() {
    let place = Place::new();
    let uri = place.client.upload("echo.wasm", sample("echo")).await;
    let body = json!({"name": "from-json", "priority": "high", "executable": {"type": "wasm", "uri": uri}});
    place.write("task.json", serde_json::to_vec_pretty(&body).unwrap());
    let yaml =
        format!("name: from-yaml\nexecutable:\n  type: wasm\n  uri: {uri}\n  args: [-v]\nmetadata: {{team: a}}\n");
    place.write("task.yaml", &yaml);
    let id = |said: Said| said.good().lines().next().unwrap().to_owned();
    let from_json = id(place.run(&["task", "create", "-f", "task.json", "-q"]));
    let from_yaml = id(place.run(&["task", "create", "-f", "task.yaml", "-q"]));
    let from_stdin = id(place.feed(&["task", "create", "-f", "-", "-q"], yaml.as_bytes()));
    place.write("echo.wasm", sample("echo"));
    let flags = ["task", "create", "from-flags", "--upload", "echo.wasm", "--arg", "-v", "--label", "team=a", "-q"];
    let from_flags = id(place.run(&flags));
    for (task, name) in
        [(&from_json, "from-json"), (&from_yaml, "from-yaml"), (&from_stdin, "from-yaml"), (&from_flags, "from-flags")]
    {
        let task = place.client.get(&format!("/api/v1/tasks/{task}")).await.1;
        assert_eq!(task["name"], json!(name));
        if name != "from-json" {
            assert_eq!((&task["executable"]["args"], &task["metadata"]["team"]), (&json!(["-v"]), &json!("a")));
        }
    }
    // What is shown by a dry run is what can be read back; nothing is sent.
    let dry = ["task", "create", "dry", "--uri", &uri, "--timeout", "5s", "--memory", "16MiB", "--dry-run"];
    let shown: Value = serde_json::from_str(&place.run(&dry).good()).unwrap();
    assert_eq!(shown["config"], json!({"memory_bytes": "16777216", "timeout_ms": "5000"}));
    let shown = place.run(&[&dry[..], &["-o", "yaml"]].concat()).good();
    let again = place.feed(&["task", "create", "-f", "-", "--dry-run", "-o", "yaml"], shown.as_bytes()).good();
    assert_eq!(again, shown);
    assert_eq!(place.count("tasks").await, 4);

    place.write("wrong.yaml", yaml.replace("  uri:", "  url:"));
    let why = place.run(&["task", "create", "-f", "wrong.yaml"]).failed(2);
    assert!(why.starts_with("spear: wrong.yaml:4:") && why.contains("url"), "{why}");

    assert_eq!(place.run(&["task", "run", &from_json, "--input", "ping", "--wait"]).good(), "ping");
    let said = place.run(&["task", "run", &from_json, "--input", "pong"]);
    let next = said.err.strip_prefix("its output: spear ").unwrap().trim().to_owned();
    let execution = said.good().split_whitespace().next().unwrap().strip_prefix("execution/").unwrap().to_owned();
    assert_eq!(next, format!("execution logs -f {execution}"));
    let log = place.run(&next.split(' ').collect::<Vec<_>>()).good();
    assert!(log.contains("-- started\npong\n-- ended: completed"), "{log}");
    assert_eq!(place.run(&["execution", "result", &execution]).out, b"pong");
    let table = place.run(&["execution", "ls", "--task", &from_json, "--status", "completed", "-q"]).good();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(place.run(&["task", "rm", &from_json, &from_yaml]).good().ends_with(" removed\n"));
    assert_eq!(place.count("tasks").await, 2);
}

#[tokio::test]
async fn a_log_is_followed_from_its_last_lines_until_it_ends() {
    let place = Place::new();
    let uri = place.client.upload("sleeps.wasm", guest(&sleeps())).await;
    let (_, execution) = place.client.task("sleeps", &uri, json!({})).await;
    let mut follower = place.start(&["execution", "logs", "-f", &execution, "--stream", "stdout"]);
    assert_eq!(follower.line() + &follower.piece(8), "started\nworking.");
    let refused = place.run(&["execution", "result", &execution]).failed(5);
    assert!(refused.contains("not ended"), "{refused}");
    // A second one begins with the last line of those there are.
    let mut late = place.start(&["execution", "logs", "-f", "--tail", "1", &execution, "-o", "json"]);
    let line: Value = serde_json::from_str(&late.line()).unwrap();
    assert_eq!((&line["message"], &line["unterminated"]), (&json!("working."), &json!(true)));
    let said = place.run(&["execution", "cancel", &execution, "--reason", "enough"]).good();
    assert!(said.starts_with(&format!("execution/{execution} ")), "{said}");
    assert_eq!(follower.line(), "", "nothing more on standard output");
    assert_eq!(follower.end().0.code(), Some(0));
    assert!(late.until("ended: cancelled").contains("\"stream\":\"system\""));
    assert_eq!(late.end().0.code(), Some(0));
    // Ctrl-C ends waiting; what was waited for goes on.
    let (_, execution) = place.client.task("sleeps", &uri, json!({})).await;
    let mut follower = place.start(&["execution", "logs", "-f", &execution]);
    follower.until("started");
    follower.interrupt();
    assert_eq!(follower.end().0.code(), Some(130));
    let now = place.client.get(&format!("/api/v1/executions/{execution}")).await.1;
    assert_eq!(now["status"], json!("running"));
    let all = place.run(&["execution", "logs", &execution, "--since", "1h", "-o", "wide"]).good();
    assert!(all.contains("  stdout  info   started\n"), "{all}");
    assert_eq!(place.run(&["execution", "logs", &execution, "--since", "0"]).good(), "");
}

#[tokio::test]
async fn events_are_followed_through_a_restart_of_the_registry() {
    let dir = tempfile::tempdir().unwrap();
    let first = Daemon::start(dir.path(), "sms");
    let address = first.address("sms/http").to_string();
    let client = Client::new(&first.sms());
    let events = |args: &[&str]| {
        let mut command = spear(dir.path());
        command.env("SPEAR_ADDR", &address).arg("events").args(args);
        Running::new(&mut command)
    };
    // A client of its own each time: connections do not outlive a daemon.
    let entry = async |name: &str| {
        let client = Client::new(&format!("http://{address}"));
        let (status, answer) = client.post("/api/v1/tasks", json!({"name": name, "endpoint": "", "version": ""})).await;
        assert_eq!(status, 200, "{answer}");
    };
    entry("before").await;
    client.upload("a", b"x".to_vec()).await;
    // What is kept is shown, and then it ends.
    let mut all = events(&["--kind", "task", "-o", "json"]);
    let before: Value = serde_json::from_str(&all.line()).unwrap();
    assert_eq!((&before["event"], &before["record"]["name"]), (&json!("task.created"), &json!("before")));
    assert_eq!(all.line(), "");
    assert_eq!(all.end().0.code(), Some(0));

    let mut follower = events(&["-f", "-o", "json", "--after", before["cursor"].as_str().unwrap()]);
    assert!(follower.until("file.created").contains("\"name\":\"a\""));
    first.kill();
    let mut args = serve("sms");
    let at = args.iter().position(|arg| arg == "--http-addr").unwrap();
    args[at + 1] = address.clone();
    let _second = Daemon::start_with(dir.path(), args);
    entry("after").await;
    let next: Value = serde_json::from_str(&follower.line()).unwrap();
    assert_eq!((&next["event"], &next["record"]["name"]), (&json!("task.created"), &json!("after")), "each once");
    follower.interrupt();
    assert_eq!(follower.end().0.code(), Some(130));

    // A position of another log cannot be continued, and that is said.
    let mut lost = events(&["--after", "018f2f4e-0000-7000-8000-000000000000:1", "-o", "json"]);
    let resync: Value = serde_json::from_str(&lost.line()).unwrap();
    assert_eq!(resync["event"], json!("resync"));
    let (status, err) = lost.end();
    assert!(status.success() && err.contains("listed again"), "{err}");
    let mut table = events(&[]);
    assert!(table.line().starts_with("REVISION   EVENT"));
    table.until("task.created");
}
