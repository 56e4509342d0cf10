//! A client of a REST interface of ours: JSON both ways, problems as faults, uploads, downloads and event streams.
//!
//! The base address is the operator's word, so none of the rules of [`crate::client`] apply to it; redirects are
//! not followed, so that the token goes nowhere else.

mod events;
mod streaming;

pub use events::{EventStream, ServerEvent};
pub use streaming::{Part, Streaming};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::{Body, Certificate, Client, Response, Url, redirect::Policy};
use serde::{Serialize, de::DeserializeOwned};
use std::{io, net::IpAddr, time::Duration};
use types::{ErrorKind, Fault, FieldError};

use crate::{problem::ProblemBody, token::Token};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer that is not a stream may take; longer than a synchronous run of a task is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Silence after which the other side is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long sent bytes may stay unacknowledged.
const VANISHED: Duration = Duration::from_secs(60);
/// The longest JSON answer that is read, bytes.
const MOST_JSON: usize = 64 << 20;

/// A REST interface somewhere. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Rest {
    client: Client,
    base: Url,
    token: Option<Token>,
}

/// Bytes of an answer as they come.
pub struct Content {
    /// How many, if the server tells.
    pub total_bytes: Option<u64>,
    /// The bytes.
    pub bytes: BoxStream<'static, io::Result<Bytes>>,
}

