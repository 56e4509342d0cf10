//! What a watcher sees: the figures are well-formed and named by the rules, and the dashboard and the alerts speak of
//! figures that there are.

use api::proto::sms::{ListNodesRequest, node_service_client::NodeServiceClient};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Client, Daemon, channel, guest, sample, serve, spear};

/// One line of an exposition.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// One family of an exposition.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    unit: Option<String>,
    samples: Vec<Sample>,
}

/// Reads OpenMetrics 1.0 and refuses whatever the specification does not allow us.
fn openmetrics(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("the text ends with # EOF and a line feed");
    let (mut families, mut current) = (BTreeMap::<String, Family>::new(), String::new());
    let mut seen = BTreeSet::new();
    for line in body.lines() {
        assert!(!line.is_empty() && line == line.trim(), "odd space: {line:?}");
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (word, name, text) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
            if name != current {
                assert!(!families.contains_key(name), "{name}: its lines do not stand together");
                current = name.to_owned();
            }
            let family = families.entry(current.clone()).or_default();
            assert!(family.samples.is_empty(), "{line}: after its samples");
            let field = match word {
                "HELP" => &mut family.help,
                "TYPE" => &mut family.kind,
                "UNIT" => family.unit.insert(String::new()),
                other => panic!("unknown word {other}: {line}"),
            };
            assert!(field.is_empty(), "twice: {line}");
            text.clone_into(field);
            continue;
        }
        let sample = parse(line);
        let family = families.get_mut(&current).unwrap_or_else(|| panic!("before any family: {line}"));
        let suffix = sample.name.strip_prefix(&current).unwrap_or_else(|| panic!("{line}: not of {current}"));
        let allowed: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("{current} is a {other}"),
        };
        assert!(allowed.contains(&suffix), "{line}: suffix of a {}", family.kind);
        assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "a series is there twice: {line}");
        family.samples.push(sample);
    }
    families
}

