//! Functions as their callers meet them: the real program, real guests, over HTTP, gRPC and the command line.

use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Client, Daemon, PATIENCE, channel, guest, sample, spear};
use api::proto::spearlet::{
    ExecutionStatus, InvokeFunctionRequest, InvokeRequest, Payload, function_service_client::FunctionServiceClient,
    invocation_service_client::InvocationServiceClient,
};

/// A registry with its agent in one process.
struct Place {
    daemon: Daemon,
    registry: Client,
    agent: Client,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(dir.path(), "all");
        let registry = Client::new(&daemon.sms());
        let agent = Client::new(&format!("http://{}", daemon.address("spearlet/http")));
        Self { daemon, registry, agent, dir }
    }

    async fn task(&self, name: &str, module: Vec<u8>) -> String {
        let uri = self.registry.upload(&format!("{name}.wasm"), module).await;
        let (task, first) = self.registry.task(name, &uri, json!({})).await;
        self.registry.ended(&first).await;
        task
    }

    /// A command that asks the agent.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = spear(self.dir.path());
        command.env("SPEARLET_HTTP_ADDR", self.daemon.address("spearlet/http").to_string()).args(args);
        command
    }

    fn feed(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
        let feeding = std::thread::spawn(move || {
            // A command that does not want it may close it.
            drop(stdin.write_all(&input));
        });
        let output = child.wait_with_output().unwrap();
        feeding.join().unwrap();
        output
    }

    fn code(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.feed(args, b"");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

fn ends(mut child: Child) -> Option<i32> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < give_up, "still running");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn one_function_is_called_over_every_interface() {
    let place = Place::new();
    let task = place.task("echo", sample("echo")).await;
    let url = |path: &str| format!("{}{path}", place.agent.base);
    // Bytes in, bytes out.
    let raw =
        place.agent.http.post(url(&format!("/functions/{task}/invoke"))).body("raw\0\u{e4}").send().await.unwrap();
    assert_eq!(raw.status(), 200);
    assert_eq!(raw.headers()["spear-disposition"], "ok");
    let execution = raw.headers()["spear-execution"].to_str().unwrap().to_owned();
    assert_eq!(raw.text().await.unwrap(), "raw\0\u{e4}");
    let (_, seen) = place.agent.get(&format!("/functions/executions/{execution}?include_output=true")).await;
    assert_eq!((&seen["status"], &seen["function_name"]), (&json!("COMPLETED"), &json!("echo")), "{seen}");
    assert!(seen["usage"]["peak_memory_bytes"].as_u64().unwrap() >= 2 * 65536, "{seen}");
    // The original's JSON.
    let body = json!({"task_id": task, "mode": "sync", "input_base64": "aGVsbG8="});
    let (status, answer) = place.agent.post("/functions/execute", body).await;
    assert_eq!((status, &answer["output_base64"]), (200, &json!("aGVsbG8=")), "{answer}");
    // Both versions of its gRPC.
    let grpc = channel(place.daemon.address("spearlet/grpc")).await;
    let request = InvokeFunctionRequest { task_id: task.clone(), ..Default::default() };
    assert!(FunctionServiceClient::new(grpc.clone()).invoke_function(request).await.unwrap().into_inner().success);
    let input = Some(Payload { data: "wire".into(), ..Default::default() });
    let request = InvokeRequest { task_id: task.clone(), input, ..Default::default() };
    let answer = InvocationServiceClient::new(grpc).invoke(request).await.unwrap().into_inner();
    assert_eq!((answer.status(), &answer.output.unwrap().data[..]), (ExecutionStatus::Completed, &b"wire"[..]));
    // Kept by the registry, which gives it to this very node.
    let later = place.agent.http.post(url(&format!("/functions/{task}/invoke"))).header("prefer", "respond-async");
    let later = later.body("later").send().await.unwrap();
    assert_eq!(later.status(), 202);
    let place_of = format!("{}?include_output=true", later.headers()["location"].to_str().unwrap());
    let ended = place.agent.until(&place_of, |answer| answer["status"] == "COMPLETED").await;
    assert_eq!(ended["output_base64"], "bGF0ZXI=", "{ended}");
    let (status, known) =
        place.registry.get(&format!("/api/v1/executions/{}", ended["execution_id"].as_str().unwrap())).await;
    assert_eq!((status, &known["status"]), (200, &json!("completed")), "{known}");
    let used = |field: &str| known["usage"][field].as_u64().unwrap_or_else(|| panic!("{field}: {known}"));
    assert_eq!((used("bytes_in"), used("bytes_out")), (5, 5));
    assert!(used("wall_us") > 0 && used("cpu_us") > 0 && used("peak_memory_bytes") >= 2 * 65536, "{known}");
    assert_eq!(ended["usage"], known["usage"], "the node tells what the registry was told");
    // And all of it counts.
    let (_, stats) = place.agent.get("/monitoring/stats").await;
    assert_eq!((&stats["total_executions"], &stats["failed_executions"]), (&json!(6), &json!(0)), "{stats}");
}

