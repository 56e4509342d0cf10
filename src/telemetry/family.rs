//! Families: series of one name, told apart by labels.
//!
//! `with` finds a series under a read lock and without allocating; what is on a busy path keeps the handle. A family
//! that has [`MOST_SERIES`] series puts everything new into one whose labels are all [`OTHERS`], so that no input can
//! make it grow without end.

use std::{
    fmt,
    sync::{
        Arc, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use crate::{
    figure::{Figure, Kind, Series, Value},
    histogram::Histogram,
    sampled::Source,
};

/// Series of one family.
pub const MOST_SERIES: usize = 2000;
/// The labels of what came after those.
const OTHERS: &str = "others";

/// Counters with labels.
pub type Counters<const N: usize> = Family<N, Counter>;
/// Gauges with labels.
pub type Gauges<const N: usize> = Family<N, Gauge>;
/// Histograms with labels.
pub type Histograms<const N: usize> = Family<N, Histogram>;

/// A number that only rises. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// It is this.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// It is so much more.
    pub fn add(&self, value: i64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more for as long as the answer lives.
    pub fn hold(&self) -> Held {
        self.add(1);
        Held(self.clone())
    }
}

/// One of what a gauge counts; takes itself off when dropped.
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// What a series can be.
pub trait Metric: Clone + Send + Sync + 'static {
    /// Its kind.
    const KIND: Kind;
    /// A new one of the same form.
    fn fresh(&self) -> Self;
    /// As it is now.
    fn value(&self) -> Value;
}

impl Metric for Counter {
    const KIND: Kind = Kind::Counter;

    fn fresh(&self) -> Self {
        Self::default()
    }

    fn value(&self) -> Value {
        Value::Number(self.get() as f64)
    }
}

impl Metric for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn fresh(&self) -> Self {
        Self::default()
    }

    fn value(&self) -> Value {
        Value::Number(self.get() as f64)
    }
}

impl Metric for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn fresh(&self) -> Self {
        Histogram::fresh(self)
    }

    fn value(&self) -> Value {
        Histogram::value(self)
    }
}

/// Series of one name. Cheap to clone; clones are one.
pub struct Family<const N: usize, M> {
    inner: Arc<Inner<N, M>>,
}

struct Inner<const N: usize, M> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    template: M,
    /// In the order of their labels.
    series: RwLock<Vec<([String; N], M)>>,
}

impl<const N: usize, M> Clone for Family<N, M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<const N: usize, M> fmt::Debug for Family<N, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Family({})", self.inner.name)
    }
}

impl<const N: usize, M: Metric> Family<N, M> {
    pub(crate) fn new(name: &'static str, help: &'static str, labels: [&'static str; N], template: M) -> Self {
        let series = RwLock::default();
        Self { inner: Arc::new(Inner { name, help, labels, template, series }) }
    }

    pub(crate) fn has_labels(&self, labels: &[&'static str; N]) -> bool {
        self.inner.labels == *labels
    }

    /// The series with these labels, made if it is new.
    pub fn with(&self, values: [&str; N]) -> M {
        let Inner { series, template, .. } = &*self.inner;
        let all = series.read().unwrap_or_else(|broken| broken.into_inner());
        if let Ok(found) = find(&all, values)
            && let Some((_, metric)) = all.get(found)
        {
            return metric.clone();
        }
        drop(all);
        let mut all = series.write().unwrap_or_else(|broken| broken.into_inner());
        let values = if all.len() < MOST_SERIES { values } else { [OTHERS; N] };
        match find(&all, values) {
            Ok(found) => all.get(found).map_or_else(|| template.fresh(), |(_, metric)| metric.clone()),
            Err(place) => {
                let metric = template.fresh();
                all.insert(place, (values.map(str::to_owned), metric.clone()));
                metric
            }
        }
    }
}

fn find<const N: usize, M>(all: &[([String; N], M)], wanted: [&str; N]) -> Result<usize, usize> {
    all.binary_search_by(|(labels, _)| labels.iter().map(String::as_str).cmp(wanted))
}

impl<const N: usize, M: Metric> Source for Family<N, M> {
    fn figure(&self) -> Figure {
        let Inner { name, help, labels, series, .. } = &*self.inner;
        let all = series.read().unwrap_or_else(|broken| broken.into_inner());
        let one = |(values, metric): &([String; N], M)| Series {
            labels: labels.iter().copied().zip(values.iter().cloned()).collect(),
            value: metric.value(),
        };
        Figure { name, help, kind: M::KIND, series: all.iter().map(one).collect() }
    }
}
