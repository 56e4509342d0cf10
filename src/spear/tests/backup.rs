//! Backups of the real program: taken under load, restored, served.

use futures_util::StreamExt;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
    process::Output,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    outage::{same_place, slow},
    remote::agent,
    support::{Client, Daemon, PATIENCE, sample, spear},
};

/// Runs `spear` and waits for its end.
async fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = spear(dir);
    command.args(args);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// The same, which must end well; its standard output.
async fn done(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args).await;
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same, which must fail; its exit code and standard error.
async fn refused(dir: &Path, args: &[&str]) -> (i32, String) {
    let output = run(dir, args).await;
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn address(daemon: &Daemon) -> String {
    daemon.address("sms/http").to_string()
}

/// What the registry has acknowledged.
#[derive(Clone, Default)]
struct Acknowledged {
    tasks: HashSet<String>,
    deleted: HashSet<String>,
    /// Asked to be deleted, at any time: whether they are there is open.
    doomed: HashSet<String>,
    files: BTreeMap<String, Vec<u8>>,
}

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    writes: AtomicU64,
    acknowledged: Mutex<Acknowledged>,
}

async fn write(client: &Client, load: &Load, writer: u64) {
    let mut round = 0u64;
    while !load.stop.load(Ordering::Relaxed) {
        round += 1;
        let url = |path: &str| format!("{}{path}", client.base);
        let id = if (writer + round).is_multiple_of(2) {
            let body = json!({"name": format!("w{writer}-{round}"), "endpoint": "e", "version": "1"});
            let (status, answer) = client.post("/api/v1/tasks", body).await;
            assert_eq!(status, 200, "{answer}");
            let id = answer["task_id"].as_str().unwrap().to_owned();
            load.acknowledged.lock().unwrap().tasks.insert(id.clone());
            format!("tasks/{id}")
        } else {
            let bytes = format!("{writer}/{round}/").repeat(500).into_bytes();
            let (status, answer) = client.send(client.http.post(url("/api/v1/files")).body(bytes.clone())).await;
            assert_eq!(status, 200, "{answer}");
            let id = answer["id"].as_str().unwrap().to_owned();
            load.acknowledged.lock().unwrap().files.insert(id.clone(), bytes);
            format!("files/{id}")
        };
        if round.is_multiple_of(3) {
            let name = id.split_once('/').unwrap().1.to_owned();
            load.acknowledged.lock().unwrap().doomed.insert(name.clone());
            let (status, answer) = client.send(client.http.delete(url(&format!("/api/v1/{id}")))).await;
            assert_eq!(status, 200, "{answer}");
            load.acknowledged.lock().unwrap().deleted.insert(name);
        }
        load.writes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Every page of a list: the ids.
async fn ids(client: &Client, path: &str, list: &str, field: &str) -> HashSet<String> {
    let (mut all, mut cursor) = (HashSet::new(), None::<String>);
    loop {
        let query = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let (status, page) = client.get(&format!("{path}?limit=500{query}")).await;
        assert_eq!(status, 200, "{page}");
        all.extend(page[list].as_array().unwrap().iter().map(|one| one[field].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) if !next.is_empty() => cursor = Some(next.to_owned()),
            _ => return all,
        }
    }
}

/// Id and name of the first event after a cursor.
async fn first_event(client: &Client, after: Option<&str>) -> (String, String) {
    let mut request = client.http.get(format!("{}/api/v1/events?after=0", client.base));
    if let Some(after) = after {
        request = client.http.get(format!("{}/api/v1/events", client.base)).header("last-event-id", after);
    }
    let mut stream = request.send().await.unwrap().bytes_stream();
    let mut text = String::new();
    loop {
        if let Some((event, _)) = text.split_once("\n\n") {
            let field =
                |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
            return (field("id: "), field("event: "));
        }
        let piece = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(&piece));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_has_all_that_was_acknowledged_before_it_and_is_served_again() {
    let (dir, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(dir.path(), "sms");
    let (client, load) = (Client::new(&daemon.sms()), Arc::new(Load::default()));
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let (client, load) = (client.clone(), load.clone());
            tokio::spawn(async move { write(&client, &load, writer).await })
        })
        .collect();
    let more = |from: u64, count: u64| {
        let load = load.clone();
        async move {
            while load.writes.load(Ordering::Relaxed) < from + count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    more(0, 200).await;
    let before = load.acknowledged.lock().unwrap().clone();
    let file = new.path().join("backup.tar");
    let told = done(new.path(), &["backup", "--addr", &address(&daemon), "-O", file.to_str().unwrap()]).await;
    assert!(told.contains("backup.tar: registry, revision "), "{told}");
    let during = load.writes.load(Ordering::Relaxed);
    more(during, 20).await;
    load.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let cursor = first_event(&client, None).await.0;
    let all = load.acknowledged.lock().unwrap().clone();
    daemon.kill();

    let told = done(new.path(), &["backup", "verify", "backup.tar"]).await;
    assert!(told.ends_with("no damage found\n"), "{told}");
    let told = done(new.path(), &["restore", "backup.tar", "--data-dir", "data/sms"]).await;
    assert!(told.starts_with("data/sms: revision "), "{told}");
    let daemon = Daemon::start(new.path(), "sms");
    let client = Client::new(&daemon.sms());
    let tasks = ids(&client, "/api/v1/tasks", "tasks", "task_id").await;
    let files = ids(&client, "/api/v1/files", "files", "id").await;
    let kept = |id: &&String| !all.doomed.contains(*id);
    let missing: Vec<_> = before.tasks.iter().filter(kept).filter(|id| !tasks.contains(*id)).collect();
    assert!(missing.is_empty(), "acknowledged tasks are not in the backup: {missing:?}");
    let missing: Vec<_> = before.files.keys().filter(kept).filter(|id| !files.contains(*id)).collect();
    assert!(missing.is_empty(), "acknowledged files are not in the backup: {missing:?}");
    let back: Vec<_> = before.deleted.iter().filter(|id| tasks.contains(*id) || files.contains(*id)).collect();
    assert!(back.is_empty(), "what was deleted before is back: {back:?}");
    for id in &files {
        let answer = client.http.get(format!("{}/api/v1/files/{id}", client.base)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "a file of the backup cannot be read: {id}");
        assert_eq!(answer.bytes().await.unwrap(), all.files[id]);
    }
    assert!(before.tasks.len() > 20 && before.files.len() > 20 && before.deleted.len() > 10, "the load was real");
    // A reader of before is told that its place is not here.
    let (id, event) = first_event(&client, Some(&cursor)).await;
    assert_eq!(event, "resync", "{id}");
    assert_ne!(id.split_once(':').unwrap().0, cursor.split_once(':').unwrap().0);
    // And it goes on: a write, and the next backup.
    client.task("after", "https://example.org/a.wasm", json!({})).await;
    done(new.path(), &["backup", "--addr", &address(&daemon), "-O", "again.tar"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_of_a_restored_registry_list_again_and_nothing_stays_open() {
    let (dir, agent_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sms = Daemon::start(dir.path(), "sms");
    let _agent = Daemon::start_with(agent_dir.path(), agent(&sms));
    let client = Client::new(&sms.sms());
    let uri = client.upload("hello.wasm", sample("hello")).await;
    let (task, first) = client.task("hello", &uri, json!({})).await;
    assert_eq!(client.ended(&first).await["status"], json!("completed"));
    let slow_uri = client.upload("slow.wasm", slow()).await;
    let (_, open) = client.task("slow", &slow_uri, json!({})).await;
    let path = format!("/api/v1/executions/{open}");
    client.until(&path, |now| now["status"] == json!("running") && now["progress"]["phase"] == json!("run")).await;
    done(dir.path(), &["backup", "--addr", &address(&sms), "-O", "backup.tar"]).await;
    // What happens after the backup is not in it.
    assert_eq!(client.ended(&open).await["status"], json!("completed"));
    let (_, late) = client.task("late", &uri, json!({})).await;
    client.ended(&late).await;
    let args = same_place(&sms);
    sms.kill();

    let told = done(dir.path(), &["restore", "backup.tar", "--data-dir", "data/sms", "--force"]).await;
    assert!(told.contains("what was in data/sms is in data/sms.replaced-"), "{told}");
    let sms = Daemon::start_with(dir.path(), args);
    let client = Client::new(&sms.sms());
    assert_eq!(client.get(&format!("/api/v1/executions/{late}")).await.0, 404);
    assert_eq!(client.get(&format!("/api/v1/executions/{first}")).await.1["status"], json!("completed"));
    let log = client.get(&format!("/api/v1/executions/{first}/logs")).await.1;
    assert!(!log["lines"].as_array().unwrap().is_empty(), "{log}");
    // It ran once and is not run again; its result went with the newer data, and that is said.
    let ended = client.ended(&open).await;
    assert_eq!((&ended["status"], &ended["reason"]), (&json!("failed"), &json!("node_lost")), "{ended}");
    assert!(ended["message"].as_str().unwrap().contains("registry was restored"), "{ended}");
    let (status, again) = client.post(&format!("/api/v1/tasks/{task}/executions"), json!({"mode": "sync"})).await;
    assert_eq!((status, &again["status"]), (200, &json!("completed")), "{again}");
}

/// A stopped registry with a little of everything, and an archive of it.
async fn stopped(dir: &Path) -> Vec<u8> {
    let daemon = Daemon::start(dir, "sms");
    let client = Client::new(&daemon.sms());
    let uri = client.upload("a.wasm", sample("hello")).await;
    client.task("one", &uri, json!({})).await;
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().0.success());
    done(dir, &["backup", "--data-dir", "data/sms", "-O", "stopped.tar"]).await;
    fs::read(dir.join("stopped.tar")).unwrap()
}

/// Everything below a directory: names and bytes.
fn listing(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.insert(path.display().to_string(), Vec::new());
            found.extend(listing(&path));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_backup_is_refused_with_the_place_and_nothing_is_written() {
    let (dir, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let good = stopped(dir.path()).await;
    let file = new.path().join("bad.tar");
    let mut bad = vec![good[..good.len() / 3].to_vec(), good[..good.len() - 1].to_vec(), Vec::new()];
    for trial in 0..6usize {
        let mut flipped = good.clone();
        let at = trial.wrapping_mul(2_654_435_761) % flipped.len();
        flipped[at] ^= 1 << trial;
        bad.push(flipped);
    }
    for bytes in bad {
        fs::write(&file, &bytes).unwrap();
        for args in [&["backup", "verify", "bad.tar"][..], &["restore", "bad.tar", "--data-dir", "data/sms"]] {
            let (code, error) = refused(new.path(), args).await;
            assert_eq!(code, 1, "{error}");
            assert!(error.starts_with("spear: bad.tar: the backup is damaged: "), "{error}");
            assert!(!new.path().join("data").exists(), "nothing is left");
        }
    }
    // Over something that is there: refused, untouched.
    fs::write(&file, &good).unwrap();
    let before = listing(&dir.path().join("data"));
    let target = dir.path().join("data/sms");
    let (code, error) = refused(new.path(), &["restore", "bad.tar", "--data-dir", target.to_str().unwrap()]).await;
    assert_eq!(code, 2);
    assert!(error.contains("is not empty") && error.contains("--force"), "{error}");
    assert_eq!(listing(&dir.path().join("data")), before);
    let (code, error) = refused(new.path(), &["restore", "none.tar", "--data-dir", "x"]).await;
    assert_eq!(code, 2, "{error}");
    assert!(!new.path().join("x").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_needs_what_every_request_needs_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("token"), "0123456789abcdef0123").unwrap();
    fs::write(dir.path().join("wrong"), "a-token-that-is-another").unwrap();
    let mut args = crate::support::serve("sms");
    args.extend(["--token-file".to_owned(), dir.path().join("token").display().to_string()]);
    let daemon = Daemon::start_with(dir.path(), args);
    let address = address(&daemon);
    for more in [&[][..], &["--token-file", "wrong"]] {
        let (code, error) = refused(dir.path(), &[&["backup", "--addr", &address, "-O", "b.tar"], more].concat()).await;
        assert_eq!(code, 4, "{error}");
    }
    assert!(!dir.path().join("b.tar").exists());
    done(dir.path(), &["backup", "--addr", &address, "-O", "b.tar", "--token-file", "token"]).await;
    // To standard output it is the same, and the word about it goes elsewhere.
    let piped = run(dir.path(), &["backup", "--addr", &address, "-O", "-", "--token-file", "token"]).await;
    assert!(piped.status.success() && String::from_utf8_lossy(&piped.stderr).contains("standard output: registry"));
    fs::write(dir.path().join("piped.tar"), &piped.stdout).unwrap();
    done(dir.path(), &["backup", "verify", "piped.tar"]).await;
    let names: HashSet<_> = fs::read_dir(dir.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains(".part")), "{names:?}");
    // A directory in use is not read behind the back of its owner.
    let (code, error) = refused(dir.path(), &["backup", "--data-dir", "data/sms", "-O", "c.tar"]).await;
    assert!(code == 75 && error.contains("in use by pid"), "{code} {error}");
    let gone = daemon.address("sms/http");
    daemon.kill();
    let (code, error) = refused(dir.path(), &["backup", "--addr", &gone.to_string(), "-O", "c.tar"]).await;
    assert!(code == 69 && error.contains(&gone.to_string()), "{code} {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_agent_its_objects_and_its_identity_are_kept() {
    let (dir, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(dir.path(), "spearlet");
    let client = Client::new(&format!("http://{}", daemon.address("spearlet/http")));
    let put = client.http.put(format!("{}/objects/k", client.base)).json(&json!({"value": "aGk="}));
    assert_eq!(client.send(put).await.0, 200);
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().0.success());
    let told = done(dir.path(), &["backup", "--data-dir", "data/spearlet", "-O", "agent.tar"]).await;
    assert!(told.contains("agent.tar: agent, ") && told.contains(" 1 records, 2 files"), "{told}");
    let file = dir.path().join("agent.tar");
    done(new.path(), &["restore", file.to_str().unwrap(), "--data-dir", "data/spearlet"]).await;
    let id = |home: &Path| fs::read_to_string(home.join("data/spearlet/node-id")).unwrap();
    assert_eq!(id(new.path()), id(dir.path()));
    let daemon = Daemon::start(new.path(), "spearlet");
    let client = Client::new(&format!("http://{}", daemon.address("spearlet/http")));
    assert_eq!(client.get("/objects/k").await.1["value"], json!("aGk="));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_store_is_dumped_and_compacted() {
    let dir = tempfile::tempdir().unwrap();
    stopped(dir.path()).await;
    let lines = |text: String| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let all = lines(done(dir.path(), &["store", "dump", "data/sms"]).await);
    let tasks = lines(done(dir.path(), &["store", "dump", "data/sms", "--prefix", "task/"]).await);
    assert_eq!((tasks.len(), &tasks[0]["value"]["name"]), (1, &json!("one")), "{tasks:?}");
    assert!(all.len() > 2 && tasks[0]["key"].as_str().unwrap().starts_with("task/") && tasks[0]["created"].is_u64());
    let changes = lines(done(dir.path(), &["store", "dump", "data/sms", "--changes"]).await);
    assert_eq!((&changes[0]["rev"], &changes[0]["changes"][0]["op"]), (&json!(1), &json!("created")), "{changes:?}");
    let later = lines(done(dir.path(), &["store", "dump", "data/sms", "--changes", "--after", "1"]).await);
    assert_eq!(later[..], changes[1..]);
    let told = done(dir.path(), &["store", "compact", "data/sms"]).await;
    assert!(told.contains(" bytes before, "), "{told}");
    assert_eq!(lines(done(dir.path(), &["store", "dump", "data/sms"]).await), all);
    let checked = done(dir.path(), &["store", "check", "data/sms"]).await;
    assert!(checked.contains("closed in order") && checked.ends_with("no damage found\n"), "{checked}");
    let daemon = Daemon::start(dir.path(), "sms");
    for command in [&["store", "dump", "data/sms"][..], &["store", "compact", "data/sms"]] {
        let (code, error) = refused(dir.path(), command).await;
        assert!(code == 75 && error.contains(&format!("in use by pid {}", daemon.pid())), "{code} {error}");
    }
}
