//! What an engine must do; `conformance` checks it.

use async_trait::async_trait;
use std::ops::Bound;
use tokio::sync::watch;
use types::{LogId, Timestamp};

use crate::{Batch, Change, Conflict, Error, Record, Rev, Space};

/// A page of records in the order of their keys, all of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The revision of that moment.
    pub rev: Rev,
    /// The records.
    pub records: Vec<Record>,
}

/// Bytes of values in one page of a [`Snapshot`], beyond which it ends early.
pub(crate) const MOST_PAGE_BYTES: usize = 4 << 20;

/// The records as they were at one moment, for as long as this is held. An engine cannot use the room of what is
/// removed or written over meanwhile: let go of it soon.
#[async_trait]
pub trait Snapshot: Send + Sync {
    /// The last revision of that moment.
    fn rev(&self) -> Rev;

    /// Records whose key begins with `prefix` and lies at or after `from`, in order: at most `limit`, and about
    /// 4 MiB of values. Empty only when there are none left.
    ///
    /// # Errors
    /// [`Error::SnapshotGone`] when the store had to be opened again meanwhile; otherwise see [`Error`].
    async fn list(&self, prefix: &str, from: Bound<&str>, limit: usize) -> Result<Vec<Record>, Error>;
}

/// Where records live. Implementations are used through [`crate::Store`], which batches writes.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// The record of a key.
    async fn get(&self, key: &str) -> Result<Option<Record>, Error>;

    /// The records of several keys, in their order: one look instead of many.
    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Record>>, Error> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.get(key).await?);
        }
        Ok(found)
    }

    /// Up to `limit` records whose key begins with `prefix` and comes after `after`.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error>;

    /// Holds this moment; see [`Snapshot`].
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error>;

    /// Applies batches in order, each whole or not at all and each with its own revision, and has them all on
    /// disk when it returns. An error means that the outcome of all of them is unknown, except
    /// [`Error::Full`] and [`Error::TooLarge`], which promise that nothing happened.
    async fn commit_many(&self, batches: Vec<Batch>) -> Result<Vec<Result<Rev, Conflict>>, Error>;

    /// Whole revisions after `after`, in order, about `limit` of them at most (at least one if there is any).
    async fn changes(&self, after: Rev, limit: usize) -> Result<Vec<Change>, Error>;

    /// Forgets the changes up to and including `upto`; the records stay.
    async fn trim(&self, upto: Rev) -> Result<(), Error>;

    /// The last revision before the oldest change that is kept.
    async fn floor(&self) -> Result<Rev, Error>;

    /// Of the oldest changes, up to and including `upto`, the last that was committed before `moment`; the floor
    /// when there is none. An engine that keeps no times answers `upto`.
    async fn aged(&self, upto: Rev, _moment: Timestamp) -> Result<Rev, Error> {
        Ok(upto)
    }

    /// The last committed revision; moves after the commit is on disk.
    fn head(&self) -> watch::Receiver<Rev>;

    /// The identity of this change log.
    fn log_id(&self) -> LogId;

    /// What the disk below has to do with it; none: there is no disk. May block for the time of two system calls.
    fn space(&self) -> Option<Space> {
        None
    }

    /// Flushes and lets go of the files. Later calls answer [`Error::Closed`].
    async fn close(&self) -> Result<(), Error>;
}
