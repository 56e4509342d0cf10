#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use api::{
    AssignmentEvent, ExecutionReport,
    proto::sms::{SubscribeTaskEventsRequest, TaskEventKind, task_service_server::TaskService},
};
use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::{Batch, Op};
use tonic::Request;
use tower::ServiceExt;
use types::{AssignmentKind, ErrorKind, ExecutionStatus as S, LogId, NodeId};

use crate::{
    executions::rig::{Rig, cursor, next_work, report, rig},
    tasks::grpc::{Grpc, LOG_ID},
};

/// One event as a browser would see it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    id: Option<String>,
    name: String,
    data: Value,
}

struct Stream {
    body: BoxStream<'static, Result<Bytes, axum::Error>>,
    text: String,
}

impl Stream {
    async fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (mut seen, rest) = (Seen::default(), rest.to_owned());
                for line in block.lines() {
                    match line.split_once(':').map(|(name, value)| (name, value.trim_start())) {
                        Some(("id", id)) => seen.id = Some(id.to_owned()),
                        Some(("event", name)) => seen.name = name.to_owned(),
                        Some(("data", data)) => seen.data = serde_json::from_str(data).unwrap(),
                        _ => {}
                    }
                }
                self.text = rest;
                if !seen.name.is_empty() {
                    return Some(seen);
                }
                continue;
            }
            let piece = tokio::time::timeout(Duration::from_secs(40), self.body.next()).await.expect("an event comes");
            self.text.push_str(std::str::from_utf8(&piece?.unwrap()).unwrap());
        }
    }

    async fn names(&mut self, many: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..many {
            names.push(self.next().await.unwrap().name);
        }
        names
    }
}

async fn open(rig: &Rig, query: &str, last: Option<&str>) -> Result<Stream, u16> {
    let mut request = http::Request::builder().uri(format!("/api/v1/events{query}"));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = rig.sms.http().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    if response.status() != 200 {
        return Err(response.status().as_u16());
    }
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    Ok(Stream { body: response.into_body().into_data_stream().boxed(), text: String::new() })
}

#[tokio::test]
async fn the_stream_shows_public_changes_and_nothing_internal() {
    let rig = rig().await;
    let mut events = open(&rig, "", None).await.unwrap();
    assert_eq!(events.next().await.unwrap().name, "bookmark");
    let node = rig.node("wasm").await;
    let (task, id) = rig.task("t").await;
    let done = ExecutionReport { result: "secret".into(), ..report(id, node, 1, S::Completed) };
    rig.control.report_execution(done).await.unwrap();
    rig.sms.tasks.remove(task, "").await.unwrap();
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(events.next().await.unwrap());
    }
    let names: Vec<_> = all.iter().map(|seen| seen.name.as_str()).collect();
    assert_eq!(names, ["node.created", "task.created", "execution.created", "execution.updated", "task.deleted"]);
    let log_id = rig.sms.bus.log_id();
    let expected = |seen: &Seen| Some(format!("{log_id}:{}", seen.data["rev"]));
    assert_eq!(all[1].id, None, "the execution of the same revision is still to come");
    assert_eq!((&all[2].id, &all[4].id), (&expected(&all[2]), &expected(&all[4])));
    assert_eq!(all[1].data["rev"], all[2].data["rev"]);
    let ids = [(0, "uuid", node.to_string()), (1, "task_id", task.to_string()), (2, "execution_id", id.to_string())];
    for (at, member, id) in ids {
        assert_eq!(all[at].data["record"][member], Value::from(id), "records look as they do in REST");
    }
    assert_eq!((&all[3].data["id"], &all[3].data["record"]["status"]), (&id.to_string().into(), &"completed".into()));
    assert_eq!((&all[4].data["op"], &all[4].data["record"]), (&"deleted".into(), &Value::Null));
}

