//! The engine that forgets: for tests, and for registries that need not survive.

use async_trait::async_trait;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::watch;
use types::LogId;

use crate::{
    Batch, Change, ChangeItem, Conflict, Engine, Error, Guard, Op, Page, Record, Rev, Snapshot, engine::MOST_PAGE_BYTES,
};

type Records = BTreeMap<String, Entry>;

#[derive(Clone)]
struct Entry {
    value: Bytes,
    created: Rev,
    modified: Rev,
}

#[derive(Default)]
struct State {
    /// Shared with the snapshots that are held; the first write after one copies the map, not the values.
    records: Arc<Records>,
    log: VecDeque<Change>,
    rev: Rev,
    closed: bool,
}

/// An engine in memory.
pub struct Memory {
    state: Mutex<State>,
    head: watch::Sender<Rev>,
    log_id: LogId,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty one with a log of its own.
    pub fn new() -> Self {
        Self { state: Mutex::default(), head: watch::Sender::new(0), log_id: LogId::new() }
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.state.lock().unwrap_or_else(|broken| broken.into_inner());
        if state.closed { Err(Error::Closed) } else { Ok(state) }
    }
}

impl State {
    fn check(&self, guards: &[Guard]) -> Result<(), Conflict> {
        for guard in guards {
            let (key, wanted) = match guard {
                Guard::Absent(key) => (key, None),
                Guard::At(key, rev) => (key, Some(*rev)),
            };
            let actual = self.records.get(key).map(|entry| entry.modified);
            if actual != wanted {
                return Err(Conflict { key: key.clone(), actual });
            }
        }
        Ok(())
    }

    fn apply(&mut self, batch: Batch) -> Rev {
        self.rev += 1;
        let rev = self.rev;
        let records = Arc::make_mut(&mut self.records);
        let mut items = Vec::with_capacity(batch.ops.len());
        for op in batch.ops {
            match op {
                Op::Put(key, value) => {
                    let created = records.get(&key).map(|entry| entry.created);
                    let entry = Entry { value: value.clone(), created: created.unwrap_or(rev), modified: rev };
                    records.insert(key.clone(), entry);
                    items.push(ChangeItem { key, value: Some(value), created: created.is_none() });
                }
                Op::Delete(key) => {
                    if records.remove(&key).is_some() {
                        items.push(ChangeItem { key, value: None, created: false });
                    }
                }
            }
        }
        self.log.push_back(Change { rev, items });
        rev
    }

    fn floor(&self) -> Rev {
        self.log.front().map_or(self.rev, |first| first.rev - 1)
    }
}

#[async_trait]
impl Engine for Memory {
    async fn get(&self, key: &str) -> Result<Option<Record>, Error> {
        let state = self.open()?;
        Ok(state.records.get(key).map(|entry| record(key, entry)))
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Record>>, Error> {
        let state = self.open()?;
        Ok(keys.iter().map(|key| state.records.get(key).map(|entry| record(key, entry))).collect())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        let state = self.open()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let records = under(&state.records, prefix, from).take(limit).map(|(key, entry)| record(key, entry)).collect();
        Ok(Page { rev: state.rev, records })
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        let state = self.open()?;
        Ok(Box::new(Moment { rev: state.rev, records: state.records.clone() }))
    }

    async fn commit_many(&self, batches: Vec<Batch>) -> Result<Vec<Result<Rev, Conflict>>, Error> {
        let mut state = self.open()?;
        let done = batches.into_iter().map(|batch| state.check(&batch.guards).map(|()| state.apply(batch))).collect();
        // While the state is held: a later group cannot be announced before this one.
        self.head.send_replace(state.rev);
        Ok(done)
    }

    async fn changes(&self, after: Rev, limit: usize) -> Result<Vec<Change>, Error> {
        let state = self.open()?;
        let floor = state.floor();
        if after < floor {
            return Err(Error::Trimmed { floor });
        }
        let skip = usize::try_from(after - floor).unwrap_or(usize::MAX);
        Ok(state.log.iter().skip(skip).take(limit.max(1)).cloned().collect())
    }

    async fn trim(&self, upto: Rev) -> Result<(), Error> {
        let mut state = self.open()?;
        while state.log.front().is_some_and(|first| first.rev <= upto) {
            state.log.pop_front();
        }
        Ok(())
    }

    async fn floor(&self) -> Result<Rev, Error> {
        Ok(self.open()?.floor())
    }

    fn head(&self) -> watch::Receiver<Rev> {
        self.head.subscribe()
    }

    fn log_id(&self) -> LogId {
        self.log_id
    }

    async fn close(&self) -> Result<(), Error> {
        self.open()?.closed = true;
        Ok(())
    }
}

struct Moment {
    rev: Rev,
    records: Arc<Records>,
}

#[async_trait]
impl Snapshot for Moment {
    fn rev(&self) -> Rev {
        self.rev
    }

    async fn list(&self, prefix: &str, from: Bound<&str>, limit: usize) -> Result<Vec<Record>, Error> {
        let mut bytes = 0;
        let fits = |(_, entry): &(&String, &Entry)| {
            let fits = bytes < MOST_PAGE_BYTES;
            bytes += entry.value.len();
            fits
        };
        let records = under(&self.records, prefix, from).take(limit).take_while(fits);
        Ok(records.map(|(key, entry)| record(key, entry)).collect())
    }
}

/// What lies under a prefix, at or after `from`.
fn under<'a>(
    records: &'a Records,
    prefix: &'a str,
    from: Bound<&'a str>,
) -> impl Iterator<Item = (&'a String, &'a Entry)> {
    let from = match from {
        Bound::Included(key) | Bound::Excluded(key) if key >= prefix => from,
        _ => Bound::Included(prefix),
    };
    records.range::<str, _>((from, Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(prefix))
}

fn record(key: &str, entry: &Entry) -> Record {
    Record { key: key.to_owned(), value: entry.value.clone(), created: entry.created, modified: entry.modified }
}
