//! The engine on disk: redb in one file, `store.redb` of a data directory.
//!
//! ```text
//!   commit_many, trim ──► queue ──► thread "store-write" ──► one redb transaction, two-phase, fsync ──► head moves
//!   get, list, changes ──► blocking pool, at most 32 at a time ──► one redb read transaction
//!   both ──► slot (open, failed, closed) ──► redb ──► checked blocks ──► file
//! ```
//! Invariants
//! * State, log entry, revision and floor are written by one transaction; guards are looked at inside it, in
//!   order, so a batch sees what earlier batches of its group did.
//! * The writes have a thread of their own: handing over costs microseconds against the milliseconds of an fsync,
//!   and a commit never queues behind other work of the blocking pool. Reads go to that pool even though most of
//!   them are answered from memory in a few microseconds: one that has to wait for the disk would hold an executor
//!   thread, and on a small machine that is half of the server.
//! * A file is made under another name and renamed when it is complete, so a store that is there is whole.
//! * Wrong bytes are found: each block has a checksum below redb, each record and log entry one above it, and
//!   after an unclean stop everything is looked at before the store is served.

mod ballast;
mod blocks;
mod building;
mod check;
mod compact;
mod format;
mod mark;
mod overlay;
mod reader;
mod slot;
mod snapshot;
mod space;
mod stopped;
mod writer;

use async_trait::async_trait;
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use types::{Clock, LogId, Timestamp};

use self::{
    ballast::Ballast,
    blocks::{Blocks, Label},
    format::{FORMAT, LOG, META, Meta, RECORDS, STORE},
    slot::{Core, Opener, Trouble},
    writer::Request,
};
use crate::{
    Batch, Change, Conflict, DataDir, Engine, Error, Page, Record, Rev, Snapshot, Space,
    directory::{sync_directory, unusable},
};

pub use building::Building;
pub use check::{Report, check};
pub use compact::{Compacted, compact};
pub use space::Reserve;
pub use stopped::Stopped;

/// Name of the file in the data directory.
pub const FILE: &str = "store.redb";
/// Requests that may wait for the write thread; a full queue makes the callers wait.
const QUEUE: usize = 16;
/// Reads at the same time, so that the blocking pool is never full of them.
const READERS: usize = 32;
const NEXT: &str = "restore a backup of the data directory, or move store.redb and store.clean away to begin with \
                    an empty store";

/// How a store is opened.
#[derive(Clone)]
pub struct Config {
    /// Where; held as long as the store is open.
    pub dir: DataDir,
    /// For the times in the log.
    pub clock: Arc<dyn Clock>,
    /// Memory for pages, bytes.
    pub cache_bytes: usize,
    /// Room on the disk that is not used up.
    pub reserve: Reserve,
}

impl Config {
    /// With 64 MiB of memory for pages and the usual reserve.
    pub fn new(dir: DataDir, clock: Arc<dyn Clock>) -> Self {
        Self { dir, clock, cache_bytes: 64 << 20, reserve: Reserve::Usual }
    }
}

/// An engine on disk.
pub struct Redb {
    core: Arc<Core>,
    queue: mpsc::Sender<Request>,
    readers: Arc<Semaphore>,
}

impl Redb {
    /// Opens the store of a data directory and makes one where there is none. Blocks on the disk, and after an
    /// unclean stop reads the whole store: for the start of a program.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::Version`] and [`Error::Corrupt`] leave the file as it is; [`Error::Full`],
    /// [`Error::Unusable`], [`Error::Failed`].
    pub fn open(config: Config) -> Result<Self, Error> {
        Self::open_on(config, Arc::new(|file: File| Box::new(file)))
    }

    fn open_on(config: Config, opener: Opener) -> Result<Self, Error> {
        let dir = config.dir.path();
        let path = dir.join(FILE);
        if !exists(&path)? {
            create(dir, &path, &opener, config.cache_bytes)?;
        }
        compact::sweep(dir).map_err(|error| unusable(dir, "cannot remove an unfinished copy", &error))?;
        let mark = mark::read(dir);
        mark::remove(dir)
            .map_err(|error| unusable(dir, "cannot remove the mark of the last stop and sync that", &error))?;
        let mut opened = slot::open(&path, &opener, config.cache_bytes).map_err(advise)?;
        let looked = check::opened(&path, &mut opened, mark);
        let meta = match looked {
            Ok(meta) => meta,
            Err(error) => {
                slot::shut(opened);
                return Err(advise(error));
            }
        };
        let core = Arc::new(Core::new(config.dir.clone(), path.clone(), opener, config.cache_bytes, (opened, meta)));
        let (queue, waiting) = mpsc::channel(QUEUE);
        let ballast = Ballast::new(dir);
        let writer = writer::Writer { core: core.clone(), clock: config.clock, reserve: config.reserve, ballast };
        let started = std::thread::Builder::new().name("store-write".to_owned()).spawn(move || writer.run(waiting));
        started.map_err(|error| unusable(&path, "cannot start the write thread", &error))?;
        Ok(Self { core, queue, readers: Arc::new(Semaphore::new(READERS)) })
    }

