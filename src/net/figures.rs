//! What a listener measures: connections, requests by route, gRPC calls by method, refusals.
//!
//! ```text
//!   accept ─► connection ─► front ─► refused? count ─► router ─► [Measure: one per route] ─► handler
//!                                                                   └► route known: handles resolved once
//! ```
//! The layer stands behind routing, once per route, so it knows the template and never the path; whatever matched no
//! route is one series. What of a series is found at its first use is kept there: counting is then a look into a
//! short list and a few atomic operations, and takes no lock that others want.

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{MatchedPath, Request},
    response::Response,
};
use http::{HeaderMap, Method, StatusCode, header};
use http_body::{Frame, SizeHint};
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use telemetry::{Counter, Counters, Gauge, Held, Histogram, Histograms, Metrics, SHORT, trace};
use tonic::Code;
use tower::{Layer, Service};

use crate::kept::Kept;

/// Label of requests that no route matched.
const UNMATCHED: &str = "unmatched";
/// Label of requests that were refused before any route.
const REFUSED: &str = "refused";
/// Methods that are told apart; the rest is `other`.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];

/// The figures of one listener. Cheap to clone; clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    listener: &'static str,
    request_timeout: Option<Duration>,
    requests: Counters<4>,
    seconds: Histograms<3>,
    in_flight: Gauge,
    event_streams: Gauge,
    handled: Counters<3>,
    handling: Histograms<2>,
    open_calls: Gauge,
    access_refused: Counters<2>,
    connections: Gauge,
    accepted: Counter,
    refused: Counters<2>,
}

impl Figures {
    pub(crate) fn new(metrics: &Metrics, listener: &'static str, request_timeout: Option<Duration>) -> Self {
        let refused = metrics.counters(
            "spear_http_connections_refused_total",
            "Connections that were not taken: too many from one address, or no file descriptor left.",
            ["listener", "reason"],
        );
        // Alerts look at these before anything has happened.
        for reason in ["address", "descriptors"] {
            refused.with([listener, reason]);
        }
        let one = [listener];
        Self {
            inner: Arc::new(Inner {
                listener,
                request_timeout,
                requests: metrics.counters(
                    "spear_http_requests_total",
                    "Requests answered, by template of the route; gRPC is counted apart.",
                    ["listener", "method", "route", "code"],
                ),
                seconds: metrics.histograms(
                    "spear_http_request_duration_seconds",
                    "Time from a request's arrival at its route to the beginning of its answer.",
                    ["listener", "method", "route"],
                    SHORT,
                ),
                in_flight: metrics
                    .gauges("spear_http_requests_in_flight", "Requests whose answer has not begun.", ["listener"])
                    .with(one),
                event_streams: metrics
                    .gauges("spear_http_event_streams", "Event streams that are open.", ["listener"])
                    .with(one),
                handled: metrics.counters(
                    "spear_grpc_server_handled_total",
                    "gRPC calls that ended, by their final status.",
                    ["service", "method", "code"],
                ),
                handling: metrics.histograms(
                    "spear_grpc_server_handling_seconds",
                    "Time from the arrival of a gRPC call to its end, streams included.",
                    ["service", "method"],
                    SHORT,
                ),
                open_calls: metrics
                    .gauges("spear_grpc_server_in_flight", "gRPC calls and streams that are open.", ["listener"])
                    .with(one),
                access_refused: metrics.counters(
                    "spear_http_access_refused_total",
                    "Requests and calls refused before any route, by the code of the refusal.",
                    ["listener", "reason"],
                ),
                connections: metrics
                    .gauges("spear_http_connections", "Connections that are open.", ["listener"])
                    .with(one),
                accepted: metrics
                    .counters("spear_http_connections_accepted_total", "Connections taken.", ["listener"])
                    .with(one),
                refused,
            }),
        }
    }

    /// A connection that is open for as long as the answer lives.
    pub(crate) fn connected(&self) -> Held {
        self.inner.accepted.inc();
        self.inner.connections.hold()
    }

    /// A connection was not taken.
    pub(crate) fn not_taken(&self, reason: &str) {
        self.inner.refused.with([self.inner.listener, reason]).inc();
    }

    /// A request was refused before any route.
    pub(crate) fn refused(&self, method: &Method, status: u16, reason: &str) {
        let Inner { listener, access_refused, requests, .. } = &*self.inner;
        access_refused.with([listener, &reason.to_ascii_lowercase()]).inc();
        requests.with([listener, word(method), REFUSED, Code3::new(status).as_str()]).inc();
    }

