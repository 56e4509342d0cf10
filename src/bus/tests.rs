#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{Batch, Keyed, Memory, Store, encode};
use supervise::{Budget, Phase, Supervisor};

use crate::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Thing {
    name: String,
    size: u64,
}

impl Keyed for Thing {
    const PREFIX: &'static str = "thing/";
    fn id(&self) -> String {
        self.name.clone()
    }
}

struct Rig {
    supervisor: Supervisor,
    store: Store,
    bus: Bus,
}

fn rig() -> Rig {
    let supervisor = Supervisor::new(Budget { total: Duration::from_secs(2) });
    let store = Store::start(Arc::new(Memory::new()), &supervisor.scope(Phase::Store, "store"));
    let bus = Bus::start(&store, &supervisor.scope(Phase::Bus, "bus"));
    Rig { supervisor, store, bus }
}

impl Rig {
    async fn put(&self, name: &str, size: u64) -> u64 {
        let thing = Thing { name: name.into(), size };
        self.store.commit(Batch::new().put(thing.key(), encode(&thing).unwrap())).await.unwrap()
    }
}

fn seen(delivery: Delivery<Thing>) -> String {
    match delivery {
        Delivery::Set { rev, created, id, now } => format!("{rev} set {id} {} {created}", now.size),
        Delivery::Gone { rev, id } => format!("{rev} gone {id}"),
        Delivery::Lagged { floor } => format!("lagged {floor}"),
    }
}

#[tokio::test]
async fn a_reader_sees_each_change_of_its_prefix_once_and_in_order() {
    let rig = rig();
    let mut live = rig.bus.changes::<Thing>(From::Now);
    rig.put("a", 1).await;
    rig.store.commit(Batch::new().put("other/x", "1")).await.unwrap();
    rig.put("a", 2).await;
    rig.store.commit(Batch::new().delete("thing/a")).await.unwrap();
    let mut replay = rig.bus.changes::<Thing>(From::After(0));
    for reader in [&mut live, &mut replay] {
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(seen(reader.next().await.unwrap()));
        }
        assert_eq!(all, ["1 set a 1 true", "3 set a 2 false", "4 gone a"]);
        assert_eq!(reader.cursor(), 4);
    }
}

#[tokio::test]
async fn the_cursor_stays_before_a_revision_that_is_only_half_handed_out() {
    let rig = rig();
    rig.put("z", 0).await;
    let batch = ["a", "b"].into_iter().fold(Batch::new(), |batch, name| {
        let thing = Thing { name: name.into(), size: 1 };
        batch.put(thing.key(), encode(&thing).unwrap())
    });
    rig.store.commit(batch).await.unwrap();
    let mut reader = rig.bus.changes::<Thing>(From::After(1));
    assert_eq!(seen(reader.next().await.unwrap()), "2 set a 1 true");
    assert_eq!(reader.cursor(), 1, "b of revision 2 is still to come");
    assert_eq!(seen(reader.next().await.unwrap()), "2 set b 1 true");
    assert_eq!(reader.cursor(), 2);
}

#[tokio::test]
async fn a_reader_behind_the_ring_reads_the_log_and_one_behind_the_log_is_told() {
    let rig = rig();
    let mut slow = rig.bus.changes::<Thing>(From::Now);
    for size in 0..3000 {
        rig.put("a", size).await;
    }
    for size in 0..3000u64 {
        assert_eq!(seen(slow.next().await.unwrap()), format!("{} set a {size} {}", size + 1, size == 0));
    }
    rig.store.trim(2000).await.unwrap();
    let mut late = rig.bus.changes::<Thing>(From::After(10));
    assert_eq!(seen(late.next().await.unwrap()), "lagged 2000");
    late.seek(2000);
    assert_eq!(seen(late.next().await.unwrap()), "2001 set a 2000 false");
}

#[tokio::test]
async fn a_new_reader_with_a_position_from_a_moment_ago_does_not_read_the_log() {
    let rig = rig();
    rig.bus.measure(&telemetry::Metrics::new(), "test");
    for size in 0..5 {
        rig.put("a", size).await;
        rig.store.commit(Batch::new().put("other/x", "1")).await.unwrap();
    }
    let mut reader = rig.bus.changes::<Thing>(From::After(4));
    for expected in ["5 set a 2 false", "7 set a 3 false", "9 set a 4 false"] {
        assert_eq!(seen(reader.next().await.unwrap()), expected);
    }
    rig.bus.inner.figures.see(|figures| assert_eq!(figures.behind.get(), 0));
    assert_eq!(rig.bus.inner.followed(), 1, "the recent changes of all prefixes are nobody's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_that_join_at_any_moment_miss_nothing() {
    let rig = Arc::new(rig());
    let writer = tokio::spawn({
        let rig = rig.clone();
        async move {
            for size in 0..2000 {
                rig.put(&format!("n{}", size % 7), size).await;
            }
        }
    });
    let mut readers = Vec::new();
    for _ in 0..50 {
        let rig = rig.clone();
        tokio::task::yield_now().await;
        readers.push(tokio::spawn(async move {
            let from = rig.bus.head();
            let mut changes = rig.bus.changes::<Thing>(From::After(from));
            for expected in from + 1..=2000 {
                match changes.next().await.unwrap() {
                    Delivery::Set { rev, now, .. } => assert_eq!((rev, now.size + 1), (expected, expected)),
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    writer.await.unwrap();
    for reader in readers {
        tokio::time::timeout(Duration::from_secs(20), reader).await.expect("every reader gets to the end").unwrap();
    }
}

#[tokio::test]
async fn a_mirror_shows_what_was_written_once_it_reached_it() {
    let rig = rig();
    rig.put("before", 1).await;
    let mirror =
        rig.bus.mirror::<Thing, u64>(&rig.supervisor.scope(Phase::Work, "test"), |thing| thing.size).await.unwrap();
    let rev = rig.put("after", 2).await;
    mirror.reached(rev).await;
    assert_eq!(*mirror.read(), BTreeMap::from([("before".to_owned(), 1), ("after".to_owned(), 2)]));
    let rev = rig.store.commit(Batch::new().delete("thing/before")).await.unwrap();
    mirror.reached(rev).await;
    assert_eq!(mirror.get("before"), None);
}

#[derive(Clone, Debug, PartialEq)]
struct Beat(u32);
impl Signal for Beat {}

#[tokio::test]
async fn a_slow_listener_learns_how_many_signals_it_missed() {
    let rig = rig();
    rig.bus.emit(Beat(0));
    let mut beats = rig.bus.signals::<Beat>();
    for beat in 1..=1030 {
        rig.bus.emit(Beat(beat));
    }
    assert_eq!(beats.next().await.unwrap(), Signalled::Missed(6));
    assert_eq!(beats.next().await.unwrap(), Signalled::One(Beat(7)));
}

#[tokio::test]
async fn readers_are_told_when_the_bus_stops() {
    let rig = rig();
    let mut reader = rig.bus.changes::<Thing>(From::Now);
    rig.put("a", 1).await;
    rig.bus.raw("", From::After(0)).next().await.unwrap();
    rig.supervisor.run(async {}).await.unwrap();
    assert_eq!(seen(reader.next().await.unwrap()), "1 set a 1 true");
    assert!(matches!(reader.next().await, Err(Error::Closed)));
}
