#![allow(clippy::unwrap_used, reason = "tests")]

use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use supervise::{Budget, Phase, Supervisor};
use types::{Timestamp, clock::ManualClock};

use crate::{conformance::Engines, *};

struct InMemory;

#[async_trait]
impl Engines for InMemory {
    async fn fresh(&self) -> Arc<dyn Engine> {
        Arc::new(Memory::new())
    }
}

mod the_memory_engine {
    use super::InMemory;
    crate::conformance!(InMemory);
}

/// A store in memory with its supervisor.
fn store() -> (Store, Supervisor) {
    let supervisor = Supervisor::new(Budget::default());
    (Store::start(Arc::new(Memory::new()), &supervisor.scope(Phase::Store, "store")), supervisor)
}

async fn fill(store: &Store, count: u64) {
    for n in 0..count {
        store.commit(Batch::new().put("a", n.to_string())).await.unwrap();
    }
}

mod leases {
    use super::*;

    fn lease(store: &Store, clock: &Arc<ManualClock>, holder: &str) -> Lease {
        Lease::new(store, clock.clone(), "sweeper", holder, Duration::from_secs(30))
    }

    fn held(claim: Claim) -> Held {
        match claim {
            Claim::Held(held) => held,
            taken => panic!("{taken:?}"),
        }
    }

    #[tokio::test]
    async fn one_of_many_gets_the_lease() {
        let (store, _supervisor) = store();
        let clock = Arc::new(ManualClock::new(Timestamp(1000)));
        let asking = (0..16).map(|n| {
            let lease = lease(&store, &clock, &format!("holder {n}"));
            async move { lease.claim().await.unwrap() }
        });
        let claims = futures_util::future::join_all(asking).await;
        assert_eq!(claims.iter().filter(|claim| matches!(claim, Claim::Held(_))).count(), 1, "{claims:?}");
    }

    #[tokio::test]
    async fn a_lease_is_taken_over_after_its_end_and_a_margin() {
        let (store, _supervisor) = store();
        let clock = Arc::new(ManualClock::new(Timestamp(1000)));
        let (one, other) = (lease(&store, &clock, "one"), lease(&store, &clock, "other"));
        let first = held(one.claim().await.unwrap());
        assert_eq!((first.epoch, first.left(&*clock)), (1, Duration::from_secs(30)));
        let taken = Claim::Taken { holder: "one".into(), until: Timestamp(31_000) };
        clock.advance(Duration::from_secs(33));
        assert_eq!(first.left(&*clock), Duration::ZERO, "its holder knows it first");
        assert_eq!(other.claim().await.unwrap(), taken);
        clock.advance(Duration::from_millis(1));
        assert_eq!(held(other.claim().await.unwrap()).epoch, 2);
        assert_eq!(one.renew(&first).await.unwrap(), None, "the first holder has lost it");
    }

    #[tokio::test]
    async fn a_renewed_lease_stays_with_its_holder() {
        let (store, _supervisor) = store();
        let clock = Arc::new(ManualClock::new(Timestamp(1000)));
        let (one, other) = (lease(&store, &clock, "one"), lease(&store, &clock, "other"));
        let mut mine = held(one.claim().await.unwrap());
        for _ in 0..5 {
            clock.advance(Duration::from_secs(20));
            let renewed = one.renew(&mine).await.unwrap().unwrap();
            assert!(renewed.rev > mine.rev && renewed.epoch == 1);
            mine = renewed;
            assert!(matches!(other.claim().await.unwrap(), Claim::Taken { .. }));
        }
        // A holder that has forgotten (it was started anew) asks again and gets its own.
        assert_eq!(held(lease(&store, &clock, "one").claim().await.unwrap()).epoch, 1);
    }

