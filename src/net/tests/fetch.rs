//! Fetching: what is refused, what is followed, what is too much.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, StatusCode},
    response::Redirect,
    routing::get,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use types::{ErrorKind, Fault};

use super::Server;
use crate::{
    Access, Download, FetchRules, Fetcher, ServeOptions, Token,
    address::forbidden,
    client::{Lookup, fault_of},
};

/// A name server whose answers the test writes. Several answers are given in turn, the last for ever.
#[derive(Clone, Default)]
pub(super) struct Names(Arc<Mutex<Answers>>, Arc<Mutex<Vec<String>>>);

type Answers = BTreeMap<String, Vec<Vec<&'static str>>>;

impl Names {
    pub(super) fn of(names: &[(&str, &[&[&'static str]])]) -> Self {
        let map = names
            .iter()
            .map(|(name, answers)| ((*name).to_owned(), answers.iter().map(|answer| answer.to_vec()).collect()));
        Self(Arc::new(Mutex::new(map.collect())), Arc::default())
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }
}

impl Lookup for Names {
    fn lookup(&self, name: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        self.1.lock().unwrap().push(name.clone());
        let mut names = self.0.lock().unwrap();
        let answer =
            names.get_mut(&name).map(|answers| if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() });
        let answer = answer.map(|all| all.iter().map(|address| address.parse().unwrap()).collect());
        Box::pin(async move { answer.ok_or_else(|| io::Error::other("no such name")) })
    }
}

fn rules(allow_hosts: &[String]) -> FetchRules {
    FetchRules { allow_http: true, allow_hosts: allow_hosts.to_vec(), ..FetchRules::default() }
}

async fn text(fetcher: &Fetcher, url: &str) -> Result<String, Fault> {
    whole(fetcher.get(url, None).await?).await
}

async fn whole(download: Download) -> Result<String, Fault> {
    let bytes: Vec<Bytes> = download.bytes.try_collect().await.map_err(|error| fault_of(&error))?;
    Ok(String::from_utf8(bytes.concat()).unwrap())
}

pub(super) async fn open(router: Router) -> Server {
    Server::with(router, Access::open("a test names it as it likes"), ServeOptions::default()).await
}

#[test]
fn only_public_addresses_are_public() {
    for bad in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "100::1",
        "4000::1",
    ] {
        assert!(forbidden(bad.parse().unwrap()).is_some(), "{bad}");
    }
    for good in [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "198.20.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "::ffff:1.1.1.1",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ] {
        assert_eq!(forbidden(good.parse().unwrap()), None, "{good}");
    }
}

#[tokio::test]
async fn urls_that_lead_inside_are_refused_however_they_are_written() {
    let names = Names::of(&[
        ("inside.example", &[&["10.0.0.7"]]),
        ("both.example", &[&["93.184.216.34", "127.0.0.1"]]),
        ("mapped.example", &[&["::ffff:192.168.0.1"]]),
        ("metadata.example", &[&["fd00:ec2::254"]]),
    ]);
    let fetcher = Fetcher::with_lookup(rules(&[]), Arc::new(names)).unwrap();
    for url in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://0/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://%31%32%37.0.0.1/",
        "http://127。0。0。1/",
        "http://inside.example/",
        "https://inside.example/",
        "http://both.example/",
        "http://mapped.example/",
        "http://metadata.example/",
        "http://10.0.0.1:8080/",
    ] {
        let fault = fetcher.get(url, None).await.unwrap_err();
        assert_eq!((fault.kind, &*fault.code), (ErrorKind::Denied, "FETCH_ADDRESS_REFUSED"), "{url}: {fault}");
        assert!(fault.message.contains("allowed hosts"), "{fault}");
    }
}

#[tokio::test]
async fn urls_that_are_not_fetched_say_why() {
    let fetcher = Fetcher::new(FetchRules::default()).unwrap();
    for (url, code) in [
        ("http://example.com/", "FETCH_HTTP_REFUSED"),
        ("ftp://example.com/", "FETCH_URL_INVALID"),
        ("file:///etc/passwd", "FETCH_URL_INVALID"),
        ("https://user:hunter2@example.com/", "FETCH_URL_INVALID"),
        ("https://", "FETCH_URL_INVALID"),
        ("nothing", "FETCH_URL_INVALID"),
    ] {
        let fault = fetcher.get(url, None).await.unwrap_err();
        assert_eq!(fault.code, code, "{url}: {fault}");
        assert!(!fault.message.contains("hunter2"), "{fault}");
    }
    let rules = FetchRules { allow_hosts: vec!["fine".to_owned(), "http://x".to_owned()], ..FetchRules::default() };
    assert_eq!(Fetcher::new(rules).unwrap_err().errors[0].field, "allow_hosts[1]");
}

#[tokio::test]
async fn an_allowed_host_is_fetched_and_its_name_is_resolved_once() {
    let server = open(Router::new().route("/module", get(async || ([("etag", "\"v1\"")], "wasm")))).await;
    let port = server.addr.port();
    // The second answer is what a rebinding name server would give.
    let names = Names::of(&[("files.example", &[&["127.0.0.1"], &["10.255.255.1"]])]);
    let allowed = rules(&[format!("files.example:{port}")]);
    let fetcher = Fetcher::with_lookup(allowed, Arc::new(names.clone())).unwrap();
    let download = fetcher.get(&format!("http://files.example:{port}/module"), None).await.unwrap();
    assert_eq!((download.total_bytes, download.etag.as_deref()), (Some(4), Some("\"v1\"")));
    assert_eq!(whole(download).await.unwrap(), "wasm");
    assert_eq!(names.asked(), ["files.example"]);
    let other = fetcher.get(&format!("http://files.example:{}/module", port ^ 1), None).await.unwrap_err();
    assert_eq!(other.code, "FETCH_ADDRESS_REFUSED", "another port is not allowed");
    let literal = Fetcher::new(rules(&["127.0.0.1".to_owned()])).unwrap();
    assert_eq!(text(&literal, &server.url("/module")).await.unwrap(), "wasm");
}

#[tokio::test]
async fn redirects_are_checked_each_and_followed_three_times() {
    let target = open(Router::new().route("/secret", get(async || "secret"))).await;
    let (inside, port) = (target.url("/secret"), target.addr.port());
    let router = Router::new()
        .route("/inside", get(move || async move { Redirect::temporary(&inside) }))
        .route(
            "/name",
            get(move || async move { Redirect::temporary(&format!("http://inside.example:{port}/secret")) }),
        )
        .route("/file", get(async || Redirect::temporary("file:///etc/passwd")))
        .route("/nowhere", get(async || StatusCode::FOUND))
        .route("/4", get(async || Redirect::permanent("/3")))
        .route("/3", get(async || Redirect::permanent("2")))
        .route("/2", get(async || Redirect::to("/1")))
        .route("/1", get(async || Redirect::to("//127.0.0.1:1/")));
    let router = router
        .route("/0", get(async || "end"))
        .route("/a", get(async || Redirect::to("/b")))
        .route("/b", get(async || Redirect::to("/c")));
    let server = open(router.route("/c", get(async || Redirect::to("/0")))).await;
    let names = Names::of(&[("inside.example", &[&["127.0.0.1"]])]);
    let fetcher = Fetcher::with_lookup(rules(&[server.addr.to_string()]), Arc::new(names)).unwrap();
    for (path, code) in [
        ("/inside", "FETCH_ADDRESS_REFUSED"),
        ("/name", "FETCH_ADDRESS_REFUSED"),
        ("/file", "FETCH_URL_INVALID"),
        ("/nowhere", "FETCH_BAD_REDIRECT"),
        ("/1", "FETCH_ADDRESS_REFUSED"),
        ("/4", "FETCH_TOO_MANY_REDIRECTS"),
    ] {
        assert_eq!(text(&fetcher, &server.url(path)).await.unwrap_err().code, code, "{path}");
    }
    assert_eq!(text(&fetcher, &server.url("/a")).await.unwrap(), "end");
}

#[tokio::test]
async fn the_token_goes_to_its_host_and_not_along_a_redirect() {
    let show = async |headers: HeaderMap| {
        headers.get("authorization").map_or_else(|| "none".to_owned(), |value| value.to_str().unwrap().to_owned())
    };
    let other = open(Router::new().route("/", get(show))).await;
    let away = other.url("/");
    let router = Router::new()
        .route("/", get(show))
        .route("/same", get(async || Redirect::to("/")))
        .route("/away", get(move || async move { Redirect::to(&away) }));
    let server = open(router).await;
    let fetcher = Fetcher::new(rules(&["127.0.0.1".to_owned()])).unwrap();
    let token = Token::from_text("a-secret-of-enough-characters").unwrap();
    for (path, shown) in [
        ("/", "Bearer a-secret-of-enough-characters"),
        ("/same", "Bearer a-secret-of-enough-characters"),
        ("/away", "none"),
    ] {
        let download = fetcher.get(&server.url(path), Some(&token)).await.unwrap();
        assert_eq!(whole(download).await.unwrap(), shown, "{path}");
    }
}

#[tokio::test]
async fn answers_that_are_not_the_file_are_told_apart() {
    let mut router = Router::new().route("/gzip", get(async || ([("content-encoding", "gzip")], "x")));
    for status in [204u16, 401, 403, 404, 418, 429, 500, 503] {
        let status = StatusCode::from_u16(status).unwrap();
        router = router.route(&format!("/{}", status.as_u16()), get(move || async move { (status, "<html>") }));
    }
    let server = open(router).await;
    let fetcher = Fetcher::new(rules(&["127.0.0.1".to_owned()])).unwrap();
    for (path, kind, code) in [
        ("/204", ErrorKind::Invalid, "FETCH_BAD_STATUS"),
        ("/401", ErrorKind::Denied, "FETCH_DENIED"),
        ("/403", ErrorKind::Denied, "FETCH_DENIED"),
        ("/404", ErrorKind::NotFound, "FETCH_NOT_FOUND"),
        ("/418", ErrorKind::Invalid, "FETCH_BAD_STATUS"),
        ("/429", ErrorKind::Exhausted, "FETCH_THROTTLED"),
        ("/500", ErrorKind::Unavailable, "FETCH_SERVER_FAILED"),
        ("/503", ErrorKind::Unavailable, "FETCH_SERVER_FAILED"),
        ("/gzip", ErrorKind::Invalid, "FETCH_ENCODED"),
    ] {
        let fault = fetcher.get(&server.url(&format!("{path}?key=secret")), None).await.unwrap_err();
        assert_eq!((fault.kind, &*fault.code), (kind, code), "{path}: {fault}");
        assert!(!fault.message.contains("secret"), "{fault}");
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fault = text(&fetcher, &format!("http://{free}/")).await.unwrap_err();
    assert_eq!((fault.kind, &*fault.code), (ErrorKind::Unavailable, "FETCH_UNREACHABLE"), "{fault}");
    let unknown = Fetcher::with_lookup(rules(&[]), Arc::new(Names::default())).unwrap();
    assert_eq!(text(&unknown, "http://unknown.example/").await.unwrap_err().code, "FETCH_NAME_UNKNOWN");
}

#[tokio::test]
async fn a_server_without_tls_cannot_be_fetched_by_https() {
    let server = open(Router::new().route("/", get(async || "plain"))).await;
    let fetcher = Fetcher::new(rules(&["127.0.0.1".to_owned()])).unwrap();
    let fault = text(&fetcher, &server.url("/").replace("http:", "https:")).await.unwrap_err();
    assert_eq!(fault.kind, ErrorKind::Unavailable, "{fault}");
}

/// Endless chunks of `size` bytes, one each `every`.
fn dripping(size: usize, every: Duration) -> Body {
    Body::from_stream(futures_util::stream::unfold((), move |()| async move {
        tokio::time::sleep(every).await;
        Some((Ok::<_, io::Error>(Bytes::from(vec![b'x'; size])), ()))
    }))
}

#[tokio::test]
async fn too_large_too_slow_and_too_long_end_the_download() {
    let router = Router::new()
        .route("/sized", get(async || "x".repeat(5000)))
        .route("/endless", get(async || dripping(100, Duration::from_millis(1))))
        .route("/drip", get(async || dripping(1, Duration::from_millis(20))))
        .route(
            "/stall",
            get(async || {
                Body::from_stream(
                    futures_util::stream::iter([Ok::<_, io::Error>(Bytes::from("x"))])
                        .chain(futures_util::stream::pending()),
                )
            }),
        )
        .route("/steady", get(async || dripping(10_000, Duration::from_millis(10))))
        .route("/silent", get(async || std::future::pending::<()>().await));
    let server = open(router).await;
    let fetch = |path: &'static str, change: fn(&mut FetchRules)| {
        let mut rules = rules(&["127.0.0.1".to_owned()]);
        change(&mut rules);
        let url = server.url(path);
        async move { text(&Fetcher::new(rules).unwrap(), &url).await }
    };
    // Several windows go by, each with enough in it.
    let steady =
        |rules: &mut FetchRules| (rules.idle, rules.total) = (Duration::from_millis(300), Duration::from_millis(1500));
    let small = |rules: &mut FetchRules| rules.max_bytes = 4999;
    assert_eq!(fetch("/sized", small).await.unwrap_err().code, "FETCH_TOO_LARGE");
    assert_eq!(fetch("/sized", |rules| rules.max_bytes = 5000).await.unwrap().len(), 5000);
    assert_eq!(fetch("/endless", small).await.unwrap_err().code, "FETCH_TOO_LARGE");
    assert_eq!(
        fetch("/drip", |rules| rules.idle = Duration::from_millis(300)).await.unwrap_err().code,
        "FETCH_TOO_SLOW"
    );
    assert_eq!(
        fetch("/stall", |rules| rules.idle = Duration::from_millis(300)).await.unwrap_err().code,
        "FETCH_TOO_SLOW"
    );
    assert_eq!(fetch("/steady", steady).await.unwrap_err().code, "FETCH_TIMEOUT");
    assert_eq!(
        fetch("/silent", |rules| rules.total = Duration::from_millis(300)).await.unwrap_err().code,
        "FETCH_TIMEOUT"
    );
}

#[tokio::test]
async fn a_download_that_breaks_off_is_an_error_and_not_an_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert_ne!(stream.read(&mut request).await.unwrap(), 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let fetcher = Fetcher::new(rules(&[addr.to_string()])).unwrap();
    assert_eq!(text(&fetcher, &format!("http://{addr}/")).await.unwrap_err().code, "FETCH_BROKEN");
}
