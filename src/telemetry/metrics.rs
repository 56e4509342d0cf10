//! The figures of a process, by name.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{
    family::{Counter, Counters, Family, Gauge, Gauges, Histograms, Metric},
    figure::Figure,
    histogram::Histogram,
    sampled::{Sampled, Source},
};

/// All figures of a process. Cheap to clone; clones are one. Asking for a name again answers with the same family,
/// so that every part asks for what it needs.
#[derive(Clone, Default)]
pub struct Metrics {
    families: Arc<Mutex<BTreeMap<&'static str, Entry>>>,
}

#[derive(Clone)]
struct Entry {
    source: Arc<dyn Source>,
    family: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

impl Metrics {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Entry>> {
        self.families.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// A counter without labels; its name ends in `_total`.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.counters(name, help, []).with([])
    }

    /// Counters with labels; their name ends in `_total`.
    pub fn counters<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Counters<N> {
        debug_assert!(name.ends_with("_total"), "{name}: counters end in _total");
        self.family(name, help, labels, Counter::default())
    }

    /// A gauge without labels.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.gauges(name, help, []).with([])
    }

    /// Gauges with labels.
    pub fn gauges<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Gauges<N> {
        self.family(name, help, labels, Gauge::default())
    }

    /// A histogram without labels; `bounds` rise.
    pub fn histogram(&self, name: &'static str, help: &'static str, bounds: &[f64]) -> Histogram {
        self.histograms(name, help, [], bounds).with([])
    }

    /// Histograms with labels; `bounds` rise.
    pub fn histograms<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        bounds: &[f64],
    ) -> Histograms<N> {
        self.family(name, help, labels, Histogram::new(bounds.into()))
    }

    /// Figures that are read when they are looked at: a counter when the name ends in `_total`, else a gauge. Several
    /// owners may add series to one name. `read` must be quick and must not look at these metrics.
    pub fn sampled<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        read: impl Fn() -> Vec<([String; N], f64)> + Send + Sync + 'static,
    ) {
        let made = Sampled::new(name, help, labels);
        self.registered(name, help, made, |sampled| sampled.has_labels(&labels)).add(Box::new(read));
    }

    /// A figure without labels that is read when it is looked at; none: not there now.
    pub fn read(&self, name: &'static str, help: &'static str, read: impl Fn() -> Option<f64> + Send + Sync + 'static) {
        self.sampled(name, help, [], move || read().map(|value| ([], value)).into_iter().collect());
    }

    fn family<const N: usize, M: Metric>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        template: M,
    ) -> Family<N, M> {
        let made = Family::new(name, help, labels, template);
        self.registered(name, help, made, |family| family.has_labels(&labels))
    }

    /// The family of this name, or this one from now on.
    fn registered<F: Source + Clone>(
        &self,
        name: &'static str,
        help: &'static str,
        made: F,
        fits: impl Fn(&F) -> bool,
    ) -> F {
        debug_assert!(!help.is_empty() && help.ends_with('.'), "{name}: help is a sentence");
        let mut families = self.lock();
        // In OpenMetrics the name of a counter's family is without its suffix.
        let stem = |name: &'static str| name.strip_suffix("_total").unwrap_or(name);
        let twin = families.keys().find(|other| **other != name && stem(other) == stem(name));
        debug_assert!(twin.is_none(), "{name} and {twin:?} are one name in OpenMetrics");
        let entry = families
            .entry(name)
            .or_insert_with(|| Entry { source: Arc::new(made.clone()), family: Arc::new(made.clone()) });
        match entry.family.downcast_ref::<F>() {
            Some(found) if fits(found) => found.clone(),
            _ => {
                debug_assert!(false, "{name} is registered twice, in two forms");
                tracing::error!(name, "a figure is registered twice, in two forms; the second is not shown");
                made
            }
        }
    }

    /// All figures as they are now, in the order of their names.
    pub fn figures(&self) -> Vec<Figure> {
        // Asked without the lock: what is asked may register something.
        let sources: Vec<_> = self.lock().values().map(|entry| entry.source.clone()).collect();
        sources.iter().map(|source| source.figure()).collect()
    }

    /// Adds what the system knows of this process: `process_*`.
    pub fn process(&self) {
        crate::process::register(self);
    }
}
