//! The command line as a client: the real program asks a real registry.

use axum::{Json, Router, http::StatusCode, routing::get};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    time::Instant,
};

use crate::support::{Client, Daemon, PATIENCE, guest, sample, serve, spear};

const TOKEN: &str = "correct-horse-battery-staple";

/// What a command said and how it ended.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap_or_else(|| panic!("{:?}", output.status));
        Self { code, out: text(output.stdout), err: text(output.stderr) }
    }

    /// Standard output of a command that did what it should.
    #[track_caller]
    fn good(self) -> String {
        assert_eq!((self.code, &*self.err), (0, ""), "{self:?}");
        self.out
    }

    /// The one line of a command that ended with this code.
    #[track_caller]
    fn refused(self, code: i32) -> String {
        assert_eq!((self.code, &*self.out), (code, ""), "{self:?}");
        let line = self.err.strip_prefix("spear: ").and_then(|rest| rest.strip_suffix('\n'));
        let line = line.unwrap_or_else(|| panic!("{self:?}"));
        assert!(!line.contains('\n'), "{self:?}");
        line.to_owned()
    }
}

/// Runs `spear …` in a directory.
fn run(dir: &Path, args: &[&str]) -> Said {
    Said::of(spear(dir).args(args).output().unwrap())
}

/// A registry, and a directory whose commands ask it.
struct Place {
    dir: tempfile::TempDir,
    daemon: Daemon,
}

impl Place {
    fn new(role: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(dir.path(), role);
        Self { dir, daemon }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = spear(self.dir.path());
        command.env("SPEAR_ADDR", self.daemon.address("sms/http").to_string()).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        Said::of(self.command(args).output().unwrap())
    }

