//! What the web answers, and what is asked of it.

use super::*;
use types::ErrorKind;

const BODY: &[u8] = b"\0asm\x01\0\0\0";

async fn fails(server: &Server, config: &Config, checksum: &str) -> Fault {
    let bench = Bench::new(config).await;
    let fault = bench.fetch(&server.url(), checksum).await.unwrap_err();
    assert!(bench.files().is_empty(), "{fault:?} leaves {:?}", bench.files());
    fault
}

#[tokio::test]
async fn a_body_becomes_a_file_named_by_its_digest() {
    let server = Server::always("200 OK", BODY).await;
    let bench = Bench::new(&allowing(&[&server])).await;
    for checksum in [String::new(), sha256(BODY), sha256(BODY).to_uppercase(), format!("sha256:{}", sha256(BODY))] {
        let held = bench.fetch(&server.url(), &checksum).await.unwrap();
        assert_eq!((held.digest.clone(), held.size), (sha256(BODY), BODY.len() as u64));
        assert_eq!(read(&held), BODY);
        assert!(held.path.ends_with(sha256(BODY)));
    }
    assert_eq!(server.requests(), 1, "an address without ETag is fetched again only where no checksum is pinned");
}

#[tokio::test]
async fn a_wrong_checksum_is_refused() {
    let server = Server::always("200 OK", BODY).await;
    let fault = fails(&server, &allowing(&[&server]), &sha256(b"other")).await;
    assert_eq!(fault.code, "ARTIFACT_CHECKSUM");
    assert!(fault.message.contains(&sha256(b"other")) && fault.message.contains(&sha256(BODY)), "{}", fault.message);
    assert!(!fault.kind.retry());
}

#[tokio::test]
async fn an_error_page_that_says_200_does_not_pass_a_checksum() {
    let server = Server::always("200 OK", "<html>Not here</html>").await;
    assert_eq!(fails(&server, &allowing(&[&server]), &sha256(BODY)).await.code, "ARTIFACT_CHECKSUM");
}

