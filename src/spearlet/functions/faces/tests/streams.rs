//! Answers and inputs as they come.

use super::*;
use bytes::Bytes;
use net::rest::{Part, Streaming};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

impl Node {
    /// A streamed call whose input is fed by hand.
    async fn stream(&self, task: TaskId) -> (mpsc::Sender<std::io::Result<Bytes>>, Streaming) {
        let (feed, input) = mpsc::channel(1);
        let rest = net::Rest::new(&self.http.to_string(), None, None).unwrap();
        let path = format!("/functions/{task}/invoke?stream=true");
        let sending = async move { rest.stream(&path, &[], ReceiverStream::new(input)).await.unwrap() };
        // The answer begins when the guest does, which may be when it has read something.
        feed.send(Ok("first".into())).await.unwrap();
        (feed, sending.await)
    }
}

async fn rest(mut answer: Streaming) -> (String, Option<http::HeaderMap>) {
    let (mut text, mut trailers) = (String::new(), None);
    while let Some(part) = answer.next().await.unwrap() {
        match part {
            Part::Bytes(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
            Part::Trailers(found) => trailers = Some(found),
        }
    }
    (text, trailers)
}

#[tokio::test]
async fn an_input_and_its_answer_flow_at_the_same_time_and_trailers_tell_the_end() {
    let node = Node::new().await;
    let (feed, mut answer) = node.stream(node.task("echo")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["trailer"], "spear-disposition, spear-exit, spear-reason, spear-message");
    for sent in ["second", "third"] {
        let Some(Part::Bytes(got)) = answer.next().await.unwrap() else { panic!("no bytes before {sent}") };
        assert!(["first", "second"].contains(&std::str::from_utf8(&got).unwrap()), "{got:?}");
        feed.send(Ok(sent.into())).await.unwrap();
    }
    let id = answer.headers["spear-execution"].to_str().unwrap().to_owned();
    let (_, seen) = node.get(&format!("/functions/executions/{id}")).await;
    assert_eq!(seen["status"], "RUNNING", "its answer came while it ran");
    drop(feed);
    let (text, trailers) = rest(answer).await;
    let trailers = trailers.unwrap();
    assert_eq!(
        (text.as_str(), &trailers["spear-disposition"], &trailers["spear-exit"]),
        ("third", &"ok".parse().unwrap(), &"0".parse().unwrap())
    );
    node.stop().await;
}

#[tokio::test]
async fn an_end_that_is_bad_stands_in_the_trailers() {
    let node = Node::new().await;
    let (_feed, answer) = node.stream(node.task("begun exit 3")).await;
    let (text, trailers) = rest(answer).await;
    let trailers = trailers.unwrap();
    assert_eq!(
        (text.as_str(), &trailers["spear-disposition"]),
        ("begun", &"reject".parse::<http::HeaderValue>().unwrap())
    );
    assert_eq!(trailers["spear-exit"], "3");
    let (_feed, answer) = node.stream(node.task("begun stop")).await;
    let (text, trailers) = rest(answer).await;
    let trailers = trailers.unwrap();
    assert_eq!((text.as_str(), trailers.get("spear-exit")), ("begun", None));
    assert_eq!(
        (&trailers["spear-reason"], &trailers["spear-message"]),
        (&"trap".parse::<http::HeaderValue>().unwrap(), &"trap: unreachable".parse::<http::HeaderValue>().unwrap())
    );
    node.stop().await;
}

#[tokio::test]
async fn half_an_answer_does_not_look_like_a_whole_one_to_a_client_without_trailers() {
    let node = Node::new().await;
    // The connection breaks, be it before the head was sent or behind the first bytes.
    if let Ok(response) = node.raw(node.task("begun stop"), "?stream=true").send().await {
        assert_eq!(response.status(), 200);
        assert!(response.bytes().await.is_err());
    }
    // A guest that ended by itself has written all that it would.
    let response = node.raw(node.task("begun exit 3"), "?stream=true").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "begun");
    node.stop().await;
}

#[tokio::test]
async fn what_ends_before_it_has_written_anything_is_answered_as_without_a_stream() {
    let node = Node::new().await;
    for (program, status) in [("exit 0", 200), ("exit 3", 500), ("exit 75", 503), ("stop", 500)] {
        let response = node.raw(node.task(program), "?stream=true").send().await.unwrap();
        assert_eq!(response.status(), status, "{program}");
        let exit = program.strip_prefix("exit ").unwrap_or_default();
        assert_eq!(header(&response, "spear-exit"), exit, "{program}");
    }
    assert_eq!(node.raw(TaskId::new(), "?stream=true").send().await.unwrap().status(), 404);
    node.stop().await;
}

#[tokio::test]
async fn a_reader_that_goes_away_cancels_a_streamed_call() {
    let node = Node::new().await;
    let (_feed, mut answer) = node.stream(node.task("begun hold")).await;
    let Some(Part::Bytes(bytes)) = answer.next().await.unwrap() else { panic!("no bytes") };
    assert_eq!(bytes, "begun");
    node.stage.holds(1).await;
    drop(answer);
    node.stage.cancels(1).await;
    node.until("/monitoring/stats", |stats| stats["active_executions"] == 0).await;
    // Also before the first byte.
    let call = tokio::spawn(node.raw(node.task("hold"), "?stream=true").send());
    node.stage.holds(1).await;
    call.abort();
    node.stage.cancels(2).await;
    node.until("/monitoring/stats", |stats| stats["active_executions"] == 0).await;
    node.stop().await;
}

#[tokio::test]
async fn a_large_input_streams_in_without_asking_for_a_stream() {
    let node = Node::new().await;
    let task = node.task_with("echo", &[("stdout_bytes", "1000000")]);
    let response = node.raw(task, "").body(vec![1; 900_000]).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.bytes().await.unwrap().len()), (200, 900_000));
    // More than may be held whole: it goes through, and what comes out of it has a limit of its own.
    let swallowed = node.raw(node.task("exit 0"), "").body(vec![1; 9 << 20]).send().await.unwrap();
    assert_eq!(swallowed.status(), 200);
    let flooded = node.raw(task, "").body(vec![1; 2 << 20]).send().await.unwrap();
    assert_eq!((flooded.status().as_u16(), header(&flooded, "spear-reason")), (507, "output"));
    node.stop().await;
}
