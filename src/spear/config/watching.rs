//! What those who watch the process are given.

use secrecy::SecretString;
use std::{path::PathBuf, time::Duration};

use super::{layers::Merged, resolve::at_home};

/// Figures and traces.
#[derive(Clone, Debug)]
pub struct Watching {
    /// Serve `/metrics`?
    pub metrics: bool,
    /// The collector; none: nothing is sent.
    pub collector: Option<Collector>,
}

/// Where traces and figures are sent.
#[derive(Clone, Debug)]
pub struct Collector {
    /// `http://host:port` or `https://host:port` of its gRPC.
    pub endpoint: String,
    /// Headers of every call.
    pub headers: Option<SecretString>,
    /// For `https`: whom to trust.
    pub certificate: Option<PathBuf>,
    /// Longest call.
    pub timeout: Duration,
    /// Time between two tellings of the figures.
    pub interval: Duration,
    /// Our name there.
    pub service: String,
}

/// Takes the settings apart.
pub(super) fn watching(merged: &mut Merged) -> Watching {
    let home = merged.home.clone();
    let otel = &mut merged.sections.otel;
    let (headers, certificate) = (otel.headers.take(), otel.certificate.take());
    let collector = otel.endpoint.take().map(|endpoint| Collector {
        endpoint,
        headers,
        certificate: certificate.map(|path| at_home(path, home.as_deref())),
        timeout: otel.timeout,
        interval: otel.metrics_interval,
        service: otel.service_name.clone(),
    });
    if collector.is_some() && !cfg!(feature = "otel") {
        let origin = merged.origin("otel.endpoint");
        let warning =
            format!("{origin}: otel.endpoint changes nothing: this build has no OpenTelemetry (feature otel)");
        merged.warnings.push(warning);
    }
    Watching { metrics: merged.sections.metrics.enabled, collector }
}
