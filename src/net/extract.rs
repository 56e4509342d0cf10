//! Extractors whose refusals are problems and name the field to blame.
//!
//! | Refusal | Status |
//! |---|---|
//! | no JSON content type | 415 |
//! | not JSON, not a query, not UTF-8, nested too deep | 400 |
//! | a field is missing, unknown or of another type | 422 in a body, 400 in a query or path |
//! | over the body limit of the route | 413 |
//! | the body stops coming | 408 |

use axum::{
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Request,
        path::ErrorKind as PathError,
        rejection::{BytesRejection, FailedToBufferBody, PathRejection},
    },
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use serde::{Serialize, de::DeserializeOwned};
use types::{ErrorKind, Fault, FieldError};

use crate::{pace::TooSlow, problem::Problem};

/// A JSON body; also a JSON answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

/// The query of the target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

/// The captures of the path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Path<T>(pub T);

/// The whole body, up to the limit of the route.
#[derive(Clone, Debug, Default)]
pub struct Body(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Bytes::from_request(request, state).await.map(Self).map_err(unread)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let fault =
                Fault::new(ErrorKind::Invalid, "UNSUPPORTED_MEDIA_TYPE", "the body must be sent as application/json");
            return Err(Problem::new(fault).status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let Body(bytes) = Body::from_request(request, state).await?;
        parse(&bytes).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri).map(|axum::extract::Query(value)| Self(value)).map_err(
            |rejection| {
                let text = rejection.body_text();
                let text = text.rsplit_once("query string: ").map_or(text.as_str(), |(_, text)| text);
                Problem::new(blame(text, "query"))
            },
        )
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(path_problem(rejection)),
        }
    }
}

fn path_problem(rejection: PathRejection) -> Problem {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
        return Problem::new(Fault::internal("this route has no captures")).caused_by(rejection);
    };
    let (field, detail) = match failed.into_kind() {
        PathError::ParseErrorAtKey { key, value, expected_type } => {
            (key, format!("{} is not {expected_type}", quoted(&value)))
        }
        PathError::ParseErrorAtIndex { index, value, expected_type } => {
            (format!("path[{index}]"), format!("{} is not {expected_type}", quoted(&value)))
        }
        PathError::ParseError { value, expected_type } => {
            ("path".to_owned(), format!("{} is not {expected_type}", quoted(&value)))
        }
        PathError::DeserializeError { key, value, message } => (key, format!("{}: {message}", quoted(&value))),
        PathError::InvalidUtf8InPathParam { key } => (key, "not UTF-8 once decoded".to_owned()),
        PathError::Message(message) => ("path".to_owned(), message),
        // The rest are defects of the route, not of the request.
        other => return Problem::new(Fault::internal("this route's captures do not fit")).caused_by(other),
    };
    Problem::new(Fault::invalid_field(field, detail))
}

fn quoted(value: &str) -> String {
    let short: String = value.chars().take(80).collect();
    format!("{short:?}")
}

/// Parses JSON as [`Json`] does, for bodies that come another way.
///
/// # Errors
/// 400 if it is not JSON, 422 if a field is wrong.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::new(Fault::new(
            ErrorKind::Invalid,
            "INVALID_JSON",
            "the body is empty: JSON is expected",
        )));
    }
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut input).map_err(|error| {
        let path = error.path().to_string();
        json_problem(error.inner(), &path)
    })?;
    input.end().map_err(|error| json_problem(&error, "."))?;
    Ok(value)
}

fn json_problem(error: &serde_json::Error, path: &str) -> Problem {
    if error.classify() == serde_json::error::Category::Data {
        let text = error.to_string();
        // The position says little of a value that is of the wrong type, and the field says it better.
        let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
        let fault = if path == "." { blame(text, "body") } else { blame(&format!("{path}: {text}"), "body") };
        return Problem::new(fault).status(StatusCode::UNPROCESSABLE_ENTITY);
    }
    Problem::new(Fault::new(ErrorKind::Invalid, "INVALID_JSON", format!("the body is not JSON: {error}")))
}

/// Makes a field error of serde's text: `path: what is wrong`, where a missing, unknown or duplicate field is
/// named within backticks and not part of the path.
fn blame(text: &str, whole: &str) -> Fault {
    let (path, detail) = match text.split_once(": ") {
        Some((path, detail)) if !path.is_empty() && !path.contains([' ', '`']) => (path, detail),
        _ => ("", text),
    };
    let named = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|start| detail.strip_prefix(start)?.split_once('`'))
        .map(|(name, _)| name);
    let field = match (path, named) {
        ("", None) => whole.to_owned(),
        ("", Some(name)) => name.to_owned(),
        // An unknown or duplicate field already ends the path.
        (path, Some(name)) if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        (path, Some(name)) => format!("{path}.{name}"),
        (path, None) => path.to_owned(),
    };
    let message = format!("{field}: {detail}");
    let mut fault = Fault::invalid(message);
    fault.errors.push(FieldError { field, detail: detail.to_owned() });
    fault
}

fn unread(rejection: BytesRejection) -> Problem {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            Problem::new(Fault::new(ErrorKind::TooLarge, "TOO_LARGE", "the body is over the limit of this route"))
        }
        other if is_timeout(&other) => {
            let fault = Fault::new(ErrorKind::Deadline, "TIMEOUT", "the body did not arrive in time");
            Problem::new(fault).status(StatusCode::REQUEST_TIMEOUT)
        }
        other => Problem::new(Fault::invalid("the body did not arrive as a whole")).caused_by(other),
    }
}

fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(one) = cause {
        if one.is::<TooSlow>() {
            return true;
        }
        cause = one.source();
    }
    false
}

/// `application/json` or a type that ends in `+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}
