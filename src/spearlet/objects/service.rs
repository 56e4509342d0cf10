//! The rules of the object store, whatever the wire.

use bytes::Bytes;
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{Batch, Guard, Rev, Store};
use supervise::Scope;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use types::{Clock, ErrorKind, Fault, Keyed, id::clip};

use super::{
    Backend, Config, Error, MOST_KEY, MOST_LISTED, MOST_METADATA, ObjectRecord, Refusal,
    blobs::{Blobs, Unread},
    index::{Entry, Index},
    records::weight,
};
use crate::artifacts::lock;

/// An object to write.
#[derive(Clone, Debug, Default)]
pub struct Put {
    /// Its name.
    pub key: String,
    /// Its bytes.
    pub value: Bytes,
    /// Free labels; they replace those of an overwritten object.
    pub metadata: BTreeMap<String, String>,
    /// May it replace an object of the same name? References, pin and time of creation stay.
    pub overwrite: bool,
}

/// An object as it stands.
#[derive(Clone, Debug)]
pub struct Found {
    /// What is known of it.
    pub record: Arc<ObjectRecord>,
    /// Its bytes, if asked for.
    pub value: Option<Bytes>,
}

/// A page of objects in the order of their keys.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The objects.
    pub objects: Vec<Found>,
    /// Are there more behind the last?
    pub more: bool,
}

/// Numbers for `/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Objects.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Those pinned.
    pub pinned: usize,
}

/// Locks for keys: two keys may share one, one key has always the same.
const LOCKS: usize = 64;
/// Values that may be in memory at a time, as a multiple of the largest.
const VALUES_IN_MEMORY: u64 = 8;
/// Longest wait for memory.
const PATIENCE: Duration = Duration::from_secs(30);
/// Unit in which memory is counted.
const UNIT: u64 = 4096;

/// The object store.
pub struct Service {
    config: Config,
    clock: Arc<dyn Clock>,
    /// None: in memory.
    store: Option<Store>,
    blobs: Blobs,
    index: Mutex<Index>,
    locks: [Arc<tokio::sync::Mutex<()>>; LOCKS],
    hasher: RandomState,
    memory: Arc<Semaphore>,
    scope: Scope,
}

/// What to do with an object.
enum Next {
    Keep,
    Write(ObjectRecord),
    Remove,
}

impl Service {
    /// Measures from now on.
    pub(crate) fn measure(self: &Arc<Self>, metrics: &telemetry::Metrics) {
        let read = |name: &'static str, help: &'static str, of: fn(Stats) -> f64| {
            let service = Arc::downgrade(self);
            metrics.read(name, help, move || Some(of(service.upgrade()?.stats())));
        };
        read("spear_objects", "Objects of this node.", |stats| stats.objects as f64);
        read("spear_objects_pinned", "Objects of this node that are pinned.", |stats| stats.pinned as f64);
        read("spear_objects_bytes", "Bytes of all objects of this node.", |stats| stats.bytes as f64);
    }

    /// Reads the records, takes the directory and removes blobs that belong to no object. Writes run in `scope`.
    ///
    /// # Errors
    /// When a record or the directory cannot be read.
    pub async fn open(
        store: &Store,
        clock: Arc<dyn Clock>,
        config: &Config,
        dir: PathBuf,
        scope: Scope,
    ) -> Result<Arc<Self>, Fault> {
        let mut index = Index::default();
        let (store, blobs) = match config.backend {
            Backend::Memory => (None, Blobs::Memory(Mutex::default())),
            Backend::Disk => {
                let mut broken = None;
                let each = |found: store::Record| match store::decode::<ObjectRecord>(&found.key, &found.value) {
                    Ok(record) => index.insert(Entry { record: Arc::new(record), modified: found.modified }),
                    Err(error) => broken = Some(error),
                };
                store.scan(ObjectRecord::PREFIX, each).await?;
                if let Some(error) = broken {
                    return Err(error.into());
                }
                (Some(store.clone()), Blobs::open(dir, index.blobs(), store.clone()).await?)
            }
        };
        let units = usize::try_from(config.max_object_size.saturating_mul(VALUES_IN_MEMORY) / UNIT);
        let memory = Arc::new(Semaphore::new(units.unwrap_or(0).clamp(1024, Semaphore::MAX_PERMITS.min(1 << 30))));
        Ok(Arc::new(Self {
            config: config.clone(),
            clock,
            store,
            blobs,
            index: Mutex::new(index),
            locks: std::array::from_fn(|_| Arc::default()),
            hasher: RandomState::new(),
            memory,
            scope,
        }))
    }

