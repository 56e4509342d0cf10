//! What a caller is told of a call that did not end well: one table for HTTP and gRPC.
//!
//! | How it ended | Code | HTTP |
//! |---|---|---|
//! | exit code 75 | `FUNCTION_RETRY` | 503, Retry-After |
//! | another exit code but 0 | `FUNCTION_EXITED` | 500 |
//! | trap | `FUNCTION_TRAPPED` | 500 |
//! | memory, output | `FUNCTION_MEMORY`, `FUNCTION_OUTPUT` | 507 |
//! | deadline | `FUNCTION_DEADLINE` | 504 |
//! | no place | `FUNCTION_BUSY` | 429, Retry-After |
//! | cancelled | `FUNCTION_CANCELLED` | 409 |
//! | no such task | `TASK_NOT_FOUND` | 404 |
//! | what it was given makes no sense to it | `FUNCTION_REFUSED` | 422 |
//! | wrong settings | `TASK_NOT_CALLABLE` | 409 |
//! | not a module, or not to be compiled | `FUNCTION_INVALID`, `FUNCTION_NOT_COMPILED` | 500 |
//! | its artifact cannot be had | `ARTIFACT_UNAVAILABLE` | 502 |
//! | no runtime for it | `RUNTIME_MISSING` | 501 |
//! | the registry is away, or there is none | `REGISTRY_UNAVAILABLE`, `NO_REGISTRY` | 503 |
//! | a defect | `INTERNAL` | 500 |

use api::{Disposition, Ended, InvokeError};
use http::{HeaderName, HeaderValue, StatusCode};
use net::Problem;
use std::{borrow::Cow, time::Duration};
use tonic::Status;
use types::{ErrorKind, ExecutionId, Fault, Reason};

/// The execution that a call was.
pub(super) const EXECUTION: HeaderName = HeaderName::from_static("spear-execution");
/// `ok`, `retry` or `reject`.
pub(super) const DISPOSITION: HeaderName = HeaderName::from_static("spear-disposition");
/// Exit code of a guest that ended by itself.
pub(super) const EXIT: HeaderName = HeaderName::from_static("spear-exit");
/// Why a call did not end well.
pub(super) const REASON: HeaderName = HeaderName::from_static("spear-reason");
/// The same in a sentence, without what is not ASCII.
pub(super) const MESSAGE: HeaderName = HeaderName::from_static("spear-message");

/// When to call again where nobody says better.
const SOON: Duration = Duration::from_secs(1);

/// A call that did not end well.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) fault: Fault,
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    /// The execution, if there was one.
    pub(super) execution: Option<ExecutionId>,
    pub(super) reason: Reason,
    pub(super) exit_code: Option<i32>,
    pub(super) disposition: Disposition,
}

