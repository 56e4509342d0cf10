//! What can be done with files.

use api::FileStream;
use bus::{Bus, Mirror};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::{path::PathBuf, sync::Arc};
use store::{Batch, Guard, Store, Table};
use supervise::{Live, Scope};
use telemetry::Metrics;
use tokio::{
    fs::File,
    sync::{Semaphore, oneshot},
};
use tokio_util::io::ReaderStream;
use types::{Clock, ErrorKind, Fault, FileId, FileRecord, Keyed};

use super::{
    read::{Proven, checked},
    records::{Label, disk, not_found, too_large},
    sweep::sweep,
    upload::{Received, receive},
};
use crate::{
    Config,
    backup::Removals,
    page::{Cut, Order, Page},
};

/// Uploads at once; more are told to try again.
const MOST_UPLOADS: usize = 128;
/// Bytes sent at once.
const BUFFER: usize = 64 * 1024;
/// Uploads stop while the disk has less than this left, so that records can still be written and things deleted.
const RESERVE: u64 = 64 << 20;

/// Files of the registry.
pub struct Service {
    store: Store,
    table: Table<FileRecord>,
    files: Mirror<FileRecord>,
    dir: PathBuf,
    config: Live<Config>,
    removals: Removals,
    uploads: Semaphore,
    proven: Proven,
    clock: Arc<dyn Clock>,
    scope: Scope,
}

impl Service {
    /// Measures from now on.
    pub(crate) fn measure(self: &Arc<Self>, metrics: &Metrics) {
        let files = Arc::downgrade(self);
        metrics.read("spear_files", "Files that are kept.", move || Some(files.upgrade()?.files.read().len() as f64));
        let files = Arc::downgrade(self);
        metrics.read("spear_files_bytes", "Bytes of all files that are kept.", move || {
            Some(files.upgrade()?.files.read().values().map(|file| file.len as f64).sum())
        });
        let files = Arc::downgrade(self);
        metrics.read("spear_file_uploads_in_flight", "Uploads under way.", move || {
            Some((MOST_UPLOADS - files.upgrade()?.uploads.available_permits().min(MOST_UPLOADS)) as f64)
        });
    }

