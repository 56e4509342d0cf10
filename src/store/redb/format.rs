//! The bytes of records, log entries and the head, format version 1.
//!
//! ```text
//!   records  key            -> sum 16 | created 8 | modified 8 | value
//!   log      revision 8     -> sum 16 | time 8 | count 4 | count x (flags 1 | key length 2 | key | [length 4 | value])
//!   meta     "store"        -> sum 16 | format 4 | oldest reader 4 | log id 16 | head 8 | floor 8
//! ```
//! Little-endian. A sum is the XXH3-128 of the table's letter, the key and everything behind the sum, so a value
//! that stands under another key is found as well. It is verified at every read, whatever lies below.

use ::redb::TableDefinition;
use bytes::Bytes;
use types::{LogId, Timestamp};
use xxhash_rust::xxh3::Xxh3;

use crate::{Change, ChangeItem, Record, Rev};

/// Newest format that this program knows.
pub(super) const FORMAT: u32 = 1;
/// Oldest program that reads what this one writes, by the newest format it knows.
const OLDEST_READER: u32 = 1;

/// Keys are bytes, not `str`: redb would panic on a key that is none.
pub(super) const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
pub(super) const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");
/// The one key of [`META`].
pub(super) const STORE: &[u8] = b"store";

const SUM: usize = 16;
const HAS_VALUE: u8 = 1;
const CREATED: u8 = 2;

/// What a store says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub format: u32,
    pub oldest_reader: u32,
    pub log_id: LogId,
    pub head: Rev,
    pub floor: Rev,
}

impl Meta {
    pub(super) fn new(log_id: LogId) -> Self {
        Self { format: FORMAT, oldest_reader: OLDEST_READER, log_id, head: 0, floor: 0 }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; SUM];
        out.extend(self.format.to_le_bytes());
        out.extend(self.oldest_reader.to_le_bytes());
        out.extend(self.log_id.0.as_bytes());
        out.extend(self.head.to_le_bytes());
        out.extend(self.floor.to_le_bytes());
        seal(b'm', STORE, out)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = Reader(unseal(b'm', STORE, bytes)?);
        Ok(Self {
            format: u32::from_le_bytes(rest.array()?),
            oldest_reader: u32::from_le_bytes(rest.array()?),
            log_id: LogId(uuid::Uuid::from_bytes(rest.array()?)),
            head: rest.u64()?,
            floor: rest.u64()?,
        })
    }
}

/// The bytes of a record.
pub(super) fn record(key: &str, value: &[u8], created: Rev, modified: Rev) -> Vec<u8> {
    let mut out = Vec::with_capacity(SUM + 16 + value.len());
    out.resize(SUM, 0);
    out.extend(created.to_le_bytes());
    out.extend(modified.to_le_bytes());
    out.extend(value);
    seal(b'r', key.as_bytes(), out)
}

/// `created` and `modified` of a record whose sum holds, for guards.
pub(super) fn record_revs(key: &[u8], bytes: &[u8]) -> Result<(Rev, Rev), String> {
    let mut rest = Reader(unseal(b'r', key, bytes)?);
    Ok((rest.u64()?, rest.u64()?))
}

/// A record whose sum holds.
pub(super) fn read_record(key: &[u8], bytes: &[u8]) -> Result<Record, String> {
    let mut rest = Reader(unseal(b'r', key, bytes)?);
    let (created, modified) = (rest.u64()?, rest.u64()?);
    let key = std::str::from_utf8(key).map_err(|_| "its key is not text".to_owned())?;
    Ok(Record { key: key.to_owned(), value: Bytes::copy_from_slice(rest.0), created, modified })
}

/// The bytes of a log entry.
pub(super) fn change(change: &Change, time: Timestamp) -> Vec<u8> {
    let mut out = vec![0; SUM];
    out.extend(time.0.to_le_bytes());
    out.extend(length(change.items.len()));
    for item in &change.items {
        let flags = if item.value.is_some() { HAS_VALUE } else { 0 } | if item.created { CREATED } else { 0 };
        out.push(flags);
        out.extend(u16::try_from(item.key.len()).expect("keys are at most MOST_KEY bytes").to_le_bytes());
        out.extend(item.key.as_bytes());
        if let Some(value) = &item.value {
            out.extend(length(value.len()));
            out.extend(value);
        }
    }
    seal(b'l', &change.rev.to_le_bytes(), out)
}

/// A log entry whose sum holds, and when it was written.
pub(super) fn read_change(rev: Rev, bytes: &[u8]) -> Result<(Change, Timestamp), String> {
    let mut rest = Reader(unseal(b'l', &rev.to_le_bytes(), bytes)?);
    let time = Timestamp(i64::from_le_bytes(rest.array()?));
    let count = u32::from_le_bytes(rest.array()?);
    let mut items = Vec::new();
    for _ in 0..count {
        let [flags] = rest.array()?;
        let length = u16::from_le_bytes(rest.array()?);
        let key = std::str::from_utf8(rest.take(length.into())?).map_err(|_| "a key is not text".to_owned())?;
        let value = if flags & HAS_VALUE != 0 {
            let length = u32::from_le_bytes(rest.array()?);
            Some(Bytes::copy_from_slice(rest.take(length as usize)?))
        } else {
            None
        };
        items.push(ChangeItem { key: key.to_owned(), value, created: flags & CREATED != 0 });
    }
    match rest.0 {
        [] => Ok((Change { rev, items }, time)),
        more => Err(format!("{} bytes too many", more.len())),
    }
}

fn length(of: usize) -> [u8; 4] {
    u32::try_from(of).expect("values are at most MOST_VALUE bytes and batches smaller than memory").to_le_bytes()
}

fn sum(table: u8, key: &[u8], rest: &[u8]) -> [u8; SUM] {
    let mut hash = Xxh3::new();
    hash.update(&[table]);
    hash.update(&(key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(rest);
    hash.digest128().to_le_bytes()
}

/// Puts the sum into the place kept for it.
fn seal(table: u8, key: &[u8], mut out: Vec<u8>) -> Vec<u8> {
    if let Some((place, rest)) = out.split_first_chunk_mut::<SUM>() {
        *place = sum(table, key, rest);
    }
    out
}

fn unseal<'a>(table: u8, key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], String> {
    match bytes.split_first_chunk::<SUM>() {
        Some((stored, rest)) if *stored == sum(table, key, rest) => Ok(rest),
        Some(_) => Err("its checksum does not match".to_owned()),
        None => Err(format!("it is only {} bytes long", bytes.len())),
    }
}

/// Takes bytes from the front; too few are an error, never a panic.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| "it ends too early".to_owned())?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| "it ends too early".to_owned())?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
