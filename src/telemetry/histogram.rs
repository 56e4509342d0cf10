//! A histogram of atomics: observing takes no lock, so that busy paths do not meet at it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::figure::Value;

/// Counts observations by size. Cheap to clone; clones are one.
#[derive(Clone, Debug)]
pub struct Histogram {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bounds: Arc<[f64]>,
    counts: Box<[AtomicU64]>,
    /// Bits of the sum.
    sum: AtomicU64,
}

impl Histogram {
    /// With upper bounds, rising.
    pub(crate) fn new(bounds: Arc<[f64]>) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { inner: Arc::new(Inner { bounds, counts, sum: AtomicU64::new(0f64.to_bits()) }) }
    }

    /// Another one with the same bounds.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(self.inner.bounds.clone())
    }

    /// Counts one observation.
    pub fn observe(&self, value: f64) {
        let Inner { bounds, counts, sum } = &*self.inner;
        let bucket = bounds.partition_point(|bound| *bound < value);
        if let Some(count) = counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // Never refused: the closure always answers.
        let _before = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Counts a time in seconds.
    pub fn took(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    /// Counts the time since a moment.
    pub fn since(&self, start: Instant) {
        self.took(start.elapsed());
    }

    /// How much was observed.
    pub fn count(&self) -> u64 {
        self.inner.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn value(&self) -> Value {
        let Inner { bounds, counts, sum } = &*self.inner;
        let counts = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Value::Buckets { bounds: bounds.clone(), counts, sum: f64::from_bits(sum.load(Ordering::Relaxed)) }
    }
}
