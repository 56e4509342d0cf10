//! Reading back: never bytes other than those that were uploaded.
//!
//! A whole file is hashed while it is sent, and its last piece is held back until the hash is right. That cannot
//! be done for a part of a file, nor turned into a proper error once the answer has begun: so the first reader in
//! a process has the file hashed before anything is sent, and the file, as the disk dated it, is remembered.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, MutexGuard},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};
use types::{Fault, FileId, FileRecord};

use super::{
    records::{corrupt, disk},
    upload::hex,
};

/// Bytes read at once while hashing.
const BUFFER: usize = 256 * 1024;
/// Files remembered as right; beyond that all are forgotten and hashed again.
const MOST_REMEMBERED: usize = 16_384;

/// What of a file changes when somebody writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Files that this process has read whole and found right.
#[derive(Debug, Default)]
pub(super) struct Proven {
    stamps: Mutex<HashMap<FileId, Stamp>>,
}

impl Proven {
    fn stamps(&self) -> MutexGuard<'_, HashMap<FileId, Stamp>> {
        self.stamps.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    fn knows(&self, id: FileId, stamp: Stamp) -> bool {
        self.stamps().get(&id) == Some(&stamp)
    }

    fn remember(&self, id: FileId, stamp: Stamp) {
        let mut stamps = self.stamps();
        if stamps.len() >= MOST_REMEMBERED {
            stamps.clear();
        }
        stamps.insert(id, stamp);
    }

    pub fn forget(&self, id: FileId) {
        self.stamps().remove(&id);
    }

    /// Opens the bytes of a record, at their begin; hashed whole unless they are known to be right.
    ///
    /// # Errors
    /// `FILE_CORRUPT`, or the disk failed.
    pub async fn open(&self, path: &Path, record: &FileRecord) -> Result<File, Fault> {
        let mut file = match File::open(path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(corrupt(record.id, "they are missing"));
            }
            Err(error) => return Err(disk("opening a file", path, &error)),
        };
        let metadata = file.metadata().await.map_err(|error| disk("reading a file", path, &error))?;
        if metadata.len() != record.len {
            let detail = format!("{} bytes of {}", metadata.len(), record.len);
            return Err(corrupt(record.id, &detail));
        }
        let stamp = Stamp::of(&metadata);
        if !self.knows(record.id, stamp) {
            let found = hashed(&mut file).await.map_err(|error| disk("reading a file", path, &error))?;
            if found != record.sha256 {
                return Err(corrupt(record.id, "the sha256 is another"));
            }
            file.rewind().await.map_err(|error| disk("reading a file", path, &error))?;
            self.remember(record.id, stamp);
        }
        Ok(file)
    }
}

async fn hashed(file: &mut File) -> io::Result<String> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; BUFFER]);
    loop {
        let read = file.read(&mut buffer).await?;
        match buffer.get(..read) {
            Some(piece) if !piece.is_empty() => hash.update(piece),
            _ => return Ok(hex(hash)),
        }
    }
}

/// Passes the bytes of a whole file on, one piece behind; if they are not those of the record, the last piece is
/// an error instead, so that no reader takes what it got for whole.
pub(super) fn checked<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    bytes: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    record: FileRecord,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    struct State<S> {
        bytes: S,
        hash: Sha256,
        held: Option<Bytes>,
        record: FileRecord,
    }
    let state = State { bytes: Box::pin(bytes), hash: Sha256::new(), held: None, record };
    stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        loop {
            match state.bytes.next().await {
                Some(Ok(piece)) => {
                    state.hash.update(&piece);
                    if let Some(held) = state.held.replace(piece) {
                        return Some((Ok(held), Some(state)));
                    }
                }
                Some(Err(error)) => return Some((Err(io::Error::other(error)), None)),
                None if hex(state.hash) == state.record.sha256 => return state.held.map(|held| (Ok(held), None)),
                None => {
                    let fault = corrupt(state.record.id, "the sha256 is another");
                    return Some((Err(io::Error::other(fault)), None));
                }
            }
        }
    })
}
