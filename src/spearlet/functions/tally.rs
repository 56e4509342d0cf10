//! What a function has done so far: calls, failures, and how long they took.
//!
//! Times are counted in buckets, four to each doubling from a microsecond to 71 minutes: a quantile of them is at most a
//! quarter too large. Everything only ever grows, so that a reader makes rates and quantiles of two readings.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Parts of a doubling, as a power of two.
const PARTS: u32 = 2;
/// Doublings from a microsecond.
const DOUBLINGS: usize = 32;
const BUCKETS: usize = DOUBLINGS << PARTS;

/// What a function, or all of them, have done.
#[derive(Debug)]
pub(crate) struct Tally {
    calls: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
    nanoseconds: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// A reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Calls that ended, however they did.
    pub(crate) calls: u64,
    /// Those of them that did not complete.
    pub(crate) failures: u64,
    /// Calls that found no place.
    pub(crate) refused: u64,
    /// Time of all calls together.
    pub(crate) time: Duration,
    /// Largest duration of a bucket in microseconds, and the calls in it; those without any are left out.
    pub(crate) buckets: Vec<(u64, u64)>,
}

impl Default for Tally {
    fn default() -> Self {
        let none = AtomicU64::default;
        Self {
            calls: none(),
            failures: none(),
            refused: none(),
            nanoseconds: none(),
            buckets: array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Tally {
    /// A call has ended after that time.
    pub(crate) fn ended(&self, took: Duration, failed: bool) {
        self.calls.fetch_add(1, Relaxed);
        self.failures.fetch_add(u64::from(failed), Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(index(micros)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// A call found no place.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// All of it now.
    pub(crate) fn read(&self) -> Counted {
        let buckets = self.buckets.iter().enumerate();
        let filled = buckets.map(|(index, count)| (upper(index), count.load(Relaxed))).filter(|(_, count)| *count > 0);
        Counted {
            calls: self.calls.load(Relaxed),
            failures: self.failures.load(Relaxed),
            refused: self.refused.load(Relaxed),
            time: Duration::from_nanos(self.nanoseconds.load(Relaxed)),
            buckets: filled.collect(),
        }
    }
}

impl Counted {
    /// Time of a call on average.
    pub(crate) fn mean(&self) -> Duration {
        match u32::try_from(self.calls) {
            Ok(0) => Duration::ZERO,
            Ok(calls) => self.time / calls,
            Err(_) => self.time.div_f64(self.calls as f64),
        }
    }
}

fn index(micros: u64) -> usize {
    // Below a doubling that can be parted, a microsecond is a bucket.
    let micros = micros.max(1);
    let doubling = micros.ilog2();
    let part = ((micros << PARTS) >> doubling) & ((1 << PARTS) - 1);
    let index = (u64::from(doubling) << PARTS) + part;
    usize::try_from(index).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The largest whole number of microseconds that lies in a bucket.
fn upper(index: usize) -> u64 {
    let (doubling, part) = (index >> PARTS, (index & ((1 << PARTS) - 1)) as u64);
    let next = (part + 1 + (1 << PARTS)) << doubling;
    (next.div_ceil(1 << PARTS)).saturating_sub(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_at_most_its_bound_and_more_than_that_of_the_one_before() {
        for micros in (1..5000).chain([1 << 20, (1 << 20) + 1, (1 << 31) - 1, (1 << 32) - 1]) {
            let bucket = index(micros);
            assert!(micros <= upper(bucket), "{micros} in bucket {bucket} up to {}", upper(bucket));
            let smaller = (0..bucket).rev().map(upper).find(|bound| *bound < upper(bucket));
            assert!(smaller.is_none_or(|smaller| micros > smaller), "{micros} is above {smaller:?}");
            assert!((upper(bucket) - micros) as f64 <= micros as f64 / 4.0, "{micros}: {}", upper(bucket));
        }
        assert_eq!(index(0), index(1));
        assert_eq!(index(u64::MAX), BUCKETS - 1, "whatever takes longer is in the last");
    }

    #[test]
    fn a_reading_has_the_calls_and_the_times_that_were_counted() {
        let tally = Tally::default();
        assert_eq!(tally.read().mean(), Duration::ZERO);
        for (millis, failed) in [(1, false), (1, true), (4, false)] {
            tally.ended(Duration::from_millis(millis), failed);
        }
        tally.refused();
        let read = tally.read();
        assert_eq!((read.calls, read.failures, read.refused), (3, 1, 1));
        assert_eq!((read.time, read.mean()), (Duration::from_millis(6), Duration::from_millis(2)));
        assert_eq!(read.buckets.iter().map(|(_, count)| count).sum::<u64>(), 3);
        assert_eq!(read.buckets.len(), 2, "{:?}", read.buckets);
    }
}
