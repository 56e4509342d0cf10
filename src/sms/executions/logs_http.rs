//! `/api/v1/executions/{execution_id}/logs`: a page, a stream of events, or plain text.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use net::{
    Problem,
    extract::{Json, Path, Query},
    problem::ProblemBody,
    sse,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use types::{ExecutionId, Fault, LogLine, Timestamp};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::follow::follow;
use crate::Sms;

/// Lines of a page when nothing is asked.
const LIMIT: usize = 200;
/// How long after its last line an execution may take to be reported as ended, before a follower is let go.
const REPORT: Duration = Duration::from_secs(10);
/// Lines of a page at most.
const MOST: usize = 2000;

pub(super) fn routes() -> OpenApiRouter<Sms> {
    OpenApiRouter::new().routes(routes!(read_logs))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LogsQuery {
    /// `next_cursor` of the page before: lines after this number.
    cursor: Option<String>,
    /// Lines of a page, 1 to 2000; default 200.
    limit: Option<i64>,
    /// `true`: every line after the cursor, then new ones as they come, until the log is complete.
    follow: Option<String>,
    /// `json` (the default; server-sent events when following) or `text`.
    format: Option<String>,
}

/// A line of a log.
#[derive(Serialize, ToSchema)]
#[schema(as = LogLine)]
struct LineView {
    /// When it was written, milliseconds since 1970-01-01 UTC.
    ts_ms: i64,
    /// Its number, from 1.
    seq: u64,
    /// `stdout`, `stderr` or `system`.
    stream: &'static str,
    /// `info` for output.
    level: String,
    /// The line without its end; bytes that are not UTF-8 are replaced.
    message: String,
    /// The bytes of the line without its line feed, where they are others than those of `message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_base64: Option<String>,
    /// No line feed follows: the line goes on in the next of its stream, or it was the last.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unterminated: bool,
}

impl From<LogLine> for LineView {
    fn from(line: LogLine) -> Self {
        let LogLine { ts_ms, seq, stream, level, message, raw_base64, unterminated } = line;
        Self { ts_ms, seq, stream: stream.as_str(), level, message, raw_base64, unterminated }
    }
}

#[derive(Serialize, ToSchema)]
struct LogPage {
    success: bool,
    #[schema(format = Uuid)]
    execution_id: String,
    lines: Vec<LineView>,
    /// Where to go on; also on the last page, for lines that may still come.
    next_cursor: String,
    /// The log was over its limit: later lines were not kept.
    truncated: bool,
    /// Nothing follows these lines, now or later.
    completed: bool,
}

#[derive(Serialize)]
struct End {
    status: Option<&'static str>,
    truncated: bool,
    next_cursor: String,
}

fn number(field: &str, text: &str) -> Result<u64, Fault> {
    text.parse().map_err(|_| {
        Fault::invalid_field(
            field,
            format!("{:?} is not the number of a line; use a next_cursor", types::id::clip(text)),
        )
    })
}

/// A switch of a query, and what it is when it is absent.
pub(crate) fn flag(field: &str, text: Option<&str>, absent: bool) -> Result<bool, Fault> {
    match text {
        None => Ok(absent),
        Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(other) => {
            Err(Fault::invalid_field(field, format!("{:?} is neither true nor false", types::id::clip(other))))
        }
    }
}

fn text_of(line: &LogLine, text: &mut String) {
    let LogLine { ts_ms, stream, level, message, .. } = line;
    let stamp = Timestamp(*ts_ms);
    text.push_str(&format!("{stamp}\t{}\t{level}\t{message}\n", stream.as_str()));
}

/// Read or follow the log of an execution.
#[utoipa::path(get, path = "/api/v1/executions/{execution_id}/logs", operation_id = "read_execution_logs",
    tag = "executions",
    params(("execution_id" = String, Path, description = "Its id", format = Uuid), LogsQuery,
        ("Last-Event-ID" = Option<u64>, Header, description = "When following: the number of the last line seen")),
    responses(
        (status = 200, description = "A page; when following, events `line` and at the end `end`", content(
            (LogPage = "application/json"), (String = "text/event-stream"), (String = "text/plain"))),
        (status = 400, description = "A parameter makes no sense", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such execution", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn read_logs(
    State(sms): State<Sms>,
    Path(id): Path<String>,
    Query(query): Query<LogsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id: ExecutionId = id.parse()?;
    sms.executions.brief(id)?;
    let text = match query.format.as_deref() {
        None | Some("" | "json") => false,
        Some("text") => true,
        Some(other) => {
            let wrong = types::id::clip(other);
            return Err(Fault::invalid_field("format", format!("{wrong:?} is neither json nor text")).into());
        }
    };
    let resumed = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let after = match (query.cursor.as_deref().filter(|cursor| !cursor.is_empty()), resumed) {
        // A reconnecting reader repeats its first query: what it has seen since counts more.
        (_, Some(resumed)) => number("Last-Event-ID", resumed)?,
        (Some(cursor), None) => number("cursor", cursor)?,
        (None, None) => 0,
    };
    let limit = limit(query.limit)?;
    match (flag("follow", query.follow.as_deref(), false)?, text) {
        (true, false) => Ok(events(&sms, id, after)),
        (true, true) => Ok(plain(Body::from_stream(texts(&sms, id, after)))),
        (false, _) => page(&sms, id, (after, limit), text).await,
    }
}

fn limit(asked: Option<i64>) -> Result<usize, Fault> {
    let Some(asked) = asked else { return Ok(LIMIT) };
    usize::try_from(asked)
        .ok()
        .filter(|limit| (1..=MOST).contains(limit))
        .ok_or_else(|| Fault::invalid_field("limit", format!("{asked} is not a page; use 1 to {MOST}")))
}

async fn page(sms: &Sms, id: ExecutionId, wanted: (u64, usize), text: bool) -> Result<Response, Problem> {
    let (after, limit) = wanted;
    let (page, completed) = sms.executions.read_logs(id, after, limit).await?;
    if text {
        let mut all = String::new();
        page.lines.iter().for_each(|line| text_of(line, &mut all));
        return Ok(plain(Body::from(all)));
    }
    let next = page.lines.last().map_or(after, |line| line.seq);
    Ok(Json(LogPage {
        success: true,
        execution_id: id.to_string(),
        lines: page.lines.into_iter().map(LineView::from).collect(),
        next_cursor: next.to_string(),
        truncated: page.reach.truncated,
        completed,
    })
    .into_response())
}

fn plain(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

fn texts(sms: &Sms, id: ExecutionId, after: u64) -> impl Stream<Item = Result<String, std::io::Error>> + use<> {
    follow(sms.executions.clone(), sms.stopping.clone(), id, after).map(|lines| {
        let mut text = String::new();
        lines.map_err(|fault| std::io::Error::other(fault.message))?.iter().for_each(|line| text_of(line, &mut text));
        Ok(text)
    })
}

fn events(sms: &Sms, id: ExecutionId, after: u64) -> Response {
    let (last, end_of) = (std::sync::Arc::new(std::sync::atomic::AtomicU64::new(after)), sms.clone());
    let seen = last.clone();
    let lines = follow(sms.executions.clone(), sms.stopping.clone(), id, after).flat_map(move |lines| {
        let events: Vec<sse::Event> = match lines {
            Ok(lines) => lines
                .into_iter()
                .filter_map(|line| {
                    let seq = line.seq;
                    seen.store(seq, std::sync::atomic::Ordering::Relaxed);
                    sse::event(&seq.to_string(), "line", &LineView::from(line)).ok()
                })
                .collect(),
            Err(fault) => sse::event("", "error", &fault).into_iter().collect(),
        };
        stream::iter(events)
    });
    let end = stream::once(async move {
        let next = last.load(std::sync::atomic::Ordering::Relaxed);
        end(&end_of, id, next).await
    });
    sse::respond(lines.chain(end.filter_map(std::future::ready)), sms.stopping.clone())
}

/// The last event: why nothing more comes. None when the process stops, so that the reader tries again.
async fn end(sms: &Sms, id: ExecutionId, next: u64) -> Option<sse::Event> {
    if let Some(ended) = sms.executions.end_of(id) {
        // A node delivers the last lines just before it says how the execution ended.
        let ended = tokio::time::timeout(REPORT, ended);
        tokio::select! { _ = ended => {}, () = sms.stopping.cancelled() => {} }
    }
    if sms.stopping.is_cancelled() {
        return None;
    }
    let status = sms.executions.brief(id).ok().map(|brief| brief.status.as_str());
    let truncated = match sms.executions.read_logs(id, next, 1).await {
        Ok((page, _)) => page.reach.truncated,
        Err(_) => false,
    };
    sse::event("", "end", &End { status, truncated, next_cursor: next.to_string() }).ok()
}
