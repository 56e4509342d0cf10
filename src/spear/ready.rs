//! What readiness depends on, looked at again and again: stores, disks, files, the registry.

use net::{Check, Readiness};
use std::{path::PathBuf, time::Duration};
use store::{Reserve, Store};
use supervise::{OnError, Scope};

/// Time between looks.
const EVERY: Duration = Duration::from_millis(500);
/// Patience with a disk that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Follows a store and the disk under it: a store that failed, or a disk without room for the next write.
pub(crate) fn watch_store(readiness: &Readiness, scope: &Scope, name: &str, store: &Store, dir: Option<PathBuf>) {
    let (store, reserve) = (store.clone(), Reserve::default());
    watch(readiness, scope, name, move || {
        let (store, dir) = (store.clone(), dir.clone());
        async move {
            match (store.failure(), dir) {
                (Some(error), _) => Some(format!("the store has failed: {error}")),
                (None, None) => None,
                (None, Some(dir)) => without_room(dir, reserve).await,
            }
        }
    });
}

/// Why the next write would be refused, if it would.
async fn without_room(dir: PathBuf, reserve: Reserve) -> Option<String> {
    let looked = tokio::task::spawn_blocking(move || store::redb::room(&dir, reserve));
    match tokio::time::timeout(PATIENCE, looked).await {
        Ok(Ok(room)) => room.err().map(|error| error.to_string()),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("the disk does not answer within {PATIENCE:?}")),
    }
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
    scope.spawn(&format!("ready/{name}"), again, move |stop| {
        let (check, reason) = (check.clone(), reason.clone());
        async move {
            let mut tick = tokio::time::interval(EVERY);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    _ = tick.tick() => {}
                }
                tell(&check, reason().await);
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

    #[tokio::test]
    async fn a_disk_below_its_reserve_is_a_reason_and_one_with_room_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(without_room(dir.path().to_owned(), Reserve::Bytes(1)).await, None);
        let reason = without_room(dir.path().to_owned(), Reserve::Bytes(u64::MAX)).await.unwrap();
        assert!(reason.contains("has no space left") && reason.contains("in reserve"), "{reason}");
        let gone = without_room(dir.path().join("gone"), Reserve::Bytes(1)).await.unwrap();
        assert!(gone.contains("cannot ask for its room"), "{gone}");
    }

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
