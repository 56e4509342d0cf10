//! Traces and figures to a collector, by OTLP over gRPC.
//!
//! ```text
//!   span ends ─► sampled? ─► bounded queue ─► task "spans": batches ─┐
//!                                │ full: dropped and counted          ├─► one channel ─► collector
//!   Metrics ── every interval ─────────────► task "figures" ─────────┘
//! ```
//! The exporters of the SDK run on threads and timers of their own, which nobody could name, restart or stop in
//! order; so only its spans are used, and what is above is done by two tasks of a scope. (The connection's own task
//! is tonic's; it ends with the channel.) A collector that is away costs nothing but its data: a batch is tried
//! a few times, then dropped and counted; nothing waits for it. When their phase stops, the tasks get one last
//! try, within the time they are given.

mod figures;
mod link;
mod spans;

pub use link::Error;
pub use spans::Traces;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};
use supervise::{OnError, Scope};
use types::Clock;

use crate::metrics::Metrics;
use link::Link;

/// Tries of one batch.
const TRIES: u32 = 5;

/// Where to send what, and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http://host:port` or `https://host:port` of the collector's gRPC.
    pub endpoint: String,
    /// Sent with every call: `name=value,name=value`, as `OTEL_EXPORTER_OTLP_HEADERS` has them.
    pub headers: Option<SecretString>,
    /// For `https`: the certificate authority to trust, in PEM.
    pub authority_pem: Option<Vec<u8>>,
    /// Longest call.
    pub timeout: Duration,
    /// Time between two tellings of the figures.
    pub interval: Duration,
    /// Name of the service.
    pub service: String,
    /// Version of the program.
    pub version: &'static str,
    /// What tells this process from others of the same service.
    pub instance: String,
}

impl Settings {
    /// Who we are, with what `OTEL_RESOURCE_ATTRIBUTES` adds.
    fn resource(&self) -> Resource {
        Resource::builder()
            .with_service_name(self.service.clone())
            .with_attributes([
                KeyValue::new("service.version", self.version),
                KeyValue::new("service.instance.id", self.instance.clone()),
            ])
            .build()
    }
}

/// Begins to send: the spans of `traces` and all figures. `scope` should stop after whatever makes spans; `last` is
/// the time for the last try. Must be called within a tokio runtime.
///
/// # Errors
/// When the settings cannot work.
pub fn start(
    settings: &Settings,
    traces: Traces,
    metrics: &Metrics,
    clock: Arc<dyn Clock>,
    scope: &Scope,
    last: Duration,
) -> Result<(), Error> {
    let link = Arc::new(Link::new(settings, metrics)?);
    let again = OnError::Restart { first: Duration::from_secs(1), most: Duration::from_secs(30) };
    let resource = settings.resource();
    let spans = Arc::new(spans::Sender::new(traces, metrics, &resource));
    let to = link.clone();
    scope.spawn("spans", again, move |stop| {
        let (spans, link) = (spans.clone(), to.clone());
        async move { spans.run(&link, &stop, last).await }
    });
    let figures = Arc::new(figures::Sender::new(metrics, clock, &resource, settings.interval));
    scope.spawn("figures", again, move |stop| {
        let (figures, link) = (figures.clone(), link.clone());
        async move { figures.run(&link, &stop, last).await }
    });
    tracing::info!(endpoint = settings.endpoint, "traces and figures go to the collector");
    Ok(())
}
