//! A key-value store for programs that want no more than that: the interface that SPEAR documents, over the engines
//! of this crate.
//!
//! ```text
//!   KvStoreConfig ─► KvStoreFactory ─► Box<dyn KvStore> ─► Memory │ Redb
//!   from the environment, or made by hand
//! ```
//! Keys are text, values are bytes. A write is on the disk when its call returns, a batch is applied whole or not at
//! all, and a list is of one moment. Differences from the original are in `docs/compatibility.md`; the example
//! `kv_factory_usage` shows all of it:
//!
//! ```
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use store::kv::{KvStoreConfig, create_kv_store_from_config};
//!
//! let store = create_kv_store_from_config(&KvStoreConfig::memory()).await?;
//! store.put(&"key".to_string(), &"value".as_bytes().to_vec()).await?;
//! assert_eq!(store.get(&"key".to_string()).await?, Some(b"value".to_vec()));
//! # Ok::<(), store::kv::KvError>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod factory;
mod over_engine;

use async_trait::async_trait;

pub use config::KvStoreConfig;
pub use factory::{
    DefaultFactory, KvStoreFactory, create_kv_store_from_config, create_kv_store_from_env, get_kv_store_factory,
    set_kv_store_factory,
};

use crate::Error;

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KvError {
    /// The configuration is wrong.
    #[error("{0}")]
    Invalid(String),
    /// A factory was set before, or the usual one has been used.
    #[error("KV store factory already initialized")]
    AlreadyInitialized,
    /// The store below refuses.
    #[error(transparent)]
    Store(#[from] Error),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvPair {
    /// The key, 1 to 512 bytes.
    pub key: String,
    /// Its value, up to 8 MiB.
    pub value: Vec<u8>,
}

impl KvPair {
    /// Of a key and a value.
    pub fn new(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// Which keys are wanted, and how. Everything, in order, unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeOptions {
    /// The first key, included.
    pub start_key: Option<String>,
    /// The last key, not included.
    pub end_key: Option<String>,
    /// So many at most, counted from where the order begins.
    pub limit: Option<usize>,
    /// From the last to the first.
    pub reverse: bool,
}

impl RangeOptions {
    /// Everything, in order.
    pub fn new() -> Self {
        Self::default()
    }

    /// From this key on.
    #[must_use]
    pub fn start_key(mut self, key: impl Into<String>) -> Self {
        self.start_key = Some(key.into());
        self
    }

    /// Up to this key, without it.
    #[must_use]
    pub fn end_key(mut self, key: impl Into<String>) -> Self {
        self.end_key = Some(key.into());
        self
    }

    /// So many at most.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// From the last to the first, or not.
    #[must_use]
    pub fn reverse(mut self, reverse: bool) -> Self {
        self.reverse = reverse;
        self
    }
}

/// A store of keys and values.
///
/// Lists are read page by page, and are of one moment; what they return is held in memory whole, so give
/// [`KvStore::range`] a limit where there may be much. A call fails with [`KvError::Store`] when the disk is full, the
/// store is closed, a key or value is over its limit.
#[async_trait]
pub trait KvStore: Send + Sync {
    /// The value of a key.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError>;

    /// Writes a value, whether or not there was one.
    async fn put(&self, key: &str, value: &[u8]) -> Result<(), KvError>;

    /// Removes a key; tells whether it was there.
    async fn delete(&self, key: &str) -> Result<bool, KvError>;

    /// Is there such a key?
    async fn exists(&self, key: &str) -> Result<bool, KvError>;

    /// The keys that begin so, in order.
    async fn keys_with_prefix(&self, prefix: &str) -> Result<Vec<String>, KvError>;

    /// The pairs whose keys begin so, in order.
    async fn scan_prefix(&self, prefix: &str) -> Result<Vec<KvPair>, KvError>;

    /// The pairs of a range. With `reverse` and a limit, the last ones; the whole range is read for that.
    async fn range(&self, options: &RangeOptions) -> Result<Vec<KvPair>, KvError>;

    /// All pairs, in order.
    async fn all(&self) -> Result<Vec<KvPair>, KvError>;

    /// How many pairs there are; reads them all.
    async fn count(&self) -> Result<usize, KvError>;

    /// Removes what is there when it is called, in several batches.
    async fn clear(&self) -> Result<(), KvError>;

    /// Writes several values, all or none.
    async fn batch_put(&self, pairs: &[KvPair]) -> Result<(), KvError>;

    /// Removes several keys, all or none; tells how many were there.
    async fn batch_delete(&self, keys: &[String]) -> Result<usize, KvError>;

    /// Flushes and lets go of the files; later calls fail. Dropping the store does the same a little later.
    async fn close(&self) -> Result<(), KvError>;
}

#[cfg(test)]
mod tests;
