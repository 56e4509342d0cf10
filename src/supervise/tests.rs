use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::*;

fn quick() -> Budget {
    Budget { total: Duration::from_secs(2) }
}

#[tokio::test]
async fn phases_stop_in_order() {
    let supervisor = Supervisor::new(quick());
    let order = Arc::new(Mutex::new(Vec::new()));
    for phase in [Phase::Store, Phase::Work, Phase::Intake, Phase::Bus, Phase::Report] {
        let order = order.clone();
        supervisor.scope(phase, "test").spawn("wait", OnError::Log, move |stop| {
            let order = order.clone();
            async move {
                stop.cancelled().await;
                order.lock().unwrap().push(phase);
                Ok(())
            }
        });
    }
    supervisor.run(async {}).await.unwrap();
    assert_eq!(*order.lock().unwrap(), Phase::ALL);
}

#[tokio::test]
async fn a_failed_task_is_started_again_even_after_a_panic() {
    let supervisor = Supervisor::new(quick());
    let tries = Arc::new(AtomicU32::new(0));
    let (done, wait) = tokio::sync::oneshot::channel();
    let (counter, mut done) = (tries.clone(), Some(done));
    let policy = OnError::Restart { first: Duration::from_millis(1), most: Duration::from_millis(2) };
    supervisor.scope(Phase::Work, "test").spawn("flaky", policy, move |_| {
        let (tries, done) =
            (counter.fetch_add(1, Ordering::SeqCst), done.take_if(|_| counter.load(Ordering::SeqCst) > 2));
        async move {
            match tries {
                0 => Err("first".into()),
                1 => panic!("second"),
                _ => {
                    done.unwrap().send(()).unwrap();
                    std::future::pending().await
                }
            }
        }
    });
    wait.await.unwrap();
    let tasks = supervisor.tasks();
    assert_eq!((tasks[0].restarts, tasks[0].last_error.as_deref()), (2, Some("panic: second")));
}

#[tokio::test]
async fn a_fatal_task_ends_the_process_and_is_named() {
    let supervisor = Supervisor::new(quick());
    supervisor.scope(Phase::Work, "engine").spawn("commit", OnError::StopProcess, |_| async { Err("disk".into()) });
    let failure = supervisor.run(std::future::pending()).await.unwrap_err();
    assert_eq!(failure.to_string(), "task engine/commit failed: disk");
}

#[tokio::test]
async fn a_stuck_task_is_abandoned_and_the_store_is_still_closed() {
    let supervisor = Supervisor::new(quick());
    supervisor.scope(Phase::Work, "stuck").spawn("for-ever", OnError::Log, |_| std::future::pending());
    let closed = Arc::new(AtomicU32::new(0));
    let close = closed.clone();
    supervisor.scope(Phase::Store, "store").spawn("close", OnError::Log, move |stop| {
        let close = close.clone();
        async move {
            stop.cancelled().await;
            close.store(1, Ordering::SeqCst);
            Ok(())
        }
    });
    supervisor.run(async {}).await.unwrap();
    assert_eq!(closed.load(Ordering::SeqCst), 1);
}

#[test]
fn the_pause_doubles_up_to_its_limit_with_jitter() {
    let (first, most) = (Duration::from_millis(100), Duration::from_secs(7));
    for tries in 0..40 {
        let pause = backoff(first, most, tries);
        assert!(pause >= first * 3 / 4 && pause <= most * 5 / 4, "{tries}: {pause:?}");
    }
    assert!(backoff(first, most, 20) >= most * 3 / 4);
}

#[tokio::test]
async fn tasks_of_one_name_are_one_line_with_their_number_and_the_last_error() {
    let supervisor = Supervisor::new(quick());
    let scope = supervisor.scope(Phase::Intake, "http");
    let (end, ended) = tokio::sync::watch::channel(false);
    for _ in 0..3 {
        let mut ended = ended.clone();
        scope.spawn_once("connection", async move {
            drop(ended.wait_for(|end| *end).await);
            Ok(())
        });
    }
    scope.spawn_once("stream", async { Err("reset".into()) });
    supervisor.scope(Phase::Store, "store").spawn("commit", OnError::StopProcess, |stop| async move {
        stop.cancelled().await;
        Ok(())
    });
    let of = |name: &str| supervisor.scopes().into_iter().find(|scope| scope.name == name);
    while of("http/stream").is_none_or(|stream| stream.count > 0) {
        tokio::task::yield_now().await;
    }
    let names: Vec<_> = supervisor.scopes().into_iter().map(|scope| (scope.phase.name(), scope.name)).collect();
    let expected = [("intake", "http/connection"), ("intake", "http/stream"), ("store", "store/commit")];
    assert_eq!(names, expected.map(|(phase, name)| (phase, name.to_owned())));
    let connections = of("http/connection").unwrap();
    assert_eq!((connections.count, connections.state, connections.last_error), (3, TaskState::Running, None));
    let streams = of("http/stream").unwrap();
    assert_eq!((streams.state.name(), streams.last_error.as_deref()), ("ended", Some("reset")));
    end.send(true).unwrap();
    while of("http/connection").is_some() {
        tokio::task::yield_now().await;
    }
}
