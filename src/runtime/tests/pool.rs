use api::Invocation;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use types::{ExecutionId, Reason, SystemClock};

use crate::{fake::Fake, *};

struct Bench {
    _dir: tempfile::TempDir,
    pool: Pool,
}

impl Bench {
    async fn new(program: &str, settings: PoolSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::write(&path, program).unwrap();
        let runtime: Arc<dyn Runtime> = Arc::new(Fake::new("wasm"));
        let artifact = Artifact { digest: "d".into(), path, size: program.len() as u64 };
        let prepared = runtime.prepare(&artifact, &Preparation::from(&Limits::default())).await.unwrap();
        let spec = InstanceSpec { name: "f".into(), ..InstanceSpec::default() };
        Self { _dir: dir, pool: Pool::new(runtime, prepared, spec, settings, Arc::default()) }
    }

    async fn checkout(&self) -> Result<Lease, InvokeError> {
        self.pool.checkout(&CancellationToken::new()).await
    }

    async fn call(&self, text: &'static str) -> Result<Answer, InvokeError> {
        let mut lease = self.checkout().await?;
        lease.invoke(ExecutionId::new(), Invocation::new(text), streams()).await
    }
}

fn streams() -> Streams {
    Streams::logged(LogBuffer::new(Arc::new(SystemClock::new()), 1000, 1).0)
}

fn settings() -> PoolSettings {
    PoolSettings { concurrency: 2, queue: 1, queue_wait: Duration::from_millis(50), ..PoolSettings::default() }
}

#[tokio::test]
async fn calls_over_the_places_wait_and_calls_over_the_queue_are_refused_with_a_time_to_come_back() {
    let bench = Bench::new("echo", PoolSettings { queue_wait: Duration::from_secs(20), ..settings() }).await;
    let first = bench.checkout().await.unwrap();
    let second = bench.checkout().await.unwrap();
    let mut third = Box::pin(bench.checkout());
    assert!(futures_util::poll!(third.as_mut()).is_pending());
    assert_eq!(bench.pool.waiting(), 1);
    let refused = bench.checkout().await.err().unwrap();
    assert_eq!(refused.reason, Reason::Queue);
    assert_eq!(refused.message, "2 calls are under way and 1 wait: it takes no more");
    assert_eq!(refused.retry_after, Some(Duration::from_secs(20)));
    drop(first);
    drop(third.await.unwrap());
    drop(second);
    assert_eq!(bench.pool.waiting(), 0);
    assert_eq!(bench.call("again").await.unwrap().result, "again");
}

#[tokio::test]
async fn who_waits_too_long_or_is_cancelled_gives_up_its_turn() {
    let bench = Bench::new("echo", settings()).await;
    let held = (bench.checkout().await.unwrap(), bench.checkout().await.unwrap());
    let late = bench.checkout().await.err().unwrap();
    assert_eq!(late.message, "all 2 places were taken for 50ms");
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert_eq!(bench.pool.checkout(&cancel).await.err().unwrap().reason, Reason::Cancelled);
    assert_eq!(bench.pool.waiting(), 0, "nobody counts as waiting any more");
    drop(held);
}

#[tokio::test]
async fn an_instance_is_used_again_until_its_last_use_and_never_after_a_failure() {
    let bench = Bench::new("count", PoolSettings { uses: 3, ..settings() }).await;
    for expected in ["1", "2", "3", "1", "2"] {
        assert_eq!(bench.call("").await.unwrap().result, expected);
    }
    let trap = Bench::new("trap", settings()).await;
    for _ in 0..2 {
        assert_eq!(trap.call("").await.unwrap_err().reason, Reason::Trap);
        assert_eq!(trap.pool.instances().len(), 0);
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_takes_its_instance_with_it() {
    let bench = Bench::new("sleep 3600000", settings()).await;
    let call = bench.call("");
    assert!(tokio::time::timeout(Duration::from_millis(20), call).await.is_err());
    assert!(bench.pool.instances().is_empty());
    assert_eq!(bench.pool.busy(), 0);
}

#[tokio::test]
async fn what_should_be_warm_is_made_and_what_is_idle_for_long_goes() {
    let settings = PoolSettings { warm_min: 1, warm_max: 2, idle: Duration::ZERO, ..settings() };
    let bench = Bench::new("echo", settings).await;
    bench.pool.tend().await.unwrap();
    assert_eq!(bench.pool.instances().len(), 1);
    assert!(!bench.checkout().await.unwrap().cold(), "nobody waits for it");
    drop((bench.checkout().await.unwrap(), bench.checkout().await.unwrap()));
    assert_eq!(bench.pool.instances().len(), 2);
    bench.pool.tend().await.unwrap();
    assert_eq!(bench.pool.instances().len(), 1);
}

#[tokio::test]
async fn instances_are_seen_and_can_be_ended_one_by_one() {
    let bench = Bench::new("sleep 3600000", settings()).await;
    let calling = bench.call("");
    let killing = async {
        let execution = loop {
            tokio::task::yield_now().await;
            if let [view] = &*bench.pool.instances()
                && view.state == InstanceState::Busy
            {
                assert!(bench.pool.kill(view.id));
                break view.execution;
            }
        };
        assert!(execution.is_some());
        assert!(!bench.pool.kill(999));
    };
    let (ended, ()) = tokio::join!(calling, killing);
    assert_eq!(ended.unwrap_err().reason, Reason::Cancelled);
}

#[tokio::test]
async fn a_closed_pool_ends_what_waits_and_keeps_nothing() {
    let bench = Bench::new("echo", PoolSettings { queue_wait: Duration::from_secs(20), ..settings() }).await;
    let held = (bench.checkout().await.unwrap(), bench.checkout().await.unwrap());
    let mut waiting = Box::pin(bench.checkout());
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    bench.pool.close();
    assert_eq!(waiting.await.err().unwrap().reason, Reason::Task);
    drop(held);
    assert!(bench.pool.instances().is_empty());
    assert_eq!(bench.checkout().await.err().unwrap().reason, Reason::Task);
}
