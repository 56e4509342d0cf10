//! Downloads: a file on disk as an answer with range, validators and a safe type.
//!
//! What users uploaded is never shown as a page of ours: always an attachment, never sniffed, sandboxed.

use axum::{body::Body, response::IntoResponse, response::Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::{fmt::Write as _, io::SeekFrom};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};
use tokio_util::io::ReaderStream;
use types::{ErrorKind, Fault};

use crate::{
    problem::Problem,
    range::{self, RangeRequest},
};

const BUFFER: usize = 64 * 1024;

/// A file to answer with.
#[derive(Debug)]
pub struct FileBody {
    /// The open file; its first `size` bytes are sent.
    pub file: File,
    /// Its size in bytes, as the record says.
    pub size: u64,
    /// Strong validator without quotes, usually the sha256.
    pub etag: String,
    /// Its media type; `application/octet-stream` if it is none.
    pub content_type: String,
    /// The name to save it under.
    pub name: String,
}

impl FileBody {
    /// Answers a GET or HEAD: 200, 206 for one range, 304 if the client has it, 416 behind the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn respond(mut self, method: &Method, request: &HeaderMap) -> Result<Response, Problem> {
        let etag = format!("\"{}\"", self.etag.replace(['"', '\\'], ""));
        if names(request, header::IF_NONE_MATCH, &etag, true) {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            put(response.headers_mut(), header::ETAG, &etag);
            return Ok(response);
        }
        let wanted = if *method == Method::HEAD { RangeRequest::Whole } else { self.wanted(request, &etag) };
        let (status, part) = match wanted {
            RangeRequest::Whole => (StatusCode::OK, 0..self.size),
            RangeRequest::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
            RangeRequest::Unsatisfiable => return Err(unsatisfiable(self.size)),
        };
        let length = part.end.saturating_sub(part.start);
        let body = if *method == Method::HEAD {
            Body::empty()
        } else {
            if part.start > 0 {
                self.file.seek(SeekFrom::Start(part.start)).await.map_err(unreadable)?;
            }
            Body::from_stream(ReaderStream::with_capacity(self.file.take(length), BUFFER))
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if status == StatusCode::PARTIAL_CONTENT {
            put(headers, header::CONTENT_RANGE, &range::content_range(&part, self.size));
        }
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        put(headers, header::ETAG, &etag);
        headers.insert(header::CONTENT_TYPE, media_type(&self.content_type));
        put(headers, header::CONTENT_DISPOSITION, &disposition(&self.name));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
        Ok(response)
    }

    /// A range counts only if the client's copy is of this very version (`If-Range`).
    fn wanted(&self, request: &HeaderMap, etag: &str) -> RangeRequest {
        if request.contains_key(header::IF_RANGE) && !names(request, header::IF_RANGE, etag, false) {
            return RangeRequest::Whole;
        }
        range::parse(request.get(header::RANGE).and_then(|value| value.to_str().ok()), self.size)
    }
}

fn unreadable(error: std::io::Error) -> Problem {
    Problem::new(Fault::internal("the file cannot be read")).caused_by(error)
}

fn unsatisfiable(size: u64) -> Problem {
    let message = format!("the range begins behind the end: the file has {size} bytes");
    let fault = Fault::new(ErrorKind::OutOfRange, "RANGE_NOT_SATISFIABLE", message);
    let range = HeaderValue::from_str(&range::unsatisfied_range(size)).expect("digits are a header value");
    Problem::new(fault).status(StatusCode::RANGE_NOT_SATISFIABLE).header(header::CONTENT_RANGE, range)
}

/// Does a header list this validator (or, where that is allowed, `*`)? The comparison of `If-None-Match` is
/// weak, that of `If-Range` strong (RFC 9110 §13.1).
fn names(request: &HeaderMap, name: header::HeaderName, etag: &str, weak: bool) -> bool {
    request.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|one| {
        let one = one.trim();
        let one = if weak { one.strip_prefix("W/").unwrap_or(one) } else { one };
        one == etag || (weak && one == "*")
    })
}

fn put(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn media_type(text: &str) -> HeaderValue {
    let valid = text.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty());
    let value = if valid { HeaderValue::from_str(text).ok() } else { None };
    value.unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// `attachment` with the name in ASCII and, where it has other characters, in UTF-8 (RFC 6266).
fn disposition(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ' | '(' | ')' | '+');
    let ascii: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let mut text = format!("attachment; filename=\"{}\"", if ascii.is_empty() { "file" } else { &ascii });
    if ascii != name && !name.is_empty() {
        text.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
                text.push(char::from(byte));
            } else {
                write!(text, "%{byte:02X}").expect("writing to a string cannot fail");
            }
        }
    }
    text
}
