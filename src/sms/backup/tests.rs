#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use bytes::Bytes;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, ops::Bound, os::unix::fs::PermissionsExt, path::Path};
use store::{Batch, Record, redb::Stopped};
use types::{ErrorKind, ExecutionId, Fault, FileId, LogLine, LogStream, Timestamp};

use super::{format::*, *};
use crate::executions::rig::{Rig, rig, until};

/// A sink that keeps everything.
#[derive(Clone, Default)]
struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Sink for Kept {
    async fn write(&mut self, bytes: Bytes) -> std::io::Result<()> {
        self.0.lock().unwrap().extend_from_slice(&bytes);
        Ok(())
    }
}

async fn written(source: Source) -> (Vec<u8>, Summary) {
    let sink = Kept::default();
    let summary = write(source, sink.clone()).await.unwrap();
    let bytes = std::mem::take(&mut *sink.0.lock().unwrap());
    (bytes, summary)
}

/// Everything in an archive.
#[derive(Default)]
struct Opened {
    records: Vec<Record>,
    files: BTreeMap<String, Vec<u8>>,
    last: String,
}

impl Receiver for Opened {
    fn head(&mut self, _: &Head) -> Result<(), Fault> {
        Ok(())
    }
    fn record(&mut self, record: Record) -> Result<(), Fault> {
        self.records.push(record);
        Ok(())
    }
    fn file(&mut self, path: &str, _: u64) -> Result<(), Fault> {
        self.last = path.to_owned();
        self.files.insert(path.to_owned(), Vec::new());
        Ok(())
    }
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.files.get_mut(&self.last).unwrap().extend_from_slice(bytes);
        Ok(())
    }
    fn end(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Reads an archive in pieces of a size.
fn read(bytes: &[u8], pieces: usize, to: &mut dyn Receiver) -> Result<Summary, Fault> {
    let mut checker = Checker::new();
    for piece in bytes.chunks(pieces) {
        checker.feed(piece, to)?;
    }
    checker.finish()
}

fn opened(bytes: &[u8]) -> (Opened, Summary) {
    let mut opened = Opened::default();
    let summary = read(bytes, 4096, &mut opened).unwrap();
    (opened, summary)
}

fn restored(bytes: &[u8], target: &Path, force: bool) -> Result<Restored, Fault> {
    let mut restore = Restore::begin(target, force)?;
    let summary = read(bytes, 1000, &mut restore)?;
    restore.settle(&summary)
}

fn lines(count: u64) -> Vec<LogLine> {
    let line = |seq| LogLine {
        ts_ms: 5,
        seq,
        stream: LogStream::Stdout,
        level: "info".into(),
        message: "hi".into(),
        raw_base64: None,
        unterminated: false,
    };
    (1..=count).map(line).collect()
}

async fn upload(rig: &Rig, bytes: &'static [u8]) -> FileId {
    let request = ::http::Request::post("/api/v1/files").body(axum::body::Body::from(bytes)).unwrap();
    let response = tower::ServiceExt::oneshot(rig.sms.http(), request).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    answer["id"].as_str().unwrap().parse().unwrap()
}

/// A registry with a bit of everything.
async fn filled() -> (Rig, FileId, ExecutionId) {
    let rig = rig().await;
    rig.node("wasm").await;
    let (_, execution) = rig.task("one").await;
    rig.sms.executions.append_logs((execution, 1), lines(3), false).await.unwrap();
    let file = upload(&rig, b"\0asm and so on").await;
    upload(&rig, b"").await;
    rig.sms.bus.store().commit(Batch::new().put("result/x", vec![0, 159, 146, 150])).await.unwrap();
    (rig, file, execution)
}

async fn records(rig: &Rig) -> Vec<Record> {
    rig.sms.bus.store().snapshot().await.unwrap().list("", Bound::Unbounded, usize::MAX).await.unwrap()
}

async fn archive(rig: &Rig) -> Vec<u8> {
    let (status, headers, bytes) = rig.call_raw("GET", "/api/v1/backup", None).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "application/x-tar"));
    bytes.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_backed_up_is_restored_as_it_was_under_a_new_log() {
    let (rig, file, execution) = filled().await;
    let (before, head) = (records(&rig).await, *rig.sms.bus.store().head().borrow());
    let bytes = archive(&rig).await;
    assert_eq!(records(&rig).await, before, "nothing changed meanwhile");
    let (found, summary) = opened(&bytes);
    assert_eq!((summary.head.kind.as_str(), summary.head.rev, summary.bytes), ("sms", head, bytes.len() as u64));
    assert_eq!((summary.records, summary.head.files, summary.damaged.len()), (before.len() as u64, 3, 0));
    assert_eq!(found.records, before);
    assert_eq!(found.files[&format!("files/{file}")], b"\0asm and so on");
    assert_eq!(found.files[&format!("logs/{execution}.ndjson")].split(|byte| *byte == b'\n').count(), 4);

    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("a/b/sms");
    let done = restored(&bytes, &target, false).unwrap();
    assert_eq!((done.rev, done.aside), (head, None));
    assert_ne!(done.log_id, summary.head.log_id, "cursors of the old log lead to nothing");
    let store = Stopped::open(&target).unwrap();
    assert_eq!((store.log_id(), store.head(), store.floor()), (done.log_id, head, head));
    let mut after = Vec::new();
    store
        .records::<store::Error>("", |record| {
            after.push(record.unwrap());
            Ok(())
        })
        .unwrap();
    assert_eq!(after, before);
    for (path, bytes) in &found.files {
        assert_eq!(fs::read(target.join(path)).unwrap(), *bytes, "{path}");
        assert_eq!(fs::metadata(target.join(path)).unwrap().permissions().mode() & 0o777, 0o600, "{path}");
    }
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(target.join("files/store-id")).unwrap().trim(), done.log_id.to_string());
    drop(store);
    assert!(store::redb::check(&target).unwrap().clean, "the next start need not look at everything");
    let names: Vec<_> = fs::read_dir(target.parent().unwrap()).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(names, ["sms"], "nothing is left beside it");

    // The same again, from the directory that nobody uses.
    let source = of_stopped(Stopped::open(&target).unwrap(), &target, &Registry, Timestamp(7000)).await.unwrap();
    let (again, summary) = written(source).await;
    let (again, told) = opened(&again);
    assert_eq!((again.records, again.files, told), (found.records, found.files, summary));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_truncation_and_every_addition_is_refused() {
    let (rig, ..) = filled().await;
    let bytes = archive(&rig).await;
    for end in 0..bytes.len() {
        let fault = read(&bytes[..end], 1 << 20, &mut Nowhere).unwrap_err();
        assert_eq!(fault.code, "BACKUP_DAMAGED", "{end}: {fault}");
    }
    for more in [&b"\0"[..], &[0; 512], b"x"] {
        let fault = read(&[&bytes, more].concat(), 1 << 20, &mut Nowhere).unwrap_err();
        assert!(fault.message.contains("something follows its end"), "{fault}");
    }
    // However the pieces are cut, the whole is whole.
    for pieces in [1, 7, 511, 512, 513, bytes.len()] {
        read(&bytes, pieces, &mut Nowhere).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_anywhere_is_found_and_nothing_is_restored() {
    let (rig, ..) = filled().await;
    let mut bytes = archive(&rig).await;
    for at in 0..bytes.len() {
        let bit = 1 << (at % 8);
        bytes[at] ^= bit;
        let fault = read(&bytes, 1 << 20, &mut Nowhere).unwrap_err();
        assert!(matches!(&*fault.code, "BACKUP_DAMAGED" | "BACKUP_NEWER"), "byte {at} bit {bit}: {fault}");
        bytes[at] ^= bit;
    }
    let home = tempfile::tempdir().unwrap();
    let mut random = 4u64;
    for _ in 0..50 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (random >> 33) as usize % (bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        restored(&bytes, &home.path().join("a/b/sms"), false).unwrap_err();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "bit {at} left something");
        bytes[at / 8] ^= 1 << (at % 8);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_not_replaced_unless_told_and_then_kept_aside() {
    let (rig, ..) = filled().await;
    let bytes = archive(&rig).await;
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("sms");
    fs::create_dir(&target).unwrap();
    let first = restored(&bytes, &target, false).unwrap();
    let refused = restored(&bytes, &target, false).unwrap_err();
    assert_eq!((refused.kind, refused.code.as_ref()), (ErrorKind::Conflict, "RESTORE_NOT_EMPTY"));
    let held = store::DataDir::open(&target).unwrap();
    assert_eq!(restored(&bytes, &target, true).unwrap_err().code, "RESTORE_IN_USE");
    drop(held);
    assert_eq!(Stopped::open(&target).unwrap().log_id(), first.log_id, "as it was");
    let second = restored(&bytes, &target, true).unwrap();
    assert_eq!(Stopped::open(&target).unwrap().log_id(), second.log_id);
    assert_eq!(Stopped::open(&second.aside.unwrap()).unwrap().log_id(), first.log_id);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_while_a_backup_is_written_is_in_it_and_then_gone() {
    let (rig, file, execution) = filled().await;
    let before = records(&rig).await;
    let (source, permit) = registry::begin(&rig.sms).await.unwrap();
    rig.sms.files.delete(file).await.unwrap();
    assert_eq!(rig.sms.files.get(file).unwrap_err().kind, ErrorKind::NotFound);
    let late = upload(&rig, b"too late").await;
    // A log of the same name, as a later attempt begins one.
    rig.sms.executions.logs.remove(execution).await.unwrap();
    rig.sms.executions.append_logs((execution, 1), lines(1), true).await.unwrap();
    let (bytes, _) = written(source).await;
    drop(permit);
    let (found, summary) = opened(&bytes);
    assert_eq!((found.records, summary.damaged.len()), (before, 0));
    assert_eq!(found.files[&format!("files/{file}")], b"\0asm and so on");
    let log = &found.files[&format!("logs/{execution}.ndjson")];
    assert_eq!(log.split(|byte| *byte == b'\n').count(), 4, "the log as it was");
    assert!(!found.files.contains_key(&format!("files/{late}")));
    let left = |dir: &str| {
        let names = fs::read_dir(rig.dir.path().join(dir)).unwrap();
        names.filter(|one| one.as_ref().unwrap().file_name().to_string_lossy().starts_with("removed")).count()
    };
    until("what was removed meanwhile is gone", || async { left("files") + left("logs") == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_damaged_before_is_named_and_the_rest_is_kept() {
    let (rig, file, _) = filled().await;
    let missing = upload(&rig, b"missing").await;
    let short = upload(&rig, b"short").await;
    let place = |id: FileId| rig.dir.path().join("files").join(id.to_string());
    fs::write(place(file), b"\0asm and so oN").unwrap();
    fs::remove_file(place(missing)).unwrap();
    fs::write(place(short), b"shor").unwrap();
    let bytes = archive(&rig).await;
    let (_, summary) = opened(&bytes);
    let mut named: Vec<_> = summary.damaged.iter().map(|one| one.path.clone()).collect();
    let mut wanted = [file, missing, short].map(|id| format!("files/{id}"));
    named.sort();
    wanted.sort();
    assert_eq!(named, wanted, "{:?}", summary.damaged);
    let home = tempfile::tempdir().unwrap();
    restored(&bytes, &home.path().join("sms"), false).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_backups_go_on_at_once_and_one_that_nobody_reads_any_more_makes_room() {
    let (rig, ..) = filled().await;
    let one = registry::begin(&rig.sms).await.unwrap();
    let request = ::http::Request::get("/api/v1/backup").body(axum::body::Body::empty()).unwrap();
    let two = tower::ServiceExt::oneshot(rig.sms.http(), request).await.unwrap();
    assert_eq!(two.status(), 200);
    // Larger than what is on the way, so that it is not over before anybody read it.
    let (status, answer) = rig.call("GET", "/api/v1/backup", None).await;
    assert_eq!((status, &answer["code"]), (429, &serde_json::json!("TOO_MANY_BACKUPS")));
    drop((one, two));
    until("there is room again", || async { registry::begin(&rig.sms).await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_stops_cuts_a_backup_so_that_nobody_takes_it_for_whole() {
    let (rig, ..) = filled().await;
    let value = Bytes::from(vec![7; 6 << 20]);
    for n in 0..4 {
        rig.sms.bus.store().commit(Batch::new().put(format!("large/{n}"), value.clone())).await.unwrap();
    }
    let request = ::http::Request::get("/api/v1/backup").body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(rig.sms.http(), request).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    let (mut checker, mut ended) = (Checker::new(), None);
    checker.feed(&body.next().await.unwrap().unwrap(), &mut Nowhere).unwrap();
    rig.supervisor.stopping().cancel();
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => checker.feed(&piece, &mut Nowhere).unwrap(),
            Err(error) => ended = Some(error),
        }
    }
    assert!(ended.unwrap().to_string().contains("stopping"));
    assert_eq!(checker.finish().unwrap_err().code, "BACKUP_DAMAGED");
}

/// An entry with any name at all.
fn handmade(path: &str, bytes: &[u8]) -> Vec<u8> {
    let block = header("files/x", bytes.len() as u64, 5).unwrap();
    let mut header = tar::Header::from_byte_slice(&block).clone();
    let name = &mut header.as_gnu_mut().unwrap().name;
    name.fill(0);
    name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend(bytes);
    archive.resize(archive.len() + padding(bytes.len() as u64) as usize, 0);
    archive
}

#[test]
fn a_backup_of_a_later_form_is_refused_by_name() {
    let newer = handmade(HEAD, br#"{"format":2,"something":"new"}"#);
    let fault = read(&newer, 100, &mut Nowhere).unwrap_err();
    assert_eq!(fault.code, "BACKUP_NEWER");
    assert!(fault.message.contains("format 2") && fault.message.contains("up to 1"), "{fault}");
}

#[test]
fn what_no_backup_has_is_refused_before_it_reaches_the_disk() {
    let head = Head {
        format: 1,
        kind: "sms".into(),
        program: "0".into(),
        created_at_ms: 5000,
        log_id: types::LogId::new(),
        rev: 9,
        files: 1,
        file_bytes: 1,
    };
    let begin = handmade(HEAD, &serde_json::to_vec(&head).unwrap());
    let line = |key: &str, modified: u64| {
        format!("{{\"key\":\"{key}\",\"created\":1,\"modified\":{modified},\"text\":\"\"}}\n")
    };
    let cases = [
        (handmade("../outside", b"x"), "is not as it was written"),
        (handmade("/etc/passwd", b"x"), "is not as it was written"),
        (handmade("files/../../x", b"x"), "is not as it was written"),
        (handmade("files/a/b", b"x"), "names something that no backup has"),
        (handmade("store.redb", b"x"), "names something that no backup has"),
        (handmade("records/00000001.jsonl", b"x"), "names something that no backup has"),
        (begin.clone(), "is out of its place"),
        ([handmade("files/a", b"x"), handmade("files/a", b"x")].concat(), "is out of its place"),
        ([handmade("files/a", b"x"), handmade("records/00000000.jsonl", b"x")].concat(), "is out of its place"),
        (handmade("records/00000000.jsonl", line("a", 10).as_bytes()), "the last is 9"),
        (handmade("records/00000000.jsonl", (line("b", 1) + &line("a", 1)).as_bytes()), "out of order"),
        (handmade("records/00000000.jsonl", (line("a", 1) + &line("a", 1)).as_bytes()), "out of order"),
        (handmade("records/00000000.jsonl", b"{}\n"), "missing field"),
        (handmade("records/00000000.jsonl", b"{}"), "last line is cut"),
        (handmade("manifest.json", b"{\"entries\":[]}"), "names other entries"),
        (b"not a tar".repeat(100), "makes no sense"),
    ];
    let home = tempfile::tempdir().unwrap();
    for (more, why) in cases {
        let fault = restored(&[begin.clone(), more].concat(), &home.path().join("sms"), false).unwrap_err();
        assert!(fault.message.contains(why), "{why}: {fault}");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "{why}");
    }
    assert!(read(&b"x".repeat(600), 100, &mut Nowhere).unwrap_err().message.contains("does not begin as one"));
    assert!(read(b"", 1, &mut Nowhere).unwrap_err().message.contains("it is empty"));
}

#[test]
fn records_come_back_from_their_lines_exactly() {
    let values = [&b""[..], b"{\"a\": 1.0, \"b\":\t2}", "ü\u{1F980}\0\n\"\\".as_bytes(), &[255, 0, 10]];
    let record = |n: usize| Record {
        key: format!("k/{n}/\u{7f}\"ü"),
        value: Bytes::from(values[n].to_vec()),
        created: n as u64,
        modified: u64::MAX,
    };
    let records: Vec<Record> = (0..values.len()).map(record).collect();
    let text = lines_of(&records);
    let back: Vec<Record> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| super::format::record(line).unwrap())
        .collect();
    assert_eq!(back, records);
    assert_eq!(hex(Sha256::new_with_prefix(b"")).len(), 64);
}

fn lines_of(records: &[Record]) -> Vec<u8> {
    super::format::lines(records).unwrap()
}
