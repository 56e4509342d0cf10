//! Disks that are full or fail.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use super::*;

/// What fails, and from which call on.
#[derive(Debug, Default)]
struct Plan {
    /// Calls of the kind that still work; 0: from now on they fail.
    left: AtomicU64,
    /// 0 nothing fails, 1 one write: no space, 2 writes: EIO, 3 syncs: EIO, 4 one read: EIO, 5 syncs: no space,
    /// 6 writes behind the end that the file had: no space.
    kind: AtomicU64,
    end: AtomicU64,
}

impl Plan {
    fn set(&self, kind: u64, left: u64) {
        self.left.store(left, Ordering::SeqCst);
        self.kind.store(kind, Ordering::SeqCst);
    }

    fn check(&self, kinds: &[u64]) -> io::Result<()> {
        let kind = self.kind.load(Ordering::SeqCst);
        if !kinds.contains(&kind) {
            return Ok(());
        }
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match (left, kind) {
            (Ok(_), _) => Ok(()),
            (Err(_), 1 | 4) if self.kind.swap(0, Ordering::SeqCst) == 0 => Ok(()),
            (Err(_), 1 | 5 | 6) => Err(io::Error::from_raw_os_error(28)),
            (Err(_), _) => Err(io::Error::from_raw_os_error(5)),
        }
    }
}

#[derive(Debug)]
struct Failing {
    file: File,
    plan: Arc<Plan>,
}

impl blocks::Disk for Failing {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.plan.check(&[4])?;
        self.file.read_exact_at(out, offset)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.plan.check(if offset >= self.plan.end.load(Ordering::SeqCst) { &[1, 2, 6] } else { &[1, 2] })?;
        self.file.write_all_at(data, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.plan.check(&[1, 2])?;
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.plan.check(&[3, 5])?;
        self.file.sync_data()
    }
}

fn failing(dir: &Path) -> (Redb, Arc<Plan>) {
    let plan = Arc::new(Plan::default());
    let of_disk = plan.clone();
    let opener: Opener = Arc::new(move |file| Box::new(Failing { file, plan: of_disk.clone() }));
    (Redb::open_on(config(DataDir::open(dir).unwrap()), opener).unwrap(), plan)
}

/// The disk is full at the k-th write, for every k of a commit, and has room again afterwards.
#[tokio::test]
async fn a_write_without_space_leaves_a_store_that_goes_on_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, plan) = failing(dir.path());
    let mut wanted = vec![put(&engine, "first", "1").await.unwrap()];
    let (mut refused, mut k) = (0, 0);
    loop {
        plan.set(1, k);
        // In turns small and larger than the file: it has to grow.
        let text = "v".repeat(if k % 2 == 0 { 10 } else { 40_000 });
        let done = put(&engine, &format!("k/{k:03}"), &text).await;
        let reached = plan.kind.swap(0, Ordering::SeqCst) == 0;
        match done {
            Ok(rev) => wanted.push(rev),
            Err(Error::Full { .. }) => {
                assert!(reached);
                refused += 1;
                assert_eq!(value(&engine, &format!("k/{k:03}")).await.unwrap(), None, "nothing happened");
            }
            Err(error) => panic!("write {k}: {error:?}"),
        }
        assert_eq!(value(&engine, "first").await.unwrap().as_deref(), Some("1"), "reading goes on");
        wanted.push(put(&engine, "after", &k.to_string()).await.unwrap());
        if !reached {
            break;
        }
        k += 1;
    }
    assert!(refused > 10, "{refused} of {k} writes were refused");
    assert_eq!(wanted, (1..=wanted.len() as Rev).collect::<Vec<_>>(), "a refused write uses no revision");
    engine.close().await.unwrap();
    drop(engine);
    super::start::wait_until_free(dir.path());
    let report = check(dir.path()).unwrap();
    assert_eq!((report.damage.as_slice(), report.head), ([].as_slice(), wanted.len() as Rev));
}

/// The disk stays full for as long as it takes, as disks do: what is there can be written over, nothing can be added.
#[tokio::test]
async fn while_the_disk_is_full_reading_goes_on_and_afterwards_writing() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, plan) = failing(dir.path());
    put(&engine, "first", "1").await.unwrap();
    plan.end.store(fs::metadata(dir.path().join(FILE)).unwrap().len(), Ordering::SeqCst);
    plan.set(6, 0);
    let before = *engine.head().borrow();
    for n in 0..5 {
        let large = put(&engine, "large", &"v".repeat(3_000_000)).await;
        assert!(matches!(large, Err(Error::Full { .. })), "{n}: {large:?}");
        assert_eq!(value(&engine, "first").await.unwrap().as_deref(), Some("1"));
        assert_eq!(value(&engine, "large").await.unwrap(), None);
    }
    assert_eq!(*engine.head().borrow(), before);
    plan.set(0, 0);
    assert_eq!(put(&engine, "large", &"v".repeat(3_000_000)).await.unwrap(), before + 1);
    engine.close().await.unwrap();
    drop(engine);
    super::start::wait_until_free(dir.path());
    assert_eq!(check(dir.path()).unwrap().damage, [""; 0]);
}

