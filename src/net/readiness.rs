//! Alive and ready: `/livez`, `/healthz` and `/readyz`.
//!
//! Alive means that the process answers at all. Ready means that every named check is, and that the process is
//! not stopping. A part that does most of its work may say what it cannot do and stay ready: whoever takes requests
//! away from a process that is not ready would make that worse. `/readyz?verbose` lists the checks; a refusal (503)
//! always does.

use axum::{Router, extract::RawQuery, response::IntoResponse, response::Response, routing::get};
use http::{HeaderValue, StatusCode, header};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio_util::sync::CancellationToken;

type Checks = Arc<Mutex<BTreeMap<String, State>>>;

/// How one part is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// It works, but for what is said.
    Limited(String),
    NotReady(String),
}

/// Named checks. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    checks: Checks,
    stopping: Option<CancellationToken>,
}

/// One of the checks of a [`Readiness`].
#[derive(Clone, Debug)]
pub struct Check {
    name: String,
    checks: Checks,
}

impl Readiness {
    /// Without checks: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready any more as soon as `stopping` is cancelled.
    pub fn until(mut self, stopping: CancellationToken) -> Self {
        self.stopping = Some(stopping);
        self
    }

    /// Adds a check, not ready until it says so.
    pub fn check(&self, name: &str) -> Check {
        let check = Check { name: name.to_owned(), checks: self.checks.clone() };
        check.set_not_ready("starting");
        check
    }

    /// Is everything ready?
    pub fn is_ready(&self) -> bool {
        !self.is_stopping() && !lock(&self.checks).values().any(|state| matches!(state, State::NotReady(_)))
    }

    /// What is not ready, and why.
    pub fn reasons(&self) -> Vec<(String, String)> {
        let not_ready = |(name, state): (&String, &State)| match state {
            State::NotReady(reason) => Some((name.clone(), reason.clone())),
            State::Ready | State::Limited(_) => None,
        };
        let mut reasons: Vec<_> = lock(&self.checks).iter().filter_map(not_ready).collect();
        if self.is_stopping() {
            reasons.push(("process".to_owned(), "stopping".to_owned()));
        }
        reasons
    }

    /// The routes `/livez`, `/healthz` (the same) and `/readyz`.
    pub fn router(&self) -> Router {
        let readiness = self.clone();
        Router::new()
            .route("/livez", get(async || text(StatusCode::OK, "ok\n")))
            .route("/healthz", get(async || text(StatusCode::OK, "ok\n")))
            .route("/readyz", get(move |RawQuery(query): RawQuery| async move { readiness.answer(query.as_deref()) }))
    }

    fn answer(&self, query: Option<&str>) -> Response {
        let verbose = query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
        let ready = self.is_ready();
        if ready && !verbose {
            return text(StatusCode::OK, "ok\n");
        }
        text(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, self.listed(ready))
    }

    fn listed(&self, ready: bool) -> String {
        let mut lines = String::new();
        let mut line = |name: &str, state: &State| {
            let written = match state {
                State::Ready => writeln!(lines, "[+] {name}: ok"),
                State::Limited(reason) => writeln!(lines, "[!] {name}: {reason}"),
                State::NotReady(reason) => writeln!(lines, "[-] {name}: {reason}"),
            };
            written.expect("writing to a string cannot fail");
        };
        for (name, state) in lock(&self.checks).iter() {
            line(name, state);
        }
        if self.is_stopping() {
            line("process", &State::NotReady("stopping".to_owned()));
        }
        lines.push_str(if ready { "ready\n" } else { "not ready\n" });
        lines
    }

    fn is_stopping(&self) -> bool {
        self.stopping.as_ref().is_some_and(CancellationToken::is_cancelled)
    }
}

impl Check {
    /// This part can do its work.
    pub fn set_ready(&self) {
        self.set(State::Ready);
    }

    /// This part does most of its work; what it does not is shown to everybody.
    pub fn set_limited(&self, reason: impl Into<String>) {
        self.set(State::Limited(reason.into()));
    }

    /// This part cannot do its work; the reason is shown to everybody.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.set(State::NotReady(reason.into()));
    }

    fn set(&self, state: State) {
        lock(&self.checks).insert(self.name.clone(), state);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}

fn text(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body.into()).into_response()
}