    /// The layer for a router.
    pub(crate) fn layer(&self) -> Measure {
        Measure { figures: self.clone() }
    }
}

/// A status code as text, without allocating.
struct Code3([u8; 3]);

impl Code3 {
    fn new(status: u16) -> Self {
        let digit = |value: u16| u8::try_from(value % 10).map_or(b'?', |digit| b'0' + digit);
        Self([digit(status / 100), digit(status / 10), digit(status)])
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }
}

fn word(method: &Method) -> &'static str {
    match METHODS.iter().position(|known| known == method) {
        Some(0) => "GET",
        Some(1) => "HEAD",
        Some(2) => "POST",
        Some(3) => "PUT",
        Some(4) => "DELETE",
        Some(5) => "PATCH",
        Some(6) => "OPTIONS",
        _ => "other",
    }
}

/// Measures what passes each route of a router.
#[derive(Clone, Debug)]
pub(crate) struct Measure {
    figures: Figures,
}

impl<S> Layer<S> for Measure {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured { inner, figures: self.figures.clone(), route: Arc::default() }
    }
}

/// One route, measured.
#[derive(Clone)]
pub(crate) struct Measured<S> {
    inner: S,
    figures: Figures,
    route: Arc<Route>,
}

/// What is known of a route; filled by its first requests.
#[derive(Debug, Default)]
struct Route {
    methods: Kept<&'static str, Arc<Methods>, 4>,
    calls: Kept<String, Arc<Calls>, 20>,
}

/// Requests of one method to one route.
#[derive(Debug)]
struct Methods {
    template: String,
    title: String,
    method: &'static str,
    seconds: Histogram,
    codes: Kept<u16, Counter, 12>,
}

/// Calls of one rpc.
#[derive(Debug)]
struct Calls {
    service: String,
    method: String,
    title: String,
    seconds: Histogram,
    codes: Kept<Code, Counter, 8>,
}

impl Route {
    fn methods(&self, inner: &Inner, request: &Request) -> Arc<Methods> {
        let method = word(request.method());
        let make = || {
            let template = request.extensions().get::<MatchedPath>().map_or(UNMATCHED, MatchedPath::as_str).to_owned();
            let seconds = inner.seconds.with([inner.listener, method, &template]);
            let title = format!("{method} {template}");
            (method, Arc::new(Methods { template, title, method, seconds, codes: Kept::default() }))
        };
        self.methods.get(|known| *known == method, make)
    }

    /// The rpc of a path, if one of its calls has ended before.
    fn known(&self, path: &str) -> Option<Arc<Calls>> {
        let asked = path.rsplit('/').next()?;
        self.calls.find(|known| known == asked)
    }

    /// The rpc of a call that has ended. Only one that exists is named: the caller's own words never become labels.
    fn calls(&self, inner: &Inner, asked: &Asked, exists: bool) -> Arc<Calls> {
        // `/package.Service/{*rest}`
        let template = asked.template.as_ref().map(MatchedPath::as_str);
        let service = template.and_then(|path| path.trim_start_matches('/').split('/').next()).unwrap_or(UNMATCHED);
        let method = asked.path.rsplit('/').next().filter(|_| exists && template.is_some()).unwrap_or(UNMATCHED);
        let make = || {
            let (service, method) = (service.to_owned(), method.to_owned());
            let seconds = inner.handling.with([&service, &method]);
            let title = format!("{service}/{method}");
            (method.clone(), Arc::new(Calls { service, method, title, seconds, codes: Kept::default() }))
        };
        self.calls.get(|known| known == method, make)
    }
}

impl Methods {
    fn count(&self, inner: &Inner, status: u16, started: Instant) {
        self.seconds.since(started);
        let make = || {
            let code = Code3::new(status);
            (status, inner.requests.with([inner.listener, self.method, &self.template, code.as_str()]))
        };
        self.codes.get(|known| *known == status, make).inc();
    }
}

impl Calls {
    fn count(&self, inner: &Inner, code: Code, started: Instant) {
        self.seconds.since(started);
        let make = || (code, inner.handled.with([&self.service, &self.method, name(code)]));
        self.codes.get(|known| *known == code, make).inc();
    }
}

/// A gRPC status as it is written in the specification.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