    async fn read<T: Send + 'static>(
        &self,
        look: impl Fn(&::redb::ReadTransaction) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = self.readers.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let core = self.core.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            core.read(look)
        });
        looked.await.unwrap_or(Err(Error::Closed))
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Request) -> Result<T, Error> {
        let (answer, wait) = oneshot::channel();
        self.queue.send(request(answer)).await.map_err(|_| Error::Closed)?;
        wait.await.unwrap_or(Err(Error::Closed))
    }
}

#[async_trait]
impl Engine for Redb {
    async fn get(&self, key: &str) -> Result<Option<Record>, Error> {
        let key = key.to_owned();
        self.read(move |txn| reader::get(txn, &key)).await
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Record>>, Error> {
        let keys = keys.to_vec();
        self.read(move |txn| reader::get_many(txn, &keys)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.read(move |txn| reader::list(txn, &prefix, after.as_deref(), limit)).await
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        Ok(Box::new(snapshot::Moment::hold(self.core.clone(), self.readers.clone()).await?))
    }

    async fn commit_many(&self, batches: Vec<Batch>) -> Result<Vec<Result<Rev, Conflict>>, Error> {
        batches.iter().try_for_each(crate::commit::check)?;
        self.ask(|answer| Request::Commit(batches, answer)).await
    }

    async fn changes(&self, after: Rev, limit: usize) -> Result<Vec<Change>, Error> {
        self.read(move |txn| reader::changes(txn, after, limit)).await
    }

    async fn trim(&self, upto: Rev) -> Result<(), Error> {
        // In pieces: commits are served between them.
        while self.ask(|answer| Request::Trim(upto, answer)).await? {}
        Ok(())
    }

    async fn floor(&self) -> Result<Rev, Error> {
        self.read(|txn| Ok(slot::meta(txn)?.floor)).await
    }

    async fn aged(&self, upto: Rev, moment: Timestamp) -> Result<Rev, Error> {
        self.read(move |txn| reader::aged(txn, upto, moment)).await
    }

    fn head(&self) -> watch::Receiver<Rev> {
        self.core.head.subscribe()
    }

    fn log_id(&self) -> LogId {
        self.core.log_id
    }

    fn space(&self) -> Option<Space> {
        space::look(self.core.dir.path(), &self.core.path)
    }

    async fn close(&self) -> Result<(), Error> {
        self.ask(Request::Close).await
    }
}

/// Is there a store? Anything else at its path is refused and left alone.
fn exists(path: &Path) -> Result<bool, Error> {
    let foreign = |detail: String| Error::Foreign { path: path.to_owned(), detail };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(foreign("it is not a regular file".to_owned())),
        Ok(_) => {
            let file = OpenOptions::new().read(true).open(path);
            let file = file.map_err(|error| unusable(path, "cannot open it", &error))?;
            match blocks::label(&file).map_err(|error| unusable(path, "cannot read it", &error))? {
                Label::Ours => Ok(true),
                Label::Foreign(detail) => Err(foreign(detail)),
                Label::Newer(found) => Err(Error::Version { path: path.to_owned(), found, known: FORMAT }),
                Label::Damaged(detail) => Err(advise(Error::Corrupt { path: path.to_owned(), detail })),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unusable(path, "cannot look at it", &error)),
    }
}

/// Makes an empty store under another name, complete and on the disk, and gives it its name.
fn create(dir: &Path, path: &Path, opener: &Opener, cache_bytes: usize) -> Result<(), Error> {
    let new = dir.join(format!("{FILE}.new"));
    let mut options = OpenOptions::new();
    let made = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&new);
    let made = made.and_then(|file| Blocks::create(opener(file)));
    let blocks = made.map_err(|error| unusable(&new, "cannot make the store", &error))?;
    let faults = blocks.faults();
    let filled = slot::open_blocks(&new, blocks, cache_bytes).and_then(|opened| {
        let filled = slot::guarded(|| {
            let mut txn = opened.db.begin_write()?;
            txn.set_quick_repair(true);
            txn.open_table(RECORDS)?;
            txn.open_table(LOG)?;
            txn.open_table(META)?.insert(STORE, Meta::new(LogId::new()).encode().as_slice())?;
            Ok(txn.commit()?)
        });
        slot::shut(opened);
        filled.map_err(|trouble| slot::explain(&new, trouble))
    });
    match faults.last() {
        Some(fault) if fault.full => return Err(Error::Full { path: new, detail: fault.detail }),
        Some(fault) => return Err(Error::Failed { path: new, detail: fault.detail }),
        None => filled?,
    }
    let named = File::open(&new).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&new, path));
    let named = named.and_then(|()| sync_directory(dir));
    named.map_err(|error| unusable(path, "cannot name the new store", &error))
}

/// Says what to do about damage that is found at the start.
fn advise(error: Error) -> Error {
    match error {
        Error::Corrupt { path, detail } => Error::Corrupt { path, detail: format!("{detail}; {NEXT}") },
        error => error,
    }
}

#[cfg(test)]
mod tests;
