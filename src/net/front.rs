//! What every request passes: id, access, panics, time limit; and what every answer gets: id, problem, safe
//! headers.
//!
//! ```text
//!   request ─► id ─► encoding ─► Access ─► router ─► answer
//!                        │          │         │ panic, timeout, empty error
//!                        └──────────┴─────────┴─► problem (HTTP) or status in trailers (gRPC)
//! ```
//! The line in the log for a 5xx carries the cause, the id and what was asked for; the client gets the id. A span around
//! every request is for traces, and for the log from the level debug on: it takes a third of the time of a short call.

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{ConnectInfo, Request},
    response::Response,
};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use std::{any::Any, net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use telemetry::trace;
use tonic::{Code, Status};
use tower::ServiceExt;
use tracing::Instrument;
use types::{ErrorKind, Fault};

use crate::{
    access::{Access, Visit, is_health},
    figures::Figures,
    grpc,
    pace::Paced,
    problem::{self, Attached, Problem},
    serve::ServeOptions,
};

/// Header that carries the id of a request both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How much of a refused request is still read, and for how long.
const DRAINED_BYTES: u64 = 1 << 20;
const DRAINED_WITHIN: Duration = Duration::from_secs(1);

/// Bytes of a path that are logged and told, about.
const LONGEST_PATH: usize = 512;

/// Id of a request, in its extensions: the caller's own if it is short visible ASCII, else a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

pub(crate) struct Front {
    router: Router,
    figures: Option<Figures>,
    access: Access,
    local: SocketAddr,
    body_idle: Duration,
    request_timeout: Option<Duration>,
}

/// What of a request is still needed once a route has it.
struct Asked {
    id: RequestId,
    method: Method,
    path: String,
    peer: SocketAddr,
    grpc: bool,
}

impl Front {
    pub(crate) fn new(
        router: Router,
        access: Access,
        local: SocketAddr,
        options: &ServeOptions,
        figures: Option<Figures>,
    ) -> Self {
        let (body_idle, request_timeout) = (options.body_idle, options.request_timeout);
        let router = match &figures {
            Some(figures) => router.layer(figures.layer()),
            None => router,
        };
        // Handlers that still wait for their state would be put together anew for every request.
        Self { router: router.with_state(()), figures, access, local, body_idle, request_timeout }
    }

    /// Answers a request; never fails and never panics.
    pub(crate) async fn answer(&self, mut request: Request, peer: SocketAddr) -> Response {
        let asked = Asked {
            id: request_id(request.headers()),
            method: request.method().clone(),
            path: clipped(request.uri().path()).to_owned(),
            peer,
            grpc: is_grpc(request.headers()),
        };
        let (id, method, path) = (&*asked.id.0, &asked.method, asked.path.as_str());
        let span = if is_health(path) || path == "/metrics" {
            // Asked all day long by machines: of no interest in a trace.
            tracing::debug_span!("probe", id, %method, path, %peer)
        } else {
            tracing::debug_span!("request", id, %method, path, %peer)
        };
        trace::adopt(&span, request.headers().get(trace::HEADER).and_then(|value| value.to_str().ok()));
        request.extensions_mut().insert(asked.id.clone());
        request.extensions_mut().insert(ConnectInfo(peer));
        async {
            let answer = match self.admit(&request, peer) {
                Ok(()) => self.route(request, asked.grpc).await,
                Err(problem) => {
                    if let Some(figures) = &self.figures {
                        figures.refused(&asked.method, problem.status_code().as_u16(), &problem.fault().code);
                    }
                    refuse(problem)
                }
            };
            finish(answer, &asked)
        }
        .instrument(span)
        .await
    }

    fn admit(&self, request: &Request, peer: SocketAddr) -> Result<(), Problem> {
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        self.access.check(&Visit { method, uri, headers, peer: peer.ip(), local: self.local })?;
        let plain = headers.get_all(header::CONTENT_ENCODING).iter().all(|value| value == "identity");
        if plain {
            return Ok(());
        }
        let message = "compressed request bodies are not read: send it without Content-Encoding";
        let fault = Fault::new(ErrorKind::Invalid, "CONTENT_ENCODING_UNSUPPORTED", message);
        Err(Problem::new(fault)
            .status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")))
    }

    async fn route(&self, request: Request, grpc: bool) -> Response {
        // A gRPC stream may be silent for long; what a silent REST body means is never good.
        if grpc {
            return self.routed(request).await;
        }
        let waits = request.headers().contains_key(header::EXPECT);
        let (parts, body) = request.into_parts();
        let (whole, multiplexed) = (body.is_end_stream(), parts.version >= Version::HTTP_2);
        let (body, rest) = Paced::new(body, self.body_idle);
        let mut answer = self.routed(Request::from_parts(parts, Body::new(body))).await;
        // Refused before it was read: a peer that is still sending would see a broken connection instead of why. One
        // that waits to be told to send has nothing on the way.
        if !whole && !multiplexed && answer.status().as_u16() >= 400 {
            let read = !waits && rest.drain(DRAINED_BYTES, DRAINED_WITHIN).await;
            if !read {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
        }
        answer
    }

    async fn routed(&self, request: Request) -> Response {
        let routed = AssertUnwindSafe(self.router.clone().oneshot(request)).catch_unwind();
        let ended = match self.request_timeout {
            None => routed.await,
            Some(limit) => match tokio::time::timeout(limit, routed).await {
                Ok(ended) => ended,
                Err(_) => {
                    let message = format!("no answer within {} ms", limit.as_millis());
                    return refuse(Problem::new(Fault::new(ErrorKind::Deadline, "TIMEOUT", message)));
                }
            },
        };
        match ended {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(panic) => {
                let fault = Fault::internal("the request could not be answered because of a defect");
                refuse(Problem::new(fault).caused_by(format!("panic: {}", panic_text(panic.as_ref()))))
            }
        }
    }
}

fn clipped(path: &str) -> &str {
    path.get(..path.floor_char_boundary(LONGEST_PATH)).unwrap_or(path)
}

fn refuse(problem: Problem) -> Response {
    axum::response::IntoResponse::into_response(problem)
}

/// Gives an answer its form: errors become problems or statuses, and the id and the safe headers are set.
fn finish(mut answer: Response, asked: &Asked) -> Response {
    let status = answer.status();
    let attached = answer.extensions_mut().remove::<Attached>().map(|Attached(problem)| problem);
    let attached = attached
        .or_else(|| bare_error(&answer).then(|| Arc::new(problem::of_status(status, &asked.method, &asked.path))));
    if let Some(problem) = attached {
        log_problem(&problem, asked);
        answer = if asked.grpc {
            status_of(&problem).into_http()
        } else {
            merged(problem.render(Some(&asked.path), Some(&asked.id.0)), answer.headers())
        };
    } else {
        log_answer(&answer, asked);
    }
    if asked.method == Method::HEAD {
        *answer.body_mut() = Body::empty();
    }
    let headers = answer.headers_mut();
    if let Ok(mut id) = HeaderValue::from_str(&asked.id.0) {
        // Not for secrecy: it never comes again, so a place in the connection's table of known headers (HPACK) would
        // only push out what does.
        id.set_sensitive(true);
        headers.insert(REQUEST_ID, id);
    }
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    headers.entry(header::X_FRAME_OPTIONS).or_insert(HeaderValue::from_static("DENY"));
    answer
}

/// A problem with the headers that layers and routes had set on the answer (`Allow`, for instance).
fn merged(mut problem: Response, earlier: &HeaderMap) -> Response {
    for (name, value) in earlier {
        if *name != header::CONTENT_LENGTH && !problem.headers().contains_key(name) {
            problem.headers_mut().append(name, value.clone());
        }
    }
    problem
}

/// An error that somebody answered without saying anything: unknown routes and methods, mostly.
fn bare_error(answer: &Response) -> bool {
    let error = answer.status().is_client_error() || answer.status().is_server_error();
    error && !answer.headers().contains_key(header::CONTENT_TYPE) && answer.body().size_hint().exact() == Some(0)
}

fn log_problem(problem: &Problem, asked: &Asked) {
    let Asked { id: RequestId(id), method, path, peer, .. } = asked;
    let (status, code, cause) = (problem.status_code().as_u16(), &*problem.fault().code, problem.cause());
    let detail = problem.fault().message.as_str();
    match problem.fault().kind {
        ErrorKind::Internal | ErrorKind::StorageFull => {
            tracing::error!(%id, %method, path, %peer, status, code, detail, cause, "request failed");
        }
        ErrorKind::Unavailable | ErrorKind::Deadline => {
            tracing::warn!(%id, %method, path, %peer, status, code, detail, cause, "request not answered");
        }
        _ => tracing::debug!(status, code, detail, cause, "request refused"),
    }
}

/// An answer of a route. A failed call leaves its status in the extensions.
fn log_answer(answer: &Response, asked: &Asked) {
    let Asked { id: RequestId(id), path, peer, .. } = asked;
    match answer.extensions().get::<Status>() {
        Some(status) if matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss) => {
            let (code, detail) = (status.code(), status.message());
            tracing::error!(%id, path, %peer, ?code, detail, "call failed");
        }
        Some(status) => tracing::debug!(code = ?status.code(), detail = status.message(), "call refused"),
        None => tracing::debug!(status = answer.status().as_u16(), "answered"),
    }
}

/// The status of a problem: an unknown path or method is an unknown rpc.
fn status_of(problem: &Problem) -> Status {
    if matches!(&*problem.fault().code, "NO_SUCH_ROUTE" | "METHOD_NOT_ALLOWED") {
        return Status::unimplemented(problem.fault().message.clone());
    }
    grpc::status(problem.fault().clone())
}

pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn request_id(headers: &HeaderMap) -> RequestId {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let fits = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    match given.filter(fits) {
        Some(given) => RequestId(given.into()),
        None => RequestId(uuid::Uuid::now_v7().to_string().into()),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