impl<S> Service<Request> for Measured<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let figures = self.figures.clone();
        if crate::front::is_grpc(request.headers()) {
            let call = Call::new(figures, self.route.clone(), &request);
            let routed = self.inner.call(request);
            return Box::pin(async move { Ok(call.watch(routed.await?)) });
        }
        let methods = self.route.methods(&figures.inner, &request);
        let span = tracing::Span::current();
        trace::name(&span, &methods.title);
        trace::mark(&span, trace::SERVED, &methods.template);
        let pending =
            Pending { _held: figures.inner.in_flight.hold(), methods, figures, started: Instant::now(), done: false };
        let routed = self.inner.call(request);
        Box::pin(async move { Ok(pending.answered(routed.await?)) })
    }
}

/// A request on its way; counted however that ends.
struct Pending {
    figures: Figures,
    methods: Arc<Methods>,
    started: Instant,
    done: bool,
    _held: Held,
}

impl Pending {
    fn answered(mut self, response: Response) -> Response {
        let (inner, status) = (&self.figures.inner, response.status());
        self.methods.count(inner, status.as_u16(), self.started);
        self.done = true;
        let span = tracing::Span::current();
        trace::mark(&span, "http.response.status_code", status.as_str());
        if status.is_server_error() {
            trace::failed(&span, status.as_str());
        }
        let media = response.headers().get(header::CONTENT_TYPE);
        if media.is_some_and(|media| media.as_bytes().starts_with(b"text/event-stream")) {
            let held = inner.event_streams.hold();
            return response.map(|body| Body::new(Watched { body, call: None, _held: Some(held) }));
        }
        response
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let late = self.figures.inner.request_timeout.is_some_and(|limit| self.started.elapsed() >= limit);
        // What the front answers in these cases, and the usual word for a client that went away.
        let status = if std::thread::panicking() {
            500
        } else if late {
            504
        } else {
            499
        };
        self.methods.count(&self.figures.inner, status, self.started);
    }
}

/// A gRPC call until its last byte; counted however that ends.
struct Call {
    figures: Figures,
    route: Arc<Route>,
    rpc: Rpc,
    started: Instant,
    done: bool,
    _held: Held,
}

enum Rpc {
    Known(Arc<Calls>),
    New(Asked),
}

/// What a call asked for.
struct Asked {
    path: String,
    template: Option<MatchedPath>,
}

impl Call {
    fn new(figures: Figures, route: Arc<Route>, request: &Request) -> Self {
        let path = request.uri().path();
        let span = tracing::Span::current();
        let rpc = match route.known(path) {
            Some(calls) => {
                trace::name(&span, &calls.title);
                Rpc::Known(calls)
            }
            None => {
                let template = request.extensions().get::<MatchedPath>().cloned();
                if template.is_some() {
                    trace::name(&span, path.trim_start_matches('/'));
                }
                Rpc::New(Asked { path: path.to_owned(), template })
            }
        };
        trace::mark(&span, trace::SERVED, path);
        Self { _held: figures.inner.open_calls.hold(), figures, route, rpc, started: Instant::now(), done: false }
    }

    /// Counts a call that has failed already, and watches the rest of the others.
    fn watch(mut self, response: Response) -> Response {
        let media = response.headers().get(header::CONTENT_TYPE);
        let spoken = media.is_some_and(|media| media.as_bytes().starts_with(b"application/grpc"));
        if let Some(code) = status(response.headers()).or_else(|| (!spoken).then(|| of_http(response.status()))) {
            self.end(code);
            return response;
        }
        response.map(|body| Body::new(Watched { body, call: Some(self), _held: None }))
    }

    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let calls = match &self.rpc {
            Rpc::Known(calls) => calls.clone(),
            Rpc::New(asked) => self.route.calls(&self.figures.inner, asked, code != Code::Unimplemented),
        };
        calls.count(&self.figures.inner, code, self.started);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(if std::thread::panicking() { Code::Internal } else { Code::Cancelled });
    }
}

/// The status in headers or trailers, if they have one.
fn status(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

/// What becomes of an answer that is none of gRPC's; see the front.
fn of_http(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// A body that is counted while it lasts, and whose trailers say how the call ended.
struct Watched {
    body: Body,
    call: Option<Call>,
    _held: Option<Held>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(code) = frame.trailers_ref().and_then(status)
            && let Some(call) = &mut self.call
        {
            call.end(code);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
