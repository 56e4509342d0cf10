//! Starts the real program in a directory of its own, talks to it, and kills it by pid.

use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running `spear serve`.
pub struct Daemon {
    child: Child,
    addresses: HashMap<String, SocketAddr>,
    log: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

/// `spear` in a directory, without anything of the caller's environment.
pub fn spear(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spear"));
    command.current_dir(dir).env_clear().env("HOME", dir).env("PATH", "/usr/bin:/bin");
    command.stdin(Stdio::null());
    command
}

/// Arguments of a role with every listener on a free port.
pub fn serve(role: &str) -> Vec<String> {
    let mut args = vec!["serve", "--role", role, "--log-format", "json"];
    match role {
        "spearlet" => args.extend(["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]),
        "sms" => args.extend(["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]),
        _ => args.extend([
            "--grpc-addr",
            "127.0.0.1:0",
            "--http-addr",
            "127.0.0.1:0",
            "--spearlet-grpc-addr",
            "127.0.0.1:0",
            "--spearlet-http-addr",
            "127.0.0.1:0",
        ]),
    }
    args.into_iter().map(str::to_owned).collect()
}

impl Daemon {
    /// Starts a role on free ports and waits until it is ready.
    pub fn start(dir: &Path, role: &str) -> Self {
        Self::start_with(dir, serve(role))
    }

    /// Starts with these arguments and waits until it is ready.
    pub fn start_with(dir: &Path, args: Vec<String>) -> Self {
        Self::try_start(dir, args).unwrap_or_else(|(status, log)| panic!("ended with {status}:\n{log}"))
    }

    /// Starts; how it ended and what it said when it did not become ready.
    pub fn try_start(dir: &Path, args: Vec<String>) -> Result<Self, (ExitStatus, String)> {
        let mut command = spear(dir);
        command.args(args);
        Self::try_launch(command)
    }

    /// Starts the program under another path and waits until it is ready.
    pub fn start_as(dir: &Path, program: &Path, args: Vec<String>) -> Self {
        let mut command = Command::new(program);
        command.current_dir(dir).env_clear().env("HOME", dir).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command.args(args);
        Self::launch(command)
    }

    /// Runs a command that is or becomes a `spear serve`, and waits until it is ready.
    pub fn launch(command: Command) -> Self {
        Self::try_launch(command).unwrap_or_else(|(status, log)| panic!("ended with {status}:\n{log}"))
    }

    /// The same; how it ended and what it said when it did not become ready.
    pub fn try_launch(mut command: Command) -> Result<Self, (ExitStatus, String)> {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, lines) = mpsc::channel();
        let kept = log.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line.clone());
                // Nobody listens any more once it is ready.
                drop(sender.send(line));
            }
        });
        let mut daemon = Self { child, addresses: HashMap::new(), log, reader };
        if daemon.wait_ready(&lines) {
            return Ok(daemon);
        }
        let status = daemon.child.wait().unwrap();
        Err((status, daemon.log()))
    }

    fn wait_ready(&mut self, lines: &Receiver<String>) -> bool {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let Ok(line) = lines.recv_timeout(give_up.saturating_duration_since(Instant::now())) else {
                assert!(Instant::now() < give_up, "not ready in {PATIENCE:?}:\n{}", self.log());
                return false;
            };
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            let fields = event.get("fields").unwrap_or(&event);
            match fields["message"].as_str() {
                Some("listening") => {
                    let name = fields["listener"].as_str().unwrap().to_owned();
                    self.addresses.insert(name, fields["address"].as_str().unwrap().parse().unwrap());
                }
                Some("ready") => return true,
                _ => {}
            }
        }
    }

    /// The address of a listener: `sms/http`, `sms/grpc`, `spearlet/http`, `spearlet/grpc`.
    pub fn address(&self, listener: &str) -> SocketAddr {
        *self.addresses.get(listener).unwrap_or_else(|| panic!("no listener {listener}: {:?}", self.addresses))
    }

    /// `http://…` of the registry.
    pub fn sms(&self) -> String {
        format!("http://{}", self.address("sms/http"))
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until it has logged a line that contains all of `parts`; the line.
    pub fn logged(&self, parts: &[&str]) -> String {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let log = self.log.lock().unwrap();
            if let Some(line) = log.iter().find(|line| parts.iter().all(|part| line.contains(part))) {
                return line.clone();
            }
            drop(log);
            assert!(Instant::now() < give_up, "it never said {parts:?}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without a warning, as a power cut does to a process.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by number.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            // Its last words may arrive after its end.
            if let Some(status) = self.child.try_wait().unwrap()
                && self.reader.is_finished()
            {
                return (status, self.log());
            }
            assert!(Instant::now() < give_up, "still running:\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the daemon\n{}", self.log());
        }
    }
}

/// A REST client of one registry.
#[derive(Clone)]
pub struct Client {
    pub base: String,
    pub http: reqwest::Client,
}

impl Client {
    pub fn new(base: &str) -> Self {
        let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        Self { base: base.to_owned(), http }
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.http.get(format!("{}{path}", self.base)).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn text(&self, path: &str) -> String {
        self.http.get(format!("{}{path}", self.base)).send().await.unwrap().text().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(self.http.post(format!("{}{path}", self.base)).json(&body)).await
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Uploads bytes; the file's URI.
    pub async fn upload(&self, name: &str, bytes: Vec<u8>) -> String {
        let request = self.http.post(format!("{}/api/v1/files", self.base)).header("x-file-name", name).body(bytes);
        let (status, answer) = self.send(request).await;
        assert_eq!(status, 200, "{answer}");
        answer["uri"].as_str().unwrap().to_owned()
    }

    /// Creates a wasm task; the answer's `task_id` and `execution_id`.
    pub async fn task(&self, name: &str, uri: &str, more: Value) -> (String, String) {
        let mut body = json!({
            "name": name, "endpoint": "http://127.0.0.1:8081/process", "version": "1.0.0",
            "executable": {"type": "wasm", "uri": uri, "name": format!("{name}.wasm")},
        });
        merge(&mut body, more);
        let (status, answer) = self.post("/api/v1/tasks", body).await;
        assert_eq!((status, &answer["success"]), (200, &json!(true)), "{answer}");
        let text = |field: &str| answer[field].as_str().unwrap_or_else(|| panic!("{field}: {answer}")).to_owned();
        (text("task_id"), text("execution_id"))
    }

    /// Waits until an execution has ended.
    pub async fn ended(&self, execution: &str) -> Value {
        self.until(&format!("/api/v1/executions/{execution}"), |answer| {
            !matches!(answer["status"].as_str(), Some("pending" | "running"))
        })
        .await
    }

    /// Reads a path until the answer is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let (_, answer) = self.get(path).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < give_up, "{path} stayed {answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A gRPC connection.
pub async fn channel(address: SocketAddr) -> tonic::transport::Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A guest by the name of its sample.
pub fn sample(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../samples/wat").join(format!("{name}.wat"));
    guest(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// A guest from its text.
pub fn guest(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}
