//! An upload: bytes into a part file, hashed as they come.
//!
//! Whatever ends it early (the client, a stall, a limit, a full disk, a panic) drops the [`Part`], and that removes
//! the file. From the rename on, it is finished by a task of its own: a client that goes away at that moment can
//! neither lose the record of bytes that lie there nor the bytes of a record.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use store::Store;
use tokio::{fs::File, io::AsyncWriteExt};
use types::{ErrorKind, Fault, FileId};

use super::records::{disk, too_large};

/// Longest pause between two pieces of an upload.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How a file is called while it is not whole.
pub(super) const PART: &str = "part";

/// A file that is not whole yet; dropping it removes it.
pub(super) struct Part {
    path: PathBuf,
    place: PathBuf,
    armed: bool,
}

impl Part {
    fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        // One unlink: a blocking call, but short, and there may be no runtime left to hand it to.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a part file; the next start will");
        }
    }
}

/// Bytes received, not yet on disk for good.
pub(super) struct Received {
    pub len: u64,
    pub sha256: String,
    part: Part,
    file: File,
}

/// sha256 in hexadecimal.
pub(super) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// Writes a stream of bytes to a part file of `id` in `dir`.
///
/// # Errors
/// Over `limit`, aborted, stalled, or the disk failed; nothing is left behind then.
pub(super) async fn receive<E: std::fmt::Display>(
    dir: &Path,
    id: FileId,
    limit: u64,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<Received, Fault> {
    let (part, mut file) = begin(dir, id).await?;
    let (mut len, mut hash) = (0u64, Sha256::new());
    tokio::pin!(body);
    loop {
        let piece = match tokio::time::timeout(LONGEST_PAUSE, body.next()).await {
            Ok(None) => break,
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(error))) => {
                return Err(Fault::new(ErrorKind::Invalid, "UPLOAD_ABORTED", format!("the upload broke off: {error}")));
            }
            Err(_) => {
                let message = format!("the upload stalled: no byte for {} seconds", LONGEST_PAUSE.as_secs());
                return Err(Fault::new(ErrorKind::Deadline, "UPLOAD_STALLED", message));
            }
        };
        len = len.saturating_add(piece.len() as u64);
        if len > limit {
            return Err(too_large(limit));
        }
        hash.update(&piece);
        file.write_all(&piece).await.map_err(|error| disk("writing a file", &part.path, &error))?;
    }
    file.flush().await.map_err(|error| disk("writing a file", &part.path, &error))?;
    Ok(Received { len, sha256: hex(hash), part, file })
}

/// Makes the part file. Its guard is born with it: a caller that goes away meanwhile leaves nothing.
async fn begin(dir: &Path, id: FileId) -> Result<(Part, File), Fault> {
    let (path, place) = (dir.join(format!("{id}.{PART}")), dir.join(id.to_string()));
    let made = tokio::task::spawn_blocking(move || {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match file {
            Ok(file) => Ok((Part { path, place, armed: true }, File::from_std(file))),
            Err(error) => Err(disk("making a file", &path, &error)),
        }
    });
    made.await.unwrap_or_else(|error| Err(Fault::internal(format!("making a file: {error}"))))
}

impl Received {
    /// Puts the bytes on disk under their name, for good.
    ///
    /// # Errors
    /// When the disk fails; nothing is left behind then. A failed fsync ends the process through `store`.
    pub async fn keep(self, store: &Store) -> Result<Kept, Fault> {
        let Self { mut part, file, .. } = self;
        file.sync_all().await.map_err(|error| store.unsynced(&part.path, &error))?;
        drop(file);
        tokio::fs::rename(&part.path, &part.place).await.map_err(|error| disk("naming a file", &part.path, &error))?;
        part.path.clone_from(&part.place);
        let dir = part.place.parent().map_or_else(PathBuf::new, Path::to_owned);
        let synced = tokio::task::spawn_blocking(move || std::fs::File::open(dir)?.sync_all()).await;
        synced
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| store.unsynced(&part.place, &error))?;
        Ok(Kept { part })
    }
}

/// Bytes on disk under their name; dropping it removes them, unless they are given a record.
pub(super) struct Kept {
    part: Part,
}

impl Kept {
    /// There is a record of them, or there may be.
    pub fn settle(mut self) {
        self.part.disarm();
    }
}