fn parse(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let close = loop {
                match chars.next().unwrap_or_else(|| panic!("open quote: {line}")) {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('"' | '\\') => c,
                        c => panic!("unknown escape {c}: {line}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            assert!(named(label), "label {label:?}: {line}");
            assert!(labels.insert(label.to_owned(), value).is_none(), "label twice: {line}");
            rest = &after[close + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    assert!(named(name), "{line}");
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no space before the value: {line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
    Sample { name: name.to_owned(), labels, value }
}

fn named(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The buckets of a histogram, and its count.
type Buckets = (Vec<(f64, f64)>, Option<f64>);

/// The rules of the house for names, help, units and histograms.
fn check_conventions(families: &BTreeMap<String, Family>) {
    for (name, family) in families {
        assert!(name.starts_with("spear_") || name.starts_with("process_"), "{name}");
        assert!(family.help.len() > 3 && family.help.ends_with('.'), "{name}: {:?}", family.help);
        for wrong in ["_ms", "_millis", "_milliseconds", "_kb", "_kilobytes", "_percent", "_total", "_count", "_sum"] {
            assert!(!name.ends_with(wrong), "{name}: base units, and no suffix that has a meaning of its own");
        }
        for unit in ["seconds", "bytes"] {
            let ends = name.ends_with(&format!("_{unit}"));
            assert_eq!(family.unit.as_deref() == Some(unit), ends, "{name}: unit {:?}", family.unit);
        }
        assert!(!family.samples.is_empty() || family.unit.is_none() || family.kind != "gauge", "{name} is empty");
        for sample in &family.samples {
            for (label, value) in &sample.labels {
                let id = value.len() >= 32 && value.chars().filter(|c| *c == '-').count() >= 4;
                assert!(!id && value.len() <= 100, "{name}: {label}={value:?} may take any value");
            }
        }
        if family.kind == "counter" {
            assert!(family.samples.iter().all(|sample| sample.value >= 0.0), "{name}");
        }
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
}

fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<BTreeMap<String, String>, Buckets> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le");
        let (buckets, count) = series.entry(labels).or_default();
        match sample.name.strip_prefix(name) {
            Some("_bucket") => {
                let bound = bound.expect("a bucket has a bound");
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
                buckets.push((bound, sample.value));
            }
            Some("_count") => *count = Some(sample.value),
            _ => {}
        }
    }
    for (labels, (buckets, count)) in series {
        assert!(buckets.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1), "{name}{labels:?}");
        let last = buckets.last().unwrap();
        assert_eq!((last.0, Some(last.1)), (f64::INFINITY, count), "{name}{labels:?}");
    }
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// A registry and an agent to which everything has happened once.
struct Watched {
    _dir: tempfile::TempDir,
    daemon: Daemon,
    client: Client,
    _events: reqwest::Response,
}

impl Watched {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut args = serve("all");
        // Nobody listens there: what the collector does not get must harm nothing, and is counted.
        std::fs::write(dir.path().join("spear.toml"), "[otel]\nendpoint = \"http://127.0.0.1:9\"\n").unwrap();
        args.extend(["--config".to_owned(), dir.path().join("spear.toml").display().to_string()]);
        let daemon = Daemon::start_with(dir.path(), args);
        let client = Client::new(&daemon.sms());
        client.until("/api/v1/nodes", |nodes| nodes["nodes"].as_array().is_some_and(|all| !all.is_empty())).await;
        let events = client.http.get(format!("{}/api/v1/events", client.base)).send().await.unwrap();
        let trap = guest("(module (memory (export \"memory\") 1) (func (export \"_start\") unreachable))");
        for (name, module) in [("echo", sample("echo")), ("trap", trap)] {
            let uri = client.upload(&format!("{name}.wasm"), module).await;
            let (task, first) = client.task(name, &uri, json!({})).await;
            client.ended(&first).await;
            let (_, answer) = client
                .post(&format!("/api/v1/tasks/{task}/executions"), json!({"mode": "sync", "input": "again"}))
                .await;
            assert_eq!(answer["status"], json!(if name == "trap" { "failed" } else { "completed" }), "{answer}");
        }
        // Broken before it is compiled, and after.
        let uri = client.upload("broken.wasm", b"\0asm\x01\0\0\0\xff".to_vec()).await;
        let (_, broken) = client.task("broken", &uri, json!({})).await;
        client.ended(&broken).await;
        for path in ["/api/v1/no-such-thing/0197-random-words", "/api/v1/nodes/not-an-id"] {
            assert!(client.get(path).await.0 >= 400, "{path}");
        }
        let request = client.http.get(format!("{}/api/v1/nodes", client.base)).header("origin", "http://evil.example");
        assert_eq!(client.send(request).await.0, 403);
        let mut grpc = NodeServiceClient::new(channel(daemon.address("sms/grpc")).await);
        grpc.list_nodes(ListNodesRequest::default()).await.unwrap();
        Self { _dir: dir, daemon, client, _events: events }
    }

    async fn scrape(&self, listener: &str) -> String {
        let url = format!("http://{}/metrics", self.daemon.address(listener));
        let response = self.client.http.get(url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let media = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(media, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        response.text().await.unwrap()
    }

    /// Scrapes until a series has a value that is wanted.
    async fn until(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        wanted: impl Fn(f64) -> bool,
    ) -> BTreeMap<String, Family> {
        let give_up = std::time::Instant::now() + crate::support::PATIENCE;
        loop {
            let families = openmetrics(&self.scrape("sms/http").await);
            let found = value(&families, name, labels);
            if found.is_some_and(&wanted) {
                return families;
            }
            assert!(std::time::Instant::now() < give_up, "{name} {labels:?} stayed {found:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// The sum of the samples of a name with these labels.
fn value(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let fits = |sample: &&Sample| {
        sample.name == name
            && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|is| is == value))
    };
    let values: Vec<f64> =
        families.values().flat_map(|family| &family.samples).filter(fits).map(|sample| sample.value).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_figures_are_well_formed_counted_right_and_cover_dashboard_and_alerts() {
    let watched = Watched::new().await;
    watched.until("spear_ready", &[], |ready| ready == 1.0).await;
    // Deliveries and the calls of the agent end a little after the execution has.
    let ended = |count: f64| count >= 5.0;
    let families = watched.until("spear_agent_deliveries_total", &[("outcome", "acknowledged")], ended).await;
    check_conventions(&families);
    let is = |name: &str, labels: &[(&str, &str)], wanted: f64| {
        assert_eq!(value(&families, name, labels), Some(wanted), "{name} {labels:?}");
    };
    is("spear_nodes", &[("state", "online")], 1.0);
    is("spear_tasks", &[], 3.0);
    is("spear_files", &[], 3.0);
    is("spear_executions_created_total", &[], 5.0);
    is("spear_executions", &[("status", "completed")], 2.0);
    is("spear_executions", &[("status", "failed")], 3.0);
    is("spear_executions_finished_total", &[("status", "completed"), ("reason", "none")], 2.0);
    is("spear_executions_finished_total", &[("status", "failed"), ("reason", "trap")], 2.0);
    is("spear_executions_finished_total", &[("status", "failed"), ("reason", "invalid_module")], 1.0);
    is("spear_execution_duration_seconds_count", &[], 5.0);
    is("spear_agent_executions_finished_total", &[], 5.0);
    is("spear_agent_executions", &[], 0.0);
    is("spear_agent_registry_connected", &[], 1.0);
    is("spear_wasm_modules_total", &[("source", "compiled")], 2.0);
    // What is ready to be called is not asked for again.
    is("spear_wasm_modules_total", &[("source", "memory")], 0.0);
    is("spear_wasm_compile_failures_total", &[("reason", "invalid_module")], 1.0);
    is("spear_function_instances", &[("state", "idle")], 1.0);
    is("spear_function_instances", &[("state", "busy")], 0.0);
    let kept = value(&families, "spear_wasm_guest_memory_bytes", &[]);
    assert!(kept.is_some_and(|bytes| bytes > 0.0), "the instance that waits for the next call: {kept:?}");
    is("spear_artifact_fetches_total", &[("source", "registry"), ("outcome", "ok")], 3.0);
    is("spear_artifact_cache_hits_total", &[], 2.0);
    is("spear_http_event_streams", &[("listener", "sms/http")], 1.0);
    is("spear_http_access_refused_total", &[("reason", "origin_not_allowed")], 1.0);
    is("spear_http_requests_total", &[("route", "unmatched"), ("code", "404")], 1.0);
    is("spear_http_requests_total", &[("route", "/api/v1/files"), ("method", "POST"), ("code", "200")], 3.0);
    is("spear_http_requests_total", &[("route", "/api/v1/nodes/{uuid}"), ("code", "400")], 1.0);
    let list = [("service", "sms.NodeService"), ("method", "ListNodes")];
    is("spear_grpc_server_handled_total", &[list[0], list[1], ("code", "OK")], 1.0);
    is("spear_grpc_server_handling_seconds_count", &list, 1.0);
    is("spear_store_failed", &[("store", "sms")], 0.0);
    is("spear_ready", &[], 1.0);
    is("spear_supervised_task_failures_total", &[], 0.0);
    is("spear_build_info", &[("version", env!("CARGO_PKG_VERSION")), ("role", "all")], 1.0);
    for (name, least) in [
        ("spear_store_commit_duration_seconds_count", 10.0),
        ("spear_node_heartbeats_total", 1.0),
        ("spear_artifact_fetched_bytes_total", 20.0),
        ("spear_store_disk_free_bytes", 1e6),
        ("process_resident_memory_bytes", 1e6),
    ] {
        assert!(value(&families, name, &[]).is_some_and(|value| value >= least), "{name}");
    }
    // Both listeners show all of the process.
    let agents = openmetrics(&watched.scrape("spearlet/http").await);
    assert_eq!(agents.keys().collect::<Vec<_>>(), families.keys().collect::<Vec<_>>());
    // The collector that is not there is noticed and counted.
    let families = watched.until("spear_otel_exports_total", &[("outcome", "failed")], |count| count >= 1.0).await;
    let expressions = dashboard().into_iter().chain(alerts());
    let mut named = BTreeSet::new();
    for (place, expression) in expressions {
        let found = check_expression(&families, &place, &expression);
        assert!(
            !found.is_empty() || place.contains("SpearDown"),
            "{place} speaks of none of our figures: {expression}"
        );
        named.extend(found);
    }
    // And nothing is measured that the dashboard does not show.
    let shown: BTreeSet<&str> = named.iter().map(|name| family_of(&families, name)).collect();
    let hidden: Vec<_> = families.keys().filter(|name| !shown.contains(name.as_str())).collect();
    assert!(hidden.is_empty(), "on no panel and in no alert: {hidden:?}");
}

fn family_of<'a>(families: &'a BTreeMap<String, Family>, sample: &str) -> &'a str {
    let of = |name: &&String| families[*name].samples.iter().any(|one| one.name == sample);
    families.keys().find(of).map_or("", String::as_str)
}

/// Title and expression of every panel.
fn dashboard() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(docs("grafana/spear.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are given once");
    let mut found = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != json!("row")) {
        let title = panel["title"].as_str().unwrap();
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 3), "{title} has a description");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert!(expression.contains("instance=~\"$instance\""), "{title}: {expression} is of all instances");
            found.push((format!("panel {title:?}"), expression.to_owned()));
        }
    }
    assert!(found.len() > 50);
    found
}

/// Name and expression of every alert rule.
fn alerts() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(docs("prometheus/alerts.yml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    let page = std::fs::read_to_string(docs("operations.md")).unwrap();
    let section = page.split("\n## Alerts\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    rules
        .into_iter()
        .map(|rule| {
            let name = rule["alert"].as_str().unwrap();
            let severity = rule["labels"]["severity"].as_str().unwrap();
            assert!(matches!(severity, "critical" | "warning"), "{name}: {severity}");
            for text in ["summary", "action"] {
                assert!(rule["annotations"][text].as_str().is_some_and(|text| text.len() > 10), "{name}: {text}");
            }
            let row = section.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("docs/operations.md does not say what {name} means"));
            assert!(row.contains(severity), "{row} is {severity}");
            (format!("alert {name}"), rule["expr"].as_str().unwrap().to_owned())
        })
        .collect()
}

/// Every figure that an expression names is in the scrape, with every label that the expression asks of it.
fn check_expression(families: &BTreeMap<String, Family>, place: &str, expression: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut labels_there = BTreeSet::from(["instance".to_owned(), "job".to_owned(), "le".to_owned()]);
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = ["spear_", "process_"].into_iter().flat_map(|word| expression.match_indices(word));
    for at in starts.map(|(at, _)| at).filter(|at| !expression[..*at].ends_with(word)) {
        let rest = &expression[at..];
        let name = rest.split(|c| !word(c)).next().unwrap();
        let samples: Vec<&Sample> =
            families.values().flat_map(|family| &family.samples).filter(|sample| sample.name == name).collect();
        assert!(!samples.is_empty(), "{place}: {name} is not in the scrape");
        for sample in &samples {
            labels_there.extend(sample.labels.keys().cloned());
        }
        if let Some(selector) = rest[name.len()..].strip_prefix('{') {
            for matcher in selector.split('}').next().unwrap().split(',') {
                let label = matcher.trim().split(['=', '!']).next().unwrap().trim();
                let has = |sample: &&Sample| sample.labels.contains_key(label);
                let ours = matches!(label, "instance" | "job") || samples.iter().any(has);
                assert!(ours, "{place}: {name} has no label {label}");
            }
        }
        found.insert(name.to_owned());
    }
    for list in expression.split("by (").skip(1) {
        for label in list.split(')').next().unwrap().split(',').map(str::trim) {
            assert!(labels_there.contains(label), "{place}: no figure in it has the label {label}");
        }
    }
    found
}

#[test]
fn prometheus_takes_the_alert_rules_and_the_scrape_example() {
    for (command, file) in [("rules", "prometheus/alerts.yml"), ("config", "prometheus/scrape.yml")] {
        let mut check = Command::new("promtool");
        check.args(["check", command]).args((command == "config").then_some("--syntax-only")).arg(docs(file));
        let output = check.output().expect("promtool, of the package prometheus, is installed");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_takes_what_a_scrape_answers_in_its_own_format() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let client = Client::new(&daemon.sms());
    let request = client.http.get(format!("{}/metrics", client.base)).header("accept", "text/plain;version=0.0.4");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("promtool, of the package prometheus, is installed");
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_figures_are_behind_the_token_and_can_be_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "a-token-that-is-long-enough\n").unwrap();
    let mut args = serve("all");
    args.extend(["--token-file".to_owned(), dir.path().join("token").display().to_string()]);
    let daemon = Daemon::start_with(dir.path(), args);
    let client = Client::new(&daemon.sms());
    for listener in ["sms/http", "spearlet/http"] {
        let url = format!("http://{}/metrics", daemon.address(listener));
        assert_eq!(client.http.get(&url).send().await.unwrap().status(), 401, "{listener}");
        let text = client.http.get(&url).bearer_auth("a-token-that-is-long-enough").send().await.unwrap();
        let text = text.text().await.unwrap();
        assert!(!text.contains("a-token-that-is-long-enough"));
        let families = openmetrics(&text);
        let refused = [("listener", listener), ("reason", "unauthenticated")];
        assert_eq!(value(&families, "spear_http_access_refused_total", &refused), Some(1.0));
    }
    drop(daemon);
    std::fs::write(dir.path().join("off.toml"), "[metrics]\nenabled = false\n").unwrap();
    let mut args = serve("all");
    args.extend(["--config".to_owned(), dir.path().join("off.toml").display().to_string()]);
    let daemon = Daemon::start_with(dir.path(), args);
    let client = Client::new(&daemon.sms());
    assert_eq!(client.get("/metrics").await.0, 404);
    let shown = spear(dir.path()).args(["config", "print"]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("metrics.enabled"), "{shown:?}");
}