/// Kind, code and status. A guest that fails is no failure of the node: only a kind that says so is logged as one.
fn row(reason: Reason) -> (ErrorKind, &'static str, StatusCode) {
    let internal = StatusCode::INTERNAL_SERVER_ERROR;
    match reason {
        Reason::Trap => (ErrorKind::Conflict, "FUNCTION_TRAPPED", internal),
        Reason::Exit => (ErrorKind::Conflict, "FUNCTION_EXITED", internal),
        Reason::Memory => (ErrorKind::Conflict, "FUNCTION_MEMORY", StatusCode::INSUFFICIENT_STORAGE),
        Reason::Output => (ErrorKind::Conflict, "FUNCTION_OUTPUT", StatusCode::INSUFFICIENT_STORAGE),
        Reason::Compile => (ErrorKind::Conflict, "FUNCTION_NOT_COMPILED", internal),
        Reason::InvalidModule => (ErrorKind::Conflict, "FUNCTION_INVALID", internal),
        Reason::Artifact => (ErrorKind::Unavailable, "ARTIFACT_UNAVAILABLE", StatusCode::BAD_GATEWAY),
        Reason::Deadline => (ErrorKind::Deadline, "FUNCTION_DEADLINE", StatusCode::GATEWAY_TIMEOUT),
        Reason::Queue => (ErrorKind::Exhausted, "FUNCTION_BUSY", StatusCode::TOO_MANY_REQUESTS),
        Reason::NodeLost => (ErrorKind::Unavailable, "UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
        Reason::NoNode => (ErrorKind::Unavailable, "REGISTRY_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
        Reason::Cancelled => (ErrorKind::Conflict, "FUNCTION_CANCELLED", StatusCode::CONFLICT),
        Reason::Runtime => (ErrorKind::Unsupported, "RUNTIME_MISSING", StatusCode::NOT_IMPLEMENTED),
        Reason::Task => (ErrorKind::Invalid, "FUNCTION_REFUSED", StatusCode::UNPROCESSABLE_ENTITY),
        Reason::Internal => (ErrorKind::Internal, "INTERNAL", internal),
    }
}

impl Refusal {
    /// Of an error; `execution` where the guest had begun.
    pub(super) fn new(error: &InvokeError, execution: Option<ExecutionId>) -> Self {
        let (kind, code, status) = row(error.reason);
        let retry_after = error.retry_after.or_else(|| kind.retry().then_some(SOON));
        Self {
            fault: Fault::new(kind, code, error.message.clone()),
            status,
            retry_after: retry_after.filter(|_| error.reason != Reason::Deadline),
            execution,
            reason: error.reason,
            exit_code: None,
            disposition: error.disposition(),
        }
    }

    /// Of a guest that ended by itself, but not with 0.
    pub(super) fn exited(execution: ExecutionId, ended: &Ended) -> Self {
        let (mut kind, mut code, mut status) = row(Reason::Exit);
        let retry = ended.disposition == Disposition::Retry;
        if retry {
            (kind, code, status) = (ErrorKind::Unavailable, "FUNCTION_RETRY", StatusCode::SERVICE_UNAVAILABLE);
        }
        let message = match retry {
            true => format!("the guest ended with exit code {}: it asks to be called again later", ended.exit_code),
            false => format!("the guest ended with exit code {}", ended.exit_code),
        };
        Self {
            fault: Fault::new(kind, code, message),
            status,
            retry_after: retry.then_some(SOON),
            execution: Some(execution),
            reason: Reason::Exit,
            exit_code: Some(ended.exit_code),
            disposition: ended.disposition,
        }
    }

    /// With another kind, code and status.
    pub(super) fn because(mut self, kind: ErrorKind, code: &'static str) -> Self {
        (self.fault.kind, self.fault.code, self.status) = (kind, Cow::Borrowed(code), net::problem::http_status(kind));
        self
    }

    /// Over HTTP.
    pub(super) fn problem(self) -> Problem {
        let mut problem = Problem::new(self.fault).status(self.status);
        if let Some(after) = self.retry_after {
            problem = problem.retry_after(after);
        }
        problem = problem.member("reason", self.reason.as_str()).member("disposition", self.disposition.as_str());
        problem = problem.header(REASON, HeaderValue::from_static(self.reason.as_str()));
        problem = problem.header(DISPOSITION, HeaderValue::from_static(self.disposition.as_str()));
        if let Some(code) = self.exit_code {
            problem = problem.member("exit_code", code).header(EXIT, code.into());
        }
        if let Some(execution) = self.execution {
            problem = problem.member("execution_id", execution.to_string()).header(EXECUTION, id(execution));
        }
        problem
    }

    /// Over gRPC.
    pub(super) fn grpc(self) -> Status {
        let status = net::grpc::status(self.fault);
        match self.retry_after {
            Some(after) => api::wire::retry_after(&status, after),
            None => status,
        }
    }
}

/// An id as the value of a header.
pub(super) fn id(execution: ExecutionId) -> HeaderValue {
    let mut text = [0; 36];
    execution.0.hyphenated().encode_lower(&mut text);
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// A sentence as the value of a header.
pub(super) fn sentence(text: &str) -> HeaderValue {
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let text: String = text.chars().take(512).map(plain).collect();
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn every_reason_has_a_status_and_only_those_worth_another_try_say_when() {
        let problem = |reason| Refusal::new(&InvokeError::new(reason, "why"), None);
        for (reason, status, retry) in [
            (Reason::Trap, 500, false),
            (Reason::Memory, 507, false),
            (Reason::Output, 507, false),
            (Reason::Deadline, 504, false),
            (Reason::Queue, 429, true),
            (Reason::NoNode, 503, true),
            (Reason::Cancelled, 409, false),
            (Reason::Task, 422, false),
            (Reason::Runtime, 501, false),
            (Reason::Artifact, 502, true),
            (Reason::Internal, 500, false),
        ] {
            let refusal = problem(reason);
            assert_eq!((refusal.status.as_u16(), refusal.retry_after.is_some()), (status, retry), "{reason:?}");
        }
    }

    #[test]
    fn an_exit_code_of_75_asks_for_another_try() {
        let exited = |code| {
            let ended = Ended { disposition: Disposition::of_exit(code), exit_code: code, ..Ended::default() };
            let refusal = Refusal::exited(ExecutionId::new(), &ended);
            (refusal.status.as_u16(), refusal.retry_after, refusal.fault.code.into_owned())
        };
        assert_eq!(exited(75), (503, Some(SOON), "FUNCTION_RETRY".to_owned()));
        assert_eq!(exited(1), (500, None, "FUNCTION_EXITED".to_owned()));
    }

    #[test]
    fn a_sentence_in_a_header_is_one_line_of_ascii() {
        assert_eq!(sentence("a\r\nb ä").to_str().unwrap(), "a??b ?");
        assert!(sentence(&"x".repeat(10_000)).len() <= 512);
    }
}
