//! What readiness depends on, looked at again and again: stores, files, the registry. A disk that is
//! low is a limit and no reason: see `disk`.

use net::{Check, Readiness};
use std::time::Duration;
use store::Store;
use supervise::{OnError, Scope};

/// Time between looks at a part that is ready.
const EVERY: Duration = Duration::from_millis(500);
/// And at one that is not: those who wait for it shall not wait for the look.
const SOON: Duration = Duration::from_millis(50);

/// Follows a store: one that failed takes no writes any more.
pub(crate) fn watch_store(readiness: &Readiness, scope: &Scope, name: &str, store: &Store) {
    let store = store.clone();
    watch(readiness, scope, name, move || {
        std::future::ready(store.failure().map(|error| format!("the store has failed: {error}")))
    });
}

/// Asks `reason` again and again why a part is not ready, until the scope stops.
pub(crate) fn watch<F, Fut>(readiness: &Readiness, scope: &Scope, name: &str, reason: F)
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Option<String>> + Send + 'static,
{
    let check = readiness.check(name);
    // Whatever happens to the watch, a part is not called ready that nobody looks at.
    let again = OnError::Restart { first: EVERY, most: Duration::from_secs(10) };
    scope.spawn(name, again, move |stop| {
        let (check, reason) = (check.clone(), reason.clone());
        async move {
            loop {
                let reason = reason().await;
                let pause = if reason.is_none() { EVERY } else { SOON };
                tell(&check, reason);
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    });
}

fn tell(check: &Check, reason: Option<String>) {
    match reason {
        None => check.set_ready(),
        Some(reason) => check.set_not_ready(reason),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::sync::{Arc, Mutex};
    use supervise::{Budget, Phase, Supervisor};

    #[tokio::test(start_paused = true)]
    async fn a_check_follows_its_reason_both_ways() {
        let (readiness, supervisor) = (Readiness::new(), Supervisor::new(Budget::default()));
        let reason = Arc::new(Mutex::new(Some("away".to_owned())));
        let asked = reason.clone();
        watch(&readiness, &supervisor.scope(Phase::Report, "test"), "part", move || {
            let reason = asked.lock().unwrap().clone();
            async move { reason }
        });
        assert!(!readiness.is_ready(), "not ready before the first look");
        tokio::time::sleep(EVERY * 2).await;
        assert_eq!(readiness.reasons(), [("part".to_owned(), "away".to_owned())]);
        *reason.lock().unwrap() = None;
        tokio::time::sleep(EVERY * 2).await;
        assert!(readiness.is_ready());
    }
}
