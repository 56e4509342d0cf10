//! S3 and what speaks its protocol (MinIO, Ceph, Garage).

use futures_util::{StreamExt, TryStreamExt};
use object_store::{
    ClientOptions, Error, GetOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use secrecy::ExposeSecret;
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use types::{ErrorKind, Fault};

use super::{
    S3, lock,
    source::{Opened, Source},
};

/// Clients kept for reuse, one per bucket; beyond that all are made anew.
const MOST_BUCKETS: usize = 64;

/// The buckets of one service.
pub(super) struct Buckets {
    service: &'static str,
    settings: S3,
    idle: Duration,
    clients: Mutex<HashMap<String, Arc<AmazonS3>>>,
}

impl Buckets {
    pub(super) fn new(service: &'static str, settings: &S3, idle: Duration) -> Result<Self, Fault> {
        let wrong = |name: &str, detail: &str| Fault::invalid_field(format!("spearlet.{service}.{name}"), detail);
        if let Some(endpoint) = &settings.endpoint {
            match endpoint.split_once("://") {
                Some(("https", host)) if !host.is_empty() => {}
                Some(("http", host)) if !host.is_empty() && settings.allow_http => {}
                Some(("http", _)) => return Err(wrong("endpoint", "is http://, which needs allow_http = true")),
                _ => return Err(wrong("endpoint", "is not https://host:port")),
            }
        } else if service == "minio" {
            return Err(wrong("endpoint", "is missing: https://host:port"));
        }
        if settings.access_key.is_some() != settings.secret_key.is_some() {
            return Err(wrong("secret_key", "access_key and secret_key go together"));
        }
        Ok(Self { service, settings: settings.clone(), idle, clients: Mutex::default() })
    }

    fn client(&self, bucket: &str) -> Result<Arc<AmazonS3>, Fault> {
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(bucket) {
            return Ok(client.clone());
        }
        let made = Arc::new(self.build(bucket)?);
        if clients.len() >= MOST_BUCKETS {
            clients.clear();
        }
        clients.insert(bucket.to_owned(), made.clone());
        Ok(made)
    }

    fn build(&self, bucket: &str) -> Result<AmazonS3, Fault> {
        let settings = &self.settings;
        let options = ClientOptions::new()
            .with_allow_http(settings.allow_http)
            .with_connect_timeout(Duration::from_secs(10))
            .with_read_timeout(self.idle)
            // The fetch has its own limit for the whole.
            .with_timeout_disabled();
        let retry = RetryConfig { max_retries: 2, retry_timeout: self.idle, ..RetryConfig::default() };
        let region = if settings.region.is_empty() { "us-east-1" } else { &settings.region };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_allow_http(settings.allow_http)
            .with_virtual_hosted_style_request(settings.virtual_hosted)
            .with_client_options(options)
            .with_retry(retry);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        builder = match (&settings.access_key, &settings.secret_key) {
            (Some(key), Some(secret)) => builder.with_access_key_id(key).with_secret_access_key(secret.expose_secret()),
            // Without this it would ask the cloud's metadata address for credentials.
            _ => builder.with_skip_signature(true),
        };
        if let Some(token) = &settings.session_token {
            builder = builder.with_token(token.expose_secret());
        }
        builder.build().map_err(|error| fault(&error))
    }

    /// Opens an object; with `etag`, only if it changed since.
    pub(super) async fn open(&self, bucket: &str, key: &str, etag: Option<&str>) -> Result<Opened, Fault> {
        let valid =
            bucket.len() <= 63 && bucket.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'));
        if !valid {
            return Err(Fault::invalid_field(
                "executable.uri",
                format!("{bucket:?} is not a bucket of {}", self.service),
            ));
        }
        let path = Path::parse(key)
            .map_err(|error| Fault::invalid_field("executable.uri", format!("the key cannot be used: {error}")))?;
        let options = GetOptions { if_none_match: etag.map(str::to_owned), ..GetOptions::default() };
        let result = match self.client(bucket)?.get_opts(&path, options).await {
            Ok(result) => result,
            Err(Error::NotModified { .. }) => return Ok(Opened::Unchanged),
            Err(error) => return Err(fault(&error)),
        };
        let etag = result.meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
        Ok(Opened::Body(Source {
            total_bytes: Some(result.meta.size),
            sha256: None,
            etag,
            bytes: result.into_stream().map_err(io::Error::other).boxed(),
        }))
    }
}

fn fault(error: &Error) -> Fault {
    let kind = match error {
        Error::NotFound { .. } => ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => ErrorKind::Denied,
        _ => ErrorKind::Unavailable,
    };
    // A service may put a whole document into its error.
    let text: String = innermost(error).chars().take(300).collect();
    Fault::new(kind, "ARTIFACT_UNAVAILABLE", text)
}

/// The cause without the client's wrapping, which repeats the address.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}
