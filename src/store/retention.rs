//! How long changes are kept: the larger of an age and a number of revisions.

use std::{sync::Arc, time::Duration};
use supervise::{OnError, Scope};
use types::{Clock, Timestamp};

use crate::{Error, Rev, Store};

/// What is kept of the change log. A change goes only when it is beyond both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Changes younger than this stay, by the wall clock that was shown when they were written.
    pub age: Duration,
    /// So many of the last revisions stay.
    pub revisions: u64,
    /// How often the rest is trimmed.
    pub every: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(7 * 24 * 3600), revisions: 100_000, every: Duration::from_secs(600) }
    }
}

/// Trims the log of a store now and then, until the scope stops. The scope should be of the phase that stops last,
/// as the store's own.
pub fn start(store: &Store, scope: &Scope, clock: Arc<dyn Clock>, retention: Retention) {
    let store = store.clone();
    let again = OnError::Restart { first: Duration::from_secs(1), most: Duration::from_secs(600) };
    scope.spawn("retention", again, move |stop| {
        let (store, clock) = (store.clone(), clock.clone());
        async move {
            let mut turns = tokio::time::interval(retention.every.max(Duration::from_millis(1)));
            turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    _ = turns.tick() => {}
                }
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    trimmed = trim(&store, &*clock, retention) => match trimmed {
                        Ok(_) | Err(Error::Closed) => {}
                        Err(error) => return Err(error.into()),
                    },
                }
            }
        }
    });
}

/// Trims once; answers the floor.
///
/// # Errors
/// See [`Error`].
pub async fn trim(store: &Store, clock: &dyn Clock, retention: Retention) -> Result<Rev, Error> {
    let head = *store.head().borrow();
    let floor = store.floor().await?;
    let beyond = head.saturating_sub(retention.revisions);
    if beyond <= floor {
        return Ok(floor);
    }
    let age = i64::try_from(retention.age.as_millis()).unwrap_or(i64::MAX);
    let upto = store.aged(beyond, Timestamp(clock.wall().0.saturating_sub(age))).await?;
    if upto <= floor {
        return Ok(floor);
    }
    store.trim(upto).await?;
    tracing::debug!(upto, head, "trimmed the change log");
    Ok(upto)
}
