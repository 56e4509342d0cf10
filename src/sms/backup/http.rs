//! `GET /api/v1/backup`.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use net::{Problem, problem::ProblemBody};
use std::io;
use tokio::sync::mpsc;
use types::Fault;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    registry,
    write::{Sink, write},
};
use crate::Sms;

/// Pieces that may wait for a slow reader.
const QUEUE: usize = 4;

pub(crate) fn routes() -> OpenApiRouter<Sms> {
    OpenApiRouter::new().routes(routes!(download_backup))
}

struct Reader(mpsc::Sender<io::Result<Bytes>>);

impl Sink for Reader {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.0.send(Ok(bytes)).await.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader went away"))
    }
}

/// Download a backup.
///
/// Everything that the registry keeps, as of one revision, as a tar that ends with a manifest of SHA-256 sums. Read
/// it to its end and check it (`spear backup` does): an answer that breaks off is no backup.
#[utoipa::path(get, path = "/api/v1/backup", operation_id = "download_backup", tag = "backup",
    responses(
        (status = 200, description = "The archive", body = Vec<u8>, content_type = "application/x-tar"),
        (status = 429, description = "Two backups are under way", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be read now", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn download_backup(State(sms): State<Sms>) -> Result<Response, Problem> {
    let (source, permit) = registry::begin(&sms).await?;
    let (sender, pieces) = mpsc::channel(QUEUE);
    let stopping = sms.stopping.clone();
    let (rev, files) = (source.head().rev, source.head().files);
    sms.backups.scope.spawn_once("write", async move {
        let _permit = permit;
        tracing::info!(rev, files, "a backup begins");
        let broken = Reader(sender.clone());
        let written = stopping.run_until_cancelled(write(source, Reader(sender))).await;
        let fault = match written {
            Some(Ok(summary)) => {
                for one in &summary.damaged {
                    tracing::error!(path = one.path, detail = one.detail, "a damaged file cannot be backed up");
                }
                tracing::info!(rev, bytes = summary.bytes, records = summary.records, "a backup was sent");
                return Ok(());
            }
            Some(Err(fault)) => fault,
            None => Fault::unavailable("the registry is stopping"),
        };
        tracing::warn!(rev, error = %fault, "a backup broke off");
        // The connection is cut, so that nobody takes what has come for whole; unless it is gone already.
        drop(broken.0.send(Err(io::Error::other(fault))).await);
        Ok(())
    });
    let body = stream::unfold(pieces, |mut pieces| async move { pieces.recv().await.map(|piece| (piece, pieces)) });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"spear-backup.tar\"")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}
