#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use super::*;
use crate::cli::client::{self, ClientArgs};
use axum::{Json, Router, extract::RawQuery, routing::get};
use serde_json::json;
use std::sync::{Arc, Mutex};

const THING: Noun = Noun { kind: "thing", list: "things", id: "id", columns: &[] };

/// Asks a server that gives two things on a page, whatever is asked; the body and the queries.
fn listed(pages: usize, limit: Option<u64>, stuck: bool) -> (Result<Value, Stopped>, Vec<String>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let page = move |RawQuery(query): RawQuery| {
        let query = query.unwrap_or_default();
        let number = query.split("cursor=").nth(1).map_or(0, |cursor| cursor.parse::<usize>().unwrap());
        kept.lock().unwrap().push(query);
        let next = if stuck { Some("1".to_owned()) } else { (number + 1 < pages).then(|| (number + 1).to_string()) };
        let ids = [2 * number, 2 * number + 1].map(|id| json!({ "id": id }));
        async move { Json(json!({ "things": ids, "total_count": 2 * pages, "next_cursor": next })) }
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut args = ClientArgs::default();
    args.connection.addr = Some(listener.local_addr().unwrap().to_string());
    let mut body = None;
    let ran = client::run(&args, &Default::default(), async |client| {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let server = tokio::spawn(async { axum::serve(listener, Router::new().route("/things", get(page))).await });
        body = Some(client.pages(&THING, "/things", &[("q", Some("a&b")), ("empty", None)], limit).await?);
        server.abort();
        Ok(())
    });
    let seen = seen.lock().unwrap().clone();
    (ran.map(|()| body.unwrap()), seen)
}

fn ids(body: &Value) -> Vec<u64> {
    body["things"].as_array().unwrap().iter().map(|thing| thing["id"].as_u64().unwrap()).collect()
}

#[test]
fn a_list_is_followed_to_its_end_and_is_one_body() {
    let (body, seen) = listed(3, None, false);
    let body = body.unwrap();
    assert_eq!(ids(&body), [0, 1, 2, 3, 4, 5]);
    assert_eq!((&body["next_cursor"], &body["total_count"]), (&Value::Null, &json!(6)));
    assert_eq!(seen, ["q=a%26b&limit=1000", "q=a%26b&limit=1000&cursor=1", "q=a%26b&limit=1000&cursor=2"]);
}

#[test]
fn a_limit_ends_it_earlier_and_tells_where_it_would_go_on() {
    let (body, seen) = listed(3, Some(4), false);
    let body = body.unwrap();
    assert_eq!((ids(&body), &body["next_cursor"]), (vec![0, 1, 2, 3], &json!("2")));
    assert_eq!(seen, ["q=a%26b&limit=4", "q=a%26b&limit=2&cursor=1"]);
}

#[test]
fn a_cursor_that_stands_still_is_not_followed_for_ever() {
    let (body, seen) = listed(3, None, true);
    assert_eq!((ids(&body.unwrap()).len(), seen.len()), (4, 2));
}

#[test]
fn a_screen_holds_as_many_lines_as_the_terminal() {
    let text = "a\nb\nc\nd\n";
    assert_eq!(painted(text, 24, true), "\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\nc\x1b[K\nd\x1b[K\n\x1b[J");
    assert_eq!(painted(text, 4, false), "\x1b[Ha\x1b[K\nb\x1b[K\n… and 2 more lines\x1b[K\n\x1b[J");
}

#[test]
fn a_pause_is_a_time_and_never_none() {
    assert_eq!(pause("5"), Ok(Duration::from_secs(5)));
    assert_eq!(pause("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(pause("0"), Ok(LEAST_PAUSE));
    assert!(pause("soon").unwrap_err().contains("90s"));
}
