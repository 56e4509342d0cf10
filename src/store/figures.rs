//! What a store measures of itself.

use std::time::Instant;
use telemetry::{COUNTS, Counter, Counters, Histogram, Metrics, SHORT};

use crate::{Conflict, Error, Rev, Store};

/// The figures of one store.
#[derive(Debug)]
pub(crate) struct Figures {
    store: &'static str,
    seconds: Histogram,
    batches: Histogram,
    conflicts: Counter,
    failures: Counters<2>,
}

/// What a disk has to do with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the store's file.
    pub file: u64,
    /// Bytes of its file system that we may still take.
    pub free: u64,
    /// Bytes of its file system.
    pub size: u64,
}

impl Figures {
    fn new(metrics: &Metrics, store: &'static str) -> Self {
        let failures = metrics.counters(
            "spear_store_failures_total",
            "Commits that the store refused or could not write: full, too_large, closed or failed.",
            ["store", "reason"],
        );
        // Alerts look at these before anything has happened.
        for reason in ["full", "failed"] {
            failures.with([store, reason]);
        }
        let one = [store];
        Self {
            store,
            seconds: metrics
                .histograms(
                    "spear_store_commit_duration_seconds",
                    "Time of one commit of the engine, fsync included.",
                    ["store"],
                    SHORT,
                )
                .with(one),
            batches: metrics
                .histograms("spear_store_commit_batches", "Batches that one commit carried.", ["store"], COUNTS)
                .with(one),
            conflicts: metrics
                .counters("spear_store_conflicts_total", "Batches refused because a guard did not hold.", ["store"])
                .with(one),
            failures,
        }
    }

    /// One call of the engine has ended.
    pub(crate) fn committed(&self, started: Instant, batches: usize, done: &Result<Vec<Result<Rev, Conflict>>, Error>) {
        self.seconds.since(started);
        self.batches.observe(batches as f64);
        match done {
            Ok(done) => self.conflicts.add(done.iter().filter(|one| one.is_err()).count() as u64),
            Err(error) => {
                let reason = match error {
                    Error::Full { .. } => "full",
                    Error::TooLarge(_) => "too_large",
                    Error::Closed => "closed",
                    _ => "failed",
                };
                self.failures.with([self.store, reason]).inc();
            }
        }
    }
}

impl Store {
    /// Measures from now on, under a name: `sms` or `spearlet`.
    pub fn measure(&self, metrics: &Metrics, name: &'static str) {
        if !self.figures.fill(Figures::new(metrics, name)) {
            return;
        }
        let sample = |figure: &'static str, help: &'static str, read: fn(&Store) -> Option<f64>| {
            let store = self.clone();
            metrics.sampled(figure, help, ["store"], move || {
                read(&store).map(|value| ([name.to_owned()], value)).into_iter().collect()
            });
        };
        sample("spear_store_queue_length", "Batches that wait for the committer.", |store| {
            Some((store.queue.max_capacity() - store.queue.capacity()) as f64)
        });
        sample("spear_store_revision", "The last committed revision.", |store| Some(*store.head().borrow() as f64));
        sample("spear_store_failed", "1 when the store has failed and takes no writes.", |store| {
            Some(f64::from(u8::from(store.failure().is_some())))
        });
        sample("spear_store_file_bytes", "Size of the store's file.", |store| Some(store.engine.space()?.file as f64));
        sample("spear_store_disk_free_bytes", "Room left on the file system of the data directory.", |store| {
            Some(store.engine.space()?.free as f64)
        });
        sample("spear_store_disk_size_bytes", "Size of the file system of the data directory.", |store| {
            Some(store.engine.space()?.size as f64)
        });
    }
}
