//! `POST /functions/{task}/invoke`: the body is standard input, the answer standard output.
//!
//! ```text
//!   body ── at most SMALL: read first ──┐
//!        └─ longer: as it comes ────────┴► guest ─► all of its output, 200           exit 0
//!                                               ├─► a problem                        anything else (refusal.rs)
//!                                               └─► ?stream=true: 200 with the first bytes, how it ended in trailers
//!   Prefer: respond-async ─► the registry keeps it ─► 202
//! ```
//! A caller that goes away cancels its call, unless it brought a key. A streamed answer whose guest was ended by force
//! is broken off where the client would not see that in trailers: half an answer must not look like a whole one.

use api::{Body, Disposition, End, Ended, Head, Invocation, InvokeError, NewExecution, Outcome, ReplyHead};
use axum::{
    body::HttpBody,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    response::Response,
    routing::post,
};
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use net::{Problem, extract::Path, idempotency, problem::ProblemBody, trailing};
use std::{borrow::Cow, io, sync::Arc, time::Duration};
use telemetry::trace;
use tokio_util::sync::DropGuard;
use types::{ErrorKind, ExecutionId, Fault, TaskId, id::clip};
use utoipa::OpenApi;

use super::{
    Faces, MOST_INPUT, SMALL,
    http::{accepted, problem},
    idempotency::Answered,
    refusal::{DISPOSITION, EXECUTION, EXIT, MESSAGE, REASON, Refusal, id, sentence},
    view::ExecutionView,
    wanted::not_durable,
};

/// Time limit of the call in milliseconds.
const TIMEOUT: HeaderName = HeaderName::from_static("spear-timeout-ms");
/// Who is told of the end of an asynchronous call.
const CALLBACK: HeaderName = HeaderName::from_static("spear-callback-url");
/// Headers of a request that are for us, not for the guest.
const OURS: [&str; 12] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "prefer",
    "idempotency-key",
];
/// Headers that an answer of a guest cannot have: they are the connection's.
const CONNECTIONS: [&str; 7] =
    ["connection", "keep-alive", "content-length", "te", "trailer", "transfer-encoding", "upgrade"];

/// The route's part of the OpenAPI document.
#[derive(OpenApi)]
#[openapi(paths(invoke))]
pub(super) struct Document;

/// The route.
pub(super) fn router() -> axum::Router<Arc<Faces>> {
    axum::Router::new()
        .route("/functions/{task_id}/invoke", post(invoke))
        // For what is read as a whole; a stream has no limit but the time of the call.
        .layer(DefaultBodyLimit::max(MOST_INPUT))
}

