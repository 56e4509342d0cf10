//! Posting: who may be called, where a name may lead, and what is sent.

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect},
    routing::post,
};
use bytes::Bytes;
use proptest::prelude::*;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use types::{ErrorKind, Fault};

use super::fetch::{Names, open};
use crate::{
    client::Poster,
    outbound::{AllowedHosts, check_entry, site_of},
};

const SETTING: &str = "section.hosts";
const WITHIN: Duration = Duration::from_secs(10);

fn hosts(entries: &[&str]) -> AllowedHosts {
    AllowedHosts::new(SETTING, entries).unwrap()
}

async fn send(poster: &Poster, url: &str) -> Result<StatusCode, Fault> {
    poster.post(url, HeaderMap::new(), Bytes::from("{}"), WITHIN).await
}

#[test]
fn an_entry_covers_what_it_says_and_nothing_else() {
    for (entry, covered, others) in [
        (
            "hooks.example.com",
            &["https://hooks.example.com/x?y", "http://HOOKS.example.com.:81/", "https://hooks.example.com:8443/"][..],
            &["https://example.com/", "https://a.hooks.example.com/", "https://hooks.example.com.evil.org/"][..],
        ),
        ("hooks.example.com:8443", &["https://hooks.example.com:8443/"], &["https://hooks.example.com/"]),
        ("example.com:443", &["https://example.com/"], &["http://example.com/"]),
        (
            "*.example.com",
            &["https://a.example.com/", "https://a.b.example.com:1/"],
            &["https://example.com/", "https://aexample.com/", "https://example.com.evil.org/", "http://10.0.0.1/"],
        ),
        ("*.example.com:81", &["http://a.example.com:81/"], &["http://a.example.com/"]),
        ("localhost", &["http://localhost:1/"], &["http://127.0.0.1/", "http://a.localhost/", "http://[::1]/"]),
        (
            "127.0.0.1",
            &["http://127.0.0.1:1/", "http://127.1/", "http://0x7f000001/", "http://[::ffff:127.0.0.1]/"],
            &["http://127.0.0.2/", "http://localhost/", "http://[::1]/"],
        ),
        ("[::1]:80", &["http://[::1]/"], &["http://[::1]:81/", "http://127.0.0.1/"]),
        (
            "10.1.0.0/16",
            &["http://10.1.255.1/", "http://[::ffff:10.1.0.0]/"],
            &["http://10.2.0.0/", "http://10.0.255.255/", "http://host.example/", "http://[::1]/"],
        ),
        ("fd00::/8", &["http://[fd12::1]/"], &["http://[fe80::1]/", "http://10.0.0.1/"]),
        ("0.0.0.0/0", &["http://1.2.3.4/"], &["http://[::1]/"]),
        ("10.1.2.3/32", &["http://10.1.2.3/"], &["http://10.1.2.2/"]),
        ("::/0", &["http://[2001:db8::1]/"], &["http://1.2.3.4/"]),
    ] {
        check_entry(entry).unwrap();
        let hosts = hosts(&["unrelated.example", entry]);
        for url in covered {
            assert!(hosts.target(url).is_ok(), "{entry} covers {url}");
        }
        for url in others {
            let fault = hosts.target(url).unwrap_err();
            assert_eq!((fault.kind, &*fault.code), (ErrorKind::Denied, "OUTBOUND_REFUSED"), "{entry}, {url}");
            assert!(fault.message.contains(SETTING), "{fault}");
        }
    }
    assert!(AllowedHosts::default().target("https://example.com/").is_err(), "nobody is listed by default");
}

#[test]
fn what_is_no_entry_says_what_would_be_one() {
    for wrong in [
        "",
        "*",
        "*.",
        "*.10.0.0.1",
        "a.*.com",
        "http://x",
        "x/y",
        "10.0.0.0/33",
        "fd00::/129",
        "10.0.0.0/",
        "10.0.0.0/+8",
        "x.example/8",
        "a b",
        "a@b",
        "a:99999",
    ] {
        let fault = check_entry(wrong).unwrap_err();
        assert!(fault.message.contains("host:port") && fault.message.contains("10.0.0.0/8"), "{wrong}: {fault}");
        assert!(AllowedHosts::new(SETTING, &[wrong]).is_err(), "{wrong}");
    }
}

#[test]
fn a_url_that_is_not_called_says_why_and_keeps_its_secrets() {
    let hosts = hosts(&["example.com"]);
    for url in [
        "",
        "example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://user:hunter2@example.com/",
        "https://hunter2@example.com/",
        &format!("https://example.com/{}", "x".repeat(2100)),
    ] {
        let fault = hosts.target(url).unwrap_err();
        assert_eq!((fault.kind, &*fault.code), (ErrorKind::Invalid, "OUTBOUND_URL_INVALID"), "{url}: {fault}");
        assert!(!fault.message.contains("hunter2"), "{fault}");
    }
    assert_eq!(hosts.target("https://example.com/a?key=hunter2").unwrap().site(), "https://example.com");
    assert_eq!(site_of("http://example.com:80/a?key=hunter2"), "http://example.com");
    assert_eq!(site_of("hunter2"), "no URL");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_network_covers_an_address_if_their_first_bits_are_the_same(own: u32, other: u32, bits in 0u32..=32) {
        let address = |bits: u32| std::net::Ipv4Addr::from_bits(bits);
        let hosts = hosts(&[&format!("{}/{bits}", address(own))]);
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        for other in [other, own ^ (other >> bits.min(31)), own] {
            let covered = hosts.target(&format!("http://{}/", address(other))).is_ok();
            prop_assert_eq!(covered, own & mask == other & mask);
        }
    }
}

