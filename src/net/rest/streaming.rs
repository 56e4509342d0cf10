//! A request and an answer that both come in pieces, and how the answer ended.

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use reqwest::Body;
use std::io;
use types::Fault;

use super::{MOST_JSON, Rest};

/// An answer as it comes, whatever its status.
pub struct Streaming {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Body,
    rest: Rest,
}

/// A part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Some of its bytes.
    Bytes(Bytes),
    /// What follows the last of them.
    Trailers(HeaderMap),
}

impl Rest {
    /// `POST path` with bytes as they come.
    ///
    /// # Errors
    /// It cannot be reached; a value that no header can have.
    pub async fn stream(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Streaming, Fault> {
        let mut request = self.request(Method::POST, path)?.header(header::TE, "trailers");
        for (name, value) in headers {
            let value = HeaderValue::from_str(value)
                .map_err(|_| Fault::invalid_field(*name, "has characters that no header can have"))?;
            request = request.header(*name, value);
        }
        let response = request.body(Body::wrap_stream(bytes)).send().await;
        let response = response.map_err(|error| self.unreachable(&error))?;
        let (parts, body) = http::Response::<Body>::from(response).into_parts();
        Ok(Streaming { status: parts.status, headers: parts.headers, body, rest: self.clone() })
    }
}

impl Streaming {
    /// The next part; none at the end.
    ///
    /// # Errors
    /// It broke off.
    pub async fn next(&mut self) -> Result<Option<Part>, Fault> {
        loop {
            let frame = match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.rest.unreachable(&error)),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(bytes) => return Ok(Some(Part::Bytes(bytes))),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Ok(Some(Part::Trailers(trailers)));
                    }
                }
            }
        }
    }

    /// What a refusal says.
    pub async fn fault(mut self) -> Fault {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(Part::Bytes(bytes))) if all.len() + bytes.len() <= MOST_JSON => all.extend_from_slice(&bytes),
                Ok(Some(Part::Trailers(_))) => {}
                Ok(_) | Err(_) => return self.rest.fault(self.status, &all),
            }
        }
    }
}
