//! Keys and values over an engine. Nobody reads its log of changes, so that is forgotten as it grows.

use async_trait::async_trait;
use bytes::Bytes;
use std::{
    collections::{BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

use super::{KvError, KvPair, KvStore, RangeOptions};
use crate::{Batch, Conflict, Engine, Error, Guard, Record, Rev};

/// Records of a page, and keys removed by one batch of [`KvStore::clear`].
const PAGE: usize = 1000;
/// The log is trimmed each time it has grown by so many entries.
const TRIM_EVERY: Rev = 128;
/// Tries to remove what others keep changing.
const TRIES: usize = 64;

pub(super) struct OverEngine {
    engine: Arc<dyn Engine>,
}

impl OverEngine {
    pub(super) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }

    async fn commit(&self, batch: Batch) -> Result<Rev, Error> {
        crate::commit::check(&batch)?;
        let done = self.engine.commit_many(vec![batch]).await?;
        let rev = done.into_iter().next().ok_or(Error::Closed)??;
        if rev.is_multiple_of(TRIM_EVERY) {
            self.engine.trim(rev).await?;
        }
        Ok(rev)
    }

    /// Removes keys that are guarded by what was seen of them; how many were there.
    async fn remove(&self, keys: &[String]) -> Result<usize, Error> {
        let mut conflict = Conflict { key: String::new(), actual: None };
        let keys: BTreeSet<&String> = keys.iter().collect();
        for _ in 0..TRIES {
            let (mut batch, mut count) = (Batch::new(), 0);
            for key in &keys {
                if let Some(found) = self.engine.get(key).await? {
                    let key = (*key).clone();
                    batch = batch.guard(Guard::At(key.clone(), found.modified)).delete(key);
                    count += 1;
                }
            }
            if count == 0 {
                return Ok(0);
            }
            match self.commit(batch).await {
                Ok(_) => return Ok(count),
                Err(Error::Conflict(why)) => conflict = why,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict(conflict))
    }

    /// Hands over every record under a prefix from `from` on, of one moment, until `each` answers false.
    async fn walk(&self, prefix: &str, from: Bound<&str>, mut each: impl FnMut(Record) -> bool) -> Result<(), Error> {
        let snapshot = self.engine.snapshot().await?;
        let mut page = snapshot.list(prefix, from, PAGE).await?;
        while let Some(last) = page.last().map(|record| record.key.clone()) {
            for record in page {
                if !each(record) {
                    return Ok(());
                }
            }
            page = snapshot.list(prefix, Bound::Excluded(&last), PAGE).await?;
        }
        Ok(())
    }
}

fn pair(record: Record) -> KvPair {
    KvPair { key: record.key, value: record.value.to_vec() }
}

#[async_trait]
impl KvStore for OverEngine {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.engine.get(key).await?.map(|record| record.value.to_vec()))
    }

    async fn put(&self, key: &str, value: &[u8]) -> Result<(), KvError> {
        self.commit(Batch::new().put(key, Bytes::copy_from_slice(value))).await?;
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<bool, KvError> {
        Ok(self.remove(&[key.to_owned()]).await? == 1)
    }

    async fn exists(&self, key: &str) -> Result<bool, KvError> {
        Ok(self.engine.get(key).await?.is_some())
    }

    async fn keys_with_prefix(&self, prefix: &str) -> Result<Vec<String>, KvError> {
        let mut keys = Vec::new();
        self.walk(prefix, Bound::Unbounded, |record| {
            keys.push(record.key);
            true
        })
        .await?;
        Ok(keys)
    }

    async fn scan_prefix(&self, prefix: &str) -> Result<Vec<KvPair>, KvError> {
        let mut pairs = Vec::new();
        self.walk(prefix, Bound::Unbounded, |record| {
            pairs.push(pair(record));
            true
        })
        .await?;
        Ok(pairs)
    }

    async fn range(&self, options: &RangeOptions) -> Result<Vec<KvPair>, KvError> {
        let RangeOptions { start_key, end_key, limit, reverse } = options;
        let most = limit.unwrap_or(usize::MAX);
        if most == 0 {
            return Ok(Vec::new());
        }
        let from = start_key.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let mut pairs = VecDeque::new();
        self.walk("", from, |record| {
            if end_key.as_ref().is_some_and(|end| record.key >= *end) {
                return false;
            }
            pairs.push_back(pair(record));
            if *reverse && pairs.len() > most {
                pairs.pop_front();
            }
            *reverse || pairs.len() < most
        })
        .await?;
        Ok(if *reverse { pairs.into_iter().rev().collect() } else { pairs.into() })
    }

    async fn all(&self) -> Result<Vec<KvPair>, KvError> {
        self.scan_prefix("").await
    }

    async fn count(&self) -> Result<usize, KvError> {
        let mut count = 0;
        self.walk("", Bound::Unbounded, |_| {
            count += 1;
            true
        })
        .await?;
        Ok(count)
    }

    async fn clear(&self) -> Result<(), KvError> {
        let snapshot = self.engine.snapshot().await?;
        let mut last = None::<String>;
        loop {
            let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let page = snapshot.list("", from, PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = Some(end.key.clone());
            let batch = page.into_iter().fold(Batch::new(), |batch, record| batch.delete(record.key));
            self.commit(batch).await?;
        }
    }

    async fn batch_put(&self, pairs: &[KvPair]) -> Result<(), KvError> {
        if pairs.is_empty() {
            return Ok(());
        }
        let put = |batch: Batch, pair: &KvPair| batch.put(pair.key.clone(), Bytes::copy_from_slice(&pair.value));
        self.commit(pairs.iter().fold(Batch::new(), put)).await?;
        Ok(())
    }

    async fn batch_delete(&self, keys: &[String]) -> Result<usize, KvError> {
        Ok(self.remove(keys).await?)
    }

    async fn close(&self) -> Result<(), KvError> {
        Ok(self.engine.close().await?)
    }
}
