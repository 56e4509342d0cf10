//! Fetches executables, verifies them and keeps them on disk by digest.
//!
//! ```text
//!   fetch ──► in the cache and pinned or immutable? ──────────────────────────────► Held
//!     │ no                                                                            ▲
//!     ▼                                                                               │
//!   flight (one per digest or address; everyone else waits and sees its progress)     │
//!     └► source: registry · web · S3 ─► download: limits, sha256, fsync ─► cache: rename to <sha256>
//! ```
//! Invariants: a file named by a digest has that digest (it is hashed when it is written and again at its first
//! use after a start); nothing over the limits stays; a file in use is never removed; a fetch that nobody waits
//! for any more stops and leaves nothing behind.

mod cache;
mod download;
mod figures;
mod flight;
mod s3;
mod source;

pub use cache::Held;

use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fmt::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use telemetry::Slot;
use tokio::sync::Semaphore;
use types::{ErrorKind, Executable, Fault, Progress, artifact::ArtifactUri};

use cache::Cache;
use figures::Figures;
use flight::{Flights, Steps};
use source::{Opened, Sources};

/// Where artifacts may come from, and what a fetch may cost.
#[derive(Clone, Debug)]
pub struct Config {
    /// Fetch over `http://` too? Without it only `https://`.
    pub allow_http: bool,
    /// Hosts (`host` or `host:port`) that may have private addresses.
    pub allow_hosts: Vec<String>,
    /// `host:port` of the registry's HTTP interface: exempt from the ban on private addresses.
    pub sms_http_addr: Option<String>,
    /// Bytes that the cache keeps.
    pub max_cache_bytes: u64,
    /// Bytes of the largest artifact, whatever a caller allows.
    pub max_artifact_bytes: u64,
    /// Longest silence of a source.
    pub idle_timeout: Duration,
    /// Longest fetch, with the wait for its turn.
    pub total_timeout: Duration,
    /// Bytes per second that a source must deliver on average over `rate_window`.
    pub minimum_rate: u64,
    /// See `minimum_rate`.
    pub rate_window: Duration,
    /// Where `s3://` is.
    pub s3: Option<S3>,
    /// Where `minio://` is.
    pub minio: Option<S3>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allow_http: false,
            allow_hosts: Vec::new(),
            sms_http_addr: None,
            max_cache_bytes: 512 << 20,
            max_artifact_bytes: 256 << 20,
            idle_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(600),
            minimum_rate: 1024,
            rate_window: Duration::from_secs(30),
            s3: None,
            minio: None,
        }
    }
}

/// An S3 service. It is named by the operator, hence exempt from the ban on private addresses.
#[derive(Clone, Debug, Default)]
pub struct S3 {
    /// `https://host:port`; none: Amazon's own for the region.
    pub endpoint: Option<String>,
    /// Region; empty: `us-east-1`.
    pub region: String,
    /// `bucket.host/key` instead of `host/bucket/key`?
    pub virtual_hosted: bool,
    /// Key id; none: requests are not signed. Credentials are never looked for elsewhere.
    pub access_key: Option<String>,
    /// Its secret.
    pub secret_key: Option<SecretString>,
    /// Token of temporary credentials.
    pub session_token: Option<SecretString>,
    /// May `endpoint` be `http://`?
    pub allow_http: bool,
}

/// Fetches at a time; the rest waits for its turn within its own total time.
const CONCURRENT: usize = 8;
/// Addresses whose digest is remembered, so that nothing is asked twice.
const MOST_KNOWN: usize = 4096;
/// Bytes of the longest address.
const MOST_URI: usize = 8192;

/// Fetches and keeps artifacts. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    cache: Cache,
    sources: Sources,
    flights: Arc<Flights<Want, Result<Held, Fault>>>,
    turns: Semaphore,
    known: Mutex<HashMap<String, Known>>,
    figures: Slot<Figures>,
}