#[tokio::test]
async fn a_reader_that_comes_back_gets_everything_since_and_then_live() {
    let rig = rig().await;
    rig.node("wasm").await;
    let mut events = open(&rig, "?types=execution,task", None).await.unwrap();
    rig.task("one").await;
    assert_eq!(events.names(2).await, ["bookmark", "task.created"]);
    let second = events.next().await.unwrap();
    drop(events);
    rig.task("two").await;
    let mut again = open(&rig, "?types=execution,task", second.id.as_deref()).await.unwrap();
    assert_eq!(again.names(3).await, ["bookmark", "task.created", "execution.created"]);
    rig.task("three").await;
    assert_eq!(again.names(2).await, ["task.created", "execution.created"]);
    // A bare number means this log; half a revision is never resumed in the middle.
    let rev = second.data["rev"].as_u64().unwrap() - 1;
    let mut bare = open(&rig, &format!("?types=execution&after={rev}"), None).await.unwrap();
    assert_eq!(bare.names(3).await, ["bookmark", "execution.created", "execution.created"]);
}

#[tokio::test]
async fn a_position_that_cannot_be_continued_is_answered_with_resync() {
    let rig = rig().await;
    for _ in 0..5 {
        rig.node("").await;
    }
    let (log_id, head) = (rig.sms.bus.log_id(), rig.sms.bus.head());
    rig.sms.bus.store().trim(3).await.unwrap();
    for position in
        [format!("{}:2", LogId::new()), format!("{log_id}:2"), "1".into(), format!("{log_id}:{}", head + 1000)]
    {
        let mut events = open(&rig, "", Some(&position)).await.unwrap();
        let first = events.next().await.unwrap();
        assert_eq!(first.name, "resync", "{position}");
        assert_eq!(first.data, serde_json::json!({"log_id": log_id, "head": head, "floor": 3}));
        assert_eq!(first.id, Some(format!("{log_id}:{head}")));
    }
    let mut events = open(&rig, "", Some(&format!("{log_id}:3"))).await.unwrap();
    assert_eq!(events.names(3).await, ["bookmark", "node.created", "node.created"]);
    for (query, last) in [("?types=node,thing", None), ("?after=x", None), ("", Some("x:y")), ("?after=-1", None)] {
        assert_eq!(open(&rig, query, last).await.err(), Some(400), "{query}");
    }
}

#[tokio::test]
async fn a_stream_that_is_not_to_go_on_ends_with_what_there_is() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    let (task, _) = rig.task("t").await;
    // The last revision changes nothing that is shown.
    rig.sms.bus.store().commit(store::Batch::new().put("hidden/1", "x")).await.unwrap();
    let all = async |query: &str| {
        let (mut events, mut seen) = (open(&rig, query, None).await.unwrap(), Vec::new());
        while let Some(event) = events.next().await {
            seen.push((event.name, event.data["id"].as_str().unwrap_or_default().to_owned()));
        }
        seen
    };
    let first = ("bookmark".to_owned(), String::new());
    let created = ("task.created".to_owned(), task.to_string());
    assert_eq!(all("?follow=false&types=task").await, [first.clone(), created.clone()]);
    let whole = all("?follow=false").await;
    assert_eq!(whole[..3], [first.clone(), ("node.created".to_owned(), node.to_string()), created]);
    assert_eq!(all(&format!("?follow=false&after={}", rig.sms.bus.head())).await, [first]);
    let lost = all(&format!("?follow=false&after={}:1", LogId::new())).await;
    assert_eq!(lost, [("resync".to_owned(), String::new())]);
    assert_eq!(open(&rig, "?follow=perhaps", None).await.err(), Some(400));
}

#[tokio::test(start_paused = true)]
async fn bookmarks_move_the_position_of_a_quiet_reader() {
    let rig = rig().await;
    let mut events = open(&rig, "?types=task", None).await.unwrap();
    let first = events.next().await.unwrap();
    for _ in 0..3 {
        rig.node("").await;
    }
    let second = events.next().await.unwrap();
    assert_eq!((first.name.as_str(), second.name.as_str()), ("bookmark", "bookmark"));
    assert_eq!(second.data["rev"].as_u64(), Some(rig.sms.bus.head()));
    assert_eq!(second.id, Some(format!("{}:{}", rig.sms.bus.log_id(), rig.sms.bus.head())));
}