    /// Settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Numbers for `/status`.
    pub fn stats(&self) -> Stats {
        lock(&self.index).stats()
    }

    /// Waits until `bytes` more of values may be in memory.
    ///
    /// # Errors
    /// `OBJECTS_BUSY` after 30 s.
    pub async fn room(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Fault> {
        let all = self.config.max_object_size.saturating_mul(VALUES_IN_MEMORY) / UNIT;
        let units = u32::try_from((bytes / UNIT).min(all).clamp(1, 1 << 29)).unwrap_or(1);
        match tokio::time::timeout(PATIENCE, self.memory.clone().acquire_many_owned(units)).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                Err(Fault::new(ErrorKind::Exhausted, "OBJECTS_BUSY", "too many large objects are under way; try again"))
            }
        }
    }

    /// Writes an object. On disk when it returns.
    ///
    /// # Errors
    /// [`Refusal::Exists`], a limit, a malformed key or metadata, the disk.
    pub async fn put(self: &Arc<Self>, put: Put) -> Result<Arc<ObjectRecord>, Error> {
        check_key(&put.key)?;
        check_metadata(&put.metadata)?;
        let (size, limit) = (put.value.len() as u64, self.config.max_object_size);
        if size > limit {
            return Err(Refusal::TooLarge { size, limit }.into());
        }
        let service = self.clone();
        self.finish("put", async move { service.write(put).await }).await
    }

    /// An object, with its bytes if wanted: verified, or an error.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; `OBJECT_CORRUPT` when the bytes are not those that were written.
    pub async fn get(&self, key: &str, value: bool) -> Result<Found, Error> {
        const TRIES: usize = 16;
        check_key(key)?;
        for _ in 0..TRIES {
            let entry = lock(&self.index).get(key);
            let Some(Entry { record, .. }) = entry else { return Err(Refusal::NotFound.into()) };
            if !value {
                return Ok(Found { record, value: None });
            }
            match self.blobs.read(&record).await {
                Ok(value) => return Ok(Found { record, value: Some(value) }),
                Err(Unread::Failed(fault)) => return Err(fault.into()),
                Err(Unread::Damaged(detail)) => return Err(corrupt(key, &detail)),
                Err(Unread::Missing) => {
                    // Written over between the two looks: then there is a newer one.
                    let same = lock(&self.index).get(key).is_some_and(|now| now.record.blob == record.blob);
                    if same {
                        return Err(corrupt(key, &format!("blob {} is missing", record.blob)));
                    }
                }
            }
        }
        Err(Fault::unavailable("the object changes faster than it can be read").into())
    }

    /// Up to `limit` (at most 1000) objects whose key begins with `prefix` and comes after `after`. With their
    /// bytes, a page also ends before these are more than the largest object may have.
    ///
    /// # Errors
    /// As [`Service::get`].
    pub async fn list(&self, prefix: &str, after: Option<&str>, limit: usize, values: bool) -> Result<Listed, Error> {
        let page = lock(&self.index).page(prefix, after, limit.clamp(1, MOST_LISTED));
        if !values {
            return Ok(page.into());
        }
        let (mut objects, mut more, mut bytes) = (Vec::new(), page.more, 0u64);
        for record in page.records {
            if !objects.is_empty() && bytes + record.size > self.config.max_object_size {
                more = true;
                break;
            }
            match self.get(&record.key, true).await {
                Ok(found) => {
                    bytes += found.record.size;
                    objects.push(found);
                }
                // Deleted meanwhile: then it is not in the list.
                Err(Error::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Listed { objects, more })
    }

    /// As [`Service::list`] without values, after the first `skip` objects.
    pub fn list_at(&self, prefix: &str, skip: usize, limit: usize) -> Listed {
        lock(&self.index).page_at(prefix, skip, limit.clamp(1, MOST_LISTED)).into()
    }

    /// Adds references; returns how many there are.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; `count` below 1 or too large.
    pub async fn add_ref(self: &Arc<Self>, key: String, count: i32) -> Result<i32, Error> {
        check_count(count)?;
        self.change(key, move |record| {
            let sum = record.ref_count.checked_add(count).ok_or_else(|| {
                Fault::invalid_field("count", format!("{} references and {count} more are too many", record.ref_count))
            })?;
            Ok((Next::Write(ObjectRecord { ref_count: sum, ..record.clone() }), sum))
        })
        .await
    }

    /// Removes references; returns how many are left and whether the object went with the last.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; `count` below 1.
    pub async fn remove_ref(self: &Arc<Self>, key: String, count: i32) -> Result<(i32, bool), Error> {
        check_count(count)?;
        self.change(key, move |record| {
            let left = record.ref_count.saturating_sub(count).max(0);
            if left == 0 && !record.pinned {
                return Ok((Next::Remove, (0, true)));
            }
            Ok((Next::Write(ObjectRecord { ref_count: left, ..record.clone() }), (left, false)))
        })
        .await
    }

    /// Pins an object; pinning it again changes nothing.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn pin(self: &Arc<Self>, key: String) -> Result<(), Error> {
        self.change(key, |record| {
            let next =
                if record.pinned { Next::Keep } else { Next::Write(ObjectRecord { pinned: true, ..record.clone() }) };
            Ok((next, ()))
        })
        .await
    }

    /// Unpins an object; it stays, even without references.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::NotPinned`].
    pub async fn unpin(self: &Arc<Self>, key: String) -> Result<(), Error> {
        self.change(key, |record| {
            if !record.pinned {
                return Err(Refusal::NotPinned.into());
            }
            Ok((Next::Write(ObjectRecord { pinned: false, ..record.clone() }), ()))
        })
        .await
    }

    /// Deletes an object, whatever its references; a pinned one only with `force`.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Pinned`].
    pub async fn delete(self: &Arc<Self>, key: String, force: bool) -> Result<(), Error> {
        self.change(
            key,
            move |record| {
                if record.pinned && !force { Err(Refusal::Pinned.into()) } else { Ok((Next::Remove, ())) }
            },
        )
        .await
    }

    async fn write(&self, put: Put) -> Result<Arc<ObjectRecord>, Error> {
        let Put { key, value, metadata, overwrite } = put;
        let _turn = self.turn(&key).await;
        let old = lock(&self.index).get(&key);
        if old.is_some() && !overwrite {
            return Err(Refusal::Exists.into());
        }
        let size = value.len() as u64;
        let weight = weight(&key, &metadata);
        let room = lock(&self.index).reserve(&self.config, size, weight, old.as_ref().map(|old| &*old.record))?;
        let written = async {
            let (blob, sha256) = self.blobs.write(value).await?;
            let now = self.clock.wall();
            let before = old.as_ref().map(|old| &old.record);
            let record = ObjectRecord {
                size,
                sha256,
                blob,
                created_at: before.map_or(now, |before| before.created_at),
                updated_at: now,
                ref_count: before.map_or(1, |before| before.ref_count),
                pinned: before.is_some_and(|before| before.pinned),
                metadata,
                key,
            };
            let committed = self.commit(&record, old.as_ref(), true).await;
            // Only then is it sure that no record names the blob; else the next start finds out.
            if let Err(store::Error::Full { .. } | store::Error::TooLarge(_) | store::Error::Conflict(_)) = committed {
                self.blobs.remove(blob).await;
            }
            Ok::<_, Error>((committed?, record))
        };
        let written = written.await;
        let record = {
            let mut index = lock(&self.index);
            index.release(room);
            let (modified, record) = written?;
            let record = Arc::new(record);
            index.insert(Entry { record: record.clone(), modified });
            record
        };
        if let Some(old) = old {
            self.blobs.remove(old.record.blob).await;
        }
        Ok(record)
    }

    /// Reads an object, lets `decide` say what becomes of it, and does so.
    async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        key: String,
        decide: impl FnOnce(&ObjectRecord) -> Result<(Next, T), Error> + Send + 'static,
    ) -> Result<T, Error> {
        check_key(&key)?;
        let service = self.clone();
        let work = async move {
            let _turn = service.turn(&key).await;
            let entry = lock(&service.index).get(&key).ok_or(Refusal::NotFound)?;
            let (next, answer) = decide(&entry.record)?;
            match next {
                Next::Keep => {}
                Next::Write(record) => {
                    let record = ObjectRecord { updated_at: service.clock.wall(), ..record };
                    let modified = service.commit(&record, Some(&entry), true).await?;
                    lock(&service.index).insert(Entry { record: Arc::new(record), modified });
                }
                Next::Remove => {
                    service.commit(&entry.record, Some(&entry), false).await?;
                    lock(&service.index).remove(&key);
                    service.blobs.remove(entry.record.blob).await;
                }
            }
            Ok(answer)
        };
        self.finish("change", work).await
    }

    /// Writes or removes a record, guarded by what was read.
    async fn commit(&self, record: &ObjectRecord, old: Option<&Entry>, keep: bool) -> Result<Rev, store::Error> {
        let Some(store) = &self.store else { return Ok(0) };
        let key = record.key();
        let guard = match old {
            Some(old) => Guard::At(key.clone(), old.modified),
            None => Guard::Absent(key.clone()),
        };
        let batch = Batch::new().guard(guard);
        store.commit(if keep { batch.put(key, store::encode(record)?) } else { batch.delete(key) }).await
    }

    async fn turn(&self, key: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let number = usize::try_from(self.hasher.hash_one(key) % LOCKS as u64).unwrap_or(0);
        let turn = self.locks.get(number).expect("the number is below the length").clone();
        turn.lock_owned().await
    }

    /// Runs a change to its end, even if the caller goes away: index and store may not part.
    async fn finish<T: Send + 'static>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, wait) = oneshot::channel();
        self.scope.spawn_once(name, async move {
            // Nobody may be there to hear it.
            drop(answer.send(work.await));
            Ok(())
        });
        wait.await
            .unwrap_or_else(|_| Err(Fault::internal("a change of an object failed; the log has the cause").into()))
    }
}

impl From<super::index::Page> for Listed {
    fn from(page: super::index::Page) -> Self {
        let objects = page.records.into_iter().map(|record| Found { record, value: None }).collect();
        Self { objects, more: page.more }
    }
}

fn corrupt(key: &str, detail: &str) -> Error {
    tracing::error!(key, detail, "object is damaged");
    let text = format!("object {:?} is damaged on disk; delete it or write it anew", clip(key));
    Fault::new(ErrorKind::Internal, "OBJECT_CORRUPT", text).into()
}

fn check_key(key: &str) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Refusal::EmptyKey.into());
    }
    if key.len() > MOST_KEY {
        return Err(Fault::invalid_field("key", format!("has {} bytes; {MOST_KEY} are allowed", key.len())).into());
    }
    Ok(())
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Error> {
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MOST_METADATA {
        return Err(Fault::invalid_field("metadata", format!("has {bytes} bytes; {MOST_METADATA} are allowed")).into());
    }
    Ok(())
}

fn check_count(count: i32) -> Result<(), Error> {
    if count < 1 {
        return Err(Fault::invalid_field("count", format!("is {count}; 1 or more are wanted")).into());
    }
    Ok(())
}
