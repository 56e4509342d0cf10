//! The one form of an error over HTTP (RFC 9457) and the one table of status codes.
//!
//! ```json
//! {"type":"/problems/node-not-found","title":"Not Found","status":404,"detail":"…","instance":"/api/v1/nodes/…",
//!  "code":"NODE_NOT_FOUND","errors":[{"field":"…","detail":"…"}],"request_id":"…",
//!  "success":false,"error":"NODE_NOT_FOUND","message":"…"}
//! ```
//! The last three members are what older clients read. A problem keeps itself in the extensions of its
//! response, so that [`crate::serve()`] can add the request's id and path and log the cause.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc, time::Duration};
use types::{ErrorKind, Fault, FieldError};

/// Media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";
/// Another request had this idempotency key.
pub const KEY_REUSED: &str = "IDEMPOTENCY_KEY_REUSED";
/// The host of a callback is not one that may be called.
pub const CALLBACK_REFUSED: &str = "CALLBACK_REFUSED";

/// Status of a kind of error over HTTP.
pub fn http_status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::OutOfRange => StatusCode::GONE,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Deadline => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Code of a kind of error over gRPC.
pub fn grpc_code(kind: ErrorKind) -> tonic::Code {
    match kind {
        ErrorKind::Invalid => tonic::Code::InvalidArgument,
        ErrorKind::Unauthenticated => tonic::Code::Unauthenticated,
        ErrorKind::Denied => tonic::Code::PermissionDenied,
        ErrorKind::NotFound => tonic::Code::NotFound,
        ErrorKind::Conflict => tonic::Code::Aborted,
        ErrorKind::TooLarge | ErrorKind::Exhausted | ErrorKind::StorageFull => tonic::Code::ResourceExhausted,
        ErrorKind::OutOfRange => tonic::Code::OutOfRange,
        ErrorKind::Unavailable => tonic::Code::Unavailable,
        ErrorKind::Deadline => tonic::Code::DeadlineExceeded,
        ErrorKind::Unsupported => tonic::Code::Unimplemented,
        ErrorKind::Internal => tonic::Code::Internal,
    }
}

/// An error answer over HTTP. Handlers return `Result<_, Problem>`; `?` makes one of a [`Fault`].
#[derive(Clone)]
pub struct Problem(Box<Parts>);

#[derive(Clone)]
struct Parts {
    fault: Fault,
    status: StatusCode,
    error: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    cause: Option<String>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
    members: BTreeMap<&'static str, serde_json::Value>,
}

impl Problem {
    /// With the status of its kind.
    pub fn new(fault: Fault) -> Self {
        let retry_after =
            matches!(fault.kind, ErrorKind::Exhausted | ErrorKind::Unavailable).then_some(Duration::from_secs(1));
        let status = http_status(fault.kind);
        let (headers, members) = (Vec::new(), BTreeMap::new());
        Self(Box::new(Parts { fault, status, error: None, retry_after, cause: None, headers, members }))
    }

    /// Of a request to run something: 422 for what is well-formed and still cannot be done, whichever role is asked.
    pub fn of_run(fault: Fault) -> Self {
        match &*fault.code {
            KEY_REUSED | CALLBACK_REFUSED => Self::new(fault).status(StatusCode::UNPROCESSABLE_ENTITY),
            _ => Self::new(fault),
        }
    }

    /// What older clients read as `error`, where it is not the code.
    pub fn error(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.0.error = Some(text.into());
        self
    }

    /// Another status than that of the kind (415, 421, 422).
    pub fn status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// When to try again, told in whole seconds (at least one).
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// What the log shall say and the caller shall not see.
    pub fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// A header of the answer.
    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// A further member of the JSON object, with a name that it does not have yet.
    pub fn member(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.0.members.insert(name, value.into());
        self
    }

    /// The error itself.
    pub fn fault(&self) -> &Fault {
        &self.0.fault
    }

    /// Status of the answer.
    pub fn status_code(&self) -> StatusCode {
        self.0.status
    }

