//! The bytes of an answer, with limits on size, pace and time.

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use http::header;
use reqwest::Response;
use std::{io, time::Duration};
use tokio::time::{Instant, timeout_at};
use types::{ErrorKind, Fault};

use super::FetchRules;

/// Bytes a second that a server must send on average, measured over each `idle` time of waiting.
const LEAST_PACE: u64 = 1024;

/// An answer that is coming.
pub struct Download {
    /// Its size, if the server tells.
    pub total_bytes: Option<u64>,
    /// Its `ETag` as sent.
    pub etag: Option<String>,
    /// The bytes. An error carries a [`Fault`], see [`fault_of`]; nothing comes after one.
    pub bytes: BoxStream<'static, io::Result<Bytes>>,
}

/// The fault of an error of [`Download::bytes`].
pub fn fault_of(error: &io::Error) -> Fault {
    let carried = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>());
    carried.cloned().unwrap_or_else(|| {
        Fault::new(ErrorKind::Unavailable, "FETCH_BROKEN", format!("the download broke off: {error}"))
    })
}

pub(super) fn too_large(site: &str, most: u64) -> Fault {
    Fault::new(ErrorKind::TooLarge, "FETCH_TOO_LARGE", format!("{site} sends more than the {most} bytes allowed"))
}

impl Download {
    pub(super) fn new(response: Response, rules: &FetchRules, site: String, end: Instant) -> Self {
        let etag = response.headers().get(header::ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let total_bytes = response.content_length();
        let pace = Pace { idle: rules.idle, waited: Duration::ZERO, received: 0 };
        let source = response.bytes_stream().boxed();
        let reading = Reading { source, site, left: rules.max_bytes, most: rules.max_bytes, pace, end };
        let bytes = futures_util::stream::unfold(Some(reading), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(None) => None,
                Ok(Some(chunk)) => Some((Ok(chunk), Some(reading))),
                Err(fault) => Some((Err(io::Error::other(fault)), None)),
            }
        });
        Self { total_bytes, etag, bytes: bytes.boxed() }
    }
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("total_bytes", &self.total_bytes).field("etag", &self.etag).finish()
    }
}

struct Reading {
    source: BoxStream<'static, reqwest::Result<Bytes>>,
    site: String,
    left: u64,
    most: u64,
    pace: Pace,
    end: Instant,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let begun = Instant::now();
            let window = self.pace.until(begun);
            let waited = timeout_at(self.end.min(window), self.source.next()).await;
            if waited.is_err() && Instant::now() >= self.end {
                let message = format!("the download from {} took too long", self.site);
                return Err(Fault::new(ErrorKind::Deadline, "FETCH_TIMEOUT", message));
            }
            let length = match &waited {
                Ok(Some(Ok(chunk))) => chunk.len() as u64,
                _ => 0,
            };
            if !self.pace.keeps(begun.elapsed(), length) {
                return Err(self.slow());
            }
            match waited {
                // The window is over and enough came within it: the next one begins.
                Err(_) => {}
                Ok(None) => return Ok(None),
                Ok(Some(Ok(chunk))) => {
                    self.left = self.left.checked_sub(length).ok_or_else(|| too_large(&self.site, self.most))?;
                    return Ok(Some(chunk));
                }
                Ok(Some(Err(error))) => {
                    let message = format!("the download from {} broke off: {}", self.site, super::causes(&error));
                    return Err(Fault::new(ErrorKind::Unavailable, "FETCH_BROKEN", message));
                }
            }
        }
    }

    fn slow(&self) -> Fault {
        let message = format!("{} sends too slowly: less than {LEAST_PACE} bytes a second", self.site);
        Fault::new(ErrorKind::Deadline, "FETCH_TOO_SLOW", message)
    }
}

/// Counts what comes per `idle` of waiting. Only waiting counts: a reader that takes its time is no fault of
/// the server.
struct Pace {
    idle: Duration,
    waited: Duration,
    received: u64,
}

impl Pace {
    /// When the running window ends, if nothing comes.
    fn until(&self, now: Instant) -> Instant {
        now + self.idle.saturating_sub(self.waited)
    }

    /// Counts a chunk. False if the window is over and too little came within it.
    fn keeps(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.received = self.received.saturating_add(bytes);
        if self.waited < self.idle {
            return true;
        }
        let enough = u128::from(self.received) * 1000 >= u128::from(LEAST_PACE) * self.waited.as_millis();
        (self.waited, self.received) = (Duration::ZERO, 0);
        enough
    }
}
