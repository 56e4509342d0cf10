//! What the simulated nodes experienced, in counters of fixed size.

use serde::Serialize;
use std::{
    fmt,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use types::Fault;

/// Parts of a power of two: a time is known to a sixteenth of itself.
const PARTS: u64 = 16;
/// Powers of two of microseconds: the last is over an hour.
const POWERS: u64 = 33;

/// Counted times.
struct Times {
    buckets: Vec<AtomicU64>,
    count: AtomicU64,
    longest: AtomicU64,
}

impl Times {
    fn new() -> Self {
        let buckets = (0..PARTS * POWERS).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, count: AtomicU64::new(0), longest: AtomicU64::new(0) }
    }

    fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let last = self.buckets.len().saturating_sub(1);
        if let Some(bucket) = self.buckets.get(bucket_of(micros).min(last)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.longest.fetch_max(micros, Relaxed);
    }

    /// The time that this part of all stayed within, in milliseconds.
    fn within(&self, part: f64) -> f64 {
        let wanted = (self.count.load(Relaxed) as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count.load(Relaxed);
            if seen >= wanted.max(1) {
                let longest = self.longest.load(Relaxed);
                return millis(end_of(bucket).min(longest));
            }
        }
        0.0
    }

    fn latency(&self) -> Latency {
        Latency { p50_ms: self.within(0.5), p99_ms: self.within(0.99), max_ms: millis(self.longest.load(Relaxed)) }
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// Below [`PARTS`] each microsecond has a bucket; above, each power of two has so many.
fn bucket_of(micros: u64) -> usize {
    if micros < PARTS {
        return micros as usize;
    }
    let power = u64::from(micros.ilog2());
    let first = u64::from(PARTS.ilog2());
    let part = (micros >> (power - first)) - PARTS;
    ((power - first + 1) * PARTS + part) as usize
}

/// The longest time of a bucket.
fn end_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let shift = bucket / PARTS - 1;
    ((PARTS + bucket % PARTS + 1) << shift) - 1
}

/// Counts while the simulation runs.
pub struct Figures {
    began: Duration,
    online: AtomicI64,
    registrations: Times,
    /// First and last registration, monotonic microseconds.
    first: AtomicU64,
    last: AtomicU64,
    beats: Times,
    beats_failed: AtomicU64,
    forgotten: AtomicU64,
    lost: AtomicU64,
    streams: AtomicU64,
    idles: AtomicU64,
    executed: AtomicU64,
    execution_faults: AtomicU64,
    faults: AtomicU64,
    last_fault: Mutex<Option<String>>,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Figures {
    /// From a moment on, monotonic.
    pub fn new(began: Duration) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            began,
            online: AtomicI64::new(0),
            registrations: Times::new(),
            first: AtomicU64::new(u64::MAX),
            last: zero(),
            beats: Times::new(),
            beats_failed: zero(),
            forgotten: zero(),
            lost: zero(),
            streams: zero(),
            idles: zero(),
            executed: zero(),
            execution_faults: zero(),
            faults: zero(),
            last_fault: Mutex::default(),
        }
    }

    /// A node was registered, between these moments.
    pub(super) fn registered(&self, begun: Duration, ended: Duration) {
        self.registrations.add(ended.saturating_sub(begun));
        self.first.fetch_min(micros(begun), Relaxed);
        self.last.fetch_max(micros(ended), Relaxed);
        self.online.fetch_add(1, Relaxed);
    }

    /// A registered node lost the registry, or the other way round.
    pub(super) fn lost(&self) {
        self.lost.fetch_add(1, Relaxed);
        self.online.fetch_sub(1, Relaxed);
    }

    /// The registry did not know a node that had been registered.
    pub(super) fn forgotten(&self) {
        self.forgotten.fetch_add(1, Relaxed);
    }

    /// A heartbeat was answered, or not.
    pub(super) fn beat(&self, took: Duration, answered: bool) {
        if answered {
            self.beats.add(took);
        } else {
            self.beats_failed.fetch_add(1, Relaxed);
        }
    }

    /// A work list is being followed.
    pub(super) fn watched(&self) {
        self.streams.fetch_add(1, Relaxed);
    }

    /// A work list said that nothing happened.
    pub(super) fn idled(&self) {
        self.idles.fetch_add(1, Relaxed);
    }

    /// An execution came to its end, or could not be told of.
    pub(super) fn executed(&self, told: bool) {
        if told { &self.executed } else { &self.execution_faults }.fetch_add(1, Relaxed);
    }

    /// Anything failed.
    pub(super) fn failed(&self, fault: &Fault) {
        self.faults.fetch_add(1, Relaxed);
        *self.last_fault() = Some(fault.to_string());
    }

    fn last_fault(&self) -> MutexGuard<'_, Option<String>> {
        self.last_fault.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Everything so far.
    pub fn summary(&self, now: Duration) -> Summary {
        let seconds = now.saturating_sub(self.began).as_secs_f64();
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let (first, last) = (get(&self.first), get(&self.last));
        let took = Duration::from_micros(last.saturating_sub(first)).as_secs_f64();
        let per = |count: u64, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let (registered, beats) = (get(&self.registrations.count), get(&self.beats.count));
        Summary {
            seconds,
            online: u64::try_from(self.online.load(Relaxed)).unwrap_or(0),
            registrations: Calls {
                done: registered,
                per_second: per(registered, took),
                latency: self.registrations.latency(),
            },
            heartbeats: Calls { done: beats, per_second: per(beats, seconds), latency: self.beats.latency() },
            heartbeats_failed: get(&self.beats_failed),
            contacts_lost: get(&self.lost),
            forgotten: get(&self.forgotten),
            streams: get(&self.streams),
            idle_events: get(&self.idles),
            executions: get(&self.executed),
            executions_failed: get(&self.execution_faults),
            faults: get(&self.faults),
            last_fault: self.last_fault().clone(),
        }
    }
}

