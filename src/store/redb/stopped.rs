//! A store that no process uses, opened for reading: `spear store dump`, and backups without a server.
//!
//! The file is not written; what opening writes is kept in memory. Every record and log entry is handed out only if
//! its checksum holds.

use ::redb::{ReadTransaction, ReadableDatabase, ReadableTable};
use async_trait::async_trait;
use std::{
    fs::File,
    ops::Bound,
    path::{Path, PathBuf},
};
use types::{LogId, Timestamp};

use super::{
    Blocks, FILE,
    blocks::{Label, label},
    check,
    format::{FORMAT, LOG, Meta, RECORDS, read_change, read_record},
    overlay::Overlay,
    reader,
    slot::{self, Opened, Trouble, guarded},
};
use crate::{Change, DataDir, Error, Record, Rev, Snapshot, directory::unusable, engine::MOST_PAGE_BYTES};

const CACHE_BYTES: usize = 64 << 20;

/// A store that is not running. The directory is ours as long as this lives.
pub struct Stopped {
    /// Taken out when it is let go.
    opened: Option<Opened>,
    meta: Meta,
    path: PathBuf,
    bytes: u64,
    _held: DataDir,
}

impl Stopped {
    /// Opens the store of a data directory that no process has open. Nothing is written but the lock.
    ///
    /// # Errors
    /// As [`super::Redb::open`]; [`Error::Corrupt`] only when it cannot be read at all.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let file = File::open(&path).map_err(|error| unusable(&path, "cannot open the store", &error))?;
        let held = DataDir::open(dir)?;
        let bytes = file.metadata().map_err(|error| unusable(&path, "cannot look at it", &error))?.len();
        match label(&file).map_err(|error| unusable(&path, "cannot read it", &error))? {
            Label::Ours => {}
            Label::Foreign(detail) => return Err(Error::Foreign { path, detail }),
            Label::Newer(found) => return Err(Error::Version { path, found, known: FORMAT }),
            Label::Damaged(detail) => return Err(Error::Corrupt { path, detail }),
        }
        let opened = slot::open_blocks(&path, Blocks::open(Box::new(Overlay::new(file))), CACHE_BYTES)?;
        let meta = guarded(|| check::ends(&opened.db));
        let mut this = Self { opened: Some(opened), meta: Meta::new(LogId::default()), path, bytes, _held: held };
        this.meta = meta.map_err(|trouble| slot::explain(&this.path, trouble))?;
        if this.meta.oldest_reader > FORMAT {
            return Err(Error::Version { path: this.path.clone(), found: this.meta.format, known: FORMAT });
        }
        Ok(this)
    }

    /// Identity of its log.
    pub fn log_id(&self) -> LogId {
        self.meta.log_id
    }

    /// Last revision.
    pub fn head(&self) -> Rev {
        self.meta.head
    }

    /// Last revision before the oldest log entry.
    pub fn floor(&self) -> Rev {
        self.meta.floor
    }

    /// Length of its file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Every record under a prefix, in order; an error text in place of one whose checksum does not hold.
    ///
    /// # Errors
    /// That of `each`; [`Error::Corrupt`] where the file cannot be read on.
    pub fn records<E: From<Error>>(
        &self,
        prefix: &str,
        mut each: impl FnMut(Result<Record, String>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.walk(|txn, stop| {
            let table = txn.open_table(RECORDS)?;
            for found in
                ReadableTable::range::<&[u8]>(&table, (reader::start(prefix, Bound::Unbounded), Bound::Unbounded))?
            {
                let (key, bytes) = found?;
                let key = key.value();
                if !key.starts_with(prefix.as_bytes()) {
                    break;
                }
                let record = read_record(key, bytes.value());
                if stop.at(each(record.map_err(|detail| format!("record \"{}\": {detail}", key.escape_ascii())))) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Every entry of the log after a revision, with its time; an error text in place of one whose checksum does
    /// not hold.
    ///
    /// # Errors
    /// As [`Stopped::records`].
    pub fn changes<E: From<Error>>(
        &self,
        after: Rev,
        mut each: impl FnMut(Result<(Change, Timestamp), String>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.walk(|txn, stop| {
            let table = txn.open_table(LOG)?;
            for found in ReadableTable::range::<u64>(&table, (Bound::Excluded(after), Bound::Unbounded))? {
                let (rev, bytes) = found?;
                let entry = read_change(rev.value(), bytes.value());
                if stop.at(each(entry.map_err(|detail| format!("log entry {}: {detail}", rev.value())))) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn walk<E: From<Error>>(
        &self,
        mut look: impl FnMut(&ReadTransaction, &mut Ended<E>) -> Result<(), Trouble>,
    ) -> Result<(), E> {
        let Some(opened) = &self.opened else { return Err(Error::Closed.into()) };
        let mut ended = Ended(None);
        let walked = guarded(|| look(&opened.db.begin_read()?, &mut ended));
        match ended.0 {
            Some(error) => Err(error),
            None => Ok(walked.map_err(|trouble| slot::explain(&self.path, trouble))?),
        }
    }

    /// Looks at every byte that is in use, as after an unclean stop.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the first thing that is wrong.
    pub fn verify(&mut self) -> Result<(), Error> {
        let Some(opened) = &mut self.opened else { return Err(Error::Closed) };
        check::opened(&self.path, opened, None).map(drop)
    }
}

/// What the caller of a walk answered when it wanted no more.
struct Ended<E>(Option<E>);

impl<E> Ended<E> {
    fn at(&mut self, answer: Result<(), E>) -> bool {
        self.0 = answer.err();
        self.0.is_some()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Some(opened) = self.opened.take() {
            slot::shut(opened);
        }
    }
}

#[async_trait]
impl Snapshot for Stopped {
    fn rev(&self) -> Rev {
        self.meta.head
    }

    /// Reads on the thread that asks: nobody else is served meanwhile.
    async fn list(&self, prefix: &str, from: Bound<&str>, limit: usize) -> Result<Vec<Record>, Error> {
        let Some(opened) = &self.opened else { return Err(Error::Closed) };
        let listed = guarded(|| reader::under(&opened.db.begin_read()?, prefix, from, (limit, MOST_PAGE_BYTES)));
        listed.map_err(|trouble| slot::explain(&self.path, trouble))
    }
}
