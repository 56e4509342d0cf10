//! Moments of the store that somebody reads for longer than one transaction of the engine.
//!
//! A moment is a read transaction of redb. It lives beside the database in the slot, not with its reader: when the
//! database has to be opened again (see [`super::slot`]) no transaction may keep the old one and its lock on the file
//! alive. The reader then finds its moment gone.

use ::redb::ReadTransaction;
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Semaphore;

use super::{reader, slot::Core};
use crate::{Error, Record, Rev, Snapshot, engine::MOST_PAGE_BYTES};

/// The moments of one open database.
#[derive(Default)]
pub(super) struct Held {
    moments: Mutex<BTreeMap<u64, Arc<ReadTransaction>>>,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ReadTransaction>>> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, number: u64, txn: ReadTransaction) {
        self.lock().insert(number, Arc::new(txn));
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<ReadTransaction>> {
        self.lock().get(&number).cloned()
    }

    pub(super) fn remove(&self, number: u64) {
        let removed = self.lock().remove(&number);
        drop(removed);
    }
}

/// A reader of one moment.
pub(super) struct Moment {
    core: Arc<Core>,
    readers: Arc<Semaphore>,
    number: u64,
    rev: Rev,
}

impl Moment {
    pub(super) async fn hold(core: Arc<Core>, readers: Arc<Semaphore>) -> Result<Self, Error> {
        let permit = readers.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let held = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let (number, rev) = core.hold()?;
            Ok(Self { core, readers, number, rev })
        });
        held.await.unwrap_or(Err(Error::Closed))
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        self.core.let_go(self.number);
    }
}

#[async_trait]
impl Snapshot for Moment {
    fn rev(&self) -> Rev {
        self.rev
    }

    async fn list(&self, prefix: &str, from: Bound<&str>, limit: usize) -> Result<Vec<Record>, Error> {
        let permit = self.readers.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let (core, number, prefix) = (self.core.clone(), self.number, prefix.to_owned());
        let from = from.map(str::to_owned);
        let listed = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let from = from.as_ref().map(String::as_str);
            core.read_held(number, |txn| reader::under(txn, &prefix, from, (limit, MOST_PAGE_BYTES)))
        });
        listed.await.unwrap_or(Err(Error::Closed))
    }
}
