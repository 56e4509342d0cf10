//! A family of series as it is at one moment: what every form of output is made from.

use std::sync::Arc;

/// One family.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Its whole name; counters end in `_total`.
    pub name: &'static str,
    /// What it tells, in a sentence.
    pub help: &'static str,
    /// Of which kind.
    pub kind: Kind,
    /// Its series, in the order of their labels.
    pub series: Vec<Series>,
}

/// What a figure may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rise.
    Counter,
    /// Rise and fall.
    Gauge,
    /// Count what falls into which bucket.
    Histogram,
}

/// One series.
#[derive(Clone, Debug)]
pub struct Series {
    /// Names and values of its labels.
    pub labels: Vec<(&'static str, String)>,
    /// Its value.
    pub value: Value,
}

/// The value of a series.
#[derive(Clone, Debug)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Buckets {
        /// Upper bounds, rising; one more bucket has none.
        bounds: Arc<[f64]>,
        /// What fell into each bucket; one more than there are bounds.
        counts: Vec<u64>,
        /// The sum of what was observed.
        sum: f64,
    },
}

impl Figure {
    /// The unit at the end of its name: `seconds`, `bytes`, or none.
    pub fn unit(&self) -> Option<&'static str> {
        let stem = self.stem();
        ["seconds", "bytes"].into_iter().find(|unit| stem.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')))
    }

    /// Its name without `_total`.
    pub fn stem(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        }
    }
}