    /// Opens `dir` and removes what unfinished uploads left there.
    ///
    /// # Errors
    /// When the store or the directory cannot be read.
    pub async fn start(
        store: &Store,
        bus: &Bus,
        (clock, config): (Arc<dyn Clock>, Live<Config>),
        dir: PathBuf,
        scope: &Scope,
    ) -> Result<Arc<Self>, Fault> {
        let files = bus.mirror::<FileRecord, Arc<FileRecord>>(scope, |file| file).await.map_err(crate::bus_fault)?;
        let (known, log_id, place) = (files.clone(), store.log_id(), dir.clone());
        let swept = tokio::task::spawn_blocking(move || {
            sweep(&place, log_id, |id| known.get(&id.to_string()).is_some())?;
            Removals::open(&place)
        });
        let removals = swept
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|error| disk("reading the directory of files", &dir, &error))?;
        Ok(Arc::new(Self {
            store: store.clone(),
            table: Table::new(store),
            files,
            dir,
            config,
            removals,
            uploads: Semaphore::new(MOST_UPLOADS),
            proven: Proven::default(),
            clock,
            scope: scope.child("files"),
        }))
    }

    /// Takes an upload in; when this returns, it is on disk and can be read.
    ///
    /// # Errors
    /// Over the limit, aborted, stalled, the disk is full; nothing is left behind then.
    pub(super) async fn upload<E: std::fmt::Display>(
        self: &Arc<Self>,
        label: Label,
        announced: Option<u64>,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<FileRecord, Fault> {
        let limit = self.limit();
        if announced.is_some_and(|len| len > limit) {
            return Err(too_large(limit));
        }
        let Ok(_place) = self.uploads.try_acquire() else {
            let message = format!("{MOST_UPLOADS} uploads are under way; try again");
            return Err(Fault::new(ErrorKind::Exhausted, "TOO_MANY_UPLOADS", message));
        };
        self.room(announced.unwrap_or(0)).await?;
        let id = FileId::new();
        let received = receive(&self.dir, id, limit, body).await?;
        let record = FileRecord {
            id,
            name: label.name,
            content_type: label.content_type,
            len: received.len,
            sha256: received.sha256.clone(),
            created_at: self.clock.wall(),
        };
        // From here on it is finished, whether or not the client still waits.
        let (answer, answered) = oneshot::channel();
        let service = self.clone();
        self.scope.spawn_once("finish-upload", async move {
            // Fails only when the client has gone away.
            drop(answer.send(service.finish(received, record).await));
            Ok(())
        });
        answered.await.unwrap_or_else(|_| Err(Fault::unavailable("the registry is stopping")))
    }

    async fn finish(&self, received: Received, record: FileRecord) -> Result<FileRecord, Fault> {
        let kept = received.keep(&self.store).await?;
        match self.table.insert(&record, Batch::new()).await {
            Ok(rev) => {
                kept.settle();
                self.files.reached(rev).await;
                Ok(record)
            }
            // These promise that nothing was written: the bytes go with `kept`.
            Err(error @ (store::Error::Conflict(_) | store::Error::Full { .. } | store::Error::TooLarge(_))) => {
                Err(error.into())
            }
            // Unknown: if there is no record after all, the next start sweeps the bytes away.
            Err(error) => {
                kept.settle();
                Err(error.into())
            }
        }
    }

    /// Refuses an upload that would take the last of the disk.
    pub(crate) async fn room(&self, announced: u64) -> Result<(), Fault> {
        let dir = self.dir.clone();
        let free = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&dir)).await;
        // Not knowing is no reason to refuse: the write will tell.
        let Ok(Ok(free)) = free else { return Ok(()) };
        let bytes = |blocks: u64| blocks.saturating_mul(free.f_frsize);
        fits(announced, bytes(free.f_bavail), bytes(free.f_blocks))
    }

    /// A file's record.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`.
    pub fn get(&self, id: FileId) -> Result<Arc<FileRecord>, Fault> {
        self.files.get(&id.to_string()).ok_or_else(|| not_found(&id.to_string()))
    }

    /// A file's record and its open bytes, known to be right.
    pub(super) async fn open(&self, id: FileId) -> Result<(Arc<FileRecord>, File), Fault> {
        let record = self.get(id)?;
        match self.proven.open(&self.dir.join(id.to_string()), &record).await {
            // Deleted while it was looked at.
            Err(_) if self.get(id).is_err() => Err(not_found(&id.to_string())),
            opened => Ok((record, opened?)),
        }
    }

    /// A file's record and its bytes, for agents.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `FILE_CORRUPT`; the stream ends with an error when the bytes change under it.
    pub async fn open_stream(&self, id: FileId) -> Result<FileStream, Fault> {
        let (record, file) = self.open(id).await?;
        let record = FileRecord::clone(&record);
        let bytes = checked(ReaderStream::with_capacity(file, BUFFER), record.clone()).boxed();
        Ok(FileStream { record, bytes })
    }

    /// Files, newest first, whose id or name contains `part` in any case.
    ///
    /// # Errors
    /// The cursor is of another list.
    pub(super) fn list(&self, part: Option<&str>, page: &Page) -> Result<Cut<Arc<FileRecord>>, Fault> {
        let files = self.files.read();
        let Some(part) = part.map(str::to_lowercase) else {
            return Ok(page.of(Order::Falling, &files)?.map(|(_, file)| file.clone()));
        };
        let named = |id: &str, file: &FileRecord| id.contains(&part) || file.name.to_lowercase().contains(&part);
        let wanted = files.iter().rev().filter(|(id, file)| named(id, file));
        Ok(page.cut(Order::Falling, wanted).map(Arc::clone))
    }

    /// Removes a file: first its record, then its bytes.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`; when the store fails.
    pub async fn delete(&self, id: FileId) -> Result<(), Fault> {
        let found = self.table.get(&id).await?.ok_or_else(|| not_found(&id.to_string()))?;
        let key = found.record.key();
        match self.store.commit(Batch::new().guard(Guard::At(key.clone(), found.modified)).delete(key)).await {
            Ok(rev) => self.files.reached(rev).await,
            // Records of files never change: somebody else has removed it.
            Err(store::Error::Conflict(_)) => return Err(not_found(&id.to_string())),
            Err(error) => return Err(error.into()),
        }
        self.proven.forget(id);
        let path = self.dir.join(id.to_string());
        if let Err(error) = self.removals.remove(&path).await {
            tracing::warn!(path = %path.display(), %error, "cannot remove a deleted file; the next start will");
        }
        Ok(())
    }

    /// How its files are removed, for backups.
    pub(crate) fn removals(&self) -> &Removals {
        &self.removals
    }

    /// Can the directory of files be reached?
    pub(crate) async fn is_there(&self) -> std::io::Result<()> {
        tokio::fs::metadata(&self.dir).await.map(drop)
    }

    /// Bytes that an upload may have.
    pub(super) fn limit(&self) -> u64 {
        self.config.get().max_upload_bytes
    }
}

/// Does an upload leave enough of a disk with so many bytes free of so many in all?
pub(super) fn fits(announced: u64, free: u64, whole: u64) -> Result<(), Fault> {
    let reserve = RESERVE.min(whole / 20);
    if free >= announced.saturating_add(reserve) {
        return Ok(());
    }
    let message = format!(
        "the disk has {free} bytes free, {reserve} of them reserved; delete something, or give it a larger disk"
    );
    Err(Fault::new(ErrorKind::StorageFull, "STORAGE_FULL", message))
}
