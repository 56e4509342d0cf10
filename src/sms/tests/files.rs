//! `/api/v1/files…`: the seed's uploads and downloads, and what its defects were.

use futures_util::{StreamExt, stream};
use proptest::test_runner::{Config as Cases, TestRunner};
use reqwest::{Body, Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json as object};
use sms::Config;
use std::{convert::Infallible, io};
use tempfile::tempdir;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::harness::{Registry, field, json, problem, until};

const STRANGER: &str = "93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8";
const HELLO_SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

async fn upload(registry: &Registry, name: &str, bytes: impl Into<Body>) -> String {
    let answer = json(registry.post("/api/v1/files").header("x-file-name", name).body(bytes), 200).await;
    answer["id"].as_str().unwrap().to_owned()
}

async fn small(home: &std::path::Path) -> Registry {
    Registry::with(home, Config { max_upload_bytes: 1 << 20, ..Config::default() }).await
}

#[tokio::test]
async fn a_file_goes_up_comes_back_and_goes_away_in_the_seeds_shapes() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let sent = registry.post("/api/v1/files").header("x-file-name", "hello%20w%C3%B6rld.wasm");
    let answer = json(sent.header("content-type", "application/wasm").body("hello"), 200).await;
    let id = answer["id"].as_str().unwrap();
    let expected = object!({"success": true, "id": id, "name": "hello wörld.wasm", "uri": format!("sms+file://{id}"),
        "len": 5, "sha256": HELLO_SHA256});
    assert_eq!(answer, expected);
    let path = format!("/api/v1/files/{id}");

    let response = registry.get(&path).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/octet-stream");
    assert_eq!(headers["content-length"], "5");
    assert_eq!(headers["accept-ranges"], "bytes");
    assert_eq!(headers["etag"], format!("\"{HELLO_SHA256}\"").as_str());
    assert_eq!(headers["x-content-type-options"], "nosniff");
    let disposition = headers["content-disposition"].to_str().unwrap();
    assert_eq!(disposition, "attachment; filename=\"hello w_rld.wasm\"; filename*=UTF-8''hello%20w%C3%B6rld.wasm");
    assert_eq!(response.text().await.unwrap(), "hello");

    let meta = json(registry.get(&format!("{path}/meta")), 200).await;
    let created = meta["created_at"].as_i64().unwrap();
    assert_eq!(
        meta,
        object!({"found": true, "len": 5, "name": "hello wörld.wasm", "content_type": "application/wasm",
            "created_at": created, "sha256": HELLO_SHA256})
    );
    let list = json(registry.get("/api/v1/files"), 200).await;
    let expected = object!({"id": id, "name": "hello wörld.wasm", "len": 5, "modified_at": created,
        "created_at": created, "content_type": "application/wasm", "sha256": HELLO_SHA256});
    assert_eq!(list, object!({"files": [expected], "total_count": 1, "next_cursor": null}));

    assert_eq!(json(registry.delete(&path), 200).await, object!({"success": true}));
    problem(registry.get(&path), 404, "FILE_NOT_FOUND").await;
    problem(registry.delete(&path), 404, "FILE_NOT_FOUND").await;
    assert_eq!(json(registry.get(&format!("{path}/meta")), 200).await, object!({"found": false}));
    assert!(registry.stored().is_empty());
    registry.stop().await;
}

#[tokio::test]
async fn an_upload_without_headers_is_a_blob_of_bytes() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let answer = json(registry.post("/api/v1/files").body(""), 200).await;
    assert_eq!((&answer["name"], &answer["len"]), (&"blob".into(), &0.into()));
    let meta = json(registry.get(&format!("/api/v1/files/{}/meta", answer["id"].as_str().unwrap())), 200).await;
    assert_eq!(meta["content_type"], "application/octet-stream");
    registry.stop().await;
}

#[tokio::test]
async fn more_than_the_default_body_limit_goes_up_in_pieces_and_comes_back_whole() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let bytes: Vec<u8> = (0..8u32 << 20).map(|n| (n % 251) as u8).collect();
    let pieces: Vec<Result<Vec<u8>, Infallible>> = bytes.chunks(100_000).map(|piece| Ok(piece.to_vec())).collect();
    let id = upload(&registry, "big", Body::wrap_stream(stream::iter(pieces))).await;
    let back = registry.get(&format!("/api/v1/files/{id}")).send().await.unwrap().bytes().await.unwrap();
    assert!(back == bytes);
    registry.stop().await;
}