    #[tokio::test]
    async fn a_released_lease_is_free_at_once() {
        let (store, _supervisor) = store();
        let clock = Arc::new(ManualClock::new(Timestamp(1000)));
        let (one, other) = (lease(&store, &clock, "one"), lease(&store, &clock, "other"));
        let first = held(one.claim().await.unwrap());
        one.release(first.clone()).await.unwrap();
        let second = held(other.claim().await.unwrap());
        assert_eq!(second.epoch, 2);
        one.release(first).await.unwrap();
        assert_eq!(held(other.claim().await.unwrap()).epoch, 2, "releasing what was lost changes nothing");
    }

    #[tokio::test]
    async fn a_commit_under_a_lost_lease_is_refused() {
        let (store, _supervisor) = store();
        let clock = Arc::new(ManualClock::new(Timestamp(1000)));
        let (one, other) = (lease(&store, &clock, "one"), lease(&store, &clock, "other"));
        let first = held(one.claim().await.unwrap());
        store.commit(first.guard(Batch::new().put("swept", "by one"))).await.unwrap();
        // The other's clock runs ahead: it takes over although the first still believes in its lease.
        clock.jump_wall(Timestamp(1_000_000));
        let second = held(other.claim().await.unwrap());
        assert!(first.left(&*clock) > Duration::ZERO);
        let late = store.commit(first.guard(Batch::new().put("swept", "by one"))).await;
        assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
        store.commit(second.guard(Batch::new().put("swept", "by other"))).await.unwrap();
    }
}

mod keeping {
    use super::*;

    #[tokio::test]
    async fn without_times_the_number_of_revisions_decides() {
        let (store, _supervisor) = store();
        let clock = ManualClock::new(Timestamp(0));
        fill(&store, 10).await;
        let retention = Retention { revisions: 4, ..Retention::default() };
        assert_eq!(retention::trim(&store, &clock, retention).await.unwrap(), 6);
        assert_eq!(store.floor().await.unwrap(), 6);
        assert_eq!(retention::trim(&store, &clock, retention).await.unwrap(), 6);
        let more = Retention { revisions: 100, ..retention };
        assert_eq!(retention::trim(&store, &clock, more).await.unwrap(), 6);
    }

    #[tokio::test]
    async fn a_change_goes_when_it_is_beyond_both_age_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(1_000_000_000_000)));
        let config = redb::Config::new(DataDir::open(dir.path()).unwrap(), clock.clone());
        let supervisor = Supervisor::new(Budget::default());
        let store = Store::start(Arc::new(Redb::open(config).unwrap()), &supervisor.scope(Phase::Store, "store"));
        fill(&store, 10).await;
        clock.advance(Duration::from_secs(100));
        fill(&store, 10).await;
        let floor = async |age, revisions| {
            let retention = Retention { age: Duration::from_secs(age), revisions, ..Retention::default() };
            retention::trim(&store, &*clock, retention).await.unwrap()
        };
        assert_eq!(floor(101, 5).await, 0, "all are young enough");
        assert_eq!(floor(50, 18).await, 2, "the last 18 stay, old or not");
        assert_eq!(floor(50, 5).await, 10, "the young ones stay, few or many");
        clock.advance(Duration::from_secs(100));
        assert_eq!(floor(50, 5).await, 15);
        // Times from a clock that was years ahead do not keep their changes for years.
        clock.jump_wall(Timestamp(2_000_000_000_000));
        fill(&store, 10).await;
        clock.jump_wall(Timestamp(1_000_000_300_000));
        assert_eq!(floor(50, 5).await, 25);
        supervisor.run(async {}).await.unwrap();
    }

    #[tokio::test]
    async fn a_log_is_trimmed_now_and_then_until_the_stop() {
        let (store, supervisor) = store();
        let retention = Retention { revisions: 3, every: Duration::from_millis(5), ..Retention::default() };
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        retention::start(&store, &supervisor.scope(Phase::Store, "store"), clock, retention);
        for wanted in [7, 17] {
            fill(&store, 10).await;
            let trimmed = async {
                while store.floor().await.unwrap() < wanted {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), trimmed).await.unwrap();
            assert_eq!(store.floor().await.unwrap(), wanted);
        }
        supervisor.run(async {}).await.unwrap();
    }
}