/// How long answers took.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Half of them at most.
    pub p50_ms: f64,
    /// 99 of 100 at most.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// Calls of one kind that were answered.
#[derive(Clone, Debug, Serialize)]
pub struct Calls {
    /// How many.
    pub done: u64,
    /// A second: registrations from the first to the last, all else over the whole time.
    pub per_second: f64,
    /// How long they took.
    pub latency: Latency,
}

/// What the simulated nodes experienced.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Since the beginning.
    pub seconds: f64,
    /// Nodes that are registered now, as far as they know.
    pub online: u64,
    /// A node may register several times.
    pub registrations: Calls,
    /// With their time until the answer.
    pub heartbeats: Calls,
    /// Not answered, or with an error.
    pub heartbeats_failed: u64,
    /// Registered nodes that lost the registry.
    pub contacts_lost: u64,
    /// Registered nodes that the registry did not know any more.
    pub forgotten: u64,
    /// Work lists opened.
    pub streams: u64,
    /// Events of a work list that only say that it lives.
    pub idle_events: u64,
    /// Executions whose end the registry took.
    pub executions: u64,
    /// Executions that the registry would not hear of.
    pub executions_failed: u64,
    /// Calls that failed, of any kind.
    pub faults: u64,
    /// The latest of them.
    pub last_fault: Option<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (registered, beats) = (&self.registrations, &self.heartbeats);
        let time = |f: &mut fmt::Formatter<'_>, latency: &Latency| {
            writeln!(f, "p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", latency.p50_ms, latency.p99_ms, latency.max_ms)
        };
        writeln!(f, "time           {:.1} s, {} nodes online", self.seconds, self.online)?;
        write!(f, "registrations  {}, {:.0} a second, ", registered.done, registered.per_second)?;
        time(f, &registered.latency)?;
        write!(f, "heartbeats     {}, {:.0} a second, ", beats.done, beats.per_second)?;
        time(f, &beats.latency)?;
        writeln!(f, "               {} failed", self.heartbeats_failed)?;
        writeln!(f, "nodes          {} lost contact, {} forgotten", self.contacts_lost, self.forgotten)?;
        writeln!(f, "work lists     {} opened, {} idle events", self.streams, self.idle_events)?;
        writeln!(f, "executions     {} done, {} failed", self.executions, self.executions_failed)?;
        write!(f, "faults         {}", self.faults)?;
        match &self.last_fault {
            Some(fault) => writeln!(f, ", the last: {fault}"),
            None => writeln!(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_bucket_whose_end_is_within_a_sixteenth_above_it() {
        for micros in (0..2000).chain((0..40).map(|power| 3u64 << power)) {
            let bucket = bucket_of(micros);
            let end = end_of(bucket);
            assert!(end >= micros && end - micros <= micros / PARTS, "{micros} µs: bucket {bucket} ends at {end}");
            assert_eq!(bucket_of(end), bucket);
            assert_eq!(bucket_of(end + 1), bucket + 1);
        }
    }

    #[test]
    fn half_and_99_of_100_are_read_from_the_buckets_and_the_longest_is_exact() {
        let times = Times::new();
        for millis in 1..=100 {
            times.add(Duration::from_millis(millis));
        }
        let latency = times.latency();
        assert!((50.0..54.0).contains(&latency.p50_ms), "{latency:?}");
        assert!((99.0..100.1).contains(&latency.p99_ms), "{latency:?}");
        assert!((latency.max_ms - 100.0).abs() < 1e-9, "{latency:?}");
        assert_eq!(Times::new().within(0.99).to_bits(), 0f64.to_bits());
        let hours = Times::new();
        hours.add(Duration::from_secs(1 << 20));
        assert!(hours.latency().max_ms > 1e9);
    }

    #[test]
    fn a_summary_counts_nodes_that_are_registered_now() {
        let figures = Figures::new(Duration::from_secs(5));
        let second = Duration::from_secs;
        figures.registered(second(6), second(7));
        figures.registered(second(7), second(8));
        figures.lost();
        figures.failed(&Fault::unavailable("nobody there"));
        let summary = figures.summary(second(15));
        assert_eq!((summary.online, summary.registrations.done, summary.contacts_lost), (1, 2, 1));
        assert!((summary.registrations.per_second - 1.0).abs() < 1e-9 && (summary.seconds - 10.0).abs() < 1e-9);
        assert!(summary.to_string().contains("nobody there"), "{summary}");
    }
}
