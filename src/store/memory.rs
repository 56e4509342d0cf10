//! The engine that forgets: for tests, and for registries that need not survive.

use async_trait::async_trait;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Mutex, MutexGuard},
};
use tokio::sync::watch;
use types::LogId;

use crate::{Batch, Change, ChangeItem, Conflict, Engine, Error, Guard, Op, Page, Record, Rev};

#[derive(Clone)]
struct Entry {
    value: Bytes,
    created: Rev,
    modified: Rev,
}

#[derive(Default)]
struct State {
    records: BTreeMap<String, Entry>,
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
        let mut items = Vec::with_capacity(batch.ops.len());
        for op in batch.ops {
            match op {
                Op::Put(key, value) => {
                    let created = self.records.get(&key).map(|entry| entry.created);
                    let entry = Entry { value: value.clone(), created: created.unwrap_or(rev), modified: rev };
                    self.records.insert(key.clone(), entry);
                    items.push(ChangeItem { key, value: Some(value), created: created.is_none() });
                }
                Op::Delete(key) => {
                    if self.records.remove(&key).is_some() {
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

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        let state = self.open()?;
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let records = state
            .records
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, entry)| record(key, entry))
            .collect();
        Ok(Page { rev: state.rev, records })
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

fn record(key: &str, entry: &Entry) -> Record {
    Record { key: key.to_owned(), value: entry.value.clone(), created: entry.created, modified: entry.modified }
}
