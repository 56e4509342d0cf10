//! Ranges and downloads.

use axum::{Router, extract::Request, routing::get};
use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::Server;
use crate::{
    FileBody,
    range::{self, RangeRequest},
};

#[test]
fn ranges_are_read_as_the_standard_says() {
    for (header, expected) in [
        (None, RangeRequest::Whole),
        (Some("bytes=0-0"), RangeRequest::Part(0..1)),
        (Some("bytes=0-99"), RangeRequest::Part(0..10)),
        (Some("Bytes= 2-4 "), RangeRequest::Part(2..5)),
        (Some("bytes=9-"), RangeRequest::Part(9..10)),
        (Some("bytes=-3"), RangeRequest::Part(7..10)),
        (Some("bytes=-99"), RangeRequest::Part(0..10)),
        (Some("bytes=10-"), RangeRequest::Unsatisfiable),
        (Some("bytes=10-20"), RangeRequest::Unsatisfiable),
        (Some("bytes=-0"), RangeRequest::Unsatisfiable),
        (Some("bytes=99999999999999999999-"), RangeRequest::Unsatisfiable),
        (Some("bytes=0-99999999999999999999"), RangeRequest::Part(0..10)),
        (Some("bytes=5-4"), RangeRequest::Whole),
        (Some("bytes=1-2,4-5"), RangeRequest::Whole),
        (Some("bytes=-"), RangeRequest::Whole),
        (Some("bytes=+1-2"), RangeRequest::Whole),
        (Some("bytes=1"), RangeRequest::Whole),
        (Some("lines=1-2"), RangeRequest::Whole),
        (Some(""), RangeRequest::Whole),
    ] {
        assert_eq!(range::parse(header, 10), expected, "{header:?}");
    }
    assert_eq!(range::parse(Some("bytes=0-"), 0), RangeRequest::Unsatisfiable);
    assert_eq!(range::content_range(&(2..5), 10), "bytes 2-4/10");
}

proptest! {
    /// The model: number every byte and keep those that the header names.
    #[test]
    fn a_range_is_what_counting_bytes_says(first in proptest::option::of(0u64..40), last in proptest::option::of(0u64..40), size in 0u64..30) {
        let text = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let header = format!("bytes={}-{}", text(first), text(last));
        let named: Option<Vec<u64>> = match (first, last) {
            (None, None) => None,
            (Some(first), Some(last)) if last < first => None,
            (None, Some(suffix)) => Some((0..size).filter(|byte| byte + suffix >= size).collect()),
            (Some(first), last) => Some((0..size).filter(|byte| *byte >= first && last.is_none_or(|last| *byte <= last)).collect()),
        };
        let expected = match named {
            None => RangeRequest::Whole,
            Some(bytes) => match (bytes.first(), bytes.last()) {
                (Some(first), Some(last)) => RangeRequest::Part(*first..*last + 1),
                _ => RangeRequest::Unsatisfiable,
            },
        };
        prop_assert_eq!(range::parse(Some(&header), size), expected);
    }

    #[test]
    fn no_header_makes_a_range_panic_or_leave_the_file(header in ".{0,40}", size: u64) {
        if let RangeRequest::Part(part) = range::parse(Some(&header), size) {
            prop_assert!(part.start < part.end && part.end <= size);
        }
    }
}

async fn server(dir: &tempfile::TempDir) -> Server {
    let path = dir.path().join("content");
    std::fs::write(&path, "0123456789").unwrap();
    let answer = move |method: Method, headers: HeaderMap, _: Request| async move {
        let file = FileBody {
            file: tokio::fs::File::open(path).await.unwrap(),
            size: 10,
            etag: "abc".to_owned(),
            content_type: "text/html".to_owned(),
            name: "größe \"1\"\r\n.html".to_owned(),
        };
        file.respond(&method, &headers).await
    };
    Server::start(Router::new().route("/", get(answer))).await
}

#[tokio::test]
async fn a_download_answers_ranges_and_validators() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    for (headers, status, body, range) in [
        ("", 200, "0123456789", None),
        ("Range: bytes=2-4\r\n", 206, "234", Some("bytes 2-4/10")),
        ("Range: bytes=-2\r\n", 206, "89", Some("bytes 8-9/10")),
        ("Range: bytes=2-4\r\nIf-Range: \"abc\"\r\n", 206, "234", Some("bytes 2-4/10")),
        ("Range: bytes=2-4\r\nIf-Range: \"old\"\r\n", 200, "0123456789", None),
        ("Range: bytes=2-4\r\nIf-Range: W/\"abc\"\r\n", 200, "0123456789", None),
        ("If-None-Match: \"old\"\r\n", 200, "0123456789", None),
        ("If-None-Match: \"old\", W/\"abc\"\r\n", 304, "", None),
        ("If-None-Match: *\r\n", 304, "", None),
    ] {
        let answer = server.get("/", headers).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body.as_str(), answer.header("content-range")),
            (status, body, range),
            "{headers}"
        );
        assert_eq!(answer.header("etag"), Some("\"abc\""));
    }
    let refused = server.get("/", "Range: bytes=10-\r\n").await;
    refused.is_problem(416, "RANGE_NOT_SATISFIABLE");
    assert_eq!(refused.header("content-range"), Some("bytes */10"));
}

#[tokio::test]
async fn a_download_is_never_a_page_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let answer = server.get("/", "").await;
    assert_eq!(
        answer.header("content-disposition"),
        Some("attachment; filename=\"gr__e _1___.html\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%20%221%22%0D%0A.html")
    );
    assert_eq!(answer.header("content-security-policy"), Some("sandbox; default-src 'none'"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let head = server.raw("HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(head.to_ascii_lowercase().contains("content-length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}
