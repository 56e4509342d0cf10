//! Figures that somebody else keeps: asked for when they are looked at.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::figure::{Figure, Kind, Series, Value};

/// Something that can say how it stands.
pub(crate) trait Source: Send + Sync + 'static {
    fn figure(&self) -> Figure;
}

type Read<const N: usize> = Box<dyn Fn() -> Vec<([String; N], f64)> + Send + Sync>;

/// A family that is read from its owners.
#[derive(Clone)]
pub(crate) struct Sampled<const N: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    reads: Arc<Mutex<Vec<Read<N>>>>,
}

impl<const N: usize> Sampled<N> {
    pub(crate) fn new(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        Self { name, help, labels, reads: Arc::default() }
    }

    pub(crate) fn has_labels(&self, labels: &[&'static str; N]) -> bool {
        self.labels == *labels
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Read<N>>> {
        self.reads.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// One more owner with series of its own.
    pub(crate) fn add(&self, read: Read<N>) {
        self.lock().push(read);
    }
}

impl<const N: usize> Source for Sampled<N> {
    fn figure(&self) -> Figure {
        let mut all = BTreeMap::new();
        for read in self.lock().iter() {
            for (labels, value) in read() {
                // Two owners of one series would be two series of one name: their sum is what there is.
                *all.entry(labels).or_insert(0.0) += value;
            }
        }
        let one = |(values, value): ([String; N], f64)| Series {
            labels: self.labels.iter().copied().zip(values).collect(),
            value: Value::Number(value),
        };
        let kind = if self.name.ends_with("_total") { Kind::Counter } else { Kind::Gauge };
        let series = all.into_iter().take(crate::MOST_SERIES).map(one).collect();
        Figure { name: self.name, help: self.help, kind, series }
    }
}