#[tokio::test]
async fn over_the_limit_is_413_and_leaves_nothing() {
    let home = tempdir().unwrap();
    let registry = small(home.path()).await;
    let announced = registry.post("/api/v1/files").body(vec![1; (1 << 20) + 1]);
    problem(announced, 413, "FILE_TOO_LARGE").await;
    let pieces = stream::repeat_with(|| Ok::<_, Infallible>(vec![1; 1000])).take(1100);
    problem(registry.post("/api/v1/files").body(Body::wrap_stream(pieces)), 413, "FILE_TOO_LARGE").await;
    assert!(registry.stored().is_empty());
    assert_eq!(json(registry.get("/api/v1/files"), 200).await["total_count"], 0);
    upload(&registry, "at the limit", vec![1; 1 << 20]).await;
    registry.stop().await;
}

#[tokio::test]
async fn an_absurd_announced_length_is_refused_at_once() {
    let home = tempdir().unwrap();
    let registry = small(home.path()).await;
    let head = format!("POST /api/v1/files HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", registry.http);
    let answer = registry.raw(&format!("{head}content-length: 9223372036854775807\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    registry.stop().await;
}

#[tokio::test]
async fn an_aborted_upload_is_removed_whether_or_not_its_length_was_announced() {
    let home = tempdir().unwrap();
    let registry = small(home.path()).await;
    let head = format!("POST /api/v1/files HTTP/1.1\r\nhost: {}\r\n", registry.http);
    for rest in ["content-length: 1000000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n1000\r\n"] {
        let mut stream = TcpStream::connect(registry.http).await.unwrap();
        stream.write_all(format!("{head}{rest}some bytes").as_bytes()).await.unwrap();
        until("the part file is made", || registry.stored().len() == 1).await;
        drop(stream);
        until("the part file is removed", || registry.stored().is_empty()).await;
    }
    assert_eq!(json(registry.get("/api/v1/files"), 200).await["total_count"], 0);
    let broken = stream::iter([Ok(vec![1; 1000]), Err(io::Error::other("the client's disk failed"))]);
    registry.post("/api/v1/files").body(Body::wrap_stream(broken)).send().await.unwrap_err();
    until("the part file is removed", || registry.stored().is_empty()).await;
    registry.stop().await;
}

#[tokio::test]
async fn ranges_and_validators_are_answered_as_http_wants() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let path = format!("/api/v1/files/{}", upload(&registry, "x", "0123456789").await);
    let tag = registry.get(&path).send().await.unwrap().headers()["etag"].to_str().unwrap().to_owned();
    let ask = async |headers: &[(&str, &str)]| {
        let mut request = registry.get(&path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let range = response.headers().get("content-range").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), range.unwrap_or_default(), response.text().await.unwrap())
    };
    let part = |range: &str, text: &str| (206, format!("bytes {range}/10"), text.to_owned());
    let whole = (200, String::new(), "0123456789".to_owned());
    assert_eq!(ask(&[("range", "bytes=2-4")]).await, part("2-4", "234"));
    assert_eq!(ask(&[("range", "bytes=7-")]).await, part("7-9", "789"));
    assert_eq!(ask(&[("range", "bytes=-2")]).await, part("8-9", "89"));
    assert_eq!(ask(&[("range", "bytes=5-999")]).await, part("5-9", "56789"));
    for ignored in ["bytes=4-2", "lines=1-2", "bytes=0-1,3-4", "nonsense"] {
        assert_eq!(ask(&[("range", ignored)]).await, whole, "{ignored}");
    }
    let (status, range, body) = ask(&[("range", "bytes=10-")]).await;
    assert_eq!((status, range.as_str()), (416, "bytes */10"), "{body}");
    assert_eq!(ask(&[("range", "bytes=0-0"), ("if-range", &tag)]).await, part("0-0", "0"));
    assert_eq!(ask(&[("range", "bytes=0-0"), ("if-range", "\"other\"")]).await, whole);
    for none in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
        assert_eq!(ask(&[("if-none-match", &none)]).await.0, 304, "{none}");
    }
    assert_eq!(ask(&[("if-none-match", "\"x\"")]).await, whole);
    registry.stop().await;
}

