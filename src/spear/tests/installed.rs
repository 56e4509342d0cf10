//! What `make install` puts where, and whether the services and the image that are made of it would work.
//!
//! The program is the one that the tests were built with. Of systemd only its analysis runs; the test itself plays the
//! service manager: it starts what the units start, listens where they would be listened to, and compares what the
//! program asks of the kernel with what its unit allows.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Client, PATIENCE, sample};

const UNITS: [(&str, &str); 3] = [("spear-sms", "sms"), ("spear-spearlet", "spearlet"), ("spear", "all")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// `make` at the top with these words.
fn make(words: &[String]) -> String {
    let mut command = Command::new("make");
    command.arg("--silent").arg("-C").arg(root()).args(words).env_remove("MAKEFLAGS").env_remove("DESTDIR");
    command.arg(format!("BINARY={}", env!("CARGO_BIN_EXE_spear")));
    said(&mut command)
}

/// What a command says on both outputs; it must succeed.
fn said(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {}\n{text}", done.status);
    text
}

/// The program with its units under a prefix of its own, as `make install PREFIX=` puts them.
fn installed(prefix: &Path) -> BTreeMap<&'static str, Unit> {
    let word = |name: &str, dir: &str| format!("{name}={}", prefix.join(dir).display());
    make(&["install".to_owned(), word("PREFIX", ""), word("SYSCONFDIR", "etc")]);
    // Nobody listens there: an agent of a test must not find a registry that somebody else runs.
    let agent = prefix.join("etc/spear/spearlet.toml");
    let text = fs::read_to_string(&agent).unwrap();
    fs::write(&agent, text.replace(":50051", ":1").replace(":8080", ":1")).unwrap();
    let unit = |name| Unit::read(&prefix.join(format!("lib/systemd/system/{name}.service")));
    UNITS.iter().map(|(name, _)| (*name, unit(*name))).collect()
}

/// The settings of a unit, in their order.
struct Unit {
    path: PathBuf,
    settings: Vec<(String, String)>,
}

impl Unit {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let settings = lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.into(), value.into()));
        Self { path: path.to_owned(), settings: settings.collect() }
    }

    fn all(&self, key: &str) -> Vec<&str> {
        self.settings.iter().filter(|(its, _)| its == key).map(|(_, value)| &**value).collect()
    }

    fn one(&self, key: &str) -> &str {
        let [value] = self.all(key)[..] else { panic!("{}: not one {key}=", self.path.display()) };
        value
    }

    /// The program that it starts.
    fn program(&self) -> &str {
        self.one("ExecStart").split_whitespace().next().unwrap()
    }

    /// A command line of the unit, in a state directory of the test, with the listeners on free ports.
    fn command(&self, key: &str, role: &str, state: &Path) -> Vec<String> {
        let mut words: Vec<String> = self.one(key).split_whitespace().map(str::to_owned).collect();
        let mut more = |flag: &str, value: &str| words.extend([flag.to_owned(), value.to_owned()]);
        more("--grpc-addr", "127.0.0.1:0");
        more("--http-addr", "127.0.0.1:0");
        if role == "all" {
            more("--spearlet-grpc-addr", "127.0.0.1:0");
            more("--spearlet-http-addr", "127.0.0.1:0");
        }
        if role != "spearlet" {
            more("--db-path", &state.join("sms").display().to_string());
        }
        if role != "sms" {
            more("--storage-path", &state.join("spearlet").display().to_string());
        }
        words
    }
}