#[tokio::test]
async fn a_moment_that_is_held_is_gone_after_a_full_disk_and_keeps_nobody_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, plan) = failing(dir.path());
    put(&engine, "first", "1").await.unwrap();
    let all = std::ops::Bound::Unbounded;
    let snapshot = engine.snapshot().await.unwrap();
    assert_eq!(snapshot.list("", all, 10).await.unwrap().len(), 1);
    plan.set(1, 0);
    assert!(matches!(put(&engine, "second", "1").await, Err(Error::Full { .. })));
    assert!(matches!(snapshot.list("", all, 10).await, Err(Error::SnapshotGone)));
    assert_eq!(put(&engine, "second", "1").await.unwrap(), 2);
    let later = engine.snapshot().await.unwrap();
    drop(snapshot);
    assert_eq!(later.list("", all, 10).await.unwrap().len(), 2, "a new one has a place of its own");
    engine.close().await.unwrap();
    assert!(matches!(later.list("", all, 10).await, Err(Error::Closed)));
    drop((engine, later));
    super::start::wait_until_free(dir.path());
    assert_eq!(check(dir.path()).unwrap().damage, [""; 0]);
}

/// A store whose disk failed says so for good; what was acknowledged before is there after a new start.
async fn fails_for_good(kind: u64) {
    for k in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let (engine, plan) = failing(dir.path());
        put(&engine, "first", "1").await.unwrap();
        plan.set(kind, k);
        let mut acknowledged = 1;
        let error = loop {
            match put(&engine, "later", &acknowledged.to_string()).await {
                Ok(rev) => acknowledged = rev,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Failed { .. }), "{k}: {error:?}");
        // Even when the disk works again: nobody knows what it lost.
        plan.set(0, 0);
        assert!(matches!(put(&engine, "more", "x").await, Err(Error::Failed { .. })), "{k}");
        assert!(matches!(engine.get("first").await, Err(Error::Failed { .. })), "{k}");
        engine.close().await.unwrap();
        drop(engine);
        assert!(!dir.path().join("store.clean").exists());
        let engine = super::start::reopened(dir.path());
        let head = *engine.head().borrow();
        assert!((acknowledged..=acknowledged + 1).contains(&head), "{k}: {head} after {acknowledged}");
        assert_eq!(value(&engine, "first").await.unwrap().as_deref(), Some("1"));
        assert_eq!(put(&engine, "more", "x").await.unwrap(), head + 1);
    }
}

#[tokio::test]
async fn a_failed_fsync_ends_writing_for_good() {
    fails_for_good(3).await;
}

#[tokio::test]
async fn an_fsync_that_finds_no_space_ends_writing_for_good() {
    fails_for_good(5).await;
}

#[tokio::test]
async fn a_write_that_fails_for_another_reason_ends_writing_for_good() {
    fails_for_good(2).await;
}

#[tokio::test]
async fn a_read_that_fails_leaves_a_store_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Arc::new(Plan::default());
    let of_disk = plan.clone();
    let opener: Opener = Arc::new(move |file| Box::new(Failing { file, plan: of_disk.clone() }));
    let config = Config { cache_bytes: 0, ..config(DataDir::open(dir.path()).unwrap()) };
    let engine = Redb::open_on(config, opener).unwrap();
    put(&engine, "a", "1").await.unwrap();
    for k in 0..8 {
        plan.set(4, k);
        let read = loop {
            match value(&engine, "a").await {
                Ok(read) => assert_eq!(read.as_deref(), Some("1")),
                Err(error) => break error,
            }
        };
        assert!(matches!(read, Error::Failed { .. }), "{k}: {read:?}");
        assert_eq!(value(&engine, "a").await.unwrap().as_deref(), Some("1"), "{k}");
        // A write that meets it: nothing was applied, and that is known.
        plan.set(4, 0);
        assert!(matches!(put(&engine, "a", "2").await, Err(Error::Failed { .. })), "{k}");
        assert_eq!((value(&engine, "a").await.unwrap().as_deref(), *engine.head().borrow()), (Some("1"), k + 1));
        assert_eq!(put(&engine, "b", "1").await.unwrap(), k + 2);
    }
}

