//! `GET /metrics`.

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderValue, header};
use telemetry::{Format, Metrics};
use types::Fault;

use crate::problem::Problem;

/// The route `/metrics`: all figures of the process, in the format that is asked for.
pub fn router(metrics: &Metrics) -> Router {
    let metrics = metrics.clone();
    Router::new().route("/metrics", get(move |headers: HeaderMap| answer(metrics.clone(), headers)))
}

async fn answer(metrics: Metrics, headers: HeaderMap) -> Response {
    let format = Format::accepted(headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()));
    // Some figures are read from files.
    match tokio::task::spawn_blocking(move || metrics.expose(format)).await {
        Ok(Ok(exposition)) => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static(exposition.content_type)),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (headers, exposition.body).into_response()
        }
        Ok(Err(error)) => failed(&error).into_response(),
        Err(error) => failed(&error).into_response(),
    }
}

fn failed(error: &dyn std::error::Error) -> Problem {
    Problem::new(Fault::internal("the figures could not be written")).caused_by(error.to_string())
}