#[test]
fn make_install_puts_everything_in_its_place_and_uninstall_leaves_what_is_the_administrators() {
    let dir = tempfile::tempdir().unwrap();
    let words =
        |target: &str| [target.to_owned(), format!("DESTDIR={}", dir.path().display()), "PREFIX=/usr".to_owned()];
    fs::create_dir_all(dir.path().join("etc/spear")).unwrap();
    fs::write(dir.path().join("etc/spear/sms.toml"), "# mine\n").unwrap();
    make(&words("install"));
    make(&words("install"));
    let at = |path: &str| dir.path().join(path);
    for name in ["sms", "spearlet"] {
        assert_eq!(fs::read_link(at("usr/bin").join(name)).unwrap(), Path::new("spear"));
    }
    let version = said(Command::new(at("usr/bin/spear")).arg("--version").env_clear());
    assert!(version.starts_with("spear "), "{version}");
    assert_eq!(fs::read_to_string(at("etc/spear/sms.toml")).unwrap(), "# mine\n", "a second install overwrote it");
    for (unit, _) in UNITS {
        let name = format!("{unit}.service");
        let ours = fs::read_to_string(root().join("systemd").join(&name)).unwrap();
        assert_eq!(fs::read_to_string(at("usr/lib/systemd/system").join(name)).unwrap(), ours);
    }
    let others = [
        "etc/spear/spear.toml",
        "etc/spear/spearlet.toml",
        "usr/share/man/man1/spear.1",
        "usr/share/man/man1/spear-serve.1",
        "usr/share/bash-completion/completions/spear",
        "usr/share/zsh/site-functions/_spear",
        "usr/share/fish/vendor_completions.d/spear.fish",
        "usr/share/doc/spear/operations.md",
        "usr/share/doc/spear/config.example.toml",
    ];
    for path in others {
        let about = fs::metadata(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(about.len() > 0, "{path} is empty");
        assert_eq!(about.permissions().mode() & 0o777, 0o644, "{path}");
    }
    make(&words("uninstall"));
    let mut left = Vec::new();
    files(dir.path(), &mut left);
    let kept = ["etc/spear/sms.toml", "etc/spear/spear.toml", "etc/spear/spearlet.toml"];
    assert_eq!(left, kept.map(at), "the configuration stays, and nothing else");
}

/// Every file below a directory, in order.
fn files(dir: &Path, all: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.is_symlink() { files(&path, all) } else { all.push(path) }
    }
}

#[test]
fn systemd_accepts_the_units_and_finds_little_that_they_could_do() {
    let dir = tempfile::tempdir().unwrap();
    for (name, unit) in installed(dir.path()) {
        // Reads the units of this machine that it belongs to as well; what it says of those is not about us.
        let mut verify = Command::new("systemd-analyze");
        let verified = verify.args(["verify", "--man=no"]).arg(&unit.path).output().expect("systemd-analyze");
        let text = String::from_utf8_lossy(&verified.stderr).into_owned();
        let complaints: Vec<&str> = text.lines().filter(|line| line.contains("spear")).collect();
        assert!(complaints.is_empty(), "{name}: {complaints:?}");
        // In tenths: fails above 1.5.
        let mut judge = Command::new("systemd-analyze");
        let report = said(judge.args(["security", "--offline=yes", "--threshold=15", "--no-pager"]).arg(&unit.path));
        assert!(report.contains("Overall exposure level"), "{report}");
        let jit = name != "spear-sms";
        assert_eq!(unit.all("MemoryDenyWriteExecute").is_empty(), jit, "{name}: guests are compiled to machine code");
    }
}

/// A process that believes systemd started it.
struct Service {
    child: Child,
    socket: UnixDatagram,
    log: PathBuf,
}

