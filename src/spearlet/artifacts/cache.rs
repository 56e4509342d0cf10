//! Artifacts on disk, one file per digest, the least recently used removed when there are too many bytes.
//!
//! A file is trusted after it was hashed once in this process, for as long as its size, time and inode stay;
//! a file that is not what its name says is removed and fetched again. A [`Held`] keeps its file from removal:
//! an engine opens the path some time after the fetch, so relying on open descriptors would not do.

use runtime::Artifact;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    ops::Deref,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use types::Fault;
use uuid::Uuid;

use super::{disk, hex, is_digest, lock};

/// Files the cache keeps, however small.
const MOST_FILES: usize = 10_000;
/// Begins the name of a file that is being written.
const TEMPORARY: &str = "tmp-";

/// The artifacts of a directory. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    max_bytes: u64,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    by_digest: HashMap<String, File>,
    bytes: u64,
    uses: u64,
}

struct File {
    size: u64,
    /// What it looked like when it was hashed; none: not yet by this process.
    verified: Option<Stamp>,
    last_use: u64,
    /// More than one owner: in use.
    owners: Arc<()>,
}

/// Changes when somebody writes to the file or puts another in its place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        if !meta.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(Self { size: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()), inode: meta.ino() })
    }
}

/// An artifact that stays on disk while this lives.
#[derive(Clone)]
pub struct Held {
    artifact: Artifact,
    owner: Option<Arc<()>>,
    cache: Arc<Inner>,
}

impl Deref for Held {
    type Target = Artifact;

    fn deref(&self) -> &Artifact {
        &self.artifact
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.artifact.fmt(f)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.owner = None;
        self.cache.shrink();
    }
}

/// A file being written; removed unless it becomes an artifact.
pub(super) struct Temporary {
    path: PathBuf,
}

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already when it was renamed; otherwise the sweep of the next start gets it.
        drop(fs::remove_file(&self.path));
    }
}

impl Cache {
    /// Takes a directory.
    pub(super) async fn open(dir: PathBuf, max_bytes: u64) -> Result<Self, Fault> {
        let opened = tokio::task::spawn_blocking(move || {
            let files = read(&dir).map_err(|error| disk(&dir, &error))?;
            let inner = Inner { dir, max_bytes, files: Mutex::new(files) };
            inner.shrink();
            Ok(Self { inner: Arc::new(inner) })
        });
        opened.await.map_err(|error| Fault::internal(error.to_string()))?
    }

    /// An artifact that this process has verified and that nobody has touched since.
    pub(super) fn at_hand(&self, digest: &str) -> Option<Held> {
        let path = self.inner.dir.join(digest);
        let mut files = lock(&self.inner.files);
        let verified = files.by_digest.get(digest)?.verified?;
        if Stamp::of(&path).ok() != Some(verified) {
            return None;
        }
        self.inner.hold(&mut files, digest, path)
    }

