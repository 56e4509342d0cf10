//! Answers that say how they ended once they are over: a stream of bytes, then trailers.
//!
//! Over HTTP/1 a client sees trailers only if it says `TE: trailers`, and only those that the header `Trailer` names;
//! over HTTP/2 always.

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http::{HeaderMap, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::io;

/// A body of the bytes, and then of what `end` says: trailers, or that it broke off.
pub fn body(
    bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    end: impl Future<Output = io::Result<HeaderMap>> + Send + 'static,
) -> Body {
    let frames = StreamBody::new(bytes.map_ok(Frame::data));
    Body::new(frames.with_trailers(async { Some(end.await) }))
}

/// Will the client see trailers?
pub fn seen(version: Version, headers: &HeaderMap) -> bool {
    let told = |value: &http::HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(',').any(|word| word.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("trailers"))
    };
    version >= Version::HTTP_2 || headers.get_all(header::TE).iter().any(told)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use futures_util::stream;
    use http::HeaderValue;

    #[tokio::test]
    async fn the_trailers_follow_the_bytes() {
        let end = async { Ok(HeaderMap::from_iter([(header::ETAG, HeaderValue::from_static("x"))])) };
        let whole = body(stream::iter([Ok("a".into()), Ok("b".into())]), end).collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()[header::ETAG], "x");
        assert_eq!(whole.to_bytes(), "ab");
    }

    #[tokio::test]
    async fn an_end_that_is_an_error_breaks_the_body_off() {
        let end = async { Err(io::Error::other("broken")) };
        assert!(body(stream::iter([Ok("a".into())]), end).collect().await.is_err());
    }

    #[test]
    fn trailers_are_seen_by_who_says_so_and_over_http_2() {
        let asked = |te: &'static str| HeaderMap::from_iter([(header::TE, HeaderValue::from_static(te))]);
        for (version, te, expected) in [
            (Version::HTTP_11, "trailers", true),
            (Version::HTTP_11, "deflate, Trailers;q=0.5", true),
            (Version::HTTP_11, "deflate", false),
            (Version::HTTP_2, "", true),
        ] {
            assert_eq!(seen(version, &asked(te)), expected, "{version:?} {te}");
        }
        assert!(!seen(Version::HTTP_11, &HeaderMap::new()));
    }
}
