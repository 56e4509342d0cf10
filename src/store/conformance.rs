//! What every engine must do, as a suite that each one runs: `store::conformance!(Engines)` makes a test of each
//! function here, `store::conformance!(durable Engines)` adds those of engines that outlive the process.
//!
//! # Panics
//! Each function panics where the engine does not conform; that is its purpose.

use async_trait::async_trait;
use bytes::Bytes;
use std::{collections::BTreeSet, ops::Bound, sync::Arc};
use supervise::{Budget, Phase, Supervisor};
use types::LogId;

use crate::{Batch, Change, ChangeItem, Conflict, Engine, Error, Guard, Record, Rev, Store};

/// Makes engines for the suite.
#[async_trait]
pub trait Engines: Send + Sync {
    /// A new, empty one.
    async fn fresh(&self) -> Arc<dyn Engine>;
}

/// Engines that keep what they are told.
#[async_trait]
pub trait Durable: Engines {
    /// Closes an engine made by this and opens it again.
    async fn reopen(&self, engine: Arc<dyn Engine>) -> Arc<dyn Engine>;
}

/// Makes a test of each behaviour; the argument is an expression of a type that implements [`Engines`], or
/// [`Durable`].
#[macro_export]
macro_rules! conformance {
    (durable $engines:expr) => {
        $crate::conformance!($engines);
        $crate::conformance!(@ $engines; reopening_keeps_everything, the_log_id_survives_reopening,
            revisions_go_on_after_reopening, the_floor_survives_reopening);
    };
    ($engines:expr) => {
        $crate::conformance!(@ $engines; a_guard_that_holds_lets_the_batch_through, a_guard_that_fails_names_the_revision,
            many_are_found_in_the_order_they_are_asked_for,
            a_refused_batch_uses_no_revision_and_harms_no_neighbour, a_batch_sees_what_its_group_did_before,
            a_batch_is_applied_whole_or_not_at_all, a_batch_without_changes_has_a_revision, deleting_is_a_change,
            deleting_nothing_is_no_change, created_is_told_of_the_first_write_only, changes_come_in_order,
            a_revision_is_never_split, changes_after_the_head_are_none, trimming_tells_the_floor,
            trimming_keeps_the_records, lists_are_paged_in_order, a_prefix_is_not_more_than_a_prefix,
            a_page_says_its_moment, a_snapshot_stays_as_it_was, a_snapshot_is_read_from_anywhere_in_pieces,
            a_snapshot_of_large_values_ends_its_pages_early, a_snapshot_does_not_keep_writers_waiting, any_bytes_are_kept, a_large_value_is_kept, the_head_moves_after_the_commit,
            many_writers_get_gapless_revisions, every_engine_has_its_own_log, a_closed_engine_says_so,
            keys_and_values_have_limits);
    };
    (@ $engines:expr; $($name:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::conformance::$name(&$engines).await;
        }
    )*};
}

async fn commit(engine: &dyn Engine, batch: Batch) -> Result<Rev, Conflict> {
    let done = engine.commit_many(vec![batch]).await.expect("the engine works");
    done.into_iter().next().expect("one answer for one batch")
}

async fn put(engine: &dyn Engine, key: &str, value: &'static str) -> Rev {
    commit(engine, Batch::new().put(key, value)).await.expect("nothing guards it")
}

async fn get(engine: &dyn Engine, key: &str) -> Option<Record> {
    engine.get(key).await.expect("the engine works")
}

async fn changes(engine: &dyn Engine, after: Rev, limit: usize) -> Vec<Change> {
    engine.changes(after, limit).await.expect("the log reaches back")
}

fn head(engine: &dyn Engine) -> Rev {
    *engine.head().borrow()
}
fn set(key: &str, value: &'static str, created: bool) -> ChangeItem {
    ChangeItem { key: key.to_owned(), value: Some(Bytes::from_static(value.as_bytes())), created }
}

fn gone(key: &str) -> ChangeItem {
    ChangeItem { key: key.to_owned(), value: None, created: false }
}

