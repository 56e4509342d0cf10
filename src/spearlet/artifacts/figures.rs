//! What a node measures of the artifacts it fetches.

use std::{sync::Arc, time::Instant};
use telemetry::{Counter, Counters, Histogram, LONG, Metrics};
use types::{Fault, artifact::ArtifactUri};

use super::{Fetcher, Held};

/// The figures of the fetcher.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) hits: Counter,
    fetches: Counters<2>,
    seconds: Histogram,
    pub(super) bytes: Counter,
}

impl Figures {
    /// A fetch that went to its source has ended.
    pub(super) fn fetched(&self, uri: &ArtifactUri, started: Instant, ended: &Result<Held, Fault>) {
        let source = match uri {
            ArtifactUri::SmsFile { .. } => "registry",
            ArtifactUri::Https(_) | ArtifactUri::Http(_) => "web",
            ArtifactUri::S3 { .. } => "s3",
        };
        let outcome = match ended {
            Ok(_) => "ok".to_owned(),
            Err(fault) => fault.code.to_ascii_lowercase(),
        };
        self.fetches.with([source, &outcome]).inc();
        self.seconds.since(started);
    }
}

impl Fetcher {
    /// Measures from now on.
    pub(crate) fn measure(&self, metrics: &Metrics) {
        let new = self.inner.figures.fill(Figures {
            hits: metrics.counter("spear_artifact_cache_hits_total", "Artifacts that were on this node already."),
            fetches: metrics.counters(
                "spear_artifact_fetches_total",
                "Fetches of artifacts from their source, by how they ended.",
                ["source", "outcome"],
            ),
            seconds: metrics.histogram("spear_artifact_fetch_seconds", "Time of a fetch from its source.", LONG),
            bytes: metrics.counter("spear_artifact_fetched_bytes_total", "Bytes of artifacts fetched."),
        });
        if !new {
            return;
        }
        let inner = Arc::downgrade(&self.inner);
        metrics.read("spear_artifact_cache_bytes", "Bytes of artifacts kept on this node.", move || {
            Some(inner.upgrade()?.cache.bytes() as f64)
        });
    }
}
