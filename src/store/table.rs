//! Typed records: JSON values under a prefix, with read-guard-retry updates.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use types::Keyed;

use crate::{Batch, Error, Guard, Record, Rev, Store};

/// A record with the revision that changed it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<R> {
    /// The record.
    pub record: R,
    /// For guards.
    pub modified: Rev,
}

/// The records of one type.
pub struct Table<R> {
    store: Store,
    of: PhantomData<fn() -> R>,
}

impl<R> Clone for Table<R> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), of: PhantomData }
    }
}

/// A record as bytes of the store.
pub fn encode<R: Keyed>(record: &R) -> Result<Bytes, Error> {
    serde_json::to_vec(record)
        .map(Bytes::from)
        .map_err(|error| Error::Decode { key: record.key(), detail: error.to_string() })
}

/// A record from bytes of the store.
pub fn decode<R: DeserializeOwned>(key: &str, value: &[u8]) -> Result<R, Error> {
    serde_json::from_slice(value).map_err(|error| Error::Decode { key: key.to_owned(), detail: error.to_string() })
}

impl<R: Keyed> Table<R> {
    /// The records of `R` in a store.
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), of: PhantomData }
    }

    /// The key of an id.
    pub fn key(id: &impl ToString) -> String {
        format!("{}{}", R::PREFIX, id.to_string())
    }

    /// One record.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, id: &impl ToString) -> Result<Option<Versioned<R>>, Error> {
        let key = Self::key(id);
        self.store.get(&key).await?.map(|record| versioned(&record)).transpose()
    }

    /// The records of several ids, in their order; those that are not there are left out.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_many(&self, ids: &[impl ToString]) -> Result<Vec<Versioned<R>>, Error> {
        let keys: Vec<String> = ids.iter().map(|id| Self::key(id)).collect();
        self.store.get_many(&keys).await?.iter().flatten().map(versioned).collect()
    }

    /// Up to `limit` records after an id, in the order of their keys.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn page(&self, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<R>>, Error> {
        let after = after.map(|id| format!("{}{id}", R::PREFIX));
        let page = self.store.list(R::PREFIX, after.as_deref(), limit).await?;
        page.records.iter().map(versioned).collect()
    }

    /// Writes a record that must not exist, together with `with`.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it exists.
    pub async fn insert(&self, record: &R, with: Batch) -> Result<Rev, Error> {
        self.store.commit(with.guard(Guard::Absent(record.key())).put(record.key(), encode(record)?)).await
    }

    /// Reads a record, lets `change` alter it and add to the batch, and writes it guarded by what was read;
    /// starts again when somebody was faster. `change` answers false to leave everything as it is.
    /// Returns the record as it is now and the revision of the write, or none when there is no such record.
    ///
    /// # Errors
    /// See [`Error`]; whatever `change` returns.
    pub async fn update<E: From<Error>>(
        &self,
        id: &impl ToString,
        mut change: impl FnMut(&mut R, &mut Batch) -> Result<bool, E>,
    ) -> Result<Option<(R, Option<Rev>)>, E> {
        const TRIES: usize = 64;
        let key = Self::key(id);
        let mut last = None;
        for _ in 0..TRIES {
            let Some(Versioned { mut record, modified }) = self.get(id).await? else { return Ok(None) };
            let mut batch = Batch::new();
            if !change(&mut record, &mut batch)? {
                return Ok(Some((record, None)));
            }
            batch = batch.guard(Guard::At(key.clone(), modified)).put(key.clone(), encode(&record)?);
            match self.store.commit(batch).await {
                Ok(rev) => return Ok(Some((record, Some(rev)))),
                Err(error @ Error::Conflict(_)) => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.unwrap_or(Error::Closed).into())
    }

    /// Removes a record, together with `with`; false when there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, id: &impl ToString, with: Batch) -> Result<Option<Rev>, Error> {
        let Some(found) = self.get(id).await? else { return Ok(None) };
        let key = Self::key(id);
        match self.store.commit(with.guard(Guard::At(key.clone(), found.modified)).delete(key)).await {
            Ok(rev) => Ok(Some(rev)),
            Err(error) => Err(error),
        }
    }
}

fn versioned<R: Keyed>(record: &Record) -> Result<Versioned<R>, Error> {
    Ok(Versioned { record: decode(&record.key, &record.value)?, modified: record.modified })
}