impl Service {
    fn start(words: &[String], dir: &Path) -> Self {
        let (socket, log) = (dir.join("notify"), dir.join("log"));
        let listening = UnixDatagram::bind(&socket).unwrap();
        listening.set_read_timeout(Some(PATIENCE)).unwrap();
        let (program, args) = words.split_first().unwrap();
        let mut command = Command::new(program);
        command.args(args).current_dir(dir).env_clear().env("HOME", dir).env("PATH", "/usr/bin:/bin");
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "1500000");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Self { child: command.spawn().unwrap(), socket: listening, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Reads what the process tells its manager until it has said a line.
    fn until(&self, line: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length = self.socket.recv(&mut buffer);
            let length = length.unwrap_or_else(|error| panic!("no {line}: {error}\n{}", self.log()));
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|said| said == line) {
                return;
            }
        }
    }

    /// Where a listener is.
    fn address(&self, listener: &str) -> SocketAddr {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut found = lines.filter(|line| line["message"] == "listening" && line["listener"] == listener);
            if let Some(line) = found.next() {
                return line["address"].as_str().unwrap().parse().unwrap();
            }
            assert!(Instant::now() < give_up, "no listener {listener}:\n{log}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < give_up, "still running:\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

#[test]
fn each_service_checks_its_configuration_says_when_it_is_ready_lives_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let units = installed(dir.path());
    for (name, role) in UNITS {
        let unit = &units[name];
        let state = tempfile::tempdir().unwrap();
        let check: Vec<&str> = unit.one("ExecStartPre").split_whitespace().collect();
        let answer = said(Command::new(check[0]).args(&check[1..]).env_clear().env("HOME", state.path()));
        assert!(answer.contains("good"), "{name}: {answer}");
        let mut service = Service::start(&unit.command("ExecStart", role, state.path()), state.path());
        service.until("READY=1");
        service.until("WATCHDOG=1");
        service.until("WATCHDOG=1");
        if role != "spearlet" {
            // As in a container: no certificates of authorities, and a proxy for everything.
            let mut health = Command::new(unit.program());
            health.args(["health", &service.address("sms/http").to_string()]).env_clear();
            health.env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent");
            said(health.env("http_proxy", "http://127.0.0.1:1"));
        }
        service.signal(Signal::TERM);
        service.until("STOPPING=1");
        let status = service.ended();
        assert_eq!(status.code(), Some(0), "{name}: {}", service.log());
    }
}

/// A group of system calls, as systemd knows it.
fn calls(group: &str) -> BTreeSet<String> {
    let text = said(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", group]));
    let mut all = BTreeSet::new();
    for line in text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.starts_with('@') {
            true => all.extend(calls(line)),
            false => all.extend([line.to_owned()]),
        }
    }
    assert!(!all.is_empty(), "{group}: {text}");
    all
}

/// What the filter of a unit lets through.
fn allowed(unit: &Unit) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for filter in unit.all("SystemCallFilter") {
        let (without, groups) = filter.strip_prefix('~').map_or((false, filter), |groups| (true, groups));
        let named = |word: &str| if word.starts_with('@') { calls(word) } else { [word.to_owned()].into() };
        for group in groups.split_whitespace().map(named) {
            if without { all.retain(|call| !group.contains(call)) } else { all.extend(group) }
        }
    }
    all.extend(calls("@default"));
    all
}