/// Call a function.
///
/// The body is its standard input, of any content type; the answer its standard output, as `application/octet-stream`
/// unless the function says otherwise. Exit code 0 is 200, 75 is 503 with `Retry-After`, another one 500; what stopped
/// a function from ending by itself is a problem whose `code` says what. With `stream=true` the answer comes as it is
/// written, and how it ended stands in the trailers `spear-disposition`, `spear-exit`, `spear-reason` and
/// `spear-message`; HTTP/1 clients ask for those by `TE: trailers`, and see the connection break where the function was
/// ended by force if they do not. A caller that goes away cancels the call.
#[utoipa::path(post, path = "/functions/{task_id}/invoke", operation_id = "invoke_function", tag = "functions",
    params(
        ("task_id" = String, Path, description = "The task", format = Uuid),
        ("stream" = Option<bool>, Query, description = "Hand the answer out as it comes"),
        ("arg" = Option<Vec<String>>, Query, description = "An argument; may be repeated"),
        ("Spear-Timeout-Ms" = Option<u64>, Header, description = "Time limit, within that of the task"),
        ("Spear-Execution" = Option<String>, Header, description = "The id that the call shall have; a UUID"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes one call of all that bring it; on this node, in its memory, for 24 h"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: the registry keeps the call, and gives it to a node"),
        ("Spear-Callback-Url" = Option<String>, Header, description = "With `respond-async`: told of its end"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "It ended with 0, or streams", body = Vec<u8>, content_type = "application/octet-stream",
            headers(("Spear-Execution" = String), ("Spear-Disposition" = String), ("Spear-Exit" = i32), ("Idempotent-Replayed" = String))),
        (status = 202, description = "The registry has it; Location names it", body = ExecutionView),
        (status = 400, description = "A value makes no sense", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such task", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Cancelled; not to be called as it is; an id that is taken", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "An input that must be whole is over 8 MiB", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Refused by the function; a key of another call; what an asynchronous call cannot have; a callback to a host that is not allowed", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "No place: Retry-After says when", body = ProblemBody, content_type = "application/problem+json"),
        (status = 500, description = "It trapped, or ended with another exit code than 0 and 75", body = ProblemBody, content_type = "application/problem+json"),
        (status = 502, description = "Its artifact cannot be had", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "It ended with 75; the registry is away", body = ProblemBody, content_type = "application/problem+json"),
        (status = 504, description = "Its time ran out", body = ProblemBody, content_type = "application/problem+json"),
        (status = 507, description = "It needs more memory, or writes more, than it may", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn invoke(
    State(faces): State<Arc<Faces>>,
    Path(task): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let task: TaskId = task.parse()?;
    let asked = Asked::of(&request)?;
    if asked.asynchronous {
        return durable(&faces, task, asked, request).await;
    }
    let named = request.headers().get(EXECUTION).map(|value| value.to_str().unwrap_or("-"));
    let execution = faces.new_execution(named.unwrap_or_default())?;
    let seen = trailing::seen(request.version(), request.headers());
    let traceparent = trace::current().or_else(|| text(request.headers(), trace::HEADER));
    let (head, body, _room) = input(&faces, request, asked.key.is_some()).await?;
    let call = Invocation {
        execution: Some(execution),
        head,
        args: asked.args,
        body,
        deadline: asked.timeout,
        traceparent,
        ..Invocation::default()
    };
    if let Some(key) = asked.key {
        let answered = faces.once(task, &key, call).await.map_err(problem)?;
        return respond(&faces, task, answered).await;
    }
    if !asked.stream {
        let answered = faces.whole(task, call).await;
        return respond(&faces, task, answered).await;
    }
    let guard = call.cancel.clone().drop_guard();
    match faces.streamed(task, call).await {
        Ok(outcome) => streaming(outcome, guard, seen),
        Err(error) => Err(faces.refusal(task, execution, &error).await.problem()),
    }
}

/// What a request says beside its input.
struct Asked {
    stream: bool,
    args: Vec<String>,
    key: Option<String>,
    asynchronous: bool,
    timeout: Option<Duration>,
}

impl Asked {
    fn of(request: &Request) -> Result<Self, Fault> {
        let headers = request.headers();
        let (stream, args) = query(request.uri().query().unwrap_or_default())?;
        let key = idempotency::key(headers)?;
        let asynchronous = prefers_async(headers);
        let timeout = headers.get(TIMEOUT).map(|value| milliseconds(value.as_bytes())).transpose()?;
        if stream && (asynchronous || key.is_some()) {
            let wrong = "is for answers that are given at once and to one: leave out Prefer and Idempotency-Key";
            return Err(Fault::invalid_field("stream", wrong));
        }
        if !asynchronous && headers.contains_key(CALLBACK) {
            let wrong = "is for asynchronous calls: send Prefer: respond-async with it";
            return Err(Fault::invalid_field("Spear-Callback-Url", wrong));
        }
        Ok(Self { stream, args, key, asynchronous, timeout })
    }
}

fn query(query: &str) -> Result<(bool, Vec<String>), Fault> {
    let (mut stream, mut args) = (false, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "arg" => args.push(decoded(value)?.into_owned()),
            "stream" => {
                stream = match value {
                    "" | "true" | "1" => true,
                    "false" | "0" => false,
                    other => {
                        let wrong = format!("{:?} is neither true nor false", clip(other));
                        return Err(Fault::invalid_field("stream", wrong));
                    }
                }
            }
            other => return Err(Fault::invalid_field(clip(other), "is unknown here; there are arg and stream")),
        }
    }
    Ok((stream, args))
}

/// A value of a form: `+` is a space.
fn decoded(text: &str) -> Result<Cow<'_, str>, Fault> {
    let spaced = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    let wrong = |_| Fault::invalid_field("arg", "is not UTF-8 once decoded");
    match spaced {
        Cow::Borrowed(text) => percent_encoding::percent_decode_str(text).decode_utf8().map_err(wrong),
        Cow::Owned(text) => {
            let decoded = percent_encoding::percent_decode_str(&text).decode_utf8().map_err(wrong)?;
            Ok(Cow::Owned(decoded.into_owned()))
        }
    }
}

fn milliseconds(value: &[u8]) -> Result<Duration, Fault> {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let number = number.filter(|millis| *millis > 0).map(Duration::from_millis);
    number.ok_or_else(|| {
        let shown = clip(&String::from_utf8_lossy(value));
        Fault::invalid_field("Spear-Timeout-Ms", format!("{shown:?} is not a whole number of milliseconds above 0"))
    })
}

/// RFC 7240.
fn prefers_async(headers: &HeaderMap) -> bool {
    let asks = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(',')
            .any(|word| word.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("respond-async"))
    };
    headers.get_all("prefer").iter().any(asks)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

type Room = Option<tokio::sync::OwnedSemaphorePermit>;

/// What goes to the guest: as a whole where it is short or must be, else as it comes.
async fn input(faces: &Faces, mut request: Request, whole: bool) -> Result<(Head, Body, Room), Problem> {
    let (headers, uri) = (std::mem::take(request.headers_mut()), std::mem::take(request.uri_mut()));
    let passed = headers.iter().filter(|(name, _)| {
        let name = name.as_str();
        !OURS.contains(&name) && !name.starts_with("spear-")
    });
    let passed =
        passed.map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let subject = uri.path_and_query().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let head = Head { method: "POST".to_owned(), subject, headers: passed.collect(), ..Head::default() };
    let length = request.body().size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if length == Some(0) {
        return Ok((head, Body::EMPTY, None));
    }
    if whole || length.is_some_and(|length| length <= SMALL) {
        let length = length.unwrap_or(MOST_INPUT);
        if length > MOST_INPUT {
            let message = format!("the input has {length} bytes; as a whole at most {MOST_INPUT} are taken");
            return Err(Fault::new(ErrorKind::TooLarge, "INPUT_TOO_LARGE", message).into());
        }
        let room = faces.room(length)?;
        let net::extract::Body(bytes) = net::extract::Body::from_request(request, &()).await?;
        return Ok((head, Body::Full(bytes), room));
    }
    let pieces = request.into_body().into_data_stream().map_err(io::Error::other);
    Ok((head, Body::stream(pieces), None))
}

async fn durable(faces: &Faces, task: TaskId, asked: Asked, request: Request) -> Result<Response, Problem> {
    if !asked.args.is_empty() {
        return Err(problem(not_durable("arg")));
    }
    let (callback_url, given) = (text(request.headers(), CALLBACK.as_str()), request.headers().contains_key(EXECUTION));
    if given {
        return Err(problem(not_durable("Spear-Execution")));
    }
    let traceparent = trace::current().or_else(|| text(request.headers(), trace::HEADER));
    let (_, body, _room) = input(faces, request, true).await?;
    let input = body.whole(MOST_INPUT).await.map_err(|error| Fault::invalid(error.to_string()))?;
    let new = NewExecution {
        task_id: task,
        input,
        timeout: asked.timeout,
        idempotency_key: asked.key,
        callback_url,
        traceparent,
    };
    let created = faces.durable(new).await.map_err(problem)?;
    let mut response = accepted(&created, None);
    response.headers_mut().insert("preference-applied", HeaderValue::from_static("respond-async"));
    Ok(response)
}

/// The answer to a call that is over.
async fn respond(faces: &Faces, task: TaskId, answered: Answered) -> Result<Response, Problem> {
    let Answered { execution, result, replayed } = answered;
    let refusal = match result {
        Ok(reply) if done(&reply.head, &reply.ended) => {
            let mut response = Response::new(axum::body::Body::from(reply.body));
            begin(&mut response, execution, reply.head);
            ended(&mut response, &reply.ended);
            if replayed {
                response.headers_mut().insert(idempotency::REPLAYED, HeaderValue::from_static("true"));
            }
            return Ok(response);
        }
        Ok(reply) => Refusal::exited(execution, &reply.ended),
        Err(error) => faces.refusal(task, execution, &error).await,
    };
    let problem = refusal.problem();
    Err(if replayed { problem.header(idempotency::REPLAYED, HeaderValue::from_static("true")) } else { problem })
}

/// Is what it wrote the answer? A guest that speaks HTTP says itself what its answer means.
fn done(head: &ReplyHead, ended: &Ended) -> bool {
    head.status.is_some() || ended.disposition == Disposition::Ok
}

/// Status and headers of an answer, with those that the guest gave it.
fn begin(response: &mut Response, execution: ExecutionId, head: ReplyHead) {
    let status = head.status.and_then(|status| StatusCode::from_u16(status).ok()).filter(|it| it.as_u16() >= 200);
    *response.status_mut() = status.unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    for (name, value) in head.headers {
        let (name, value) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value));
        if let (Ok(name), Ok(value)) = (name, value)
            && !CONNECTIONS.contains(&name.as_str())
            && !name.as_str().starts_with("spear-")
        {
            headers.append(name, value);
        }
    }
    let plain = HeaderValue::from_static("application/octet-stream");
    headers.entry(header::CONTENT_TYPE).or_insert(plain);
    // Guests write what they want: a browser must not run it as a page of ours.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(EXECUTION, id(execution));
}