/// Several keys at once.
pub async fn many_are_found_in_the_order_they_are_asked_for(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    put(&*engine, "a", "1").await;
    put(&*engine, "b", "2").await;
    let keys = ["b", "none", "a", "b"].map(str::to_owned);
    let found = engine.get_many(&keys).await.expect("the engine works");
    let found: Vec<_> = found.into_iter().map(|record| record.map(|record| (record.key, record.modified))).collect();
    let b = Some(("b".to_owned(), 2));
    assert_eq!(found, [b.clone(), None, Some(("a".to_owned(), 1)), b]);
}

/// Compare and set.
pub async fn a_guard_that_holds_lets_the_batch_through(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    assert_eq!(commit(&*engine, Batch::new().guard(Guard::Absent("a".into())).put("a", "1")).await, Ok(1));
    assert_eq!(commit(&*engine, Batch::new().guard(Guard::At("a".into(), 1)).put("a", "2")).await, Ok(2));
    let record = get(&*engine, "a").await.expect("it was written");
    assert_eq!((record.created, record.modified, record.value.as_ref()), (1, 2, b"2".as_slice()));
    assert_eq!(commit(&*engine, Batch::new().guard(Guard::At("a".into(), 2)).delete("a")).await, Ok(3));
    assert_eq!(get(&*engine, "a").await, None);
    assert_eq!(commit(&*engine, Batch::new().guard(Guard::Absent("a".into())).put("a", "3")).await, Ok(4));
    assert_eq!(get(&*engine, "a").await.map(|record| record.created), Some(4), "it was made anew");
}

/// A conflict says what is there.
pub async fn a_guard_that_fails_names_the_revision(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    put(&*engine, "a", "1").await;
    put(&*engine, "b", "1").await;
    let conflict = |key: &str, actual| Err(Conflict { key: key.to_owned(), actual });
    let refused = commit(&*engine, Batch::new().guard(Guard::Absent("b".into())).put("b", "2")).await;
    assert_eq!(refused, conflict("b", Some(2)));
    let refused = commit(&*engine, Batch::new().guard(Guard::At("a".into(), 2)).put("a", "2")).await;
    assert_eq!(refused, conflict("a", Some(1)));
    let refused = commit(&*engine, Batch::new().guard(Guard::At("c".into(), 1)).put("c", "2")).await;
    assert_eq!(refused, conflict("c", None));
    assert_eq!(get(&*engine, "a").await.map(|record| record.value), Some(Bytes::from_static(b"1")));
}

/// Neighbours in one group.
pub async fn a_refused_batch_uses_no_revision_and_harms_no_neighbour(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    put(&*engine, "a", "1").await;
    let group = vec![
        Batch::new().put("b", "1"),
        Batch::new().guard(Guard::Absent("a".into())).put("c", "1").delete("a"),
        Batch::new().put("d", "1"),
    ];
    let done = engine.commit_many(group).await.expect("the engine works");
    assert_eq!(done, [Ok(2), Err(Conflict { key: "a".into(), actual: Some(1) }), Ok(3)]);
    assert_eq!(get(&*engine, "c").await, None);
    assert!(get(&*engine, "a").await.is_some());
    let revs: Vec<Rev> = changes(&*engine, 0, 10).await.iter().map(|change| change.rev).collect();
    assert_eq!(revs, [1, 2, 3]);

    let all_refused = vec![Batch::new().guard(Guard::Absent("a".into())).put("a", "2"); 3];
    let done = engine.commit_many(all_refused).await.expect("the engine works");
    assert!(done.iter().all(Result::is_err));
    assert_eq!(head(&*engine), 3);
}

/// Guards are looked at in order.
pub async fn a_batch_sees_what_its_group_did_before(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    let take = Batch::new().guard(Guard::Absent("lock".into())).put("lock", "x");
    let group = vec![take.clone(), take, Batch::new().guard(Guard::At("lock".into(), 1)).delete("lock")];
    let done = engine.commit_many(group).await.expect("the engine works");
    assert_eq!(done, [Ok(1), Err(Conflict { key: "lock".into(), actual: Some(1) }), Ok(2)]);
    assert_eq!(get(&*engine, "lock").await, None);
}

