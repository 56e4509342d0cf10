//! Single flight: callers who want the same thing at the same time share one piece of work.
//!
//! The work is a shared future that whoever waits drives on, so it survives the caller that began it and ends
//! with the last one that waits. Its entry leaves the table in the moment it ends or is given up: a failure is
//! shared by those who waited for it and tried again by whoever comes later.

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use types::Progress;

use super::{Held, lock};
use types::Fault;

/// Bytes done and bytes in all, if known.
pub(super) type Step = (u64, Option<u64>);
/// Where the work tells how far it is; only the newest step is kept.
pub(super) type Steps = watch::Sender<Step>;

struct Flight<W, T> {
    number: u64,
    want: W,
    ended: WeakShared<BoxFuture<'static, T>>,
    steps: watch::Receiver<Step>,
}

/// Work under way, by key.
pub(super) struct Flights<W, T> {
    table: Mutex<HashMap<String, Flight<W, T>>>,
    numbers: AtomicU64,
}

impl<W, T> Default for Flights<W, T> {
    fn default() -> Self {
        Self { table: Mutex::default(), numbers: AtomicU64::new(0) }
    }
}

/// A place in a flight.
pub(super) struct Joined<W, T: Clone> {
    /// What the one who began it wanted.
    pub(super) want: W,
    /// Its end.
    pub(super) ended: Shared<BoxFuture<'static, T>>,
    /// How far it is.
    pub(super) steps: watch::Receiver<Step>,
}

/// Takes the flight out of the table however its work ends.
struct Entry<W: Send + 'static, T: Send + 'static> {
    flights: Arc<Flights<W, T>>,
    key: String,
    number: u64,
}

impl<W: Send + 'static, T: Send + 'static> Drop for Entry<W, T> {
    fn drop(&mut self) {
        let mut table = lock(&self.flights.table);
        if table.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            table.remove(&self.key);
        }
    }
}

impl<W: Clone + Send + 'static, T: Clone + Send + Sync + 'static> Flights<W, T> {
    /// Joins the flight of a key, or begins one.
    pub(super) fn join(
        self: &Arc<Self>,
        key: String,
        want: &W,
        begin: impl FnOnce(Steps) -> BoxFuture<'static, T>,
    ) -> Joined<W, T> {
        let mut table = lock(&self.table);
        if let Some(flight) = table.get(&key)
            && let Some(ended) = flight.ended.upgrade()
        {
            return Joined { want: flight.want.clone(), ended, steps: flight.steps.clone() };
        }
        let (sender, steps) = watch::channel((0, None));
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { flights: self.clone(), key: key.clone(), number };
        let work = begin(sender);
        let ended = async move {
            let _entry = entry;
            work.await
        };
        let ended = ended.boxed().shared();
        if let Some(weak) = ended.downgrade() {
            table.insert(key, Flight { number, want: want.clone(), ended: weak, steps: steps.clone() });
        }
        Joined { want: want.clone(), ended, steps }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.table).len()
    }
}

/// Waits for a flight and reports its steps, thinned out.
pub(super) async fn follow(
    mut ended: Shared<BoxFuture<'static, Result<Held, Fault>>>,
    mut steps: watch::Receiver<Step>,
    report: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Held, Fault> {
    let mut thin = Thin::default();
    let mut more = true;
    loop {
        tokio::select! {
            biased;
            result = &mut ended => {
                let step = *steps.borrow();
                if result.is_ok() && step.0 > 0 && thin.last != Some(step) {
                    report(said(step));
                }
                return result;
            }
            changed = steps.changed(), if more => {
                more = changed.is_ok();
                let step = *steps.borrow_and_update();
                if more && thin.wants(step, Instant::now()) {
                    report(said(step));
                }
            }
        }
    }
}

fn said((done_bytes, total_bytes): Step) -> Progress {
    Progress { phase: "fetch".to_owned(), done_bytes, total_bytes }
}

/// Lets a step through when 250 ms or 5 % have passed since the last.
#[derive(Default)]
pub(super) struct Thin {
    last: Option<Step>,
    at: Option<Instant>,
}

impl Thin {
    pub(super) fn wants(&mut self, step: Step, now: Instant) -> bool {
        let waited = self.at.is_none_or(|at| now.duration_since(at) >= Duration::from_millis(250));
        let before = self.last.map_or(0, |(done, _)| done);
        let moved = step.1.is_some_and(|total| step.0.saturating_sub(before).saturating_mul(20) >= total.max(1));
        if waited || moved {
            (self.last, self.at) = (Some(step), Some(now));
        }
        waited || moved
    }
}
