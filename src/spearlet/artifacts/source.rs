//! Opens an address: the registry's files, the web, S3.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use net::client::{FetchRules, Fetcher};
use std::{collections::HashMap, io, sync::Arc, time::Duration};
use types::{ErrorKind, Fault, FileId, artifact::ArtifactUri};

use super::{Config, is_digest, s3::Buckets};

/// Bytes on their way, with what the source says of them.
pub(super) struct Source {
    /// Bytes in all, when the source says.
    pub(super) total_bytes: Option<u64>,
    /// Their sha256, when the source says.
    pub(super) sha256: Option<String>,
    /// A strong validator: the same one means the same bytes.
    pub(super) etag: Option<String>,
    /// They.
    pub(super) bytes: BoxStream<'static, io::Result<Bytes>>,
}

/// What opening an address gives.
pub(super) enum Opened {
    /// The bytes are those of the validator that was passed in.
    Unchanged,
    /// The bytes.
    Body(Source),
}

/// Everywhere artifacts come from.
pub(super) struct Sources {
    control: Option<Arc<dyn api::Control>>,
    web: Fetcher,
    /// For the files of registries: always `http://`, no redirects, never a token.
    registries: Fetcher,
    buckets: HashMap<&'static str, Buckets>,
}

impl Sources {
    pub(super) fn new(config: &Config, control: Option<Arc<dyn api::Control>>) -> Result<Self, Fault> {
        let rules = FetchRules {
            allow_http: config.allow_http,
            allow_hosts: config.allow_hosts.clone(),
            max_bytes: config.max_artifact_bytes,
            idle: config.idle_timeout,
            total: config.total_timeout,
            max_redirects: 3,
        };
        let mut registries = FetchRules { allow_http: true, max_redirects: 0, ..rules.clone() };
        registries.allow_hosts.extend(config.sms_http_addr.clone());
        let mut buckets = HashMap::new();
        for (service, settings) in [("s3", &config.s3), ("minio", &config.minio)] {
            if let Some(settings) = settings {
                buckets.insert(service, Buckets::new(service, settings, config.idle_timeout)?);
            }
        }
        Ok(Self { control, web: Fetcher::new(rules)?, registries: Fetcher::new(registries)?, buckets })
    }

    /// Opens an address; with `etag`, only if it changed since. `patience` is for the first sign of an answer,
    /// redirects and all.
    pub(super) async fn open(
        &self,
        uri: &ArtifactUri,
        etag: Option<&str>,
        patience: Duration,
    ) -> Result<Opened, Fault> {
        let opened = match tokio::time::timeout(patience, self.ask(uri, etag)).await {
            Ok(opened) => opened,
            Err(_) => {
                let text = format!("no answer within {} s", patience.as_secs_f32());
                Err(Fault::new(ErrorKind::Deadline, "ARTIFACT_UNAVAILABLE", text))
            }
        };
        opened.map_err(|fault| named(uri, fault))
    }

    async fn ask(&self, uri: &ArtifactUri, etag: Option<&str>) -> Result<Opened, Fault> {
        match uri {
            ArtifactUri::SmsFile { host: None, id } => self.registry(*id).await,
            ArtifactUri::SmsFile { host: Some(host), id } => {
                get(&self.registries, &format!("http://{host}/api/v1/files/{id}"), None).await
            }
            ArtifactUri::Https(url) | ArtifactUri::Http(url) => get(&self.web, url, etag).await,
            ArtifactUri::S3 { service, bucket, key } => match self.buckets.get(service) {
                Some(buckets) => buckets.open(bucket, key, etag).await,
                None => Err(Fault::new(
                    ErrorKind::Unsupported,
                    "ARTIFACT_UNAVAILABLE",
                    format!("this node has no settings [spearlet.{service}]"),
                )),
            },
        }
    }

    async fn registry(&self, id: FileId) -> Result<Opened, Fault> {
        let Some(control) = &self.control else {
            return Err(Fault::new(
                ErrorKind::Unsupported,
                "ARTIFACT_UNAVAILABLE",
                "this node belongs to no registry; start it with one, or name one: sms+file://host:port/<id>",
            ));
        };
        let file = control.open_file(id).await?;
        let sha256 = Some(file.record.sha256.to_ascii_lowercase()).filter(|claim| is_digest(claim));
        Ok(Opened::Body(Source { total_bytes: Some(file.record.len), sha256, etag: None, bytes: file.bytes }))
    }
}

async fn get(fetcher: &Fetcher, url: &str, etag: Option<&str>) -> Result<Opened, Fault> {
    let download = fetcher.get(url, None).await?;
    let strong = download.etag.filter(|tag| !tag.starts_with("W/"));
    // The head of the answer is enough to know; its body is not read then.
    if etag.is_some() && strong.as_deref() == etag {
        return Ok(Opened::Unchanged);
    }
    Ok(Opened::Body(Source { total_bytes: download.total_bytes, sha256: None, etag: strong, bytes: download.bytes }))
}

/// A fault with a code of this part and the address in its sentence.
pub(super) fn named(uri: &ArtifactUri, mut fault: Fault) -> Fault {
    fault.code = match fault.kind {
        ErrorKind::NotFound => "ARTIFACT_NOT_FOUND",
        ErrorKind::Denied | ErrorKind::Unauthenticated => "ARTIFACT_DENIED",
        ErrorKind::TooLarge => "ARTIFACT_TOO_LARGE",
        // The address itself is malformed.
        ErrorKind::Invalid if !fault.errors.is_empty() => return fault,
        ErrorKind::Invalid => "ARTIFACT_INVALID",
        _ => "ARTIFACT_UNAVAILABLE",
    }
    .into();
    fault.message = format!("{}: {}", shown(uri), fault.message);
    fault
}

/// An address without what may be secret in it: user, password, query.
pub(super) fn shown(uri: &ArtifactUri) -> String {
    let text = uri.to_string();
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = host.rsplit('@').next().unwrap_or_default();
    match path {
        Some(path) => format!("{scheme}://{host}/{path}"),
        None => format!("{scheme}://{host}"),
    }
}
