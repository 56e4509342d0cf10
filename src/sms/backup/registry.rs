//! The registry's own data: all records, the files that were uploaded, the logs of executions.

use std::sync::Arc;
use store::{Record, decode};
use supervise::Scope;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use types::{ErrorKind, Execution, Fault, FileRecord, Keyed};

use super::gather::{Attachment, Contents, Source, gather};
use crate::Sms;

/// Backups at the same time.
const MOST: usize = 2;

/// What of a registry's directory is kept.
pub struct Registry;

impl Contents for Registry {
    fn kind(&self) -> &'static str {
        "sms"
    }

    fn keeps(&self) -> &'static [&'static str] {
        &[""]
    }

    fn needs(&self) -> &'static [&'static str] {
        &[Execution::PREFIX, FileRecord::PREFIX]
    }

    fn attachment(&self, record: &Record) -> Result<Option<Attachment>, Fault> {
        if let Some(id) = record.key.strip_prefix(Execution::PREFIX) {
            return Ok(Some(Attachment { path: format!("logs/{id}.ndjson"), proof: None }));
        }
        let FileRecord { id, len, sha256, .. } = decode(&record.key, &record.value)?;
        Ok(Some(Attachment { path: format!("files/{id}"), proof: Some((len, sha256)) }))
    }

    fn others(&self) -> &'static [&'static str] {
        &[]
    }
}

/// Backups of a running registry.
pub(crate) struct Backups {
    permits: Arc<Semaphore>,
    pub(super) scope: Scope,
}

impl Backups {
    pub(crate) fn new(scope: &Scope) -> Arc<Self> {
        Arc::new(Self { permits: Arc::new(Semaphore::new(MOST)), scope: scope.child("backup") })
    }
}

/// Gathers a backup of a running registry. The permit is to be kept until it has been written.
pub(super) async fn begin(sms: &Sms) -> Result<(Source, OwnedSemaphorePermit), Fault> {
    let Ok(permit) = sms.backups.permits.clone().try_acquire_owned() else {
        let message = format!("{MOST} backups are under way; try again when one has ended");
        return Err(Fault::new(ErrorKind::Exhausted, "TOO_MANY_BACKUPS", message));
    };
    let (files, logs) = (sms.files.removals().hold().await, sms.executions.logs.removals.hold().await);
    let store = sms.bus.store();
    let snapshot = store.snapshot().await?;
    let mut source = gather(snapshot, &sms.data_dir, &Registry, (store.log_id(), sms.clock.wall())).await?;
    source.holds = vec![files.settle(), logs.settle()];
    Ok((source, permit))
}