    /// Runs a command with this standard input.
    fn feed(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A command that ends before it has read everything closes the pipe.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        })
    }

    fn client(&self) -> Client {
        Client::new(&self.daemon.sms())
    }

    /// Waits until a command says what is wanted.
    fn until(&self, args: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let said = self.run(args).good();
            if wanted(&said) {
                return said;
            }
            assert!(Instant::now() < give_up, "{args:?} stayed {said}");
        }
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_output_is_the_rest_body_or_made_of_it() {
    let place = Place::new("sms");
    let client = place.client();
    let (status, made) =
        client.post("/api/v1/nodes", json!({"ip_address": "10.0.0.7", "port": 1, "metadata": {"name": "n"}})).await;
    assert_eq!(status, 201);
    let node = made["node_uuid"].as_str().unwrap();
    client.upload("hello.wasm", sample("hello")).await;
    client.upload("echo.wasm", sample("echo")).await;
    let file = client.get("/api/v1/files").await.1["files"][0]["id"].as_str().unwrap().to_owned();
    for (args, path) in [
        (&["node", "ls"][..], "/api/v1/nodes".to_owned()),
        (&["node", "get", node], format!("/api/v1/nodes/{node}")),
        (&["file", "ls"], "/api/v1/files".to_owned()),
        (&["file", "get", &file], format!("/api/v1/files/{file}/meta")),
        (&["cluster", "stats"], "/api/v1/cluster/stats".to_owned()),
    ] {
        let with = |form: &str| place.run(&[args, &["-o", form]].concat());
        let body = client.get(&path).await.1;
        let pretty = with("json").good();
        assert_eq!(json(&pretty), body, "{args:?}");
        assert_eq!(pretty, serde_json::to_string_pretty(&body).unwrap() + "\n", "keys in a stable order");
        let yaml: Value = serde_saphyr::from_str(&with("yaml").good()).unwrap();
        assert_eq!(yaml, body, "{args:?}");
    }
    assert_eq!(place.run(&["node", "ls", "-o", "name"]).good(), format!("node/{node}\n"));
    assert!(place.run(&["-q", "node", "ls"]).refused(2).contains("flags stand behind the command"));
    assert_eq!(place.run(&["node", "-q", "ls"]).good(), format!("{node}\n"));
    let table = place.run(&["node", "ls"]).good();
    assert!(table.starts_with("NODE ") && table.contains("10.0.0.7") && !table.contains("LABELS"), "{table}");
    let wide = place.run(&["node", "ls", "-o", "wide"]).good();
    assert!(wide.contains("LABELS") && wide.contains("name=n"), "{wide}");
    assert_eq!(place.run(&["node", "ls", "--no-header"]).good().lines().count(), 1);
    assert_eq!(place.run(&["file", "ls", "-q", "--limit", "1"]).good(), format!("{file}\n"));
    assert_eq!(place.run(&["file", "ls", "-q", "--search", "HELLO"]).good().lines().count(), 1);
    assert!(place.run(&["cluster", "stats", "-o", "name"]).refused(2).contains("table, json or yaml"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_and_the_line_say_what_is_wrong_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = serve("sms");
    let token = dir.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    args.extend(["--token-file".into(), token.display().to_string()]);
    let daemon = Daemon::start_with(dir.path(), args);
    let addr = daemon.address("sms/http").to_string();
    let unknown = "00000000-0000-4000-8000-000000000000";

    let told = run(dir.path(), &["node", "ls", "--addr", &addr]).refused(4);
    assert!(told.contains("--token-file") && told.contains("data/sms/token"), "{told}");
    let mut wrong = spear(dir.path());
    wrong.env("SPEAR_TOKEN", "another-horse-battery").args(["node", "ls", "--addr", &addr]);
    let told = Said::of(wrong.output().unwrap()).refused(4);
    assert!(told.contains("the token of SPEAR_TOKEN is not the one"), "{told}");
    let let_in = ["--addr", &addr, "--token-file", "token"];
    let with = |args: &[&str]| run(dir.path(), &[args, &let_in].concat());
    assert!(with(&["node", "ls"]).good().starts_with("NODE"));
    for args in [
        &["node", "get", unknown][..],
        &["node", "rm", unknown],
        &["node", "drain", unknown],
        &["file", "get", unknown],
        &["file", "rm", unknown],
        &["file", "download", unknown, "-O", "-"],
    ] {
        let told = with(args).refused(3);
        assert!(told.contains(unknown) && told.contains(&format!("`spear {} ls`", args[0])), "{args:?}: {told}");
    }
    assert!(with(&["node", "get", "../files"]).refused(2).contains("UUID"));
    assert!(with(&["node", "ls", "--limit", "0"]).refused(2).contains("--limit"));
    assert!(with(&["file", "upload", "nowhere"]).refused(2).contains("cannot read nowhere"));
    drop(daemon);
    let told = with(&["node", "ls"]).refused(69);
    assert!(told.contains(&addr) && told.contains("from --addr"), "{told}");
    let told = run(dir.path(), &["node", "lss"]).refused(2);
    assert!(told.contains("'ls'") && told.contains("spear node --help"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_choose_the_registry_and_bring_its_token() {
    let (first, second) = (Place::new("sms"), tempfile::tempdir().unwrap());
    let mut args = serve("sms");
    std::fs::write(second.path().join("token"), TOKEN).unwrap();
    args.extend(["--token-file".into(), second.path().join("token").display().to_string()]);
    let guarded = Daemon::start_with(second.path(), args);
    first.client().upload("first", b"1".to_vec()).await;
    let home = tempfile::tempdir().unwrap();
    let with = |args: &[&str]| run(home.path(), args);
    let (here, there) = (first.daemon.sms(), guarded.address("sms/http").to_string());
    assert_eq!(with(&["context", "set", "here", "--addr", &here]).good(), "context/here set\n");
    std::fs::write(home.path().join("t"), TOKEN).unwrap();
    with(&["context", "set", "there", "--addr", &there, "--token-file", "t"]).good();
    let file = home.path().join(".config/spear/contexts.toml");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    assert_eq!(with(&["file", "ls", "-q"]).good().lines().count(), 1, "the first context is in use");
    assert_eq!(with(&["file", "ls", "-q", "--context", "there"]).good(), "");
    assert_eq!(with(&["context", "use", "there"]).good(), "context/there in use\n");
    assert_eq!(with(&["file", "ls", "-q"]).good(), "");
    let variable = spear(home.path()).env("SPEAR_CONTEXT", "here").args(["file", "ls", "-q"]).output().unwrap();
    assert_eq!(Said::of(variable).good().lines().count(), 1);
    // The token of the context in use is not for another address.
    assert!(with(&["file", "ls", "--addr", &there]).refused(4).contains("--token-file"));
    assert_eq!(with(&["file", "ls", "-q", "--addr", &there, "--context", "there"]).good(), "");
    let shown = json(&with(&["context", "show", "-o", "json"]).good());
    assert_eq!((&shown["name"], &shown["addr"]), (&json!("there"), &json!(there)));
    assert_eq!(with(&["context", "ls", "-q"]).good(), "here\nthere\n");
    assert!(with(&["context", "use", "nowhere"]).refused(3).contains("there are here, there"));

    // A token from standard input is kept, and never shown.
    let mut child = spear(home.path());
    child.args(["context", "set", "there", "--token-stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{TOKEN}").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    std::fs::remove_file(home.path().join("t")).unwrap();
    assert_eq!(with(&["file", "ls", "-q"]).good(), "");
    assert!(!with(&["context", "ls", "-o", "json"]).good().contains(TOKEN));
    with(&["context", "rm", "there"]).good();
    assert!(with(&["context", "show"]).refused(3).contains("spear context use"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_gets_no_work_until_it_is_resumed() {
    let place = Place::new("all");
    let client = place.client();
    let node = place.until(&["node", "ls", "-q", "--status", "online"], |out| out.lines().count() == 1);
    let node = node.trim();
    assert_eq!(place.run(&["node", "drain", node, "--wait"]).good(), format!("node/{node} drained\n"));
    assert_eq!(place.run(&["node", "ls", "-q", "--status", "draining"]).good().trim(), node);
    let uri = client.upload("hello.wasm", sample("hello")).await;
    let (_, execution) = client.task("hello", &uri, json!({})).await;
    let path = format!("/api/v1/executions/{execution}");
    let waiting = client.until(&path, |now| now["reason"] == json!("no_node")).await;
    assert_eq!(waiting["status"], json!("pending"));
    assert_eq!(place.run(&["node", "resume", node]).good(), format!("node/{node} resumed\n"));
    let ended = client.ended(&execution).await;
    assert_eq!((&ended["status"], &ended["node_uuid"]), (&json!("completed"), &json!(node)));
    let set = place.run(&["node", "set-status", node, "maintenance"]).good();
    assert_eq!(set, format!("node/{node} is maintenance\n"));
    let shown = json(&place.run(&["node", "get", node, "-o", "json"]).good());
    assert_eq!(shown["node"]["status"], json!("maintenance"));
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_waits_for_what_runs_as_long_as_it_is_told_to() {
    let place = Place::new("all");
    let client = place.client();
    let node = place.until(&["node", "ls", "-q", "--status", "online"], |out| out.lines().count() == 1);
    let node = node.trim();
    let endless = guest(r#"(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))"#);
    let uri = client.upload("endless.wasm", endless).await;
    let (_, execution) = client.task("endless", &uri, json!({})).await;
    let path = format!("/api/v1/executions/{execution}");
    client.until(&path, |now| now["status"] == json!("running")).await;
    let said = place.run(&["node", "drain", node, "--wait", "--timeout", "1s"]);
    assert_eq!((said.code, &*said.out), (124, ""), "{said:?}");
    assert!(said.err.contains("1 executions are left") && said.err.contains("it stays draining"), "{said:?}");
    let waiting = place.command(&["node", "drain", node, "--wait"]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(client.post(&format!("{path}/cancel"), json!({})).await.0, 200);
    assert_eq!(Said::of(waiting.wait_with_output().unwrap()).good(), format!("node/{node} drained\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_gone_from_the_list() {
    let place = Place::new("sms");
    let client = place.client();
    let mut ids = Vec::new();
    for port in 1..=3 {
        let made = client.post("/api/v1/nodes", json!({"ip_address": "10.0.0.7", "port": port})).await.1;
        ids.push(made["node_uuid"].as_str().unwrap().to_owned());
    }
    let gone = place.run(&["node", "rm", &ids[0], &ids[2]]).good();
    assert_eq!(gone, format!("node/{} removed\nnode/{} removed\n", ids[0], ids[2]));
    assert_eq!(place.run(&["node", "ls", "-q"]).good(), format!("{}\n", ids[1]));
}

#[test]
fn bytes_go_up_from_a_pipe_and_come_down_into_one_unchanged() {
    let place = Place::new("sms");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let up = place.feed(&["file", "upload", "-", "--name", "a b.bin", "-o", "json"], &bytes);
    let up = json(&Said::of(up).good());
    assert_eq!((&up["name"], &up["len"]), (&json!("a b.bin"), &json!(3_000_000)));
    let id = up["id"].as_str().unwrap();
    let down = place.command(&["file", "download", id, "-O", "-"]).output().unwrap();
    assert!(down.status.success() && down.stderr.is_empty(), "{}", String::from_utf8_lossy(&down.stderr));
    assert!(down.stdout == bytes, "the same bytes");

    assert_eq!(place.run(&["file", "download", id]).good(), "a b.bin\n");
    let kept = place.dir.path().join("a b.bin");
    assert!(std::fs::read(&kept).unwrap() == bytes);
    assert!(place.run(&["file", "download", id]).refused(2).contains("--force"));
    std::fs::write(&kept, "old").unwrap();
    place.run(&["file", "download", id, "--force"]).good();
    assert!(std::fs::read(&kept).unwrap() == bytes);
    assert_eq!(place.run(&["file", "download", id, "-O", "data"]).good(), "data/a b.bin\n");
    assert!(std::fs::read(place.dir.path().join("data/a b.bin")).unwrap() == bytes);
    assert_eq!(place.run(&["file", "download", id, "-O", "/dev/null"]).good(), "/dev/null\n");
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file(), "a device is written to, never replaced");
    let table = place.run(&["file", "upload", "a b.bin", "a b.bin"]).good();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("NAME") && lines[1].contains("sms+file://"), "{table}");
    assert!(place.run(&["file", "upload", "a b.bin", "-", "--name", "x"]).refused(2).contains("one by one"));
    assert!(place.run(&["file", "upload", "data"]).refused(2).contains("is a directory"));
    let left: Vec<_> = std::fs::read_dir(place.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("unfinished")), "{left:?}");
}

#[test]
fn an_upload_over_the_limit_is_refused_by_name_and_not_by_a_broken_connection() {
    let dir = tempfile::tempdir().unwrap();
    let args = [serve("sms"), vec!["--max-upload-bytes".into(), "1000".into()]].concat();
    let place = Place { daemon: Daemon::start_with(dir.path(), args), dir };
    std::fs::write(place.dir.path().join("big"), vec![0; 4_000_000]).unwrap();
    let told = place.run(&["file", "upload", "big"]).refused(1);
    assert!(told.contains("limit of 1000 bytes"), "{told}");
    let told = Said::of(place.feed(&["file", "upload", "-"], &vec![0; 4_000_000])).refused(1);
    assert!(told.contains("limit of 1000 bytes"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_through_a_pipe_appends_what_is_new_and_ends_with_ctrl_c() {
    let place = Place::new("sms");
    let client = place.client();
    client.upload("first", b"1".to_vec()).await;
    let mut watching = place.command(&["file", "ls", "--watch=100ms"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("FILE"));
    assert!(lines.next().unwrap().unwrap().contains("first"));
    client.upload("second", b"2".to_vec()).await;
    let next = lines.next().unwrap().unwrap();
    assert!(next.contains("second"), "only what is new: {next}");
    let pid = rustix::process::Pid::from_child(&watching);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(watching.wait().unwrap().code(), Some(130));
    assert_eq!(lines.map(Result::unwrap).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn watching_as_json_tells_each_thing_on_a_line_of_its_own() {
    let place = Place::new("sms");
    let mut watching = place.command(&["file", "ls", "-o", "json", "--watch=100ms"]);
    let mut watching = watching.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for name in ["first", "second"] {
        assert!(place.feed(&["file", "upload", "-", "--name", name], b"x").status.success());
        assert_eq!(json(&lines.next().unwrap().unwrap())["name"], json!(name));
    }
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn watching_ends_when_nobody_reads_any_more() {
    let place = Place::new("sms");
    let mut watching =
        place.command(&["file", "ls", "--watch=100ms"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("FILE"));
    drop(lines);
    assert!(place.feed(&["file", "upload", "-"], b"x").status.success());
    let ended = Said::of(watching.wait_with_output().unwrap());
    assert_eq!((ended.code, &*ended.err), (0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_goes_on_when_the_registry_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "sms");
    let addr = daemon.address("sms/http").to_string();
    Client::new(&daemon.sms()).upload("first", b"1".to_vec()).await;
    let mut command = spear(dir.path());
    command.args(["file", "ls", "--watch=100ms", "--addr", &addr]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut watching = command.spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut errors = BufReader::new(watching.stderr.take().unwrap()).lines();
    assert!(lines.nth(1).unwrap().unwrap().contains("first"));
    daemon.kill();
    assert!(errors.next().unwrap().unwrap().contains("cannot be reached"), "told once");
    let args: Vec<String> = ["serve", "--role", "sms", "--log-format", "json", "--grpc-addr", "127.0.0.1:0"]
        .into_iter()
        .chain(["--http-addr", &addr])
        .map(str::to_owned)
        .collect();
    let daemon = Daemon::start_with(dir.path(), args);
    Client::new(&daemon.sms()).upload("second", b"2".to_vec()).await;
    assert!(lines.next().unwrap().unwrap().contains("second"));
    watching.kill().unwrap();
    watching.wait().unwrap();
    assert_eq!(errors.map(Result::unwrap).collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_colours_and_is_painted_anew_and_no_color_takes_them_away() {
    let place = Place::new("sms");
    let made = place.client().post("/api/v1/nodes", json!({"ip_address": "10.0.0.7", "port": 1})).await.1;
    assert_eq!(made["success"], json!(true));
    // script(1) gives a command a terminal.
    let on_terminal = |command: &str, variables: &[(&str, &str)]| {
        let mut script = Command::new("script");
        script.args(["-qec", command, "/dev/null"]).stdin(Stdio::null());
        script.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", place.dir.path()).env("TERM", "xterm");
        script.env("SPEAR_ADDR", place.daemon.address("sms/http").to_string()).envs(variables.iter().copied());
        String::from_utf8(script.output().unwrap().stdout).unwrap()
    };
    let list = format!("{} node ls", env!("CARGO_BIN_EXE_spear"));
    let coloured = on_terminal(&list, &[]);
    assert!(coloured.contains("\x1b[32monline\x1b[0m"), "{coloured:?}");
    for plain in [on_terminal(&list, &[("NO_COLOR", "1")]), on_terminal(&format!("{list} --color never"), &[])] {
        assert!(plain.contains("online") && !plain.contains('\x1b'), "{plain:?}");
    }
    // Looks until it is told to end, however long the first look takes.
    let painted = on_terminal(&format!("timeout --foreground -s INT 10 {list} --watch=100ms"), &[]);
    assert_eq!(painted.matches("\x1b[2J").count(), 1, "{painted:?}");
    assert!(painted.matches("\x1b[H").count() > 1, "{painted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_goes_into_a_pipe_has_an_escape_unless_it_is_asked_for() {
    let place = Place::new("sms");
    place.client().post("/api/v1/nodes", json!({"ip_address": "10.0.0.7", "port": 1})).await;
    place.client().upload("hello.wasm", sample("hello")).await;
    for args in [
        &["node", "ls"][..],
        &["node", "ls", "-o", "wide"],
        &["node", "ls", "-o", "json"],
        &["file", "ls"],
        &["cluster", "stats"],
        &["--help"],
        &["node", "--help"],
    ] {
        let out = place.command(args).env("TERM", "xterm-256color").output().unwrap();
        assert!(!Said::of(out).good().contains('\x1b'), "{args:?}");
    }
    let forced = place.command(&["node", "ls"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(Said::of(forced).good().contains("\x1b[32monline"));
    assert!(place.run(&["node", "ls", "--color", "always"]).good().contains("\x1b[32monline"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tab_key_offers_live_ids_and_is_silent_where_nothing_answers() {
    let place = Place::new("sms");
    let made = place.client().post("/api/v1/nodes", json!({"ip_address": "10.0.0.7", "port": 1})).await.1;
    let node = made["node_uuid"].as_str().unwrap();
    let uri = place.client().upload("hello.wasm", sample("hello")).await;
    let file = uri.strip_prefix("sms+file://").unwrap();
    let tab = |words: &[&str], addr: Option<&str>| {
        let mut command = place.command(&["--"]);
        command.args(words).env("COMPLETE", "bash").env("_CLAP_IFS", "\n");
        command.env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
        if let Some(addr) = addr {
            command.env("SPEAR_ADDR", addr);
        }
        let offered = Said::of(command.output().unwrap()).good();
        offered.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(tab(&["spear", "node", "drain", &node[..4]], None), [node]);
    assert_eq!(tab(&["spear", "file", "download", &file[..8]], None), [file]);
    assert_eq!(tab(&["spear", "file", "rm", &file[..8]], Some("127.0.0.1:1")), Vec::<String>::new());
    let addr = place.daemon.address("sms/http").to_string();
    assert_eq!(tab(&["spear", "node", "get", "--addr", &addr, &node[..4]], Some("127.0.0.1:1")), [node]);
    assert!(tab(&["spear", "no"], None).contains(&"node".to_owned()));
    run(place.dir.path(), &["context", "set", "lab", "--addr", "h:1"]).good();
    assert_eq!(tab(&["spear", "node", "ls", "--context", ""], None), ["lab"]);
    // As a shell does it, with the script that it was given.
    let ask = format!(
        "source <(spear completion bash); COMP_WORDS=(spear node drain {begun}); COMP_CWORD=3; COMP_TYPE=9; \
         _clap_complete_spear spear {begun} drain; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        begun = &node[..4],
    );
    let program = Path::new(env!("CARGO_BIN_EXE_spear")).parent().unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-c", &ask]).env_clear().env("PATH", format!("{}:/usr/bin:/bin", program.display()));
    bash.env("HOME", place.dir.path()).env("SPEAR_ADDR", &addr);
    assert_eq!(Said::of(bash.output().unwrap()).out.trim(), node);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.run(&["completion", shell]).good();
        assert!(script.contains("COMPLETE") && script.contains("spear"), "{script}");
        let fixed = place.run(&["completion", shell, "--static"]).good();
        assert!(fixed.contains("drain") && !fixed.contains("COMPLETE="), "{shell}");
    }
}

/// A server that is not Spear's own, for answers that cannot be had at will.
async fn answering(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async { axum::serve(listener, router).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_ready_from_not_ready_from_not_there() {
    let place = Place::new("all");
    let (registry, agent) = (place.daemon.address("sms/http"), place.daemon.address("spearlet/http"));
    let (registry, agent) = (registry.to_string(), agent.to_string());
    place.client().until("/readyz", |answer| answer == &json!("ok\n")).await;
    // No token is needed, and none is sent.
    let said = run(place.dir.path(), &["health", &registry, &agent]).good();
    assert_eq!(said, format!("{registry} ready\n{agent} ready\n"));
    let full = async || (StatusCode::SERVICE_UNAVAILABLE, "[-] store: full\n[+] sms: ok\nnot ready\n");
    let full = answering(Router::new().route("/readyz", get(full))).await;
    let foreign = answering(Router::new()).await;
    let said = run(place.dir.path(), &["health", &registry, &full]);
    assert_eq!((said.code, &*said.err), (1, ""));
    assert_eq!(said.out, format!("{registry} ready\n{full} not ready\n  store: full\n"));
    let said = run(place.dir.path(), &["health", &foreign]);
    assert!(said.code == 1 && said.out.contains("404"), "{said:?}");
    assert!(run(place.dir.path(), &["health", "127.0.0.1:1"]).refused(69).contains("127.0.0.1:1"));
    let body = run(place.dir.path(), &["health", &full, "-o", "json"]);
    let wanted = json!({"ready": false, "addresses": [{"address": full, "ready": false, "reasons": ["store: full"]}]});
    assert_eq!((body.code, json(&body.out)), (1, wanted));
    // As the environment of a container says it.
    let mut command = spear(place.dir.path());
    command.arg("health").env("SMS_HTTP_ADDR", &registry).env("SPEARLET_HTTP_ADDR", "127.0.0.1:1");
    assert_eq!(Said::of(command.output().unwrap()).good(), format!("{registry} ready\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_every_scope_of_the_registry_or_of_an_agent() {
    let body = |role: &str| {
        json!({
            "version": "9.9.9", "role": role, "pid": 4711, "uptime_seconds": 192, "ready": false,
            "reasons": [{"check": "store", "reason": "full"}], "listeners": [{"name": "http", "address": "127.0.0.1:1"}],
            "scopes": [
                {"name": "sms", "phase": "work", "state": "running", "count": 3, "restarts": 0, "last_error": null},
                {"name": "sms/placer", "phase": "work", "state": "restarting", "count": 1, "restarts": 2,
                 "last_error": "it fell"},
            ],
        })
    };
    let (sms, agent) = (body("sms"), body("spearlet"));
    let shown = sms.clone();
    let registry = answering(Router::new().route("/api/v1/status", get(async || Json(shown)))).await;
    let node = answering(Router::new().route("/api/v1/status", get(async || Json(agent)))).await;
    let dir = tempfile::tempdir().unwrap();
    let out = run(dir.path(), &["status", "--addr", &registry]).good();
    for wanted in ["9.9.9 sms, process 4711, up for 3m12s: not ready", "store: full", "LAST ERROR", "it fell"] {
        assert!(out.contains(wanted), "{wanted}: {out}");
    }
    assert_eq!(json(&run(dir.path(), &["status", "--addr", &registry, "-o", "json"]).good()), sms);
    let out = run(dir.path(), &["status", "--agent", &node]).good();
    assert!(out.contains("9.9.9 spearlet"), "{out}");
    assert!(run(dir.path(), &["status", "--agent", &node, "--addr", &registry]).refused(2).contains("--agent"));
}

#[test]
fn a_help_page_is_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let kept = std::fs::read_to_string(path).unwrap();
    let made = run(dir.path(), &["docs-cli"]).good();
    let next = "docs/cli.md is old: cargo run -q --bin spear -- docs-cli > docs/cli.md";
    let differs = kept.lines().zip(made.lines()).position(|(kept, made)| kept != made);
    assert!(kept == made, "{next} (from line {:?})", differs.map(|line| line + 1));
    let pages: Vec<&str> = made.split("\n## ").skip(1).collect();
    assert!(pages.len() > 30, "{} pages", pages.len());
    for page in pages {
        let (command, rest) = page.split_once('\n').unwrap();
        let words: Vec<&str> = command.split(' ').skip(1).chain(["--help"]).collect();
        assert!(words.len() != 2 || page.contains("\nExamples:\n"), "{command} teaches by example");
        // The width of a page that is not for a terminal.
        let shown = run(dir.path(), &words).good();
        let shown: Vec<&str> = shown.lines().map(str::trim_end).collect();
        let wanted = rest.split("```").nth(1).unwrap().strip_prefix("text\n").unwrap();
        assert_eq!(shown.join("\n").trim_end(), wanted.trim_end(), "{command}");
    }
}

#[test]
fn manual_pages_and_the_version_are_for_packagers() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["man", "pages"]).good();
    for name in ["spear.1", "spear-node.1", "spear-node-drain.1", "spear-completion.1"] {
        let page = std::fs::read_to_string(dir.path().join("pages").join(name)).unwrap();
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(!dir.path().join("pages/spear-docs-cli.1").exists(), "what is hidden has no page");
    assert!(run(dir.path(), &["man"]).good().contains(".TH spear 1"));
    let facts = json(&run(dir.path(), &["version", "-o", "json"]).good());
    assert_eq!(facts["version"], json!(env!("CARGO_PKG_VERSION")));
    for fact in ["rustc", "target", "profile", "wasmer"] {
        assert!(facts[fact].as_str().is_some_and(|text| !text.is_empty()), "{fact}: {facts}");
    }
    assert!(run(dir.path(), &["version"]).good().contains("wasmer"));
}