#[tokio::test]
async fn a_listed_name_may_lead_to_what_is_public_or_listed_itself() {
    let server = open(Router::new().route("/", post(async || StatusCode::NO_CONTENT))).await;
    let url = format!("http://hook.example:{}/", server.addr.port());
    let names = |answers: &[&'static str]| Arc::new(Names::of(&[("hook.example", &[answers])]));
    for (entries, answers, called) in [
        (&["hook.example"][..], &["127.0.0.1"][..], false),
        (&["*.example"], &["::ffff:127.0.0.1"], false),
        (&["hook.example", "10.0.0.0/8"], &["127.0.0.1"], false),
        (&["hook.example", "127.0.0.0/8"], &["127.0.0.1", "169.254.169.254"], false),
        (&["hook.example", "127.0.0.0/8"], &["127.0.0.1"], true),
        (&["hook.example", "127.0.0.1"], &["127.0.0.1"], true),
        (&["hook.example", "127.0.0.1:80"], &["127.0.0.1"], false),
        (&["hook.example", "localhost"], &["127.0.0.1"], false),
    ] {
        let poster = Poster::with_lookup(hosts(entries), names(answers));
        match send(&poster, &url).await {
            Ok(status) => assert!(called && status == 204, "{entries:?} {answers:?}: {status}"),
            Err(fault) => {
                assert!(!called && fault.code == "OUTBOUND_REFUSED", "{entries:?} {answers:?}: {fault}");
                assert!(fault.message.contains("hook.example leads to") && fault.message.contains(SETTING), "{fault}");
            }
        }
    }
    let local = format!("http://localhost:{}/", server.addr.port());
    for (address, called) in [("127.0.0.1", true), ("10.0.0.1", false)] {
        let lookup = Arc::new(Names::of(&[("localhost", &[&[address]])]));
        assert_eq!(
            send(&Poster::with_lookup(hosts(&["localhost"]), lookup), &local).await.is_ok(),
            called,
            "{address}"
        );
    }
}

#[tokio::test]
async fn a_name_is_asked_for_once_and_what_was_checked_is_what_is_called() {
    let server = open(Router::new().route("/", post(async || StatusCode::OK))).await;
    // The second answer is what a rebinding name server would give.
    let names = Names::of(&[("hook.example", &[&["127.0.0.1"], &["10.255.255.1"]])]);
    let poster = Poster::with_lookup(hosts(&["hook.example", "127.0.0.1"]), Arc::new(names.clone()));
    let url = format!("http://hook.example:{}/", server.addr.port());
    assert_eq!(send(&poster, &url).await.unwrap(), 200);
    assert_eq!(names.asked(), ["hook.example"]);
}

#[tokio::test]
async fn the_body_and_its_headers_arrive_and_a_redirect_is_only_an_answer() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let echo = async move |headers: HeaderMap, body: Bytes| {
        kept.lock().unwrap().push((headers, body));
        Redirect::temporary("/elsewhere").into_response()
    };
    let router = Router::new().route("/hook", post(echo)).route("/elsewhere", post(async || StatusCode::OK));
    let server = open(router).await;
    let poster = Poster::new(hosts(&["127.0.0.1"]));
    let headers: HeaderMap =
        [("content-type".parse().unwrap(), "application/json".parse().unwrap())].into_iter().collect();
    let status = poster.post(&server.url("/hook"), headers, Bytes::from("{\"a\":1}"), WITHIN).await.unwrap();
    assert_eq!(status, 307);
    let seen = seen.lock().unwrap().clone();
    let [(headers, body)] = &seen[..] else { panic!("one request: {seen:?}") };
    assert_eq!((&headers["content-type"], &body[..]), (&"application/json".parse().unwrap(), &b"{\"a\":1}"[..]));
    assert!(headers["user-agent"].to_str().unwrap().starts_with("spear/"));
    let sent: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
    for secret in ["authorization", "cookie", "referer", "proxy-authorization"] {
        assert!(!sent.contains(&secret), "{sent:?}");
    }
}

#[tokio::test]
async fn who_does_not_answer_in_time_is_let_go() {
    let silent = open(Router::new().route("/", post(async || std::future::pending::<()>().await))).await;
    let poster = Poster::new(hosts(&["127.0.0.1"]));
    let answer = poster.post(&silent.url("/"), HeaderMap::new(), Bytes::new(), Duration::from_millis(200)).await;
    let fault = answer.unwrap_err();
    assert_eq!((fault.kind, &*fault.code), (ErrorKind::Deadline, "OUTBOUND_TIMEOUT"), "{fault}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fault = send(&poster, &format!("http://{free}/?key=hunter2")).await.unwrap_err();
    assert_eq!((fault.kind, fault.message.contains("hunter2")), (ErrorKind::Unavailable, false), "{fault}");
    let secure = silent.url("/").replace("http:", "https:");
    assert_eq!(send(&poster, &secure).await.unwrap_err().kind, ErrorKind::Unavailable, "it does not speak TLS");
}