/// Several records in one batch.
pub async fn a_batch_is_applied_whole_or_not_at_all(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    let all = Batch::new().put("a", "1").put("b", "1").put("a", "2").delete("b").put("c", "1");
    assert_eq!(commit(&*engine, all).await, Ok(1));
    let items = vec![set("a", "1", true), set("b", "1", true), set("a", "2", false), gone("b"), set("c", "1", true)];
    assert_eq!(changes(&*engine, 0, 10).await, [Change { rev: 1, items }]);
    let record = get(&*engine, "a").await.expect("it was written");
    assert_eq!((record.value.as_ref(), record.created, record.modified), (b"2".as_slice(), 1, 1));
    let refused = Batch::new().guard(Guard::At("a".into(), 1)).guard(Guard::Absent("c".into())).put("d", "1");
    assert!(commit(&*engine, refused.delete("a")).await.is_err());
    assert_eq!((get(&*engine, "d").await, get(&*engine, "a").await.is_some()), (None, true));
}

/// An empty batch is a batch.
pub async fn a_batch_without_changes_has_a_revision(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    assert_eq!(commit(&*engine, Batch::new()).await, Ok(1));
    assert_eq!(changes(&*engine, 0, 10).await, [Change { rev: 1, items: Vec::new() }]);
    let none = engine.commit_many(Vec::new()).await.expect("the engine works");
    assert_eq!((none.len(), head(&*engine)), (0, 1));
}

/// Delete events.
pub async fn deleting_is_a_change(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    put(&*engine, "a", "1").await;
    assert_eq!(commit(&*engine, Batch::new().delete("a")).await, Ok(2));
    assert_eq!(changes(&*engine, 1, 10).await, [Change { rev: 2, items: vec![gone("a")] }]);
}

/// Deleting what is not there.
pub async fn deleting_nothing_is_no_change(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    assert_eq!(commit(&*engine, Batch::new().delete("a").put("b", "1")).await, Ok(1));
    assert_eq!(changes(&*engine, 0, 10).await, [Change { rev: 1, items: vec![set("b", "1", true)] }]);
}

/// The flag of a change.
pub async fn created_is_told_of_the_first_write_only(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    put(&*engine, "a", "1").await;
    put(&*engine, "a", "2").await;
    commit(&*engine, Batch::new().delete("a")).await.expect("nothing guards it");
    put(&*engine, "a", "3").await;
    let seen: Vec<bool> =
        changes(&*engine, 0, 10).await.iter().flat_map(|change| &change.items).map(|item| item.created).collect();
    assert_eq!(seen, [true, false, false, true]);
}

/// Replay from any place.
pub async fn changes_come_in_order(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    for _ in 0..25 {
        put(&*engine, "a", "1").await;
    }
    for after in [0, 1, 24] {
        let revs: Vec<Rev> = changes(&*engine, after, 100).await.iter().map(|change| change.rev).collect();
        assert_eq!(revs, (after + 1..=25).collect::<Vec<_>>());
    }
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = changes(&*engine, after, 7).await;
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { break };
        after = last.rev;
        seen.extend(page.iter().map(|change| change.rev));
    }
    assert_eq!(seen, (1..=25).collect::<Vec<_>>());
}

/// A page boundary never falls inside a revision.
pub async fn a_revision_is_never_split(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    for round in 0..3 {
        let many = (0..50).fold(Batch::new(), |batch, n| batch.put(format!("{round}/{n:02}"), "x"));
        commit(&*engine, many).await.expect("nothing guards it");
    }
    for limit in [0, 1, 2] {
        let page = changes(&*engine, 0, limit).await;
        assert_eq!(page.len(), limit.max(1), "at least one, or readers never get on");
        assert!(page.iter().all(|change| change.items.len() == 50));
    }
    let page = changes(&*engine, 1, 1).await;
    assert_eq!(page.iter().map(|change| (change.rev, change.items.len())).collect::<Vec<_>>(), [(2, 50)]);
}

/// A reader at the end, and one beyond it.
pub async fn changes_after_the_head_are_none(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    assert_eq!(changes(&*engine, 0, 10).await, []);
    put(&*engine, "a", "1").await;
    assert_eq!(changes(&*engine, 1, 10).await, []);
    assert_eq!(changes(&*engine, 77, 10).await, []);
    assert_eq!(changes(&*engine, Rev::MAX, 10).await, []);
}

