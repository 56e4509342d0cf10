//! Rewrites a store that no process uses to the size of what is in it.
//!
//! ```text
//!   store.redb ─ every record and log entry, checked ─► store.redb.compact ─ fsync ─► rename over store.redb
//!              ─ fsync of the directory ─► the mark of a clean stop
//! ```
//! Whenever it is cut short, `store.redb` is the old store or the new one, whole; what is left of the copy is
//! removed by the next start or the next compaction.

use std::{fs, io, path::Path};

use super::{FILE, building::Building, stopped::Stopped};
use crate::Error;

/// The copy while it is made.
const COPY: &str = "store.redb.compact";

/// Bytes of the file before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Before.
    pub before: u64,
    /// After.
    pub after: u64,
    /// Records that were copied.
    pub records: u64,
    /// Log entries that were copied.
    pub entries: u64,
}

/// Compacts the store of a data directory.
///
/// # Errors
/// [`Error::Corrupt`] names the first damage, and nothing is changed; [`Error::InUse`], [`Error::Full`] and the
/// others leave the store as it was, too.
pub fn compact(dir: &Path) -> Result<Compacted, Error> {
    let mut store = Stopped::open(dir)?;
    store.verify()?;
    let mut building = Building::begin(dir, COPY)?;
    let corrupt = |detail: String| Error::Corrupt { path: dir.join(FILE), detail };
    store.records("", |record| building.record(&record.map_err(corrupt)?))?;
    let mut entries = 0;
    store.changes(0, |entry| {
        let (change, time) = entry.map_err(corrupt)?;
        entries += 1;
        building.change(&change, time)
    })?;
    let (records, before) = (building.records(), store.bytes());
    let after = building.finish(store.log_id(), store.floor(), store.head())?;
    Ok(Compacted { before, after, records, entries })
}

/// Removes what a compaction that was cut short left.
pub(super) fn sweep(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(COPY)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