/// Name and arguments of every call in a trace of `strace -f`.
fn traced(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let calls = text.lines().filter_map(|line| line.split_once(' ')).map(|(_, call)| call.trim_start());
    calls
        .filter_map(|call| call.split_once('('))
        .filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

/// Runs a unit's command under strace with some work; the trace.
async fn trace(unit: &Unit, role: &str) -> String {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("trace");
    // With -D the service is the test's own child, and the tracer its child: signals reach the service.
    let mut words: Vec<String> = ["strace", "-D", "-f", "-q", "-o"].map(str::to_owned).to_vec();
    words.push(file.display().to_string());
    words.extend(unit.command("ExecStart", role, state.path()));
    let mut service = Service::start(&words, state.path());
    service.until("READY=1");
    if role != "spearlet" {
        let client = Client::new(&format!("http://{}", service.address("sms/http")));
        let uri = client.upload("hello.wasm", sample("hello")).await;
        if role == "all" {
            let (_, execution) = client.task("hello", &uri, json!({})).await;
            let ended = client.ended(&execution).await;
            assert_eq!(ended["status"], "completed", "{ended}");
        }
    }
    service.signal(Signal::TERM);
    let status = service.ended();
    assert_eq!(status.code(), Some(0), "{}", service.log());
    // The tracer writes its last line after the service has gone.
    let (pid, give_up) = (format!("{} ", service.child.id()), Instant::now() + PATIENCE);
    loop {
        let text = fs::read_to_string(&file).unwrap();
        if text.lines().any(|line| line.starts_with(&pid) && line.contains("+++ exited with 0 +++")) {
            return text;
        }
        assert!(Instant::now() < give_up, "the trace has no end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_services_ask_the_kernel_for_nothing_that_their_units_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let units = installed(dir.path());
    for (name, role) in [("spear-sms", "sms"), ("spear", "all")] {
        let unit = &units[name];
        let text = trace(unit, role).await;
        let seen: BTreeSet<String> = traced(&text).map(|(call, _)| call.to_owned()).collect();
        assert!(["execve", "epoll_wait", "fdatasync"].iter().all(|call| seen.contains(*call)), "{seen:?}");
        let allowed = allowed(unit);
        let refused: Vec<&String> = seen.difference(&allowed).collect();
        assert!(refused.is_empty(), "{name}: SystemCallFilter= refuses {refused:?}");
        let families = unit.one("RestrictAddressFamilies");
        let sockets = traced(&text).filter(|(call, _)| *call == "socket");
        let family = |arguments: &str| arguments.split([',', ')']).next().unwrap().to_owned();
        let sockets: BTreeSet<String> = sockets.map(|(_, arguments)| family(arguments)).collect();
        // The addresses of the interfaces, which come with their counters and which nobody reads.
        let expendable = "AF_NETLINK";
        let refused = sockets.iter().filter(|family| !families.contains(&***family) && *family != expendable);
        let refused: Vec<&String> = refused.collect();
        assert!(refused.is_empty(), "{name}: RestrictAddressFamilies= refuses {refused:?}");
        if unit.all("MemoryDenyWriteExecute") == ["yes"] {
            // As the filter of systemd has it; the loader maps what is to be executed without write.
            let both = |arguments: &str| arguments.contains("PROT_WRITE") && arguments.contains("PROT_EXEC");
            let bad = traced(&text).find(|(call, arguments)| match *call {
                "mmap" => both(arguments),
                "mprotect" | "pkey_mprotect" => arguments.contains("PROT_EXEC"),
                "shmat" => arguments.contains("SHM_EXEC"),
                _ => false,
            });
            assert_eq!(bad, None, "{name}: MemoryDenyWriteExecute= refuses it");
        }
    }
}

#[test]
fn the_image_sets_what_the_program_knows_and_its_directories_are_in_the_volume() {
    let text = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let joined = text.replace("\\\n", " ");
    let environment = joined.lines().filter_map(|line| line.strip_prefix("ENV ")).flat_map(str::split_whitespace);
    let environment: Vec<(&str, &str)> = environment.map(|pair| pair.split_once('=').unwrap()).collect();
    assert!(environment.len() >= 7, "{environment:?}");
    let mut print = Command::new(env!("CARGO_BIN_EXE_spear"));
    print.args(["config", "print", "--sources", "--role", "all"]).env_clear().envs(environment.iter().copied());
    let settings = said(&mut print);
    for (name, value) in environment.iter().filter(|(name, _)| *name != "HOME") {
        let line = settings.lines().find(|line| line.contains(&format!("variable {name}")));
        let line = line.unwrap_or_else(|| panic!("{name} is no variable of the program:\n{settings}"));
        assert!(line.contains(value), "{line}");
        let inside = !value.starts_with('/') || value.starts_with("/var/lib/spear/");
        assert!(inside, "{name}={value} is outside of the volume");
    }
    let exposed = joined.lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
    let mut ports: Vec<&str> = environment.iter().filter_map(|(_, value)| value.strip_prefix("0.0.0.0:")).collect();
    let mut exposed: Vec<&str> = exposed.split_whitespace().collect();
    ports.sort();
    exposed.sort();
    assert_eq!(ports, exposed);
}

/// The rows of a table whose first cell is not a heading, by cell.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    lines.map(|line| line.split(" | ").map(str::trim).collect())
}

/// The defaults in `config.example.toml`, by the full name of the setting.
fn defaults() -> BTreeMap<String, String> {
    let mut section = String::new();
    let mut all = BTreeMap::new();
    for line in fs::read_to_string(root().join("config.example.toml")).unwrap().lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, value)) = line.trim_start_matches("# ").split_once(" = ") {
            all.insert(format!("{section}{key}"), value.trim_matches('"').to_owned());
        }
    }
    all
}

#[test]
fn the_pages_for_operators_name_settings_with_their_defaults_and_link_to_what_is_there() {
    let defaults = defaults();
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let mut limits = 0;
    let section = page.split("\n## ").find(|section| section.starts_with("Limits\n")).unwrap();
    for cells in rows(section) {
        let [_, default, setting] = cells[..] else { continue };
        let Some(setting) = setting.strip_prefix('`').and_then(|setting| setting.strip_suffix('`')) else { continue };
        assert_eq!(defaults.get(setting).map(String::as_str), Some(default), "{setting}");
        limits += 1;
    }
    assert!(limits >= 25, "only {limits} limits were found");
    let anchor = |title: &str| {
        let letters = title.to_lowercase().replace(' ', "-");
        letters.chars().filter(|letter| letter.is_alphanumeric() || *letter == '-').collect::<String>()
    };
    for name in ["docs/operations.md", "README.zh.md"] {
        let text = fs::read_to_string(root().join(name)).unwrap();
        let titles: Vec<String> = text.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
        let dir = root().join(name).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let found = match link.strip_prefix('#') {
                Some(title) => titles.iter().any(|its| its == title),
                None => link.starts_with("http") || dir.join(link).exists(),
            };
            assert!(found, "{name}: {link}");
        }
    }
}
