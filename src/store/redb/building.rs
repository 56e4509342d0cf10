//! Makes a store file of records and log entries that exist already: restoring a backup, and compacting.
//!
//! It is filled under a name of its own. Only [`Building::finish`] makes it the store of its directory: one last
//! transaction with what it says of itself, fsync, rename, fsync of the directory, and the mark of a clean stop, for
//! all of it was just written. A process that ends before leaves a file that nobody takes for a store.

use ::redb::WriteTransaction;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use types::{LogId, Timestamp};

use super::{
    Blocks, FILE,
    blocks::Faults,
    format::{self, LOG, META, Meta, RECORDS, STORE},
    mark,
    slot::{self, Opened, Trouble, guarded},
};
use crate::{
    Change, Error, MOST_KEY, MOST_VALUE, Record, Rev,
    directory::{sync_directory, unusable},
};

/// Bytes of one transaction.
const TOGETHER: usize = 16 << 20;
/// Records and entries of one transaction.
const MOST_TOGETHER: usize = 8192;
const CACHE_BYTES: usize = 64 << 20;

enum Item {
    Record(String, Vec<u8>),
    Entry(Rev, Vec<u8>),
}

/// A store that is being filled.
pub struct Building {
    dir: PathBuf,
    path: PathBuf,
    opened: Option<Opened>,
    waiting: Vec<Item>,
    bytes: usize,
    records: u64,
}

impl Building {
    /// An empty one for a directory that is there, under a `name` of its own; what has that name is written over.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Unusable`], [`Error::Failed`].
    pub fn begin(dir: &Path, name: &str) -> Result<Self, Error> {
        let path = &dir.join(name);
        let mut options = OpenOptions::new();
        let made = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
        let made = made.and_then(|file| Blocks::create(Box::new(file)));
        let blocks = made.map_err(|error| unusable(path, "cannot make the store", &error))?;
        let faults = blocks.faults();
        let opened = slot::open_blocks(path, blocks, CACHE_BYTES).map_err(|error| told(path, &faults, error))?;
        let (dir, path) = (dir.to_owned(), path.clone());
        let this = Self { dir, path, opened: Some(opened), waiting: Vec::new(), bytes: 0, records: 0 };
        this.write(|txn| {
            txn.open_table(RECORDS)?;
            txn.open_table(LOG)?;
            txn.open_table(META)?;
            Ok(())
        })?;
        Ok(this)
    }

    /// Adds a record as it is, with its revisions.
    ///
    /// # Errors
    /// [`Error::Decode`] for one that no store can have; otherwise as [`Building::begin`].
    pub fn record(&mut self, record: &Record) -> Result<(), Error> {
        let Record { key, value, created, modified } = record;
        let wrong = |detail: String| Err(Error::Decode { key: key.chars().take(MOST_KEY).collect(), detail });
        if key.is_empty() || key.len() > MOST_KEY || value.len() > MOST_VALUE {
            return wrong(format!("a key of {} bytes with a value of {}", key.len(), value.len()));
        }
        if *created == 0 || created > modified {
            return wrong(format!("made by revision {created}, changed by {modified}"));
        }
        let bytes = format::record(key, value, *created, *modified);
        self.records += 1;
        self.add(Item::Record(key.clone(), bytes))
    }

    /// Adds an entry of the log.
    ///
    /// # Errors
    /// As [`Building::begin`].
    pub fn change(&mut self, change: &Change, time: Timestamp) -> Result<(), Error> {
        let bytes = format::change(change, time);
        self.add(Item::Entry(change.rev, bytes))
    }

    fn add(&mut self, item: Item) -> Result<(), Error> {
        let (Item::Record(_, bytes) | Item::Entry(_, bytes)) = &item;
        self.bytes += bytes.len();
        self.waiting.push(item);
        if self.bytes >= TOGETHER || self.waiting.len() >= MOST_TOGETHER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let waiting = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        self.write(|txn| {
            let (mut records, mut log) = (txn.open_table(RECORDS)?, txn.open_table(LOG)?);
            for item in &waiting {
                let (twice, what) = match item {
                    Item::Record(key, bytes) => {
                        (records.insert(key.as_bytes(), bytes.as_slice())?.is_some(), key.clone())
                    }
                    Item::Entry(rev, bytes) => (log.insert(rev, bytes.as_slice())?.is_some(), rev.to_string()),
                };
                if twice {
                    return Err(Trouble::Damage(format!("{what:?} is there twice")));
                }
            }
            Ok(())
        })
    }

    /// Completes it, with `log_id` and the revisions between which its log lies, and puts it in the place of the
    /// directory's store. On the disk when this returns. Returns its length.
    ///
    /// # Errors
    /// As [`Building::begin`].
    pub fn finish(mut self, log_id: LogId, floor: Rev, head: Rev) -> Result<u64, Error> {
        self.flush()?;
        self.write(|txn| {
            let meta = Meta { head, floor, ..Meta::new(log_id) };
            txn.open_table(META)?.insert(STORE, meta.encode().as_slice())?;
            Ok(())
        })?;
        let Some(mut opened) = self.opened.take() else { return Err(Error::Closed) };
        // Filling leaves room behind the pages that were written over.
        let compacted = guarded(|| {
            opened.db.compact().map(drop).map_err(|error| Trouble::Damage(format!("cannot compact it: {error}")))
        });
        let faults = opened.faults.clone();
        slot::shut(opened);
        compacted.map_err(|trouble| told(&self.path, &faults, slot::explain(&self.path, trouble)))?;
        if let Some(fault) = faults.last() {
            return Err(Error::Failed { path: self.path.clone(), detail: fault.detail });
        }
        let length = self.name(log_id, head);
        length.map_err(|error| unusable(&self.path, "cannot put the store in its place", &error))
    }

    fn name(&self, log_id: LogId, head: Rev) -> io::Result<u64> {
        let file = File::open(&self.path)?;
        file.sync_all()?;
        fs::rename(&self.path, self.dir.join(FILE))?;
        sync_directory(&self.dir)?;
        mark::leave(&self.dir, log_id, head)?;
        Ok(file.metadata()?.len())
    }

    /// Records that were added.
    pub fn records(&self) -> u64 {
        self.records
    }

    fn write(&self, change: impl Fn(&WriteTransaction) -> Result<(), Trouble>) -> Result<(), Error> {
        let Some(opened) = &self.opened else { return Err(Error::Closed) };
        let written = guarded(|| {
            let mut txn = opened.db.begin_write()?;
            txn.set_quick_repair(true);
            change(&txn)?;
            Ok(txn.commit()?)
        });
        written.map_err(|trouble| told(&self.path, &opened.faults, slot::explain(&self.path, trouble)))
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        // Unfinished: nobody wants it.
        if let Some(opened) = self.opened.take() {
            slot::shut(opened);
            if let Err(error) = fs::remove_file(&self.path) {
                tracing::warn!(path = %self.path.display(), %error, "cannot remove an unfinished store");
            }
        }
    }
}

/// What the disk said counts for more than what became of it in the engine.
fn told(path: &Path, faults: &Faults, error: Error) -> Error {
    match faults.last() {
        Some(fault) if fault.full => Error::Full { path: path.to_owned(), detail: fault.detail },
        Some(fault) => Error::Failed { path: path.to_owned(), detail: fault.detail },
        None => error,
    }
}
