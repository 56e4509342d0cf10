//! `GET /api/v1/events`: every public change as a server-sent event.
//!
//! ```text
//!   id: <log_id>:<rev>            only on the last event of a revision: a reconnect repeats whole revisions
//!   event: task.created           node|task|execution|file . created|updated|deleted
//!   data: {"rev":…,"type":"task","id":"…","op":"created","record":{…}}
//! ```
//! With `follow=false` the stream ends at the position that was the last when it was asked for.
//!
//! `bookmark` moves the position while nothing happens; `resync` says that the position cannot be continued: list
//! again, the stream goes on live from `head`.

use axum::{extract::State, response::Response};
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use net::{
    Problem,
    extract::Query,
    problem::ProblemBody,
    sse::{self, Event},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use store::Rev;
use tokio::time::Instant;
use types::{Fault, LogId};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    reader::{Read, Reader, continues},
    record::{ChangeView, Kind},
};
use crate::{Sms, executions::logs_http::flag};

/// Pace of bookmarks while nothing is shown.
const BOOKMARK: Duration = Duration::from_secs(15);

/// The routes of events.
pub fn routes() -> OpenApiRouter<Sms> {
    OpenApiRouter::new().routes(routes!(subscribe_events))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// `node`, `task`, `execution`, `file`, with commas between; default: all.
    types: Option<String>,
    /// Events after this position, `<log_id>:<revision>` or a revision of this log; absent: from now on, or with
    /// `follow=false` from the oldest that is kept.
    after: Option<String>,
    /// `false`: the stream ends with the last event there is now; default: it goes on without end.
    follow: Option<String>,
}

#[derive(Serialize)]
struct Resync {
    log_id: LogId,
    head: Rev,
    floor: Rev,
}

#[derive(Serialize)]
struct Bookmark {
    rev: Rev,
}

/// A position of a reader: in which log, if it says so, and after which revision.
fn position(field: &str, text: &str) -> Result<(Option<LogId>, Rev), Fault> {
    let (log_id, rev) = match text.trim().rsplit_once(':') {
        Some((log_id, rev)) => (Some(log_id.parse::<LogId>()), rev),
        None => (None, text.trim()),
    };
    match (log_id.transpose(), rev.parse()) {
        (Ok(log_id), Ok(rev)) => Ok((log_id, rev)),
        _ => {
            let wrong = types::id::clip(text);
            Err(Fault::invalid_field(
                field,
                format!("{wrong:?} is not a position; use <log_id>:<revision> of an event's id"),
            ))
        }
    }
}

/// Follow changes of nodes, tasks, executions and files as server-sent events.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "subscribe_events", tag = "events",
    params(EventsQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event seen; goes before `after`")),
    responses(
        (status = 200, description = "Events `<type>.<created|updated|deleted>`, `bookmark` and `resync`; without end, if not asked otherwise",
            body = String, content_type = "text/event-stream"),
        (status = 400, description = "A parameter makes no sense", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn subscribe_events(
    State(sms): State<Sms>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = Kind::list(query.types.as_deref())?;
    let asked = match (headers.get("last-event-id"), query.after.as_deref().filter(|after| !after.is_empty())) {
        (Some(header), _) => Some(position("Last-Event-ID", header.to_str().unwrap_or_default())?),
        (None, Some(after)) => Some(position("after", after)?),
        (None, None) => None,
    };
    let follow = flag("follow", query.follow.as_deref(), true)?;
    let (own, until) = (sms.bus.log_id(), (!follow).then(|| sms.bus.head()));
    let (from, lost) = match asked {
        Some((log_id, rev)) if continues(&sms.bus, log_id.unwrap_or(own), rev).await? => (rev, false),
        Some(_) => (sms.bus.head(), true),
        None if follow => (sms.bus.head(), false),
        None => (sms.bus.store().floor().await.map_err(Fault::from)?, false),
    };
    // One type has a ring of its own; several are read from the one of everything, in the order of revisions.
    let prefix = match wanted.as_slice() {
        // Its ring does not tell how far everything else has come.
        [one] if follow => one.prefix(),
        _ => "",
    };
    let reader = Reader::new(&sms.bus, prefix, from, BOOKMARK);
    let first = if lost { resync(&sms, from).await? } else { bookmark(&sms, from)? };
    let feed = Feed { sms: sms.clone(), wanted, reader, told: Instant::now(), at: from, until };
    let live = stream::unfold(Some(feed), |feed| async move {
        let mut feed = feed.filter(|feed| feed.until.is_none_or(|until| feed.at < until))?;
        match feed.next().await {
            Ok(events) => Some((events, Some(feed))),
            Err(fault) => {
                tracing::warn!(%fault, "an event stream ended");
                None
            }
        }
    });
    let events = stream::once(async { vec![first] }).chain(live).flat_map(stream::iter);
    Ok(sse::respond(events, sms.stopping.clone()))
}

fn place(sms: &Sms, rev: Rev) -> String {
    format!("{}:{rev}", sms.bus.log_id())
}

fn bookmark(sms: &Sms, rev: Rev) -> Result<Event, Fault> {
    sse::event(&place(sms, rev), "bookmark", &Bookmark { rev })
}

async fn resync(sms: &Sms, head: Rev) -> Result<Event, Fault> {
    let floor = sms.bus.store().floor().await?;
    sse::event(&place(sms, head), "resync", &Resync { log_id: sms.bus.log_id(), head, floor })
}

struct Feed {
    sms: Sms,
    wanted: Vec<Kind>,
    reader: Reader,
    /// When the reader was last told a position.
    told: Instant,
    /// Everything up to here was handed out.
    at: Rev,
    /// Where it ends, if it does.
    until: Option<Rev>,
}

impl Feed {
    async fn next(&mut self) -> Result<Vec<Event>, Fault> {
        let events = match self.reader.next().await.map_err(crate::bus_fault)? {
            Read::Revision { rev, changes } => {
                self.at = rev;
                self.revision(rev, &changes)?
            }
            Read::Idle { rev } => {
                self.at = rev;
                vec![bookmark(&self.sms, rev)?]
            }
            Read::Lagged => {
                let head = self.sms.bus.head();
                self.reader.seek(head);
                self.at = head;
                vec![resync(&self.sms, head).await?]
            }
        };
        if !events.is_empty() {
            self.told = Instant::now();
        }
        Ok(events)
    }

    fn revision(&self, rev: Rev, changes: &[bus::RawChange]) -> Result<Vec<Event>, Fault> {
        let mut shown = Vec::new();
        for change in changes {
            shown.extend(ChangeView::new(&self.sms, &self.wanted, change)?);
        }
        if shown.is_empty() && self.told.elapsed() >= BOOKMARK {
            return Ok(vec![bookmark(&self.sms, rev)?]);
        }
        let last = shown.len();
        let one = |(at, view): (usize, ChangeView)| {
            let id = if at + 1 == last { place(&self.sms, rev) } else { String::new() };
            sse::event(&id, &view.name(), &view)
        };
        shown.into_iter().enumerate().map(one).collect()
    }
}
