//! Reading, in one transaction each: a page is of one moment.

use ::redb::{ReadTransaction, ReadableTable};
use std::ops::Bound;
use types::Timestamp;

use super::{
    format::{LOG, RECORDS, read_change, read_record},
    slot::{Trouble, meta},
};
use crate::{Change, Error, Page, Record, Rev};

/// Bytes of values in one page of changes, beyond which it ends early.
const MOST_BYTES: usize = 32 << 20;
/// A log entry from further in the future than this says that a clock was wrong, not that it is young.
const MOST_AHEAD_MILLIS: i64 = 24 * 3600 * 1000;

pub(super) fn get(txn: &ReadTransaction, key: &str) -> Result<Option<Record>, Trouble> {
    let found = get_many(txn, &[key])?;
    Ok(found.into_iter().next().flatten())
}

pub(super) fn get_many(txn: &ReadTransaction, keys: &[impl AsRef<str>]) -> Result<Vec<Option<Record>>, Trouble> {
    let table = txn.open_table(RECORDS)?;
    let one = |key: &[u8]| {
        let Some(found) = ReadableTable::get(&table, key)? else { return Ok(None) };
        record(key, found.value()).map(Some)
    };
    keys.iter().map(|key| one(key.as_ref().as_bytes())).collect()
}

pub(super) fn list(txn: &ReadTransaction, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Trouble> {
    let rev = meta(txn)?.head;
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    Ok(Page { rev, records: under(txn, prefix, from, (limit, usize::MAX))? })
}

/// What lies under a prefix, at or after `from`: so many records at most, and no further one once there are so many
/// bytes of values.
pub(super) fn under(
    txn: &ReadTransaction,
    prefix: &str,
    from: Bound<&str>,
    (limit, most_bytes): (usize, usize),
) -> Result<Vec<Record>, Trouble> {
    let table = txn.open_table(RECORDS)?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    for found in ReadableTable::range::<&[u8]>(&table, (start(prefix, from), Bound::Unbounded))? {
        if records.len() >= limit || bytes >= most_bytes {
            break;
        }
        let (key, value) = found?;
        if !key.value().starts_with(prefix.as_bytes()) {
            break;
        }
        let record = record(key.value(), value.value())?;
        bytes += record.value.len();
        records.push(record);
    }
    Ok(records)
}

/// Where what lies under a prefix, at or after `from`, begins.
pub(super) fn start<'a>(prefix: &'a str, from: Bound<&'a str>) -> Bound<&'a [u8]> {
    match from {
        Bound::Included(key) if key >= prefix => Bound::Included(key.as_bytes()),
        Bound::Excluded(key) if key >= prefix => Bound::Excluded(key.as_bytes()),
        _ => Bound::Included(prefix.as_bytes()),
    }
}

fn record(key: &[u8], bytes: &[u8]) -> Result<Record, Trouble> {
    read_record(key, bytes).map_err(|detail| Trouble::Damage(format!("record \"{}\": {detail}", key.escape_ascii())))
}

/// Whole revisions; a hole in the log is damage.
pub(super) fn changes(txn: &ReadTransaction, after: Rev, limit: usize) -> Result<Vec<Change>, Trouble> {
    let meta = meta(txn)?;
    if after < meta.floor {
        return Err(Trouble::Refused(Error::Trimmed { floor: meta.floor }));
    }
    let (mut found, mut bytes) = (Vec::new(), 0);
    if after >= meta.head {
        return Ok(found);
    }
    let table = txn.open_table(LOG)?;
    let mut entries = ReadableTable::range::<u64>(&table, after + 1..=meta.head)?;
    for rev in after + 1..=meta.head {
        let (change, _, length) = entry(entries.next(), rev)?;
        bytes += length;
        found.push(change);
        if found.len() >= limit.max(1) || bytes > MOST_BYTES {
            break;
        }
    }
    Ok(found)
}

/// See [`crate::Engine::aged`]. Walks what is about to be trimmed, and one entry more.
pub(super) fn aged(txn: &ReadTransaction, upto: Rev, moment: Timestamp) -> Result<Rev, Trouble> {
    let meta = meta(txn)?;
    let table = txn.open_table(LOG)?;
    let mut last = meta.floor;
    for rev in meta.floor + 1..=upto.min(meta.head) {
        let found = ReadableTable::get(&table, rev)?;
        let Some(found) = found else { return Err(missing(rev)) };
        let (_, time) = log_entry(rev, found.value())?;
        if time >= moment && time.0 <= moment.0.saturating_add(MOST_AHEAD_MILLIS) {
            break;
        }
        last = rev;
    }
    Ok(last)
}

type Entry<'a> = (::redb::AccessGuard<'a, u64>, ::redb::AccessGuard<'a, &'static [u8]>);

fn entry(
    found: Option<Result<Entry<'_>, ::redb::StorageError>>,
    rev: Rev,
) -> Result<(Change, Timestamp, usize), Trouble> {
    let (at, bytes) = found.ok_or_else(|| missing(rev))??;
    if at.value() != rev {
        return Err(missing(rev));
    }
    let (change, time) = log_entry(rev, bytes.value())?;
    Ok((change, time, bytes.value().len()))
}

fn log_entry(rev: Rev, bytes: &[u8]) -> Result<(Change, Timestamp), Trouble> {
    read_change(rev, bytes).map_err(|detail| Trouble::Damage(format!("log entry {rev}: {detail}")))
}

fn missing(rev: Rev) -> Trouble {
    Trouble::Damage(format!("log entry {rev} is missing"))
}