fn ended(response: &mut Response, ended: &Ended) {
    let headers = response.headers_mut();
    headers.insert(DISPOSITION, HeaderValue::from_static(ended.disposition.as_str()));
    headers.insert(EXIT, ended.exit_code.into());
}

/// An answer as it comes. `guard` cancels the call when the client stops reading.
fn streaming(outcome: Outcome, guard: DropGuard, seen: bool) -> Result<Response, Problem> {
    let Outcome { execution, head, body, end } = outcome;
    let later = match end {
        End::Later(later) => later,
        End::Now(now) if done(&head, &now) => {
            let mut response = Response::new(axum::body::Body::from_stream(body));
            begin(&mut response, execution, head);
            ended(&mut response, &now);
            return Ok(response);
        }
        End::Now(now) => return Err(Refusal::exited(execution, &now).problem()),
    };
    let end = async move {
        let ended = later.await;
        drop(guard);
        match ended {
            Ok(ended) => Ok(trailers(&ended, None)),
            Err(error) if seen => {
                let ended = Ended { disposition: error.disposition(), ..Ended::default() };
                Ok(trailers(&ended, Some(&error)))
            }
            Err(error) => Err(io::Error::other(error)),
        }
    };
    let mut response = Response::new(trailing::body(body, end));
    begin(&mut response, execution, head);
    let names = HeaderValue::from_static("spear-disposition, spear-exit, spear-reason, spear-message");
    response.headers_mut().insert(header::TRAILER, names);
    Ok(response)
}