#[tokio::test]
async fn the_reserve_is_looked_at_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let held = DataDir::open(dir.path()).unwrap();
    let engine = Redb::open(config(held.clone())).unwrap();
    put(&engine, "a", "1").await.unwrap();
    engine.close().await.unwrap();
    drop(engine);
    let all = Config { reserve: Reserve::Bytes(u64::MAX / 8), ..config(held.clone()) };
    let engine = Redb::open(all).unwrap();
    let before = fs::read(dir.path().join(FILE)).unwrap();
    match put(&engine, "a", "2").await {
        Err(Error::Full { path, detail }) => {
            assert_eq!(path, dir.path());
            assert!(detail.contains("bytes are free"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    assert!(fs::read(dir.path().join(FILE)).unwrap() == before, "nothing was written");
    assert_eq!(value(&engine, "a").await.unwrap().as_deref(), Some("1"), "reading goes on");
    engine.close().await.unwrap();
    drop(engine);
    assert_eq!(put(&Redb::open(config(held)).unwrap(), "a", "2").await.unwrap(), 2);
}

/// A reserve of which a quarter is free, but not all.
fn scarce(dir: &Path) -> Reserve {
    let disk = rustix::fs::statvfs(dir).unwrap();
    Reserve::Bytes(disk.f_bavail * disk.f_frsize * 2)
}

#[tokio::test]
async fn on_a_full_disk_what_makes_room_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let held = DataDir::open(dir.path()).unwrap();
    let engine = Redb::open(config(held.clone())).unwrap();
    for key in ["a", "b", "c"] {
        put(&engine, key, "1").await.unwrap();
    }
    engine.close().await.unwrap();
    drop(engine);
    let engine = Arc::new(Redb::open(Config { reserve: scarce(dir.path()), ..config(held) }).unwrap());
    engine.trim(2).await.unwrap();
    assert_eq!(engine.floor().await.unwrap(), 2);
    // Together in one group through the store: each has its own answer.
    let supervisor = supervise::Supervisor::new(supervise::Budget::default());
    let store = crate::Store::start(engine.clone(), &supervisor.scope(supervise::Phase::Store, "store"));
    let (written, removed, more, last) = tokio::join!(
        store.commit(Batch::new().put("a", "2")),
        store.commit(Batch::new().delete("b")),
        store.commit(Batch::new().put("d", "2").delete("a")),
        store.commit(Batch::new().delete("c")),
    );
    assert!(matches!(written, Err(Error::Full { .. })), "{written:?}");
    assert!(matches!(more, Err(Error::Full { .. })), "{more:?}");
    assert_eq!([removed.unwrap(), last.unwrap()], [4, 5]);
    assert_eq!(engine.list("", None, 10).await.unwrap().records.len(), 1);
    supervisor.run(async {}).await.unwrap();
}

const VARIABLE: &str = "STORE_FULL_DIRECTORY";
const CHILD: &str = "redb::tests::full::a_store_that_may_not_grow_refuses_and_goes_on";

/// The system's own refusal, not ours: the child may not make files larger than a limit.
#[tokio::test]
async fn a_store_that_may_not_grow_refuses_and_goes_on() {
    let Some(dir) = std::env::var_os(VARIABLE) else {
        let dir = tempfile::tempdir().unwrap();
        let exe = std::env::current_exe().unwrap();
        // 512-byte blocks: 4 MiB. Without the trap the signal would end the process.
        let limited = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" --exact \"$1\" --nocapture";
        let child = Command::new("sh").args(["-c", limited]).arg(exe).arg(CHILD).env(VARIABLE, dir.path()).output();
        let child = child.unwrap();
        let output = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        assert!(child.status.success() && output.contains("was refused and went on"), "{output}");
        let report = check(dir.path()).unwrap();
        assert_eq!(report.damage, [""; 0]);
        assert!(report.records >= 2, "{report:?}");
        return;
    };
    let engine = open(Path::new(&dir)).unwrap();
    let (mut kept, mut refused) = (0, 0);
    for n in 0..100 {
        match put(&engine, &format!("k/{n}"), &"v".repeat(50_000)).await {
            Ok(_) => kept += 1,
            Err(Error::Full { .. }) => refused += 1,
            Err(error) => panic!("{n}: {error:?}"),
        }
    }
    assert!(kept > 1 && refused > 10, "{kept} kept, {refused} refused");
    for n in 0..kept {
        assert_eq!(value(&engine, &format!("k/{n}")).await.unwrap().unwrap().len(), 50_000);
        engine.commit_many(vec![Batch::new().delete(format!("k/{n}"))]).await.unwrap();
    }
    let head = *engine.head().borrow();
    engine.trim(head).await.unwrap();
    // There is room again, in place.
    put(&engine, "small", "x").await.unwrap();
    put(&engine, "again", &"v".repeat(50_000)).await.unwrap();
    engine.close().await.unwrap();
    println!("was refused and went on: {kept} kept, {refused} refused");
}