impl Rest {
    /// For `address`: `host:port` (plain HTTP) or an `http://` or `https://` URL with no path. `ca` are PEM
    /// certificates that are trusted beside the usual ones.
    ///
    /// # Errors
    /// The address is not one, or the certificates are not PEM.
    pub fn new(address: &str, token: Option<Token>, ca: Option<&[u8]>) -> Result<Self, Fault> {
        let wrong = |why: &str| {
            let text = format!("{address:?} {why}: write host:port, or a URL such as https://spear.example.org");
            Fault::invalid_field("address", text)
        };
        let text = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let base = Url::parse(&text).map_err(|error| wrong(&format!("is not an address ({error})")))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong("is not an HTTP address"));
        }
        if base.path() != "/" || base.query().is_some() || !base.username().is_empty() {
            return Err(wrong("has more than a host and a port"));
        }
        let mut builder = Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(Policy::none());
        // A server that vanished without a word is found out even by a stream that waits for news.
        builder = builder.tcp_keepalive(KEEPALIVE).tcp_keepalive_interval(KEEPALIVE).tcp_user_timeout(VANISHED);
        if let Some(pem) = ca {
            let found = Certificate::from_pem_bundle(pem)
                .map_err(|error| Fault::invalid_field("ca", format!("no certificates in PEM: {error}")))?;
            if found.is_empty() {
                return Err(Fault::invalid_field("ca", "there is no certificate in PEM"));
            }
            builder = found.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        if base.scheme() == "http" {
            // The certificates of the system are not asked for: a container may have none.
            builder = builder.tls_certs_only([]);
        }
        if is_here(&base) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| Fault::internal(format!("no HTTP client: {error}")))?;
        Ok(Self { client, base, token })
    }

    /// Its address, without a slash at the end.
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// `GET path` as JSON. `path` begins with a slash and may have a query.
    ///
    /// # Errors
    /// The server's problem as it says it; it cannot be reached (`UNREACHABLE`) or is slow (`TIMEOUT`); what it says
    /// is not JSON of this form (`UNEXPECTED_ANSWER`).
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        self.json(Method::GET, path, None::<&()>).await
    }

    /// Sends `body` as JSON and reads the answer as JSON.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Fault> {
        self.json_with(method, path, &[], body).await
    }

    /// The same with headers.
    ///
    /// # Errors
    /// As [`Rest::get`]; or a value that no header can have.
    pub async fn json_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<&impl Serialize>,
    ) -> Result<T, Fault> {
        let mut request = self.request(method, path)?.timeout(ANSWER_TIMEOUT);
        for (name, value) in headers {
            let value = HeaderValue::from_str(value)
                .map_err(|_| Fault::invalid_field(*name, "has characters that no header can have"))?;
            request = request.header(*name, value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let bytes = self.read(self.send(request).await?).await?;
        self.parsed(&bytes)
    }

    /// Sends bytes as they come, with headers, and reads the answer as JSON. `total` is told as the length.
    ///
    /// # Errors
    /// As [`Rest::get`]; or the stream's own error.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        total: Option<u64>,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<T, Fault> {
        let mut request = self.request(Method::POST, path)?.body(Body::wrap_stream(bytes));
        if let Some(total) = total {
            request = request.header(header::CONTENT_LENGTH, total);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let bytes = self.read(self.send(request).await?).await?;
        self.parsed(&bytes)
    }

    /// `GET path` as bytes.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub async fn download(&self, path: &str) -> Result<Content, Fault> {
        let response = self.send(self.request(Method::GET, path)?).await?;
        let total_bytes = response.content_length();
        Ok(Content { total_bytes, bytes: response.bytes_stream().map(|item| item.map_err(io::Error::other)).boxed() })
    }

    /// `GET path` as text, with the status: for answers whose refusal is an answer too (`/readyz?verbose`).
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn text(&self, path: &str) -> Result<(StatusCode, String), Fault> {
        let request = self.request(Method::GET, path)?.timeout(ANSWER_TIMEOUT);
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let bytes = self.read(response).await?;
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// `GET path` as server-sent events, from after the event with the id `after`.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub async fn events(&self, path: &str, after: Option<&str>) -> Result<EventStream, Fault> {
        let mut request = self.request(Method::GET, path)?.header(header::ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = self.send(request).await?;
        Ok(EventStream::new(response.bytes_stream().map(|item| item.map_err(io::Error::other)).boxed()))
    }

    fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, Fault> {
        let url = self.base.join(path).map_err(|error| Fault::invalid(format!("{path:?} is not a path: {error}")))?;
        if url.origin() != self.base.origin() {
            return Err(Fault::invalid(format!("{path:?} leads away from {}", self.address())));
        }
        let request = self.client.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Fault> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = self.read(response).await?;
        Err(self.fault(status, &bytes))
    }

    async fn read(&self, response: Response) -> Result<Vec<u8>, Fault> {
        let mut stream = response.bytes_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| self.unreachable(&error))?;
            if bytes.len() + chunk.len() > MOST_JSON {
                return Err(Fault::internal(format!(
                    "the answer of {} is longer than {MOST_JSON} bytes",
                    self.address()
                )));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn parsed<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Fault> {
        serde_json::from_slice(bytes).map_err(|error| {
            let text = format!("{} answers something else than expected: {error}", self.address());
            Fault::new(ErrorKind::Internal, "UNEXPECTED_ANSWER", text)
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Fault {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        if error.is_timeout() {
            return Fault::new(ErrorKind::Deadline, "TIMEOUT", format!("{} does not answer in time", self.address()));
        }
        Fault::new(ErrorKind::Unavailable, "UNREACHABLE", format!("{} cannot be reached: {cause}", self.address()))
    }

    /// What a refusal says; a proxy in between may say it in its own words.
    fn fault(&self, status: StatusCode, bytes: &[u8]) -> Fault {
        let kind = kind_of(status);
        match serde_json::from_slice::<ProblemBody>(bytes) {
            Ok(body) => Fault {
                kind,
                code: body.code.into(),
                message: body.detail,
                errors: body.errors.into_iter().map(|e| FieldError { field: e.field, detail: e.detail }).collect(),
            },
            Err(_) => {
                let code = status.as_u16();
                let reason = status.canonical_reason().unwrap_or("an error");
                Fault::new(kind, "REFUSED", format!("{} answers {code} {reason}", self.address()))
            }
        }
    }
}

/// Is it on this machine? A proxy would take that for its own.
fn is_here(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The other direction of [`crate::problem::http_status`].
fn kind_of(status: StatusCode) -> ErrorKind {
    match status {
        StatusCode::UNAUTHORIZED => ErrorKind::Unauthenticated,
        StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => ErrorKind::Conflict,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::TooLarge,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::Exhausted,
        StatusCode::INSUFFICIENT_STORAGE => ErrorKind::StorageFull,
        StatusCode::GONE => ErrorKind::OutOfRange,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => ErrorKind::Unavailable,
        StatusCode::GATEWAY_TIMEOUT => ErrorKind::Deadline,
        StatusCode::NOT_IMPLEMENTED => ErrorKind::Unsupported,
        other if other.is_client_error() => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    }
}