#[tokio::test]
async fn statuses_say_what_can_be_done() {
    let cases = [
        ("404 Not Found", "ARTIFACT_NOT_FOUND", false),
        ("410 Gone", "ARTIFACT_NOT_FOUND", false),
        ("403 Forbidden", "ARTIFACT_DENIED", false),
        ("401 Unauthorized", "ARTIFACT_DENIED", false),
        ("500 Internal Server Error", "ARTIFACT_UNAVAILABLE", true),
        ("503 Service Unavailable", "ARTIFACT_UNAVAILABLE", true),
        ("204 No Content", "ARTIFACT_INVALID", false),
        ("206 Partial Content", "ARTIFACT_INVALID", false),
    ];
    for (status, code, retry) in cases {
        let server = Server::always(status, "").await;
        let fault = fails(&server, &allowing(&[&server]), "").await;
        assert_eq!((&*fault.code, fault.kind.retry()), (code, retry), "{status}: {fault:?}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused_and_worth_another_try() {
    let whole = answer("200 OK", "", &[7; 5000]);
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n";
    for part in [whole.slice(..3000), Bytes::from_static(chunked.as_bytes())] {
        let server = Server::start(move |_, _| vec![Step::Send(part.clone())]).await;
        let fault = fails(&server, &allowing(&[&server]), "").await;
        assert_eq!((&*fault.code, fault.kind.retry()), ("ARTIFACT_UNAVAILABLE", true), "{fault:?}");
    }
}

#[tokio::test]
async fn too_much_is_refused_by_header_and_by_body() {
    // The caller allows 1 MiB.
    let announced = "HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n";
    let server = Server::start(move |_, _| vec![Step::Send(announced.into()), Step::Silence]).await;
    assert_eq!(fails(&server, &allowing(&[&server]), "").await.code, "ARTIFACT_TOO_LARGE");
    let over = (1 << 20) + 1;
    let header = format!("HTTP/1.1 200 OK\r\ncontent-length: {over}\r\n\r\n");
    let server = Server::start(move |_, _| vec![Step::Send(header.clone().into()), Step::Silence]).await;
    assert_eq!(fails(&server, &allowing(&[&server]), "").await.code, "ARTIFACT_TOO_LARGE");
    let endless = |_: usize, _: &str| {
        let chunk = [b"10000\r\n".as_slice(), &[0; 0x10000], b"\r\n"].concat();
        let mut steps = vec![Step::Send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".into())];
        steps.extend(std::iter::repeat_n(Step::Send(chunk.into()), 17));
        steps.push(Step::Silence);
        steps
    };
    let server = Server::start(endless).await;
    assert_eq!(fails(&server, &allowing(&[&server]), "").await.code, "ARTIFACT_TOO_LARGE");
    // The node's own limit is the smaller one.
    let server = Server::always("200 OK", BODY).await;
    let config = Config { max_artifact_bytes: 7, ..allowing(&[&server]) };
    assert_eq!(fails(&server, &config, "").await.code, "ARTIFACT_TOO_LARGE");
}

#[tokio::test]
async fn a_source_that_falls_silent_or_trickles_is_given_up() {
    let header = Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nabc");
    let silent = [
        vec![Step::Send(header.clone()), Step::Silence],
        vec![Step::Send(header.slice(..20)), Step::Silence],
        vec![Step::Send(header), Step::Drip],
    ];
    for steps in silent {
        let shown = format!("{steps:?}");
        let server = Server::start(move |_, _| steps.clone()).await;
        let config = Config {
            idle_timeout: Duration::from_millis(200),
            rate_window: Duration::from_millis(200),
            minimum_rate: 10_000,
            total_timeout: Duration::from_secs(15),
            ..allowing(&[&server])
        };
        let fault = fails(&server, &config, "").await;
        assert_eq!((&*fault.code, fault.kind.retry()), ("ARTIFACT_UNAVAILABLE", true), "{shown}: {fault:?}");
    }
}

#[tokio::test]
async fn the_whole_fetch_has_a_limit_too() {
    let header = Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nabc");
    let server = Server::start(move |_, _| vec![Step::Send(header.clone()), Step::Drip]).await;
    let config = Config { total_timeout: Duration::from_millis(300), ..allowing(&[&server]) };
    let fault = fails(&server, &config, "").await;
    assert_eq!((&*fault.code, fault.kind), ("ARTIFACT_UNAVAILABLE", ErrorKind::Deadline));
}

#[tokio::test]
async fn a_redirect_is_followed_but_not_to_a_private_address() {
    let target = Server::always("200 OK", BODY).await;
    let to = target.url();
    let redirect = move |_: usize, _: &str| vec![Step::Send(answer("302 Found", &format!("location: {to}\r\n"), b""))];
    let server = Server::start(redirect).await;
    let bench = Bench::new(&allowing(&[&server, &target])).await;
    assert_eq!(read(&bench.fetch(&server.url(), "").await.unwrap()), BODY);
    assert_eq!(target.requests(), 1);
    assert_eq!(fails(&server, &allowing(&[&server]), "").await.code, "ARTIFACT_DENIED");
    assert_eq!(target.requests(), 1, "it was not asked");
    let to_metadata =
        |_: usize, _: &str| vec![Step::Send(answer("302 Found", "location: http://169.254.169.254/latest\r\n", b""))];
    let server = Server::start(to_metadata).await;
    assert_eq!(fails(&server, &allowing(&[&server]), "").await.code, "ARTIFACT_DENIED");
}

#[tokio::test]
async fn plain_http_and_private_addresses_are_refused_unless_allowed() {
    let server = Server::always("200 OK", BODY).await;
    let port = server.address.port();
    let plain = Config { allow_http: false, ..allowing(&[&server]) };
    assert_eq!(fails(&server, &plain, "").await.code, "ARTIFACT_DENIED");
    let bench = Bench::new(&Config { allow_http: true, ..Config::default() }).await;
    let id = "93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8";
    let refused = [
        format!("http://127.0.0.1:{port}/x"),
        format!("http://localhost:{port}/x"),
        format!("http://2130706433:{port}/x"),
        format!("http://0x7f.1:{port}/x"),
        format!("http://[::ffff:127.0.0.1]:{port}/x"),
        format!("http://0.0.0.0:{port}/x"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "https://10.0.0.1/x".to_owned(),
        "https://[fd00:ec2::254]/x".to_owned(),
        format!("sms+file://127.0.0.1:{port}/{id}"),
    ];
    for uri in refused {
        let fault = bench.fetch(&uri, "").await.unwrap_err();
        assert_eq!(fault.code, "ARTIFACT_DENIED", "{uri}: {fault:?}");
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn what_is_secret_in_an_address_is_not_shown() {
    let server = Server::always("404 Not Found", "").await;
    let bench = Bench::new(&allowing(&[&server])).await;
    let uris = [
        format!("http://{}/x?X-Amz-Signature=geheim", server.address),
        format!("http://user:geheim@{}/x", server.address),
        format!("http://{}/x#geheim", server.address),
    ];
    for uri in uris {
        let fault = bench.fetch(&uri, "").await.unwrap_err();
        assert!(!format!("{fault:?}").contains("geheim"), "{fault:?}");
    }
}

#[tokio::test]
async fn a_malformed_address_or_checksum_names_the_field() {
    let bench = Bench::new(&Config::default()).await;
    let long = format!("https://example.com/{}", "x".repeat(8192));
    let cases = [
        (long.as_str(), "", "executable.uri"),
        ("ftp://x/y", "", "executable.uri"),
        ("no scheme", "", "executable.uri"),
        ("s3://bucket", "", "executable.uri"),
        ("https://example.com/x", "abc", "executable.checksum_sha256"),
        ("https://example.com/x", &"g".repeat(64), "executable.checksum_sha256"),
    ];
    for (uri, checksum, field) in cases {
        let fault = bench.fetch(uri, checksum).await.unwrap_err();
        assert_eq!((fault.kind, &*fault.errors[0].field), (ErrorKind::Invalid, field), "{fault:?}");
    }
}

#[tokio::test]
async fn an_unchanged_etag_saves_the_body_and_a_changed_one_does_not() {
    let script = |number: usize, _: &str| match number {
        0 => vec![Step::Send(answer("200 OK", "etag: \"v1\"\r\n", b"one"))],
        // Whoever reads this body waits for ever.
        1 => vec![Step::Send("HTTP/1.1 200 OK\r\netag: \"v1\"\r\ncontent-length: 3\r\n\r\n".into()), Step::Silence],
        2 => vec![Step::Send(answer("200 OK", "etag: \"v2\"\r\n", b"two"))],
        // A weak tag promises too little.
        3 => vec![Step::Send(answer("200 OK", "etag: W/\"v2\"\r\n", b"three"))],
        _ => vec![Step::Send(answer("200 OK", "etag: W/\"v2\"\r\n", b"four"))],
    };
    let server = Server::start(script).await;
    let bench = Bench::new(&allowing(&[&server])).await;
    for expected in ["one", "one", "two", "three", "four"] {
        let held = bench.fetch(&server.url(), "").await.unwrap();
        assert_eq!(read(&held), expected.as_bytes());
    }
    assert_eq!(server.requests(), 5);
}

#[tokio::test]
async fn progress_rises_to_the_whole() {
    let server = Server::always("200 OK", vec![7; 300_000]).await;
    let bench = Bench::new(&allowing(&[&server])).await;
    let steps = Mutex::new(Vec::new());
    let report = |progress: types::Progress| steps.lock().unwrap().push(progress);
    let held = bench.fetcher.fetch(&executable(&server.url(), ""), 1 << 20, &report).await.unwrap();
    assert_eq!(held.size, 300_000);
    let steps = steps.into_inner().unwrap();
    assert!(steps.windows(2).all(|pair| pair[0].done_bytes <= pair[1].done_bytes));
    let last = steps.last().unwrap();
    assert_eq!((last.phase.as_str(), last.done_bytes, last.total_bytes), ("fetch", 300_000, Some(300_000)));
}
