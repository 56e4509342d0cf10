//! The `Range` header (RFC 9110 §14): one range of bytes.
//!
//! A header that is malformed, names another unit or asks for several ranges is not answered in parts: the
//! whole is always a correct answer (§14.2).

use std::ops::Range;

/// What a request asks of a representation of known size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// Everything: 200.
    Whole,
    /// These bytes, at least one, end not included: 206.
    Part(Range<u64>),
    /// A range that begins behind the end: 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a representation of `size` bytes.
pub fn parse(header: Option<&str>, size: u64) -> RangeRequest {
    match header.and_then(|header| single(header, size)) {
        None => RangeRequest::Whole,
        Some(range) if range.is_empty() => RangeRequest::Unsatisfiable,
        Some(range) => RangeRequest::Part(range),
    }
}

/// The one range of a header, empty if it cannot be satisfied.
fn single(header: &str, size: u64) -> Option<Range<u64>> {
    let (unit, spec) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", suffix) => Some(size.saturating_sub(number(suffix)?)..size),
        (first, "") => {
            let first = number(first)?;
            Some(first.min(size)..size)
        }
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            Some(first.min(size)..last.saturating_add(1).min(size))
        }
    }
}

/// Digits only; a number too large for us is behind every end.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The `Content-Range` of a part.
pub fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

/// The `Content-Range` of a refusal.
pub fn unsatisfied_range(size: u64) -> String {
    format!("bytes */{size}")
}
