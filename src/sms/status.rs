//! `GET /api/v1/status`: the process that the registry is part of.

use axum::extract::State;
use net::{extract::Json, status::ProcessStatus};

use crate::Sms;

/// The state of the process: version, listeners, readiness, and everything that is supervised in it.
#[utoipa::path(get, path = "/api/v1/status", operation_id = "process_status", tag = "health",
    responses((status = 200, description = "Its state now", body = ProcessStatus)))]
pub(crate) async fn process_status(State(sms): State<Sms>) -> Json<ProcessStatus> {
    Json(sms.process.status())
}