/// Trimmed changes are refused, not left out.
pub async fn trimming_tells_the_floor(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    for _ in 0..10 {
        put(&*engine, "a", "1").await;
    }
    assert_eq!(engine.floor().await.expect("the engine works"), 0);
    engine.trim(4).await.expect("the engine works");
    engine.trim(2).await.expect("trimming less is no error");
    assert_eq!(engine.floor().await.expect("the engine works"), 4);
    for after in [0, 3] {
        assert!(matches!(engine.changes(after, 10).await, Err(Error::Trimmed { floor: 4 })), "after {after}");
    }
    assert_eq!(changes(&*engine, 4, 10).await.len(), 6);
    engine.trim(Rev::MAX).await.expect("the engine works");
    assert_eq!((engine.floor().await.expect("the engine works"), head(&*engine)), (10, 10));
    assert_eq!(put(&*engine, "a", "1").await, 11);
    assert_eq!(changes(&*engine, 10, 10).await.len(), 1);
    assert!(matches!(engine.changes(9, 10).await, Err(Error::Trimmed { floor: 10 })));
}

/// Trimming is about changes only.
pub async fn trimming_keeps_the_records(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    put(&*engine, "a", "1").await;
    put(&*engine, "b", "1").await;
    engine.trim(2).await.expect("the engine works");
    let record = get(&*engine, "a").await.expect("it is still there");
    assert_eq!((record.created, record.modified), (1, 1));
    assert_eq!(commit(&*engine, Batch::new().guard(Guard::At("b".into(), 2)).put("b", "2")).await, Ok(3));
}

/// Paging by key.
pub async fn lists_are_paged_in_order(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    for n in [5, 3, 9, 1, 7] {
        put(&*engine, &format!("task/{n}"), "x").await;
    }
    let (mut after, mut seen) = (None::<String>, Vec::new());
    loop {
        let page = engine.list("task/", after.as_deref(), 2).await.expect("the engine works");
        assert!(page.records.len() <= 2);
        let Some(last) = page.records.last() else { break };
        after = Some(last.key.clone());
        seen.extend(page.records.iter().map(|record| record.key.clone()));
    }
    assert_eq!(seen, ["task/1", "task/3", "task/5", "task/7", "task/9"]);
    let between = engine.list("task/", Some("task/4"), 10).await.expect("the engine works");
    assert_eq!(between.records.first().map(|record| record.key.as_str()), Some("task/5"), "the place need not exist");
    assert_eq!(engine.list("task/", None, 0).await.expect("the engine works").records, []);
    assert_eq!(engine.list("task/", Some("task/9"), 10).await.expect("the engine works").records, []);
}

/// The edges of a prefix.
pub async fn a_prefix_is_not_more_than_a_prefix(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    for key in ["task", "task.", "task/", "task/a", "task/\u{10ffff}", "task0", "tasks/a", "z", "äther/1"] {
        put(&*engine, key, "x").await;
    }
    let keys = async |prefix: &str, after: Option<&str>| -> Vec<String> {
        let page = engine.list(prefix, after, 100).await.expect("the engine works");
        page.records.into_iter().map(|record| record.key).collect()
    };
    assert_eq!(keys("task/", None).await, ["task/", "task/a", "task/\u{10ffff}"]);
    assert_eq!(keys("task/", Some("task/")).await, ["task/a", "task/\u{10ffff}"]);
    assert_eq!(keys("task/", Some("a")).await, ["task/", "task/a", "task/\u{10ffff}"], "a place before the prefix");
    assert_eq!(keys("task/", Some("u")).await, [""; 0], "a place behind it");
    assert_eq!(keys("ä", None).await, ["äther/1"]);
    assert_eq!(keys("nothing/", None).await, [""; 0]);
    assert_eq!(keys("", None).await.len(), 9);
}

/// The revision of a page.
pub async fn a_page_says_its_moment(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    assert_eq!(engine.list("", None, 10).await.expect("the engine works").rev, 0);
    put(&*engine, "a", "1").await;
    put(&*engine, "b", "1").await;
    commit(&*engine, Batch::new().delete("b")).await.expect("nothing guards it");
    let page = engine.list("", None, 10).await.expect("the engine works");
    assert_eq!((page.rev, page.records.len()), (3, 1));
}

