//! Where an executable lies: `sms+file://<id>`, `https://…`, `s3://bucket/key`.

use std::fmt;

use crate::{Fault, FileId, id::clip};

/// A parsed artifact address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ArtifactUri {
    /// A file of the registry this node belongs to, or of the one at `host` (`host:port`).
    SmsFile {
        /// Another registry's HTTP address; none: our own.
        host: Option<String>,
        /// The file.
        id: FileId,
    },
    /// A web address with a verified certificate.
    Https(String),
    /// A web address without; refused unless the node allows it.
    Http(String),
    /// An object in S3 or a store that speaks its protocol.
    S3 {
        /// `s3` or `minio`: which section of the configuration has the endpoint and the keys.
        service: &'static str,
        /// Bucket.
        bucket: String,
        /// Key.
        key: String,
    },
}

impl ArtifactUri {
    /// Parses an address; the error names what is wrong and which forms there are.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |detail: String| Err(Fault::invalid_field("uri", detail));
        let Some((scheme, rest)) = text.split_once("://") else {
            return wrong(format!("{:?} has no scheme; use {SCHEMES}", clip(text)));
        };
        if rest.is_empty() {
            return wrong(format!("{:?} names nothing after the scheme", clip(text)));
        }
        match scheme.to_ascii_lowercase().as_str() {
            "sms+file" | "smsfile" => {
                let (host, id) = match rest.rsplit_once('/') {
                    None => (None, rest),
                    Some((host, id)) => (Some(host), id),
                };
                if let Some(host) = host
                    && (host.is_empty()
                        || host.contains(['/', '@', '?', '#', '\\'])
                        || host.contains(char::is_whitespace))
                {
                    return wrong(format!("{:?} is not host:port", clip(host)));
                }
                let id = id.parse::<FileId>().map_err(|_| {
                    Fault::invalid_field("uri", format!("{:?} is not the id of an uploaded file", clip(id)))
                })?;
                Ok(Self::SmsFile { host: host.map(str::to_owned), id })
            }
            "https" => Ok(Self::Https(text.to_owned())),
            "http" => Ok(Self::Http(text.to_owned())),
            scheme @ ("s3" | "minio") => match rest.split_once('/') {
                Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => Ok(Self::S3 {
                    service: if scheme == "s3" { "s3" } else { "minio" },
                    bucket: bucket.to_owned(),
                    key: key.to_owned(),
                }),
                _ => wrong(format!("{:?} is not {scheme}://bucket/key", clip(text))),
            },
            other => wrong(format!("unknown scheme {:?}; use {SCHEMES}", clip(other))),
        }
    }
}

/// The schemes there are, for messages.
pub const SCHEMES: &str = "sms+file://<id>, https://…, s3://bucket/key or minio://bucket/key";

impl fmt::Display for ArtifactUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SmsFile { host: None, id } => write!(f, "sms+file://{id}"),
            Self::SmsFile { host: Some(host), id } => write!(f, "sms+file://{host}/{id}"),
            Self::Https(url) | Self::Http(url) => f.write_str(url),
            Self::S3 { service, bucket, key } => write!(f, "{service}://{bucket}/{key}"),
        }
    }
}
