//! The bytes of objects: one file each, written once, never changed.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};
use store::Store;
use types::Fault;
use uuid::Uuid;

use super::ObjectRecord;
use crate::artifacts::{disk, hex, lock};

/// Begins the name of a file that is being written.
const TEMPORARY: &str = "tmp-";

/// Where the bytes are.
pub(super) enum Blobs {
    /// A directory, and the store that hears of a disk that failed.
    Disk(PathBuf, Store),
    Memory(Mutex<HashMap<Uuid, Bytes>>),
}

/// Why bytes were not read.
pub(super) enum Unread {
    /// There is no such file (any more).
    Missing,
    /// They are not what was written.
    Damaged(String),
    /// The disk failed.
    Failed(Fault),
}

impl Blobs {
    /// Takes a directory (made if missing, 0700) and removes what belongs to none of the blobs in `keep`.
    pub(super) async fn open(dir: PathBuf, keep: HashSet<Uuid>, store: Store) -> Result<Self, Fault> {
        blocking(move || {
            let removed = sweep(&dir, &keep).map_err(|error| disk(&dir, &error))?;
            if removed > 0 {
                tracing::info!(removed, "removed blobs without an object");
            }
            Ok(Self::Disk(dir, store))
        })
        .await
    }

    /// Writes bytes that survive a power cut once this returns; also tells their sha256. A failed fsync ends the
    /// process.
    pub(super) async fn write(&self, value: Bytes) -> Result<(Uuid, String), Fault> {
        let id = Uuid::now_v7();
        match self {
            Self::Disk(dir, store) => {
                let (dir, store) = (dir.clone(), store.clone());
                blocking(move || {
                    write(&dir, id, &value).map_err(|unwritten| match unwritten {
                        Unwritten::Refused(error) => disk(&dir, &error),
                        Unwritten::Unsynced(error) => store.unsynced(&dir, &error).into(),
                    })?;
                    Ok((id, digest(&value)))
                })
                .await
            }
            Self::Memory(blobs) => {
                let sha256 = digest(&value);
                lock(blobs).insert(id, value);
                Ok((id, sha256))
            }
        }
    }

    /// Reads and verifies the bytes of an object.
    pub(super) async fn read(&self, record: &ObjectRecord) -> Result<Bytes, Unread> {
        let dir = match self {
            Self::Disk(dir, _) => dir,
            Self::Memory(blobs) => return lock(blobs).get(&record.blob).cloned().ok_or(Unread::Missing),
        };
        let (path, size, sha256) = (dir.join(record.blob.to_string()), record.size, record.sha256.clone());
        let read = tokio::task::spawn_blocking(move || {
            let value = match read(&path, size) {
                Ok(value) => value,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unread::Missing),
                Err(error) => return Err(Unread::Failed(disk(&path, &error))),
            };
            if value.len() as u64 != size {
                let found = value.len();
                return Err(Unread::Damaged(format!(
                    "{}: {size} bytes were written, {found} are there",
                    path.display()
                )));
            }
            let found = digest(&value);
            if found != sha256 {
                return Err(Unread::Damaged(format!("{}: sha256 is {found}, not {sha256}", path.display())));
            }
            Ok(Bytes::from(value))
        });
        read.await.unwrap_or_else(|error| Err(Unread::Failed(Fault::internal(error.to_string()))))
    }

    /// Removes bytes that no record names any more; what remains of a failure is swept at the next start.
    pub(super) async fn remove(&self, id: Uuid) {
        match self {
            Self::Disk(dir, _) => {
                let path = dir.join(id.to_string());
                if let Err(error) = tokio::fs::remove_file(&path).await {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a blob");
                }
            }
            Self::Memory(blobs) => drop(lock(blobs).remove(&id)),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Fault::internal(error.to_string())))
}

fn digest(value: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(value);
    hex(hash)
}

/// Why bytes were not written.
enum Unwritten {
    /// The disk does not take them.
    Refused(io::Error),
    /// An fsync failed.
    Unsynced(io::Error),
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

fn write(dir: &Path, id: Uuid, value: &[u8]) -> Result<(), Unwritten> {
    let temporary = dir.join(format!("{TEMPORARY}{id}"));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(value)?;
        file.sync_all().map_err(Unwritten::Unsynced)?;
        fs::rename(&temporary, dir.join(id.to_string()))?;
        fs::File::open(dir)?.sync_all().map_err(Unwritten::Unsynced)
    })();
    if written.is_err() {
        // One of the two is there at most; the error above is what matters.
        drop(fs::remove_file(&temporary));
        drop(fs::remove_file(dir.join(id.to_string())));
    }
    written
}

/// The bytes of a file, not many more than there should be.
fn read(path: &Path, size: u64) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let mut value = Vec::with_capacity(usize::try_from(size.min(file.metadata()?.len())).unwrap_or(0));
    file.take(size.saturating_add(1)).read_to_end(&mut value)?;
    Ok(value)
}

fn sweep(dir: &Path, keep: &HashSet<Uuid>) -> io::Result<usize> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut removed = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let orphan = name.starts_with(TEMPORARY) || Uuid::try_parse(&name).is_ok_and(|id| !keep.contains(&id));
        if orphan {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}
