//! The connection to the collector: one lazy channel, its headers, and how often it failed.

use secrecy::ExposeSecret;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use supervise::{Stop, backoff};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataKey, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::{Settings, TRIES};
use crate::{family::Counters, metrics::Metrics};

/// First pause between tries, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address.
    #[error("{0:?} is not the address of a collector: write http://host:4317")]
    Endpoint(String),
    /// TLS.
    #[error("a collector at https:// needs otel.certificate (OTEL_EXPORTER_OTLP_CERTIFICATE): {0}")]
    Tls(String),
    /// The headers.
    #[error("otel.headers (OTEL_EXPORTER_OTLP_HEADERS): entry {0} is not name=value")]
    Headers(usize),
}

/// What became of something that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The collector has it.
    Taken,
    /// It was refused, or tried often enough.
    Dropped,
    /// The process stops; there may be time for one more try.
    CutShort,
}

/// The way to the collector.
pub(super) struct Link {
    pub(super) channel: Channel,
    headers: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
    timeout: Duration,
    exports: Counters<2>,
    away: AtomicBool,
}

impl Link {
    pub(super) fn new(settings: &Settings, metrics: &Metrics) -> Result<Self, Error> {
        let wrong = || Error::Endpoint(settings.endpoint.clone());
        let mut endpoint = Endpoint::from_shared(settings.endpoint.clone()).map_err(|_| wrong())?;
        endpoint = endpoint.connect_timeout(settings.timeout).timeout(settings.timeout);
        match (endpoint.uri().scheme_str(), &settings.authority_pem) {
            (Some("http"), _) => {}
            (Some("https"), Some(pem)) => {
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
                endpoint = endpoint.tls_config(tls).map_err(|error| Error::Tls(error.to_string()))?;
            }
            (Some("https"), None) => return Err(Error::Tls("it is not set".to_owned())),
            _ => return Err(wrong()),
        }
        let exports = metrics.counters(
            "spear_otel_exports_total",
            "Calls to the collector of traces and figures, by what was sent and how it ended.",
            ["what", "outcome"],
        );
        let headers = match &settings.headers {
            Some(headers) => parse(headers.expose_secret())?,
            None => Vec::new(),
        };
        let (channel, timeout, away) = (endpoint.connect_lazy(), settings.timeout, AtomicBool::new(false));
        Ok(Self { channel, headers, timeout, exports, away })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in &self.headers {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        request.set_timeout(self.timeout);
        request
    }

    /// Sends something until it is taken, refused for good or tried often enough. `stop` cuts that short.
    pub(super) async fn send<T, F>(
        &self,
        what: &'static str,
        stop: &Stop,
        message: &T,
        call: impl Fn(Request<T>) -> F,
    ) -> Sent
    where
        T: Clone,
        F: Future<Output = Result<(), Status>>,
    {
        for tries in 0..TRIES {
            let attempt = self.attempt(what, call(self.request(message.clone())));
            match stop.run_until_cancelled(attempt).await {
                Some(Ok(())) => return Sent::Taken,
                Some(Err(true)) => {}
                Some(Err(false)) => return Sent::Dropped,
                None => return Sent::CutShort,
            }
            let pause = tokio::time::sleep(backoff(PAUSE.0, PAUSE.1, tries));
            if stop.run_until_cancelled(pause).await.is_none() {
                return Sent::CutShort;
            }
        }
        Sent::Dropped
    }

    /// Tries once, for no longer than `within`.
    pub(super) async fn send_last<T, F>(
        &self,
        what: &'static str,
        within: Duration,
        message: T,
        call: impl Fn(Request<T>) -> F,
    ) -> bool
    where
        F: Future<Output = Result<(), Status>>,
    {
        let trying = self.attempt(what, call(self.request(message)));
        tokio::time::timeout(within, trying).await.is_ok_and(|done| done.is_ok())
    }

    /// One call; the error says whether another try makes sense.
    async fn attempt(&self, what: &'static str, call: impl Future<Output = Result<(), Status>>) -> Result<(), bool> {
        // A server that takes the connection and never answers must not keep us.
        let ended = tokio::time::timeout(self.timeout, call).await;
        match ended.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(()) => {
                self.exports.with([what, "ok"]).inc();
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("the collector takes what it is sent again");
                }
                Ok(())
            }
            Err(status) => {
                self.exports.with([what, "failed"]).inc();
                if !self.away.swap(true, Ordering::Relaxed) {
                    let (code, error) = (status.code(), status.message());
                    tracing::warn!(what, ?code, error, "the collector does not take what it is sent; work goes on");
                }
                Err(matches!(
                    status.code(),
                    Code::Unavailable
                        | Code::DeadlineExceeded
                        | Code::ResourceExhausted
                        | Code::Aborted
                        | Code::Cancelled
                ))
            }
        }
    }
}

/// A header of a call.
type Header = (MetadataKey<Ascii>, MetadataValue<Ascii>);

/// `name=value,name=value`, the values percent-encoded where they must be.
fn parse(headers: &str) -> Result<Vec<Header>, Error> {
    let entries = headers.split(',').enumerate().filter(|(_, entry)| !entry.trim().is_empty());
    entries
        .map(|(index, entry)| {
            // What is wrong is never shown: it may be a secret.
            let wrong = || Error::Headers(index + 1);
            let (name, value) = entry.split_once('=').ok_or_else(wrong)?;
            let name = name.trim().to_ascii_lowercase().parse::<MetadataKey<Ascii>>().map_err(|_| wrong())?;
            let value = decoded(value.trim()).ok_or_else(wrong)?;
            let mut value = value.parse::<MetadataValue<Ascii>>().map_err(|_| wrong())?;
            value.set_sensitive(true);
            Ok((name, value))
        })
        .collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn headers_are_pairs_with_percent_encoded_values_and_errors_never_show_them() {
        let headers = parse("Api-Key=a%20b%3D, x=1 ,").unwrap();
        let shown: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(shown, [("api-key", "a b="), ("x", "1")]);
        for wrong in ["secret", "a=1,sec ret=2", "a=%zz", "a=%e4"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret") && error.contains("OTEL_EXPORTER_OTLP_HEADERS"), "{error}");
        }
    }
}
