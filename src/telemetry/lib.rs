//! What the process measures of itself: figures for whoever watches it, and traces of what it did.
//!
//! ```text
//!   parts ── counter, gauge, histogram handles ──► Metrics ──► text.rs: GET /metrics (OpenMetrics, Prometheus)
//!     │      sampled closures, asked at each look ──┘    └───► otel: the same figures, pushed by OTLP
//!     └── tracing spans ── layer ── bounded queue ───────────► otel: traces, pushed by OTLP
//! ```
//! Invariants: there is no global state, a process has the [`Metrics`] it passes around; a handle is resolved once
//! and then costs an atomic operation; every family has a sentence of help; a family has at most [`MOST_SERIES`]
//! series, whatever is put into its labels; a collector that is away costs spans, never memory or time.

mod family;
mod figure;
mod histogram;
mod metrics;
mod process;
mod sampled;
mod slot;
mod text;
pub mod trace;

#[cfg(feature = "otel")]
pub mod otel;

pub use family::{Counter, Counters, Gauge, Gauges, Held, Histograms, MOST_SERIES};
pub use figure::{Figure, Kind, Series, Value};
pub use histogram::Histogram;
pub use metrics::Metrics;
pub use slot::Slot;
pub use text::{Exposition, Format};

/// Buckets for what takes from half a millisecond to ten seconds: requests, commits.
pub const SHORT: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets for what takes from ten milliseconds to half an hour: executions, compilations, fetches.
pub const LONG: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];
/// Buckets for counts: 1, 2, 4 … 256.
pub const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

#[cfg(test)]
mod tests;