    /// What the log shall say, if told.
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The members of the JSON object.
    pub fn body(&self, instance: Option<&str>, request_id: Option<&str>) -> ProblemBody {
        ProblemBody {
            kind: format!("/problems/{}", self.0.fault.code.to_ascii_lowercase().replace('_', "-")),
            title: self.0.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.0.status.as_u16(),
            detail: self.0.fault.message.clone(),
            instance: instance.map(str::to_owned),
            code: self.0.fault.code.to_string(),
            errors: self.0.fault.errors.iter().map(FieldProblem::from).collect(),
            request_id: request_id.map(str::to_owned),
            success: false,
            error: self.0.error.as_ref().unwrap_or(&self.0.fault.code).to_string(),
            message: self.0.fault.message.clone(),
            more: self.0.members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        }
    }

    pub(crate) fn render(self: &Arc<Self>, instance: Option<&str>, request_id: Option<&str>) -> Response {
        let bytes = serde_json::to_vec(&self.body(instance, request_id)).expect("an object of strings is JSON");
        let mut response = Response::new(Body::from(bytes));
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        for (name, value) in &self.0.headers {
            headers.insert(name, value.clone());
        }
        response.extensions_mut().insert(Attached(self.clone()));
        response
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Problem({} {}: {})", self.0.status.as_u16(), self.0.fault.code, self.0.fault.message)
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::new(fault)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        Arc::new(self).render(None, None)
    }
}

/// The problem a response was made of.
#[derive(Clone)]
pub(crate) struct Attached(pub(crate) Arc<Problem>);

/// A problem as JSON, for the OpenAPI document.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProblemBody {
    /// Stable reference of the kind of problem, made of its code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// One sentence for people.
    pub detail: String,
    /// Path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Stable code for programs.
    pub code: String,
    /// The fields to blame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
    /// Id of the request, also in the header `x-request-id` and in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Always false.
    pub success: bool,
    /// The code, or the older text of the same error.
    pub error: String,
    /// The same as `detail`.
    pub message: String,
    /// What some routes add.
    #[serde(flatten)]
    #[schema(ignore)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// One field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldProblem {
    /// Name of the field as the caller wrote it.
    pub field: String,
    /// What is wrong, and what would be right.
    pub detail: String,
}

impl From<&FieldError> for FieldProblem {
    fn from(error: &FieldError) -> Self {
        Self { field: error.field.clone(), detail: error.detail.clone() }
    }
}

/// The problem of a status that somebody below answered without a body.
pub(crate) fn of_status(status: StatusCode, method: &http::Method, path: &str) -> Problem {
    let (kind, code, message): (_, &'static str, String) = match status {
        StatusCode::NOT_FOUND => (ErrorKind::NotFound, "NO_SUCH_ROUTE", format!("nothing is served at {path}")),
        StatusCode::METHOD_NOT_ALLOWED => {
            (ErrorKind::Invalid, "METHOD_NOT_ALLOWED", format!("{path} does not answer to {method}"))
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            (ErrorKind::TooLarge, "TOO_LARGE", "the body is over the limit of this route".to_owned())
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            (ErrorKind::Invalid, "UNSUPPORTED_MEDIA_TYPE", "this route does not read this content type".to_owned())
        }
        StatusCode::UNAUTHORIZED => (ErrorKind::Unauthenticated, "UNAUTHENTICATED", "not authenticated".to_owned()),
        StatusCode::FORBIDDEN => (ErrorKind::Denied, "DENIED", "not allowed".to_owned()),
        StatusCode::REQUEST_TIMEOUT => (ErrorKind::Deadline, "TIMEOUT", "the request took too long".to_owned()),
        StatusCode::TOO_MANY_REQUESTS => (ErrorKind::Exhausted, "EXHAUSTED", "too many requests".to_owned()),
        StatusCode::SERVICE_UNAVAILABLE => (ErrorKind::Unavailable, "UNAVAILABLE", "not available now".to_owned()),
        StatusCode::GATEWAY_TIMEOUT => (ErrorKind::Deadline, "TIMEOUT", "the request took too long".to_owned()),
        other if other.is_client_error() => {
            (ErrorKind::Invalid, "INVALID_ARGUMENT", reason(other).to_ascii_lowercase())
        }
        other => (ErrorKind::Internal, "INTERNAL", reason(other).to_ascii_lowercase()),
    };
    Problem::new(Fault::new(kind, code, message)).status(status)
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("error")
}