/// What an address held when it was last fetched.
#[derive(Clone)]
struct Known {
    digest: String,
    etag: Option<String>,
}

/// One fetch: what makes two callers' wishes the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Want {
    uri: ArtifactUri,
    pin: Option<String>,
    limit: u64,
}

impl Want {
    /// Fetches of one digest are one fetch, wherever it is said to lie.
    fn key(&self) -> String {
        self.pin.clone().unwrap_or_else(|| self.uri.to_string())
    }

    fn too_large(&self, size: u64) -> Fault {
        let (name, limit) = (source::shown(&self.uri), self.limit);
        Fault::new(
            ErrorKind::TooLarge,
            "ARTIFACT_TOO_LARGE",
            format!("{name} has {size} bytes or more; {limit} are allowed"),
        )
    }

    fn checksum(&self, what: &str, expected: &str, found: &str) -> Fault {
        let name = source::shown(&self.uri);
        Fault::new(
            ErrorKind::Conflict,
            "ARTIFACT_CHECKSUM",
            format!("{name}: {what} is {expected}, but the sha256 is {found}"),
        )
    }
}

impl Fetcher {
    /// Takes its directory (made if missing, 0700), sweeps what an earlier process left half done.
    ///
    /// # Errors
    /// When the directory cannot be used or an S3 section cannot work.
    pub async fn open(config: &Config, dir: PathBuf, control: Option<Arc<dyn api::Control>>) -> Result<Self, Fault> {
        let sources = Sources::new(config, control)?;
        let cache = Cache::open(dir, config.max_cache_bytes).await?;
        let inner = Inner {
            config: config.clone(),
            cache,
            sources,
            flights: Arc::default(),
            turns: Semaphore::new(CONCURRENT),
            known: Mutex::default(),
            figures: Slot::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The artifact of an executable, verified, on this node's disk; it stays there while it is held.
    /// `progress` hears of bytes at most every 250 ms or 5 %.
    ///
    /// # Errors
    /// `ARTIFACT_NOT_FOUND`, `ARTIFACT_CHECKSUM`, `ARTIFACT_TOO_LARGE`, `ARTIFACT_DENIED`, `ARTIFACT_UNAVAILABLE`
    /// (the one worth trying again) or, for an address or checksum that is malformed, `INVALID_ARGUMENT`.
    pub async fn fetch(
        &self,
        executable: &Executable,
        max_bytes: u64,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Held, Fault> {
        if executable.uri.len() > MOST_URI {
            let text = format!("has {} bytes; {MOST_URI} are allowed", executable.uri.len());
            return Err(Fault::invalid_field("executable.uri", text));
        }
        let want = Want {
            uri: ArtifactUri::parse(&executable.uri).map_err(|fault| fault.within("executable"))?,
            pin: pinned(&executable.checksum_sha256)?,
            limit: max_bytes.min(self.inner.config.max_artifact_bytes),
        };
        loop {
            if let Some(held) = self.inner.at_hand(&want) {
                self.inner.figures.see(|figures| figures.hits.inc());
                return within(&want, held);
            }
            let joined = self.inner.flights.join(want.key(), &want, |steps| {
                let (inner, want) = (self.inner.clone(), want.clone());
                Box::pin(async move { inner.run(&want, &steps).await })
            });
            match flight::follow(joined.ended, joined.steps, progress).await {
                Ok(held) => return within(&want, held),
                // Somebody else's address or limit failed, not ours.
                Err(_) if joined.want != want => {}
                Err(fault) => return Err(fault),
            }
        }
    }
}

fn within(want: &Want, held: Held) -> Result<Held, Fault> {
    if held.size > want.limit { Err(want.too_large(held.size)) } else { Ok(held) }
}

impl Inner {
    /// The digest an address is sure to have without asking anybody.
    fn settled(&self, want: &Want) -> Option<String> {
        match (&want.pin, &want.uri) {
            (Some(pin), _) => Some(pin.clone()),
            // Files of a registry never change.
            (None, ArtifactUri::SmsFile { .. }) => self.known(&want.uri).map(|known| known.digest),
            (None, _) => None,
        }
    }

    fn at_hand(&self, want: &Want) -> Option<Held> {
        self.cache.at_hand(&self.settled(want)?)
    }

    async fn run(&self, want: &Want, steps: &Steps) -> Result<Held, Fault> {
        let (total, started) = (self.config.total_timeout, Instant::now());
        let ended = tokio::time::timeout(total, self.fetch(want, steps)).await.unwrap_or_else(|_| {
            let text = format!("{} was not fetched within {} s", source::shown(&want.uri), total.as_secs_f32());
            Err(Fault::new(ErrorKind::Deadline, "ARTIFACT_UNAVAILABLE", text))
        });
        self.figures.see(|figures| figures.fetched(&want.uri, started, &ended));
        ended
    }

    async fn fetch(&self, want: &Want, steps: &Steps) -> Result<Held, Fault> {
        let _turn = self.turns.acquire().await.map_err(|_| Fault::internal("the fetcher is closed"))?;
        if let Some(digest) = self.settled(want)
            && let Some(held) = self.cache.take(&digest).await?
        {
            return Ok(held);
        }
        let known = if want.pin.is_none() { self.known(&want.uri) } else { None };
        let kept = match &known {
            Some(known) => self.cache.take(&known.digest).await?,
            None => None,
        };
        let etag = kept.as_ref().and(known).and_then(|known| known.etag);
        let opened = self.sources.open(&want.uri, etag.as_deref(), self.config.idle_timeout).await?;
        let source = match (opened, kept) {
            (Opened::Unchanged, Some(held)) => return Ok(held),
            (Opened::Unchanged, None) => return Err(Fault::internal("a source answered 'unchanged' to no question")),
            (Opened::Body(source), _) => source,
        };
        if let Some(claim) = &source.sha256 {
            if let Some(pin) = &want.pin
                && pin != claim
            {
                return Err(want.checksum("the pinned checksum", pin, claim));
            }
            if let Some(held) = self.cache.take(claim).await? {
                self.remember(want, Known { digest: held.digest.clone(), etag: source.etag });
                return Ok(held);
            }
        }
        let etag = source.etag.clone();
        let held = download::run(&self.config, &self.cache, want, source, steps).await?;
        self.figures.see(|figures| figures.bytes.add(held.size));
        self.remember(want, Known { digest: held.digest.clone(), etag });
        Ok(held)
    }

    fn known(&self, uri: &ArtifactUri) -> Option<Known> {
        lock(&self.known).get(&uri.to_string()).cloned()
    }

    fn remember(&self, want: &Want, known: Known) {
        let mut all = lock(&self.known);
        let key = want.uri.to_string();
        if all.len() >= MOST_KNOWN && !all.contains_key(&key) {
            // Forgetting costs one question to the source, so any one will do.
            if let Some(one) = all.keys().next().cloned() {
                all.remove(&one);
            }
        }
        all.insert(key, known);
    }
}

/// A pinned checksum in the form digests have here.
fn pinned(text: &str) -> Result<Option<String>, Fault> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if !is_digest(&hex.to_ascii_lowercase()) {
        let shown = types::id::clip(text);
        return Err(Fault::invalid_field(
            "executable.checksum_sha256",
            format!("{shown:?} is not a sha256: 64 hexadecimal digits"),
        ));
    }
    Ok(Some(hex.to_ascii_lowercase()))
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A finished hash as a digest.
pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// An error of the disk under `what`.
pub(crate) fn disk(what: &std::path::Path, error: &std::io::Error) -> Fault {
    let text = format!("{}: {error}", what.display());
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Fault::new(ErrorKind::StorageFull, "STORAGE_FULL", text)
        }
        _ => Fault::new(ErrorKind::Internal, "STORAGE_FAILED", text),
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}

#[cfg(test)]
mod tests;
