//! The size of the file: bounded under churn, and compaction keeps everything, whenever it is cut short.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::*;

/// A store with churn behind it, closed.
async fn churned(dir: &Path) {
    let engine = open(dir).unwrap();
    let mut random = Random(1);
    for round in 0..40 {
        let batch = |n: u64| {
            let key = format!("task/{:04}", random.below(500));
            if n.is_multiple_of(7) {
                Batch::new().delete(key)
            } else {
                Batch::new().put(key, "v".repeat(300 + n as usize))
            }
        };
        engine.commit_many((0..100).map(batch).collect()).await.unwrap();
        let head = *engine.head().borrow();
        engine.trim(head.saturating_sub(300 + round)).await.unwrap();
    }
    engine.close().await.unwrap();
    drop(engine);
    super::start::wait_until_free(dir);
}

/// Everything that a store says.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    log_id: LogId,
    floor: Rev,
    head: Rev,
    records: Vec<Record>,
    changes: Vec<(Change, types::Timestamp)>,
}

fn content(dir: &Path) -> Content {
    let store = Stopped::open(dir).unwrap();
    let (mut records, mut changes) = (Vec::new(), Vec::new());
    let read = store.records::<Error>("", |record| {
        records.push(record.unwrap());
        Ok(())
    });
    read.unwrap();
    let read = store.changes::<Error>(0, |change| {
        changes.push(change.unwrap());
        Ok(())
    });
    read.unwrap();
    Content { log_id: store.log_id(), floor: store.floor(), head: store.head(), records, changes }
}

fn length(dir: &Path) -> u64 {
    fs::metadata(dir.join(FILE)).unwrap().len()
}

#[tokio::test]
async fn under_churn_the_file_takes_no_more_of_the_disk_than_three_times_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    let (mut random, mut middle) = (Random(2), 0);
    // The length doubles in steps, with holes; what counts is what the disk gives.
    let used = || fs::metadata(dir.path().join(FILE)).unwrap().blocks() * 512;
    for round in 0..120u64 {
        let batch = |_| Batch::new().put(format!("task/{:05}", random.below(3000)), "v".repeat(400));
        engine.commit_many((0..256).map(batch).collect()).await.unwrap();
        let head = *engine.head().borrow();
        engine.trim(head.saturating_sub(4000)).await.unwrap();
        if round == 60 {
            middle = used();
        }
    }
    let floor = engine.floor().await.unwrap();
    let records = engine.list("", None, usize::MAX).await.unwrap().records;
    let changes = engine.changes(floor, usize::MAX).await.unwrap();
    let items = changes.iter().flat_map(|change| &change.items);
    let live = records.iter().map(|record| record.key.len() + record.value.len()).sum::<usize>()
        + items.map(|item| item.key.len() + item.value.as_ref().map_or(0, |value| value.len())).sum::<usize>();
    let end = used();
    println!("live {live} bytes, on the disk {middle} bytes half way and {end} at the end");
    assert!(end <= 3 * live as u64, "{end} bytes for {live}");
    assert!(end * 10 <= middle * 11, "{end} bytes after {middle}: it grows");
}

#[tokio::test]
async fn compacting_keeps_everything_in_a_smaller_file() {
    let dir = tempfile::tempdir().unwrap();
    churned(dir.path()).await;
    let (before, bytes) = (content(dir.path()), length(dir.path()));
    assert!(before.records.len() > 100 && before.changes.len() >= 300 && before.floor > 0, "{before:?}");
    let done = compact(dir.path()).unwrap();
    assert_eq!((done.before, done.after), (bytes, length(dir.path())));
    assert!(done.after < done.before, "{done:?}");
    assert_eq!((done.records, done.entries), (before.records.len() as u64, before.changes.len() as u64));
    assert_eq!(content(dir.path()), before);
    let report = check(dir.path()).unwrap();
    assert_eq!((report.damage, report.clean), (Vec::new(), true));
    // It goes on where it was, and compacting again changes nothing.
    let again = compact(dir.path()).unwrap();
    assert_eq!(again.before, done.after);
    let engine = super::start::reopened(dir.path());
    assert_eq!(put(&engine, "new", "x").await.unwrap(), before.head + 1);
}

