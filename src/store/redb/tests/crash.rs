//! Sixteen writers, killed again and again: what was acknowledged is there, revisions are gapless and never reused.
//!
//! The child is this test binary running one of its tests; a variable names the directory. Every acknowledgement
//! is written to a file of its writer after the commit returned, so what stands there must be in the store.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use supervise::{Budget, Phase, Supervisor};

use super::*;
use crate::Store;

const WRITERS: usize = 16;
const CYCLES: usize = 16;
const VARIABLE: &str = "STORE_CRASH_DIRECTORY";
const CHILD: &str = "redb::tests::crash::sixteen_writers_get_every_write_acknowledged";

/// Opens the store, goes on where the records say it stopped, and writes `rounds` times with each writer.
async fn write(dir: &Path, rounds: usize) {
    let engine = Arc::new(open(&dir.join("data")).unwrap());
    let supervisor = Supervisor::new(Budget::default());
    let store = Store::start(engine, &supervisor.scope(Phase::Store, "store"));
    let writers = (0..WRITERS).map(|writer| {
        let (store, path) = (store.clone(), dir.join(format!("acks-{writer}")));
        async move {
            let mut acks = fs::File::options().create(true).append(true).open(path).unwrap();
            let counter = format!("counter/{writer}");
            let found = store.get(&counter).await.unwrap();
            let first = found.map_or(0, |record| String::from_utf8(record.value.to_vec()).unwrap().parse().unwrap());
            for n in (first + 1..).take(rounds) {
                let batch =
                    Batch::new().put(format!("w/{writer}/{n}"), n.to_string()).put(counter.clone(), n.to_string());
                let rev = store.commit(batch).await.unwrap();
                // One write of a whole line: a kill cannot cut it in the page cache.
                acks.write_all(format!("{n} {rev}\n").as_bytes()).unwrap();
            }
        }
    });
    futures_util::future::join_all(writers).await;
    supervisor.run(async {}).await.unwrap();
}

/// The child of the test below; run on its own it is the same without the kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_get_every_write_acknowledged() {
    if let Some(dir) = std::env::var_os(VARIABLE) {
        write(Path::new(&dir), usize::MAX).await;
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 5).await;
    super::start::wait_until_free(&dir.path().join("data"));
    let mut known = BTreeMap::new();
    verify(dir.path(), &mut known, "without a kill").await;
    assert_eq!(known.len(), WRITERS * 5);
}

fn spawn(dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", CHILD, "--nocapture"]).env(VARIABLE, dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Bytes of acknowledgements so far.
fn acknowledged(dir: &Path) -> u64 {
    (0..WRITERS).map(|writer| fs::metadata(dir.join(format!("acks-{writer}"))).map_or(0, |found| found.len())).sum()
}

fn kill(mut child: Child) {
    assert!(child.try_wait().unwrap().is_none(), "the writers ended by themselves");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Looks at a copy, so that the next child finds the store exactly as the kill left it.
async fn verify(dir: &Path, known: &mut BTreeMap<Rev, Change>, what: &str) {
    let copy = tempfile::tempdir().unwrap();
    let data = dir.join("data");
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let engine = open(copy.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let head = *engine.head().borrow();
    let mut log = BTreeMap::new();
    while (log.len() as Rev) < head {
        let page = engine.changes(log.len() as Rev, 5000).await.unwrap();
        assert!(!page.is_empty(), "{what}: the log ends at {} before {head}", log.len());
        for change in page {
            assert_eq!(change.rev, log.len() as Rev + 1, "{what}: no gaps");
            log.insert(change.rev, change);
        }
    }
    for (rev, change) in &*known {
        assert_eq!(log.get(rev), Some(change), "{what}: revision {rev} is another one now");
    }
    let mut records = BTreeMap::new();
    let mut after = None;
    loop {
        let page = engine.list("", after.as_deref(), 5000).await.unwrap();
        let Some(last) = page.records.last() else { break };
        after = Some(last.key.clone());
        records.extend(page.records.into_iter().map(|record| (record.key.clone(), record)));
    }
    for writer in 0..WRITERS {
        let acks = fs::read_to_string(dir.join(format!("acks-{writer}"))).unwrap_or_default();
        for line in acks.lines() {
            let (n, rev) = line.split_once(' ').unwrap();
            let record = records.get(&format!("w/{writer}/{n}"));
            let record = record.unwrap_or_else(|| panic!("{what}: acknowledged write {n} of {writer} is lost"));
            assert_eq!((record.value.as_ref(), record.modified), (n.as_bytes(), rev.parse().unwrap()), "{what}");
        }
        // A batch is there whole or not at all.
        let counter = records
            .get(&format!("counter/{writer}"))
            .map_or(0, |record| String::from_utf8(record.value.to_vec()).unwrap().parse().unwrap());
        let written = records.keys().filter(|key| key.starts_with(&format!("w/{writer}/"))).count();
        assert_eq!(written, counter, "{what}: writer {writer}");
    }
    *known = log;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let seed = u64::from(std::process::id()) ^ 0x27d4_eb2f;
    let mut random = Random(seed);
    let mut known = BTreeMap::new();
    for cycle in 0..CYCLES {
        let what = format!("seed {seed}, cycle {cycle}");
        let before = acknowledged(dir.path());
        let child = spawn(dir.path());
        let deadline = Instant::now() + Duration::from_secs(60);
        while acknowledged(dir.path()) == before {
            assert!(Instant::now() < deadline, "{what}: no write was acknowledged");
            thread::sleep(Duration::from_millis(1));
        }
        // When it falls is what is tried out.
        thread::sleep(Duration::from_micros(random.below(120_000)));
        kill(child);
        // Every third time the recovery is killed as well, some moments after it began.
        if cycle % 3 == 0 {
            for _ in 0..2 {
                let child = spawn(dir.path());
                thread::sleep(Duration::from_micros(1000 + random.below(50_000)));
                kill(child);
            }
        }
        verify(dir.path(), &mut known, &what).await;
    }
    println!("{} revisions in {CYCLES} cycles", known.len());
    assert!(known.len() > CYCLES * WRITERS);
}
