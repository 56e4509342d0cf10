//! Many callers, one fetch.

use super::*;
use futures_util::future::join_all;

const BODY: &[u8] = b"\0asm shared";

/// Answers only once the gate is open.
async fn gated(status: &'static str) -> Server {
    Server::start(move |_, _| vec![Step::Gate, Step::Send(answer(status, "", BODY))]).await
}

/// Fetches `callers` times at once; the server answers when all have asked.
async fn all_at_once(bench: &Bench, server: &Server, checksum: &str, callers: usize) -> Vec<Result<Held, Fault>> {
    let (url, asked) = (server.url(), watch::Sender::new(0));
    let mut ready = asked.subscribe();
    let calls = (0..callers).map(|_| async {
        asked.send_modify(|asked| *asked += 1);
        // Joins the flight before it first waits.
        bench.fetch(&url, checksum).await
    });
    let open = async {
        server.seen(1).await;
        ready.wait_for(|asked| *asked == callers).await.unwrap();
        server.gate.send_replace(true);
    };
    tokio::join!(join_all(calls), open).0
}

#[tokio::test]
async fn fifty_callers_cause_one_request() {
    for checksum in [String::new(), sha256(BODY)] {
        let server = gated("200 OK").await;
        let bench = Bench::new(&allowing(&[&server])).await;
        let results = all_at_once(&bench, &server, &checksum, 50).await;
        assert!(results.iter().all(|result| result.as_ref().unwrap().digest == sha256(BODY)));
        assert_eq!((results.len(), server.requests()), (50, 1));
        assert_eq!(bench.fetcher.inner.flights.len(), 0);
    }
}

#[tokio::test]
async fn a_failure_is_shared_and_then_tried_again() {
    let script = |number: usize, _: &str| match number {
        0 => vec![Step::Gate, Step::Send(answer("503 Service Unavailable", "", b""))],
        _ => vec![Step::Send(answer("200 OK", "", BODY))],
    };
    let server = Server::start(script).await;
    let bench = Bench::new(&allowing(&[&server])).await;
    let results = all_at_once(&bench, &server, "", 20).await;
    assert!(results.iter().all(|result| result.as_ref().unwrap_err().code == "ARTIFACT_UNAVAILABLE"));
    assert_eq!(server.requests(), 1);
    assert_eq!(read(&bench.fetch(&server.url(), "").await.unwrap()), BODY);
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn one_digest_from_two_addresses_is_one_fetch_unless_the_first_fails() {
    let good = gated("200 OK").await;
    let bad = gated("404 Not Found").await;
    let bench = Bench::new(&allowing(&[&good, &bad])).await;
    let pin = sha256(BODY);
    let (bad_url, good_url) = (bad.url(), good.url());
    let open = async {
        bad.seen(1).await;
        assert_eq!(good.requests(), 0, "the second waits for the first");
        bad.gate.send_replace(true);
        good.gate.send_replace(true);
    };
    let (first, second, ()) = tokio::join!(bench.fetch(&bad_url, &pin), bench.fetch(&good_url, &pin), open);
    assert_eq!(first.unwrap_err().code, "ARTIFACT_NOT_FOUND");
    assert_eq!(read(&second.unwrap()), BODY);
}

#[tokio::test]
async fn a_caller_with_a_higher_limit_does_not_suffer_from_one_with_a_lower() {
    let server = gated("200 OK").await;
    let bench = Bench::new(&allowing(&[&server])).await;
    let wanted = executable(&server.url(), "");
    let quiet = |_| {};
    let small = bench.fetcher.fetch(&wanted, 3, &quiet);
    let large = bench.fetcher.fetch(&wanted, 1000, &quiet);
    let open = async {
        server.seen(1).await;
        server.gate.send_replace(true);
    };
    let (small, large, ()) = tokio::join!(small, large, open);
    assert_eq!(small.unwrap_err().code, "ARTIFACT_TOO_LARGE");
    assert_eq!(read(&large.unwrap()), BODY);
}

#[tokio::test]
async fn the_fetch_outlives_the_caller_that_began_it() {
    let server = gated("200 OK").await;
    let bench = Bench::new(&allowing(&[&server])).await;
    let url = server.url();
    let mut first = Box::pin(bench.fetch(&url, ""));
    tokio::select! {
        _ = &mut first => panic!("the gate is closed"),
        () = server.seen(1) => {}
    }
    let mut second = Box::pin(bench.fetch(&url, ""));
    tokio::select! {
        biased;
        _ = &mut second => panic!("the gate is closed"),
        () = std::future::ready(()) => {}
    }
    drop(first);
    server.gate.send_replace(true);
    assert_eq!(read(&second.await.unwrap()), BODY);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_fetch_that_nobody_waits_for_leaves_nothing() {
    let whole = answer("200 OK", "", BODY);
    let half = whole.slice(..whole.len() - 3);
    let server = Server::start(move |_, _| vec![Step::Send(half.clone()), Step::Silence]).await;
    let bench = Bench::new(&allowing(&[&server])).await;
    let url = server.url();
    let mut call = Box::pin(bench.fetch(&url, ""));
    let written = async {
        while bench.files().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = &mut call => panic!("the body never ends"),
        done = tokio::time::timeout(Duration::from_secs(20), written) => done.unwrap(),
    }
    drop(call);
    assert!(bench.files().is_empty());
    assert_eq!(bench.fetcher.inner.flights.len(), 0);
}

#[test]
fn progress_is_thinned_to_every_quarter_second_or_twentieth() {
    use crate::artifacts::flight::Thin;
    let begin = tokio::time::Instant::now();
    let at = |millis| begin + Duration::from_millis(millis);
    let mut thin = Thin::default();
    let steps = [
        ((0, Some(1000)), 0, true),
        ((49, Some(1000)), 1, false),
        ((50, Some(1000)), 2, true),
        ((99, Some(1000)), 251, false),
        ((99, Some(1000)), 252, true),
        ((148, Some(1000)), 253, false),
        ((149, Some(1000)), 254, true),
        ((5000, None), 300, false),
        ((5001, None), 504, true),
    ];
    for (step, millis, expected) in steps {
        assert_eq!(thin.wants(step, at(millis)), expected, "{step:?} after {millis} ms");
    }
}