#[tokio::test]
async fn a_store_of_only_a_little_is_compacted_too() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    engine.close().await.unwrap();
    drop(engine);
    super::start::wait_until_free(dir.path());
    let before = content(dir.path());
    compact(dir.path()).unwrap();
    assert_eq!(content(dir.path()), before);
    let engine = super::start::reopened(dir.path());
    assert_eq!(put(&engine, "new", "x").await.unwrap(), 1);
}

#[tokio::test]
async fn a_damaged_store_is_not_compacted_but_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    churned(dir.path()).await;
    // Everything in the file is in use then.
    compact(dir.path()).unwrap();
    let path = dir.path().join(FILE);
    let store = Stopped::open(dir.path()).unwrap();
    let mut needle = None;
    let read = store.records::<Error>("", |record| {
        needle = Some(record.unwrap().key);
        Ok(())
    });
    read.unwrap();
    drop(store);
    let (bytes, needle) = (fs::read(&path).unwrap(), needle.unwrap());
    let at = bytes.windows(needle.len()).rposition(|window| window == needle.as_bytes()).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[bytes[at] ^ 4], at as u64).unwrap();
    let damaged = fs::read(&path).unwrap();
    match compact(dir.path()) {
        Err(Error::Corrupt { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(fs::read(&path).unwrap() == damaged, "nothing was written");
    assert!(!dir.path().join("store.redb.compact").exists());
}

#[tokio::test]
async fn a_store_in_use_is_not_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    put(&engine, "a", "1").await.unwrap();
    assert!(matches!(compact(dir.path()), Err(Error::InUse { .. })));
    assert!(matches!(Stopped::open(dir.path()).map(drop), Err(Error::InUse { .. })));
    assert_eq!(value(&engine, "a").await.unwrap().as_deref(), Some("1"));
}

#[test]
fn what_is_built_has_to_be_possible_and_is_gone_when_it_is_not_finished() {
    let dir = tempfile::tempdir().unwrap();
    let record = |key: &str, created, modified| Record { key: key.into(), value: "v".into(), created, modified };
    let mut building = Building::begin(dir.path(), "new").unwrap();
    for wrong in [record("", 1, 1), record("a", 0, 1), record("a", 2, 1), record(&"k".repeat(513), 1, 1)] {
        assert!(matches!(building.record(&wrong), Err(Error::Decode { .. })), "{wrong:?}");
    }
    building.record(&record("a", 1, 2)).unwrap();
    building.record(&record("a", 1, 2)).unwrap();
    assert!(matches!(building.finish(LogId::new(), 2, 2), Err(Error::Corrupt { .. })), "one key twice");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

const VARIABLE: &str = "STORE_COMPACT_DIRECTORY";
const CHILD: &str = "redb::tests::compact::a_compaction_killed_at_any_moment_leaves_a_good_store";

/// `kill -9` again and again while a child compacts one store over and over.
#[tokio::test]
async fn a_compaction_killed_at_any_moment_leaves_a_good_store() {
    if let Some(dir) = std::env::var_os(VARIABLE) {
        let dir = Path::new(&dir);
        for n in 0.. {
            compact(&dir.join("data")).unwrap();
            fs::write(dir.join("done"), n.to_string()).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    churned(&data).await;
    let wanted = content(&data);
    let mut cut_short = 0;
    for n in 0..24u64 {
        drop(fs::remove_file(dir.path().join("done")));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", CHILD, "--nocapture"]).env(VARIABLE, dir.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // At least one whole compaction, then at a moment that differs.
        let give_up = Instant::now() + Duration::from_secs(60);
        while !dir.path().join("done").exists() {
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < give_up, "the child does not compact");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(n * 5 % 37)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        cut_short += u64::from(data.join("store.redb.compact").exists());
        assert_eq!(check(&data).unwrap().damage, [""; 0], "kill {n}");
        assert_eq!(content(&data), wanted, "kill {n}");
    }
    assert!(cut_short > 0, "no kill met a compaction");
    let engine = super::start::reopened(&data);
    assert_eq!(put(&engine, "new", "x").await.unwrap(), wanted.head + 1);
    assert!(!data.join("store.redb.compact").exists(), "what was left is gone after a start");
}