/// What is held does not change, whatever is written, removed or trimmed meanwhile.
pub async fn a_snapshot_stays_as_it_was(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    put(&*engine, "a", "1").await;
    let rev = put(&*engine, "b", "1").await;
    let snapshot = engine.snapshot().await.expect("a moment");
    put(&*engine, "a", "2").await;
    put(&*engine, "c", "1").await;
    commit(&*engine, Batch::new().delete("b")).await.expect("nothing guards it");
    engine.trim(head(&*engine)).await.expect("trimmed");
    let later = engine.snapshot().await.expect("a moment");
    let found = |records: Vec<Record>| -> Vec<(String, Bytes)> {
        records.into_iter().map(|record| (record.key, record.value)).collect()
    };
    let wanted = |pairs: &[(&str, &'static str)]| -> Vec<(String, Bytes)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), Bytes::from_static(value.as_bytes()))).collect()
    };
    let all = snapshot.list("", Bound::Unbounded, 100).await.expect("it is held");
    assert_eq!((snapshot.rev(), found(all)), (rev, wanted(&[("a", "1"), ("b", "1")])));
    let all = later.list("", Bound::Unbounded, 100).await.expect("it is held");
    assert_eq!((later.rev(), found(all)), (rev + 3, wanted(&[("a", "2"), ("c", "1")])));
    drop(snapshot);
    assert_eq!(later.list("", Bound::Unbounded, 100).await.expect("it is held").len(), 2);
}

/// Prefix, beginning and limit choose what is read.
pub async fn a_snapshot_is_read_from_anywhere_in_pieces(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    for key in ["a/1", "a/2", "a/3", "b/1"] {
        put(&*engine, key, "v").await;
    }
    let snapshot = engine.snapshot().await.expect("a moment");
    let cases: [(&str, Bound<&str>, usize, &[&str]); 9] = [
        ("", Bound::Unbounded, 10, &["a/1", "a/2", "a/3", "b/1"]),
        ("a/", Bound::Unbounded, 10, &["a/1", "a/2", "a/3"]),
        ("a/", Bound::Unbounded, 2, &["a/1", "a/2"]),
        ("a/", Bound::Excluded("a/2"), 2, &["a/3"]),
        ("a/", Bound::Included("a/2"), 2, &["a/2", "a/3"]),
        ("b/", Bound::Included("a/2"), 2, &["b/1"]),
        ("a/", Bound::Included("b/1"), 2, &[]),
        ("", Bound::Excluded("b/1"), 2, &[]),
        ("", Bound::Unbounded, 0, &[]),
    ];
    for (prefix, from, limit, keys) in cases {
        let found = snapshot.list(prefix, from, limit).await.expect("it is held");
        let found: Vec<&str> = found.iter().map(|record| &*record.key).collect();
        assert_eq!(found, keys, "{prefix:?} {from:?} {limit}");
    }
}

/// A page has at least one record and about 4 MiB.
pub async fn a_snapshot_of_large_values_ends_its_pages_early(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    for key in ["a", "b", "c"] {
        let value = Bytes::from(vec![7; 5 << 20]);
        commit(&*engine, Batch::new().put(key, value)).await.expect("nothing guards it");
    }
    let snapshot = engine.snapshot().await.expect("a moment");
    let (mut last, mut keys) = (None::<String>, Vec::new());
    loop {
        let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let page = snapshot.list("", from, 100).await.expect("it is held");
        let Some(record) = page.first() else { break };
        assert_eq!((page.len(), record.value.len()), (1, 5 << 20));
        keys.push(record.key.clone());
        last = Some(record.key.clone());
    }
    assert_eq!(keys, ["a", "b", "c"]);
}

/// Reading one moment and writing the next go on together.
pub async fn a_snapshot_does_not_keep_writers_waiting(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    put(&*engine, "a", "1").await;
    let snapshots = futures_util::future::join_all((0..8).map(|_| engine.snapshot())).await;
    for n in 0..20 {
        put(&*engine, &format!("k/{n}"), "v").await;
    }
    for snapshot in snapshots {
        let snapshot = snapshot.expect("a moment");
        assert_eq!(snapshot.list("", Bound::Unbounded, 100).await.expect("it is held").len(), 1);
    }
}

/// Values are bytes, keys are any text.
pub async fn any_bytes_are_kept(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    let all: Bytes = (0..=255).collect::<Vec<u8>>().into();
    let keys = ["a", "\0", "a\0b", "é", "日本/語", "key with \"quotes\" and \n lines", "\u{10ffff}"];
    for key in keys {
        commit(&*engine, Batch::new().put(key, all.clone())).await.expect("nothing guards it");
        commit(&*engine, Batch::new().put(format!("{key}/empty"), Bytes::new())).await.expect("nothing guards it");
    }
    for key in keys {
        assert_eq!(get(&*engine, key).await.map(|record| record.value), Some(all.clone()), "{key:?}");
        let empty = get(&*engine, &format!("{key}/empty")).await;
        assert_eq!(empty.map(|record| record.value), Some(Bytes::new()), "{key:?}");
    }
}

/// Values larger than any page.
pub async fn a_large_value_is_kept(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    let large: Bytes = (0..crate::MOST_VALUE).map(|n| (n % 251) as u8).collect::<Vec<u8>>().into();
    commit(&*engine, Batch::new().put("large", large.clone())).await.expect("nothing guards it");
    assert!(get(&*engine, "large").await.is_some_and(|record| record.value == large));
    let found = changes(&*engine, 0, 1).await;
    let value = found.first().and_then(|change| change.items.first()).and_then(|item| item.value.clone());
    assert!(value.is_some_and(|value| value == large));
}

/// Who follows the head finds what it announces.
pub async fn the_head_moves_after_the_commit(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    let mut follower = engine.head();
    let writing = async {
        for _ in 0..20 {
            put(&*engine, "a", "1").await;
        }
    };
    let following = async {
        let mut seen = 0;
        while seen < 20 {
            follower.changed().await.expect("the engine lives");
            let announced = *follower.borrow_and_update();
            assert!(announced > seen, "{announced} after {seen}");
            let found = changes(&*engine, seen, 100).await;
            assert!(found.last().is_some_and(|change| change.rev >= announced), "{announced} was announced too early");
            seen = announced;
        }
    };
    tokio::join!(writing, following);
    assert_eq!(head(&*engine), 20);
}

/// 64 writers through the group commit of [`Store`].
pub async fn many_writers_get_gapless_revisions(engines: &dyn Engines) {
    const WRITERS: usize = 64;
    const EACH: usize = 20;
    let engine = engines.fresh().await;
    let supervisor = Supervisor::new(Budget::default());
    let store = Store::start(engine.clone(), &supervisor.scope(Phase::Store, "store"));
    let writers = (0..WRITERS).map(|writer| {
        let store = &store;
        async move {
            let mut got = Vec::new();
            for n in 0..EACH {
                let mine = Batch::new().put(format!("w/{writer}/{n}"), n.to_string());
                got.push(store.commit(mine).await.expect("nothing guards it"));
                // Everybody wants this one; who loses has used no revision.
                let lock = format!("lock/{n}");
                let taken = store.commit(Batch::new().guard(Guard::Absent(lock.clone())).put(lock, "x")).await;
                assert!(matches!(taken, Ok(_) | Err(Error::Conflict(_))), "{taken:?}");
                got.extend(taken);
            }
            assert!(got.is_sorted(), "a writer's own revisions rise");
            got
        }
    });
    let got: Vec<Rev> = futures_util::future::join_all(writers).await.concat();
    let distinct: BTreeSet<Rev> = got.iter().copied().collect();
    let count = (WRITERS * EACH + EACH) as Rev;
    assert_eq!((got.len() as Rev, distinct), (count, (1..=count).collect()));
    let mut items = 0;
    let last = store.scan("w/", |_| items += 1).await.expect("the engine works");
    assert_eq!((items, last), (WRITERS * EACH, count));
    supervisor.run(async {}).await.expect("the store stops in order");
}

/// The identity of a log.
pub async fn every_engine_has_its_own_log(engines: &dyn Engines) {
    let (one, other) = (engines.fresh().await, engines.fresh().await);
    assert_ne!(one.log_id(), other.log_id());
}

/// After `close`.
pub async fn a_closed_engine_says_so(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    put(&*engine, "a", "1").await;
    engine.close().await.expect("it closes");
    assert!(matches!(engine.get("a").await, Err(Error::Closed)));
    assert!(matches!(engine.list("", None, 1).await, Err(Error::Closed)));
    assert!(matches!(engine.commit_many(vec![Batch::new()]).await, Err(Error::Closed)));
    assert!(matches!(engine.changes(0, 1).await, Err(Error::Closed)));
    assert!(matches!(engine.trim(1).await, Err(Error::Closed)));
    assert!(matches!(engine.floor().await, Err(Error::Closed)));
    assert!(matches!(engine.close().await, Err(Error::Closed)));
    assert_eq!(head(&*engine), 1);
}

/// The limits of [`Store`].
pub async fn keys_and_values_have_limits(engines: &dyn Engines) {
    let engine = engines.fresh().await;
    let supervisor = Supervisor::new(Budget::default());
    let store = Store::start(engine, &supervisor.scope(Phase::Store, "store"));
    let longest = "k".repeat(crate::MOST_KEY);
    store.commit(Batch::new().put(longest.clone(), "x")).await.expect("the longest key fits");
    let too_long = store.commit(Batch::new().put(format!("{longest}k"), "x")).await;
    assert!(matches!(too_long, Err(Error::TooLarge(_))));
    assert!(matches!(store.commit(Batch::new().put("", "x")).await, Err(Error::TooLarge(_))));
    let too_large = store.commit(Batch::new().put("a", vec![0; crate::MOST_VALUE + 1])).await;
    assert!(matches!(too_large, Err(Error::TooLarge(_))));
    assert_eq!(store.commit(Batch::new()).await.expect("it goes on"), 2);
    supervisor.run(async {}).await.expect("the store stops in order");
}

async fn filled(engines: &dyn Durable) -> Arc<dyn Engine> {
    let engine = engines.fresh().await;
    for n in 0..20 {
        let batch = Batch::new().put(format!("a/{n:02}"), format!("value {n}")).put("last", n.to_string());
        commit(&*engine, batch.delete(format!("a/{:02}", n % 3))).await.expect("nothing guards it");
    }
    engine
}

async fn everything(engine: &dyn Engine) -> (Vec<Record>, Vec<Change>, Rev, LogId) {
    let page = engine.list("", None, 1000).await.expect("the engine works");
    let floor = engine.floor().await.expect("the engine works");
    (page.records, changes(engine, floor, 1000).await, head(engine), engine.log_id())
}

/// Records, log, head and identity.
pub async fn reopening_keeps_everything(engines: &dyn Durable) {
    let mut engine = filled(engines).await;
    let before = everything(&*engine).await;
    assert_eq!((before.0.len() > 10, before.1.len()), (true, 20));
    for _ in 0..3 {
        engine = engines.reopen(engine).await;
        assert_eq!(everything(&*engine).await, before);
    }
}

/// A cursor stays good.
pub async fn the_log_id_survives_reopening(engines: &dyn Durable) {
    let engine = engines.fresh().await;
    let log_id = engine.log_id();
    assert_eq!(engines.reopen(engine).await.log_id(), log_id);
}

/// No revision is used twice.
pub async fn revisions_go_on_after_reopening(engines: &dyn Durable) {
    let mut engine = filled(engines).await;
    for rev in 21..24 {
        engine = engines.reopen(engine).await;
        assert_eq!(head(&*engine), rev - 1);
        assert_eq!(put(&*engine, "next", "x").await, rev);
    }
}

/// What was trimmed stays so, even the whole log.
pub async fn the_floor_survives_reopening(engines: &dyn Durable) {
    let engine = filled(engines).await;
    engine.trim(7).await.expect("the engine works");
    let engine = engines.reopen(engine).await;
    assert!(matches!(engine.changes(6, 10).await, Err(Error::Trimmed { floor: 7 })));
    engine.trim(20).await.expect("the engine works");
    let engine = engines.reopen(engine).await;
    assert_eq!((engine.floor().await.expect("the engine works"), head(&*engine)), (20, 20));
    assert_eq!(put(&*engine, "next", "x").await, 21);
}
