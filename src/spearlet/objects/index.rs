//! All records in the order of their keys, with the sums that limits are checked against.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
    sync::Arc,
};
use store::Rev;
use uuid::Uuid;

use super::{Config, ObjectRecord, Refusal, Stats};

/// Bytes that all records may take in memory.
const MOST_WEIGHT: u64 = 64 << 20;

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) record: Arc<ObjectRecord>,
    /// Revision of the store that wrote it.
    pub(super) modified: Rev,
}

/// What a write under way will add.
#[derive(Clone, Copy, Default)]
pub(super) struct Room {
    bytes: u64,
    objects: usize,
    weight: u64,
}

#[derive(Default)]
pub(super) struct Index {
    by_key: BTreeMap<String, Entry>,
    bytes: u64,
    pinned: usize,
    weight: u64,
    reserved: Room,
}

/// A page of records.
pub(super) struct Page {
    pub(super) records: Vec<Arc<ObjectRecord>>,
    pub(super) more: bool,
}

impl Index {
    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        self.by_key.get(key).cloned()
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        self.remove(&entry.record.key);
        self.bytes += entry.record.size;
        self.pinned += usize::from(entry.record.pinned);
        self.weight += entry.record.weight();
        self.by_key.insert(entry.record.key.clone(), entry);
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some(Entry { record, .. }) = self.by_key.remove(key) {
            self.bytes -= record.size;
            self.pinned -= usize::from(record.pinned);
            self.weight -= record.weight();
        }
    }

    /// Makes room for a write that replaces `old`; see [`Index::release`].
    pub(super) fn reserve(
        &mut self,
        config: &Config,
        size: u64,
        weight: u64,
        old: Option<&ObjectRecord>,
    ) -> Result<Room, Refusal> {
        let room = Room { bytes: size, objects: usize::from(old.is_none()), weight };
        let bytes = self.bytes + self.reserved.bytes + size - old.map_or(0, |old| old.size.min(self.bytes));
        let objects = self.by_key.len() + self.reserved.objects + room.objects;
        if bytes > config.max_total_bytes {
            return Err(Refusal::Full { bytes, limit: config.max_total_bytes });
        }
        if objects > config.max_objects || self.weight + self.reserved.weight + weight > MOST_WEIGHT {
            return Err(Refusal::TooMany { objects: self.by_key.len(), limit: config.max_objects });
        }
        self.reserved.bytes += room.bytes;
        self.reserved.objects += room.objects;
        self.reserved.weight += room.weight;
        Ok(room)
    }

    pub(super) fn release(&mut self, room: Room) {
        self.reserved.bytes -= room.bytes;
        self.reserved.objects -= room.objects;
        self.reserved.weight -= room.weight;
    }

    /// Up to `limit` records whose key begins with `prefix` and comes after `after`.
    pub(super) fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Page {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.take(prefix, from, 0, limit)
    }

    /// The same, after the first `skip`.
    pub(super) fn page_at(&self, prefix: &str, skip: usize, limit: usize) -> Page {
        self.take(prefix, Bound::Included(prefix), skip, limit)
    }

    fn take(&self, prefix: &str, from: Bound<&str>, skip: usize, limit: usize) -> Page {
        let range = self.by_key.range::<str, _>((from, Bound::Unbounded));
        let mut rest = range.take_while(|(key, _)| key.starts_with(prefix)).skip(skip);
        let records = rest.by_ref().take(limit).map(|(_, entry)| entry.record.clone()).collect();
        Page { records, more: rest.next().is_some() }
    }

    pub(super) fn blobs(&self) -> HashSet<Uuid> {
        self.by_key.values().map(|entry| entry.record.blob).collect()
    }

    pub(super) fn stats(&self) -> Stats {
        Stats { objects: self.by_key.len(), bytes: self.bytes, pinned: self.pinned }
    }
}