    /// An artifact, hashed if this process has not yet; a damaged one is removed.
    pub(super) async fn take(&self, digest: &str) -> Result<Option<Held>, Fault> {
        if let Some(held) = self.at_hand(digest) {
            return Ok(Some(held));
        }
        let path = self.inner.dir.join(digest);
        let held = self.inner.hold(&mut lock(&self.inner.files), digest, path.clone());
        let Some(mut held) = held else { return Ok(None) };
        let hashed = tokio::task::spawn_blocking(move || hash(&path));
        let hashed = hashed.await.map_err(|error| Fault::internal(error.to_string()))?;
        let mut files = lock(&self.inner.files);
        match hashed {
            Ok((stamp, found)) if found == digest => {
                let Some(file) = files.by_digest.get_mut(digest) else { return Ok(None) };
                let before = std::mem::replace(&mut file.size, stamp.size);
                file.verified = Some(stamp);
                files.bytes = files.bytes - before + stamp.size;
                held.artifact.size = stamp.size;
                drop(files);
                Ok(Some(held))
            }
            other => {
                let found = other.map_or_else(|error| error.to_string(), |(_, found)| format!("its sha256 is {found}"));
                tracing::warn!(artifact = digest, found, "cached artifact is damaged, fetching it again");
                // Only what was hashed: by now another fetch may have put a good one in its place.
                let same = |file: &File| held.owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, &file.owners));
                if files.by_digest.get(digest).is_some_and(same) {
                    self.inner.remove(&mut files, digest);
                }
                drop(files);
                Ok(None)
            }
        }
    }

    /// A new file to write to. Made in one step without waiting: a fetch given up meanwhile would leave it behind.
    pub(super) fn temporary(&self) -> Result<(Temporary, tokio::fs::File), Fault> {
        let path = self.inner.dir.join(format!("{TEMPORARY}{}", Uuid::now_v7()));
        let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = opened.map_err(|error| disk(&path, &error))?;
        Ok((Temporary { path }, tokio::fs::File::from_std(file)))
    }

    /// Makes a written and synced file the artifact of a digest. The directory is not synced: a name that a
    /// power cut takes away is only fetched again.
    pub(super) fn insert(&self, temporary: Temporary, digest: &str, size: u64) -> Result<Held, Fault> {
        let path = self.inner.dir.join(digest);
        let mut files = lock(&self.inner.files);
        let renamed = fs::rename(&temporary.path, &path).and_then(|()| Stamp::of(&path));
        let stamp = renamed.map_err(|error| disk(&path, &error))?;
        let file = File { size, verified: Some(stamp), last_use: 0, owners: Arc::default() };
        files.bytes += size;
        if let Some(old) = files.by_digest.insert(digest.to_owned(), file) {
            files.bytes -= old.size;
        }
        let held = self.inner.hold(&mut files, digest, path);
        drop(files);
        self.inner.shrink();
        held.ok_or_else(|| Fault::internal("an artifact vanished from its own table"))
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.inner.files).bytes
    }
}

impl Inner {
    fn hold(self: &Arc<Self>, files: &mut Files, digest: &str, path: PathBuf) -> Option<Held> {
        files.uses += 1;
        let now = files.uses;
        let file = files.by_digest.get_mut(digest)?;
        file.last_use = now;
        let artifact = Artifact { digest: digest.to_owned(), path, size: file.size };
        Some(Held { artifact, owner: Some(file.owners.clone()), cache: self.clone() })
    }

    /// Removes the least recently used files that nobody holds until the rest fits.
    fn shrink(&self) {
        let mut files = lock(&self.files);
        while files.bytes > self.max_bytes || files.by_digest.len() > MOST_FILES {
            let free = files.by_digest.iter().filter(|(_, file)| Arc::strong_count(&file.owners) == 1);
            let Some(oldest) = free.min_by_key(|(_, file)| file.last_use).map(|(digest, _)| digest.clone()) else {
                return;
            };
            tracing::debug!(artifact = oldest, "artifact leaves the cache");
            self.remove(&mut files, &oldest);
        }
    }

    fn remove(&self, files: &mut Files, digest: &str) {
        let Some(file) = files.by_digest.remove(digest) else { return };
        files.bytes -= file.size;
        let path = self.dir.join(digest);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove an artifact");
        }
    }
}

/// The artifacts of a directory, those written last counting as used last; half-written ones are removed.
fn read(dir: &Path) -> io::Result<Files> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(TEMPORARY) {
            fs::remove_file(entry.path())?;
        } else if is_digest(&name)
            && let Ok(stamp) = Stamp::of(&entry.path())
        {
            found.push((stamp, name));
        }
    }
    found.sort_by_key(|(stamp, _)| stamp.modified);
    let mut files = Files::default();
    for (stamp, name) in found {
        files.uses += 1;
        files.bytes += stamp.size;
        let file = File { size: stamp.size, verified: None, last_use: files.uses, owners: Arc::default() };
        files.by_digest.insert(name, file);
    }
    Ok(files)
}

/// The digest of a file, with what it looked like before it was read.
fn hash(path: &Path) -> io::Result<(Stamp, String)> {
    let stamp = Stamp::of(path)?;
    let mut file = fs::File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 128 << 10]);
    loop {
        let read = file.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
        hash.update(chunk);
    }
    Ok((stamp, hex(hash)))
}