#[tokio::test]
async fn streams_end_when_the_process_stops() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    let mut events = open(&rig, "", None).await.unwrap();
    let mut work = rig.control.watch_work(node, cursor(&rig, 0)).await.unwrap();
    let mut tasks = subscribe(&rig, &node.to_string(), 0, None).await.unwrap().into_inner();
    // What the process does first; the bus goes on meanwhile.
    rig.sms.stopping.cancel();
    let ends = async {
        while events.next().await.is_some() {}
        while work.next().await.is_some() {}
        while tasks.next().await.is_some() {}
    };
    tokio::time::timeout(Duration::from_secs(20), ends).await.expect("all three end");
    rig.node("wasm").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_list_and_follow_at_any_moment_miss_nothing_and_see_nothing_twice() {
    const TASKS: usize = 200;
    let rig = Arc::new(rig().await);
    let node = rig.node("wasm").await;
    let writer = tokio::spawn({
        let rig = rig.clone();
        async move {
            for _ in 0..TASKS {
                rig.task("t").await;
            }
        }
    });
    let readers = (0..20).map(|_| {
        let rig = rig.clone();
        tokio::spawn(async move {
            let list = rig.control.list_work(node).await.unwrap();
            let mut seen: BTreeSet<_> = list.assignments.iter().map(|one| one.execution_id.unwrap()).collect();
            let mut events = rig.control.watch_work(node, list.cursor).await.unwrap();
            while seen.len() < TASKS {
                let AssignmentEvent::Set { assignment, .. } = next_work(&mut events).await else {
                    panic!("nothing ends")
                };
                assert!(seen.insert(assignment.execution_id.unwrap()), "twice");
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    writer.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn a_work_list_tells_of_cancel_and_end_and_refuses_foreign_cursors() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    let from = rig.control.list_work(node).await.unwrap().cursor;
    let mut events = rig.control.watch_work(node, from).await.unwrap();
    let (_, id) = rig.task("t").await;
    let mut revs = Vec::new();
    let mut kind = async || match next_work(&mut events).await {
        AssignmentEvent::Set { rev, assignment } => {
            revs.push(rev);
            Some(assignment.kind)
        }
        AssignmentEvent::Gone { rev, id: gone } => {
            revs.push(rev);
            assert_eq!(gone, id.to_string());
            None
        }
        AssignmentEvent::Idle { .. } => unreachable!(),
    };
    assert_eq!(kind().await, Some(AssignmentKind::Create));
    rig.sms.executions.cancel(id, "").await.unwrap();
    assert_eq!(kind().await, Some(AssignmentKind::Cancel));
    rig.tell(id, S::Cancelled).await;
    assert_eq!(kind().await, None);
    assert!(revs.is_sorted_by(|a, b| a < b), "each revision once: {revs:?}");
    rig.sms.bus.store().trim(from.rev + 1).await.unwrap();
    let foreign = api::Cursor { log_id: LogId::new(), rev: 1 };
    for after in [foreign, cursor(&rig, from.rev), cursor(&rig, rig.sms.bus.head() + 50)] {
        let fault = rig.control.watch_work(node, after).await.err().unwrap();
        assert_eq!(fault.kind, ErrorKind::OutOfRange);
        assert!(fault.message.contains(&rig.sms.bus.log_id().to_string()), "{fault}");
    }
}

#[tokio::test]
async fn a_cursor_taken_inside_a_revision_leads_back_to_all_of_it() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    let (_, one) = rig.task("a").await;
    let (_, two) = rig.task("b").await;
    let keys = [one, two].map(|id| format!("assignment/{node}/{id}"));
    let mut events = rig.control.watch_work(node, cursor(&rig, rig.sms.bus.head())).await.unwrap();
    let ops = keys.into_iter().map(Op::Delete).collect();
    let rev = rig.sms.bus.store().commit(Batch { guards: Vec::new(), ops }).await.unwrap();
    for expected in [rev - 1, rev] {
        let AssignmentEvent::Gone { rev, .. } = next_work(&mut events).await else { panic!("only removals") };
        assert_eq!(rev, expected);
    }
}

async fn subscribe(
    rig: &Rig,
    node: &str,
    last_event_id: i64,
    log_id: Option<LogId>,
) -> Result<tonic::Response<<Grpc as TaskService>::SubscribeTaskEventsStream>, tonic::Status> {
    let mut request = Request::new(SubscribeTaskEventsRequest { node_uuid: node.to_owned(), last_event_id });
    if let Some(log_id) = log_id {
        request.metadata_mut().insert(LOG_ID, log_id.to_string().parse().unwrap());
    }
    Grpc::new(&rig.sms).subscribe_task_events(request).await
}

#[tokio::test]
async fn the_originals_subscription_replays_and_goes_on_live() {
    let rig = rig().await;
    let node = rig.node("wasm").await;
    let (task, first) = rig.task("t").await;
    let answer = subscribe(&rig, &node.to_string(), 0, None).await.unwrap();
    assert_eq!(answer.metadata().get(LOG_ID).unwrap().to_str().unwrap(), rig.sms.bus.log_id().to_string());
    let mut events = answer.into_inner();
    let mut next = async || {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap().unwrap().unwrap();
        (event.kind(), event.execution_id.clone().unwrap(), event.event_id, event)
    };
    let created = next().await;
    assert_eq!((created.0, &created.1), (TaskEventKind::Create, &first.to_string()));
    assert_eq!((&created.3.task_id, created.3.ts), (&task.to_string(), 1_732_186_800));
    let again = rig.run(task, &Default::default()).await.id;
    let updated = next().await;
    assert_eq!((updated.0, &updated.1), (TaskEventKind::Update, &again.to_string()));
    rig.sms.executions.cancel(again, "").await.unwrap();
    let cancelled = next().await;
    assert_eq!((cancelled.0, &cancelled.1), (TaskEventKind::Cancel, &again.to_string()));
    let mut resumed = subscribe(&rig, &node.to_string(), created.2, None).await.unwrap().into_inner();
    let ids = [resumed.next().await.unwrap().unwrap().event_id, resumed.next().await.unwrap().unwrap().event_id];
    assert_eq!(ids, [updated.2, cancelled.2]);
}

#[tokio::test]
async fn a_subscription_that_cannot_be_continued_is_out_of_range() {
    let rig = rig().await;
    let node = rig.node("wasm").await.to_string();
    for _ in 0..4 {
        rig.task("t").await;
    }
    rig.sms.bus.store().trim(3).await.unwrap();
    let (own, head) = (rig.sms.bus.log_id(), i64::try_from(rig.sms.bus.head()).unwrap());
    for (last, log_id) in [(2, None), (head + 99, None), (4, Some(LogId::new())), (0, Some(LogId::new()))] {
        let status = subscribe(&rig, &node, last, log_id).await.err().unwrap();
        assert_eq!(status.code(), tonic::Code::OutOfRange);
        for part in [format!("log_id={own}"), "oldest=4".to_owned(), format!("head={head}")] {
            assert!(status.message().contains(&part), "{}", status.message());
        }
    }
    assert!(subscribe(&rig, &node, 3, Some(own)).await.is_ok());
    for node in ["", "x"] {
        assert_eq!(subscribe(&rig, node, 0, None).await.err().unwrap().code(), tonic::Code::InvalidArgument);
    }
    assert!(subscribe(&rig, &NodeId::new().to_string(), 0, None).await.is_ok(), "it may register later");
}
