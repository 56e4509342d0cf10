//! Server-sent events: an endless answer that stays alive, is not held back by proxies and ends when the
//! process stops.

use axum::response::{
    IntoResponse, Response,
    sse::{KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt};
use http::{HeaderName, HeaderValue, header};
use serde::Serialize;
use std::{convert::Infallible, time::Duration};
use tokio_util::sync::CancellationToken;
use types::Fault;

pub use axum::response::sse::Event;

/// How often a quiet stream says that it lives.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Answers with the events of a stream until it ends or `stopping` is cancelled.
pub fn respond(stream: impl Stream<Item = Event> + Send + 'static, stopping: CancellationToken) -> Response {
    let events = stream.take_until(stopping.cancelled_owned()).map(Ok::<_, Infallible>);
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("alive")).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// An event with its id (empty: none), its name and its data as JSON.
///
/// # Errors
/// The id or the name has a line break, or the data is not JSON: a defect of the caller.
pub fn event(id: &str, name: &str, data: &impl Serialize) -> Result<Event, Fault> {
    // axum panics on these instead of returning an error.
    if id.contains(['\n', '\r', '\0']) || name.contains(['\n', '\r']) {
        return Err(Fault::internal("an event's id and name are single lines"));
    }
    let json = serde_json::to_string(data).map_err(|error| Fault::internal(format!("not JSON: {error}")))?;
    let event = Event::default().event(name).data(json);
    Ok(if id.is_empty() { event } else { event.id(id) })
}