#[tokio::test]
async fn head_tells_what_a_download_would_and_sends_nothing() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let id = upload(&registry, "x", "0123456789").await;
    let head = async |id: &str| {
        let url = registry.url(&format!("/api/v1/files/{id}"));
        let response = registry.client.request(Method::HEAD, url).send().await.unwrap();
        let headers: HeaderMap = response.headers().clone();
        (response.status().as_u16(), headers, response.bytes().await.unwrap())
    };
    let (status, headers, body) = head(&id).await;
    assert_eq!((status, body.len(), headers["content-length"].to_str().unwrap()), (200, 0, "10"));
    assert!(headers.contains_key("etag"));
    let (status, _, body) = head(STRANGER).await;
    assert_eq!((status, body.len()), (404, 0));
    registry.stop().await;
}

#[test]
fn every_single_range_is_the_same_slice_that_a_model_takes() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let home = tempdir().unwrap();
    let registry = runtime.block_on(Registry::start(home.path()));
    let bytes: Vec<u8> = (0..200u8).collect();
    let path = format!("/api/v1/files/{}", runtime.block_on(upload(&registry, "x", bytes.clone())));
    let mut runner = TestRunner::new(Cases { cases: 128, failure_persistence: None, ..Cases::default() });
    let ends = (proptest::option::of(0..260usize), proptest::option::of(0..260usize));
    let outcome = runner.run(&ends, |(first, last)| {
        let expected = match (first, last) {
            (None, None) => (200, &bytes[..]),
            (Some(first), Some(last)) if last < first => (200, &bytes[..]),
            (Some(first), _) if first >= 200 => (416, &[][..]),
            (Some(first), last) => (206, &bytes[first..last.map_or(200, |last| (last + 1).min(200))]),
            (None, Some(0)) => (416, &[][..]),
            (None, Some(count)) => (206, &bytes[200 - count.min(200)..]),
        };
        let show = |end: Option<usize>| end.map(|end| end.to_string()).unwrap_or_default();
        let range = format!("bytes={}-{}", show(first), show(last));
        let (status, body) = runtime.block_on(async {
            let response = registry.get(&path).header("range", &range).send().await.unwrap();
            (response.status().as_u16(), response.bytes().await.unwrap())
        });
        assert_eq!(status, expected.0, "{range}");
        assert!(status == 416 || body == expected.1, "{range}");
        Ok(())
    });
    outcome.unwrap();
    runtime.block_on(registry.stop());
}

#[tokio::test]
async fn a_damaged_file_is_a_500_with_a_reason_for_the_whole_and_for_any_part() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let id = upload(&registry, "x", vec![7; 100_000]).await;
    let place = home.path().join("files").join(&id);
    let mut bytes = std::fs::read(&place).unwrap();
    bytes[99_999] ^= 1;
    std::fs::write(&place, bytes).unwrap();
    let path = format!("/api/v1/files/{id}");
    problem(registry.get(&path), 500, "FILE_CORRUPT").await;
    problem(registry.get(&path).header("range", "bytes=0-9"), 500, "FILE_CORRUPT").await;
    json(registry.delete(&path), 200).await;
    registry.stop().await;
}

/// Spellings of a way out, and of names that are no ids.
fn ways_out() -> Vec<String> {
    let mut ways = Vec::new();
    let ups =
        ["..", "%2e%2e", "%2E.", "%252e%252e", "..%00", "%c0%ae%c0%ae", "%e2%80%ae..", "....", "%ef%bc%8e%ef%bc%8e"];
    let slashes = ["/", "%2f", "%2F", "%5c", "\\", "%252f", "%c0%af", "%e2%88%95", "%ef%bc%8f", "//", "/./"];
    let targets = ["secret.txt", "store.redb", "files/store-id", "etc/passwd", ""];
    for up in ups {
        for slash in slashes {
            for target in targets {
                ways.push(format!("{up}{slash}{target}"));
                ways.push(format!("{STRANGER}{slash}{up}{slash}{target}"));
            }
        }
    }
    for plain in
        ["store-id", "secret.txt", ".", "..", "%00", "%2fetc%2fpasswd", "C:%5cx", "-rf", "%0d%0aset-cookie:a", "CON"]
    {
        ways.push(plain.to_owned());
    }
    for way in [STRANGER.replace('-', ""), format!("{{{STRANGER}}}"), format!("urn:uuid:{STRANGER}")] {
        ways.push(way);
    }
    ways
}

