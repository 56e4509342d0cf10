//! The open database, and what is done when it fails.
//!
//! redb refuses everything after one failed call to the file until it is opened again. So the database stands in
//! a slot: readers and the writer share it, reopening has it alone.
//!
//! ```text
//!              read fails, damaged or EIO: that read fails, the next one finds it reopened
//!           ┌──────────────────────────────┐
//!   Open ───┤ write finds no room: reopened, then the head says whether it was applied
//!           └──► Failed   fsync failed, EIO on a write, redb panicked while writing: for good
//!   Open ───► Closed      in order; leaves the mark of a clean stop
//! ```

use ::redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use std::{
    fs::{File, OpenOptions},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::watch;
use types::LogId;

use super::{
    blocks::{Blocks, Call, Disk, Faults},
    format::{META, Meta, STORE},
    mark,
    snapshot::Held,
};
use crate::{DataDir, Error, Rev};

/// How the file becomes a disk; tests put a failing one in between.
pub(super) type Opener = Arc<dyn Fn(File) -> Box<dyn Disk> + Send + Sync>;

/// Why a transaction did not go through.
pub(super) enum Trouble {
    /// An answer, not a failure.
    Refused(Error),
    /// Our own checks found wrong bytes.
    Damage(String),
    /// redb's word.
    Engine(Box<::redb::Error>),
    /// redb panicked.
    Panic(String),
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<::redb::$error> for Trouble {
            fn from(error: ::redb::$error) -> Self {
                Self::Engine(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

/// Runs something of redb; a panic there is an answer, not the end of a thread.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Trouble::Panic(text.unwrap_or_default()))
    })
}

/// An open database. The moments that are held go before it.
pub(super) struct Opened {
    pub held: Held,
    pub db: Database,
    pub faults: Arc<Faults>,
    generation: u64,
}

enum Slot {
    Open(Opened),
    Closed,
    Failed(Error),
}

impl Slot {
    fn opened(&self) -> Result<&Opened, Error> {
        match self {
            Self::Open(opened) => Ok(opened),
            Self::Closed => Err(Error::Closed),
            Self::Failed(error) => Err(error.clone()),
        }
    }
}

/// What readers and the writer share.
pub(super) struct Core {
    pub dir: DataDir,
    pub path: PathBuf,
    pub log_id: LogId,
    pub head: watch::Sender<Rev>,
    cache_bytes: usize,
    opener: Opener,
    slot: RwLock<Slot>,
    /// Numbers of the moments that were held.
    moments: AtomicU64,
    /// Damage was seen: the next start looks at everything.
    damaged: AtomicBool,
}

impl Core {
    pub(super) fn new(dir: DataDir, path: PathBuf, opener: Opener, cache_bytes: usize, opened: (Opened, Meta)) -> Self {
        let (opened, meta) = opened;
        Self {
            dir,
            path,
            log_id: meta.log_id,
            head: watch::Sender::new(meta.head),
            cache_bytes,
            opener,
            slot: RwLock::new(Slot::Open(opened)),
            moments: AtomicU64::new(0),
            damaged: AtomicBool::new(false),
        }
    }

    /// Looks at one moment of the store.
    pub(super) fn read<T>(&self, look: impl Fn(&ReadTransaction) -> Result<T, Trouble>) -> Result<T, Error> {
        let mut again = true;
        loop {
            let (trouble, generation) = {
                let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
                let opened = slot.opened()?;
                match guarded(|| look(&opened.db.begin_read()?)) {
                    Ok(seen) => return Ok(seen),
                    Err(trouble) => (trouble, opened.generation),
                }
            };
            match trouble {
                Trouble::Refused(error) => return Err(error),
                Trouble::Damage(_) => return Err(self.explain(trouble)),
                Trouble::Engine(error) if matches!(*error, ::redb::Error::PreviousIo) && again => {
                    self.reopen(generation)?;
                    again = false;
                }
                trouble => {
                    let error = self.explain(trouble);
                    self.reopen(generation)?;
                    return Err(error);
                }
            }
        }
    }

    /// Holds this moment; its number, for [`Core::read_held`], and its revision.
    pub(super) fn hold(&self) -> Result<(u64, Rev), Error> {
        // Whatever is wrong with the database is settled by an ordinary read.
        self.read(|txn| meta(txn).map(drop))?;
        let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        let opened = slot.opened()?;
        let held = guarded(|| {
            let txn = opened.db.begin_read()?;
            let rev = meta(&txn)?.head;
            Ok((txn, rev))
        });
        let (txn, rev) = held.map_err(|trouble| self.explain(trouble))?;
        let number = self.moments.fetch_add(1, Ordering::Relaxed);
        opened.held.put(number, txn);
        Ok((number, rev))
    }

    /// Looks at a moment that is held.
    pub(super) fn read_held<T>(
        &self,
        number: u64,
        look: impl Fn(&ReadTransaction) -> Result<T, Trouble>,
    ) -> Result<T, Error> {
        let (trouble, generation) = {
            let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
            let opened = slot.opened()?;
            let txn = opened.held.get(number).ok_or(Error::SnapshotGone)?;
            match guarded(|| look(&txn)) {
                Ok(seen) => return Ok(seen),
                Err(trouble) => (trouble, opened.generation),
            }
        };
        let only_this = matches!(trouble, Trouble::Refused(_) | Trouble::Damage(_));
        let error = self.explain(trouble);
        if !only_this {
            self.reopen(generation)?;
        }
        Err(error)
    }

    /// Lets a moment go.
    pub(super) fn let_go(&self, number: u64) {
        let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        if let Ok(opened) = slot.opened() {
            opened.held.remove(number);
        }
    }

    /// Changes the store: `change` alters tables and what the store says of itself; when it leaves the latter
    /// alone, nothing is written. On the disk when it returns.
    pub(super) fn write<T>(
        &self,
        change: impl Fn(&WriteTransaction, &mut Meta) -> Result<T, Trouble>,
    ) -> Result<T, Error> {
        let mut again = true;
        loop {
            let mut planned = None;
            let (trouble, generation, faults) = {
                let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
                let opened = slot.opened()?;
                match guarded(|| transact(&opened.db, &change, &mut planned)) {
                    Ok(done) => return Ok(done),
                    Err(trouble) => (trouble, opened.generation, opened.faults.clone()),
                }
            };
            let latched = matches!(&trouble, Trouble::Engine(error) if matches!(**error, ::redb::Error::PreviousIo));
            match self.settle(trouble, planned, generation, &faults)? {
                Settled::Applied(done) => return Ok(done),
                Settled::Nothing(_) if latched && again => again = false,
                Settled::Nothing(error) => return Err(error),
            }
        }
    }

    /// After a failed write: was it applied? `Err` when that cannot be known; then nothing is written any more.
    fn settle<T>(
        &self,
        trouble: Trouble,
        planned: Option<(Meta, Meta, T)>,
        generation: u64,
        faults: &Faults,
    ) -> Result<Settled<T>, Error> {
        match trouble {
            Trouble::Refused(error) => return Ok(Settled::Nothing(error)),
            Trouble::Damage(_) => return Ok(Settled::Nothing(self.explain(trouble))),
            _ => {}
        }
        let last = faults.last();
        let known = last.filter(|fault| (fault.full || fault.call == Call::Read) && !faults.sync_failed());
        let (Some(fault), Trouble::Engine(_)) = (known, &trouble) else {
            let error = self.explain(trouble);
            self.fail(&error);
            return Err(error);
        };
        let error = if fault.full {
            tracing::warn!(path = %self.path.display(), detail = fault.detail, "no space left, the store is reopened");
            Error::Full { path: self.path.clone(), detail: fault.detail }
        } else {
            self.explain(trouble)
        };
        self.reopen(generation)?;
        let Some((before, after, done)) = planned else { return Ok(Settled::Nothing(error)) };
        match self.read(meta) {
            Ok(found) if found == before => Ok(Settled::Nothing(error)),
            Ok(found) if found == after => Ok(Settled::Applied(done)),
            Ok(_) | Err(_) => {
                let error = Error::Failed {
                    path: self.path.clone(),
                    detail: format!("after \"{error}\" it is unknown whether a write was applied"),
                };
                self.fail(&error);
                Err(error)
            }
        }
    }

    fn fail(&self, error: &Error) {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if let Slot::Open(opened) = std::mem::replace(&mut *slot, Slot::Failed(error.clone())) {
            shut(opened);
        }
    }

    /// Opens the database again, unless somebody else has done it since `generation`.
    fn reopen(&self, generation: u64) -> Result<(), Error> {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        match slot.opened() {
            Ok(opened) if opened.generation == generation => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error),
        }
        let Slot::Open(old) = std::mem::replace(&mut *slot, Slot::Closed) else { return Ok(()) };
        let sync_failed = old.faults.sync_failed();
        shut(old);
        let opened = if sync_failed {
            let detail = "an fsync failed: what is on the disk is unknown".to_owned();
            Err(Error::Failed { path: self.path.clone(), detail })
        } else {
            open(&self.path, &self.opener, self.cache_bytes)
        };
        match opened {
            Ok(opened) => *slot = Slot::Open(Opened { generation: generation + 1, ..opened }),
            Err(error) => {
                *slot = Slot::Failed(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Closes in order; see [`mark`].
    pub(super) fn close(&self) -> Result<(), Error> {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Closed) {
            Slot::Closed => Err(Error::Closed),
            Slot::Failed(_) => Ok(()),
            Slot::Open(opened) => {
                let faults = opened.faults.clone();
                shut(opened);
                if faults.last().is_some() || self.damaged.load(Ordering::Acquire) {
                    return Ok(());
                }
                let head = *self.head.borrow();
                mark::leave(self.dir.path(), self.log_id, head).map_err(|error| failed(&self.path, &error))
            }
        }
    }

    fn explain(&self, trouble: Trouble) -> Error {
        let error = explain(&self.path, trouble);
        if let Error::Corrupt { detail, .. } = &error {
            self.damaged.store(true, Ordering::Release);
            tracing::error!(path = %self.path.display(), detail, "the store is damaged");
        }
        error
    }
}

enum Settled<T> {
    Applied(T),
    Nothing(Error),
}

/// One write transaction; `planned` is set when nothing but the commit is left to do.
fn transact<T>(
    db: &Database,
    change: impl Fn(&WriteTransaction, &mut Meta) -> Result<T, Trouble>,
    planned: &mut Option<(Meta, Meta, T)>,
) -> Result<T, Trouble> {
    let mut txn = db.begin_write()?;
    // Two-phase commits, and an open after a crash that need not walk the whole file.
    txn.set_quick_repair(true);
    let before = {
        let table = txn.open_table(META)?;
        read_meta(table.get(STORE)?)?
    };
    let mut after = before;
    let done = change(&txn, &mut after)?;
    if after == before {
        txn.abort()?;
        return Ok(done);
    }
    txn.open_table(META)?.insert(STORE, after.encode().as_slice())?;
    *planned = Some((before, after, done));
    txn.commit()?;
    let (_, _, done) = planned.take().expect("it was put there before the commit");
    Ok(done)
}

/// What the store says of itself.
pub(super) fn meta(txn: &ReadTransaction) -> Result<Meta, Trouble> {
    let table = txn.open_table(META)?;
    read_meta(ReadableTable::get(&table, STORE)?)
}

fn read_meta(found: Option<::redb::AccessGuard<'_, &'static [u8]>>) -> Result<Meta, Trouble> {
    let found = found.ok_or_else(|| Trouble::Damage("it does not say what it is".to_owned()))?;
    Meta::decode(found.value()).map_err(|detail| Trouble::Damage(format!("what it says of itself: {detail}")))
}

/// Opens a file whose label is ours.
pub(super) fn open(path: &Path, opener: &Opener, cache_bytes: usize) -> Result<Opened, Error> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| failed(path, &error))?;
    // The directory is ours, but another part of this process could open the store a second time.
    if file.try_lock().is_err() {
        return Err(Error::InUse { path: path.to_owned(), pid: std::process::id().to_string() });
    }
    let disk = opener(file);
    // What an earlier process or database wrote is on the disk before it is believed.
    disk.sync().map_err(|error| failed(path, &error))?;
    open_blocks(path, Blocks::open(disk), cache_bytes)
}

pub(super) fn open_blocks(path: &Path, blocks: Blocks, cache_bytes: usize) -> Result<Opened, Error> {
    let faults = blocks.faults();
    let opened = guarded(|| Ok(Builder::new().set_cache_size(cache_bytes).create_with_backend(blocks)?));
    match opened {
        Ok(db) => Ok(Opened { held: Held::default(), db, faults, generation: 0 }),
        Err(trouble) => Err(explain(path, trouble)),
    }
}

/// Lets go of a database; redb may panic there after a failure.
pub(super) fn shut(opened: Opened) {
    drop(guarded(|| {
        drop(opened);
        Ok(())
    }));
}

/// The error of the store for what redb says.
pub(super) fn explain(path: &Path, trouble: Trouble) -> Error {
    use ::redb::Error as Engine;
    let corrupt = |detail: String| Error::Corrupt { path: path.to_owned(), detail };
    match trouble {
        Trouble::Refused(error) => error,
        Trouble::Damage(detail) => corrupt(detail),
        Trouble::Panic(detail) => corrupt(format!("the engine gave up: {detail}")),
        Trouble::Engine(error) => match *error {
            Engine::Io(error) => match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => corrupt(error.to_string()),
                _ => failed(path, &error),
            },
            Engine::DatabaseAlreadyOpen | Engine::DatabaseClosed => Error::Closed,
            Engine::PreviousIo | Engine::LockPoisoned(_) | Engine::TransactionPoisoned => {
                Error::Failed { path: path.to_owned(), detail: error.to_string() }
            }
            // Everything else is about what the file says: tables that are missing or of another type, old formats.
            error => corrupt(error.to_string()),
        },
    }
}

pub(super) fn failed(path: &Path, error: &io::Error) -> Error {
    Error::Failed { path: path.to_owned(), detail: error.to_string() }
}