fn trailers(ended: &Ended, error: Option<&InvokeError>) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(4);
    trailers.insert(DISPOSITION, HeaderValue::from_static(ended.disposition.as_str()));
    match error {
        None => {
            trailers.insert(EXIT, ended.exit_code.into());
        }
        Some(error) => {
            trailers.insert(REASON, HeaderValue::from_static(error.reason.as_str()));
            trailers.insert(MESSAGE, sentence(&error.message));
        }
    }
    trailers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_query_has_arguments_in_their_order_and_nothing_unknown() {
        assert_eq!(query("").unwrap(), (false, vec![]));
        let (stream, args) = query("arg=a+b&stream=true&arg=%C3%A4%26&arg=").unwrap();
        assert_eq!((stream, args), (true, vec!["a b".to_owned(), "\u{e4}&".to_owned(), String::new()]));
        assert!(query("stream").unwrap().0);
        assert_eq!(query("strem=true").unwrap_err().errors[0].field, "strem");
        assert_eq!(query("stream=yes").unwrap_err().errors[0].field, "stream");
        assert_eq!(query("arg=%ff").unwrap_err().errors[0].field, "arg");
    }

    #[test]
    fn a_time_limit_is_a_number_above_0() {
        assert_eq!(milliseconds(b"1500").unwrap(), Duration::from_millis(1500));
        for wrong in [&b"0"[..], b"-1", b"1.5", b"", b"\xff"] {
            assert_eq!(milliseconds(wrong).unwrap_err().errors[0].field, "Spear-Timeout-Ms");
        }
    }

    #[test]
    fn what_a_guest_says_of_the_connection_is_not_passed_on() {
        let mut response = Response::new(axum::body::Body::empty());
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = vec![
            header("content-type", "text/plain"),
            header("transfer-encoding", "chunked"),
            header("content-length", "7"),
            header("spear-exit", "0"),
            header("x-own", "a"),
            header("x own", "b"),
            header("x-split", "a\r\nb: c"),
        ];
        begin(&mut response, ExecutionId::new(), ReplyHead { status: Some(204), headers });
        assert_eq!(response.status(), 204);
        let names: Vec<&str> = response.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "x-own", "content-security-policy", "spear-execution"]);
        let mut response = Response::new(axum::body::Body::empty());
        begin(&mut response, ExecutionId::new(), ReplyHead { status: Some(101), headers: vec![] });
        assert_eq!(response.status(), 200);
    }
}