#[tokio::test]
async fn no_spelling_of_a_path_reads_or_deletes_anything_outside() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let secret = home.path().join("secret.txt");
    std::fs::write(&secret, "do not tell").unwrap();
    let ways = ways_out();
    assert!(ways.len() > 500, "{}", ways.len());
    for way in ways {
        for (method, rest) in [("GET", ""), ("GET", "/meta"), ("DELETE", "")] {
            let head = format!("{method} /api/v1/files/{way}{rest} HTTP/1.1\r\nhost: {}\r\n", registry.http);
            let answer = registry.raw(&format!("{head}connection: close\r\n\r\n")).await;
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert!(matches!(status, "400" | "404" | "405"), "{method} {way}{rest}: {answer}");
            assert!(!answer.contains("do not tell"), "{method} {way}{rest}");
        }
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "do not tell");
    assert!(home.path().join("files/store-id").exists() && home.path().join("store.redb").exists());
    registry.stop().await;
}

#[tokio::test]
async fn ids_that_are_not_ours_are_404() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    for id in [STRANGER, "nonsense", "..%2F..%2Fetc%2Fpasswd"] {
        let path = format!("/api/v1/files/{id}");
        problem(registry.get(&path), 404, "FILE_NOT_FOUND").await;
        problem(registry.delete(&path), 404, "FILE_NOT_FOUND").await;
        if id != STRANGER {
            problem(registry.get(&format!("{path}/meta")), 404, "FILE_NOT_FOUND").await;
        }
    }
    registry.stop().await;
}

#[tokio::test]
async fn the_list_is_newest_first_and_pages_by_offset_and_by_cursor() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    for name in ["a.wasm", "b.wasm", "c.txt", "d.wasm"] {
        upload(&registry, name, "x").await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["files"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&json(registry.get("/api/v1/files"), 200).await), ["d.wasm", "c.txt", "b.wasm", "a.wasm"]);
    let found = json(registry.get("/api/v1/files?q=WASM&limit=1&offset=1"), 200).await;
    assert_eq!((names(&found), &found["total_count"]), (vec!["b.wasm".to_owned()], &3.into()));
    let first = json(registry.get("/api/v1/files?limit=3"), 200).await;
    upload(&registry, "e.wasm", "x").await;
    let next = first["next_cursor"].as_str().unwrap();
    let second = json(registry.get(&format!("/api/v1/files?limit=3&cursor={next}")), 200).await;
    assert_eq!((names(&second), &second["next_cursor"]), (vec!["a.wasm".to_owned()], &Value::Null));
    let nodes = problem(registry.get(&format!("/api/v1/nodes?cursor={next}")), 400, "INVALID_ARGUMENT").await;
    assert_eq!(field(&nodes), "cursor", "of another list");
    registry.stop().await;
}

#[tokio::test]
async fn a_presigned_upload_names_an_address_that_really_takes_the_file() {
    let home = tempdir().unwrap();
    let registry = small(home.path()).await;
    let asked =
        object!({"bucket": "b", "key": "dir/höllo.wasm", "content_type": "application/wasm", "max_size_bytes": 9});
    let answer = json(registry.post("/api/v1/files/presign-upload").json(&asked), 200).await;
    assert_eq!((&answer["method"], &answer["expires_in"]), (&"POST".into(), &900.into()));
    let mut request = registry.post(answer["upload_url"].as_str().unwrap());
    for (name, value) in answer["headers"].as_object().unwrap() {
        request = request.header(name, value.as_str().unwrap());
    }
    assert_eq!(json(request.body("x"), 200).await["name"], "dir/höllo.wasm");
    json(registry.post("/api/v1/files/presign-upload").json(&object!({})), 200).await;
    let large = object!({"max_size_bytes": (1 << 20) + 1});
    problem(registry.post("/api/v1/files/presign-upload").json(&large), 413, "FILE_TOO_LARGE").await;
    registry.stop().await;
}

#[tokio::test]
async fn headers_that_make_no_sense_are_refused_by_name() {
    let home = tempdir().unwrap();
    let registry = Registry::start(home.path()).await;
    let post = || registry.post("/api/v1/files").body("x");
    let name = problem(post().header("x-file-name", "a%00b"), 400, "INVALID_ARGUMENT").await;
    assert_eq!(field(&name), "x-file-name");
    let form = post().header("content-type", "multipart/form-data; boundary=x");
    assert_eq!(field(&problem(form, 400, "INVALID_ARGUMENT").await), "content-type");
    assert!(registry.stored().is_empty());
    registry.stop().await;
}