#[tokio::test]
async fn the_command_line_calls_a_function_and_ends_as_it_does() {
    let place = Place::new();
    let echo = place.task("echo", sample("echo")).await;
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let output = place.feed(&["invoke", &echo], &bytes);
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
    assert!(output.stdout == bytes, "{} bytes became {}", bytes.len(), output.stdout.len());
    assert_eq!(place.feed(&["invoke", &echo, "--input", "text"], b"").stdout, b"text");

    // What goes in comes out while both go on.
    let mut child = place.command(&["invoke", &echo]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for word in [b"first", b"again"] {
        stdin.write_all(word).unwrap();
        let mut back = [0; 5];
        stdout.read_exact(&mut back).unwrap();
        assert_eq!(&back, word);
    }
    drop(stdin);
    assert_eq!(ends(child), Some(0));

    let add = guest(
        r#"(module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
        (func (export "one") (result i32) (i32.const 1)))"#,
    );
    let add = place.task("add", add).await;
    assert_eq!(place.feed(&["invoke", &add, "add", "2", "40"], b"").stdout, b"42");
    let (code, err) = place.code(&["invoke", &add, "sub"]);
    assert!(code == Some(2) && err.contains("no function sub"), "{code:?} {err}");
    let exits = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 7))))"#;
    let exits = place.task("exits", guest(exits)).await;
    assert_eq!(place.code(&["invoke", &exits]), (Some(7), String::new()));
    let trap = place.task("trap", sample("trap")).await;
    let (code, err) = place.code(&["invoke", &trap]);
    assert!(code == Some(1) && err.starts_with("spear: failed (trap): unreachable"), "{code:?} {err}");
    let (code, err) = place.code(&["invoke", "00000000-0000-4000-8000-000000000000"]);
    assert!(code == Some(3) && err.contains("spear task ls"), "{code:?} {err}");
}

#[tokio::test]
async fn a_call_that_never_ends_is_stopped_by_its_limit_or_by_ctrl_c_and_seen_meanwhile() {
    let place = Place::new();
    let uri = place.registry.upload("spin.wasm", sample("spin")).await;
    let (task, first) = place.registry.task("spin", &uri, json!({"config": {"timeout_ms": "200"}})).await;
    place.registry.ended(&first).await;
    let (code, err) = place.code(&["invoke", &task, "--timeout", "100ms"]);
    assert!(code == Some(124) && err.starts_with("spear: timeout: "), "{code:?} {err}");
    let child = place.command(&["invoke", &task, "--timeout", "5m"]).stdout(Stdio::null()).spawn().unwrap();
    let busy = |list: &Value| list["instances"].as_array().unwrap().iter().any(|one| one["status"] == "busy");
    place.agent.until("/api/v1/instances", busy).await;
    let ls = String::from_utf8(place.command(&["instance", "ls"]).output().unwrap().stdout).unwrap();
    assert!(ls.lines().next().unwrap().starts_with("INSTANCE") && ls.contains("spin"), "{ls}");
    let top = place.command(&["top", "-o", "json", "--interval", "200ms"]).output().unwrap();
    let top: Value = serde_json::from_slice(&top.stdout).unwrap();
    let spin = &top["functions"][0];
    assert_eq!(
        (&spin["name"], &spin["in_flight"], &spin["busy_instances"]),
        (&json!("spin"), &json!(1), &json!(1)),
        "{top}"
    );
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(ends(child), Some(130));
    place.agent.until("/monitoring/stats", |stats| stats["active_executions"] == 0).await;

    // The same by its instance.
    let child = place.command(&["invoke", &task, "--timeout", "5m"]).stderr(Stdio::null()).spawn().unwrap();
    let list = place.agent.until("/api/v1/instances", busy).await;
    let all = list["instances"].as_array().unwrap();
    let id = all.iter().find(|one| one["status"] == "busy").unwrap()["instance_id"].as_str().unwrap();
    let killed = place.command(&["instance", "kill", id]).output().unwrap();
    assert_eq!(String::from_utf8(killed.stdout).unwrap(), format!("instance/{id} asked to end, with its call\n"));
    assert_eq!(ends(child), Some(1));
    let (code, err) = place.code(&["instance", "kill", "999999"]);
    assert!(code == Some(3) && err.contains("spear instance ls"), "{code:?} {err}");
    let top = place.command(&["top", "--once", "--interval", "100ms"]).output().unwrap();
    let top = String::from_utf8(top.stdout).unwrap();
    assert!(top.starts_with("FUNCTION") && top.contains("CALLS/S") && top.contains("spin"), "{top}");
}

#[test]
fn without_an_agent_the_commands_say_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    for command in [&["top", "--once"][..], &["instance", "ls"], &["invoke", "x"]] {
        // Nobody can be listening on this port.
        let output = spear(dir.path()).args(command).env("SPEARLET_HTTP_ADDR", "127.0.0.1:1").output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(69), "{err}");
        assert!(err.contains("127.0.0.1:1 cannot be reached") && err.contains("SPEARLET_HTTP_ADDR"), "{err}");
    }
}
