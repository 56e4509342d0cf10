//! Removing files that a backup may still need.
//!
//! ```text
//!   nobody holds: remove(path) ─► unlink
//!   held:         remove(path) ─► rename to removed/<inode> ─► unlinked when the last one lets go, or by the next start
//! ```
//! Between [`Removals::hold`] and [`Holding::settle`] no removal happens at all: a snapshot is taken there and its
//! files are looked at. Names may be used again (the log of a later attempt), inodes that still exist are not.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, RwLockReadGuard};

/// Where removed files lie while somebody may need them, below the directory they were in.
pub(super) const REMOVED: &str = "removed";

struct Inner {
    dir: PathBuf,
    gate: Arc<RwLock<()>>,
    /// How many hold. Changed with the gate held for writing, or by [`Hold`]'s end.
    holds: AtomicUsize,
    /// How often everything was let go.
    ends: AtomicU64,
}

/// Removes files of one directory. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Removals {
    inner: Arc<Inner>,
}

impl Removals {
    /// For a directory. Removes what an ended process left. Blocks on the disk.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(REMOVED) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let (gate, dir) = (Arc::default(), dir.to_owned());
        Ok(Self { inner: Arc::new(Inner { dir, gate, holds: AtomicUsize::new(0), ends: AtomicU64::new(0) }) })
    }

    /// Removes a file of the directory; waits while a backup makes its list.
    pub(crate) async fn remove(&self, path: &Path) -> io::Result<()> {
        let (this, path) = (self.clone(), path.to_owned());
        let removed = tokio::task::spawn_blocking(move || this.enter().remove(&path));
        removed.await.map_err(io::Error::other)?
    }

    /// Waits while a backup makes its list; none is made as long as this is held. Blocks.
    pub(crate) fn enter(&self) -> Entered<'_> {
        Entered { _gate: self.inner.gate.blocking_read(), inner: &self.inner }
    }

    /// Stops removals until [`Holding::settle`].
    pub(super) async fn hold(&self) -> Holding {
        let gate = self.inner.gate.clone().write_owned().await;
        self.inner.holds.fetch_add(1, Ordering::AcqRel);
        Holding { _gate: gate, hold: Hold { inner: self.inner.clone() } }
    }
}

/// The right to remove.
pub(crate) struct Entered<'a> {
    _gate: RwLockReadGuard<'a, ()>,
    inner: &'a Inner,
}

impl Entered<'_> {
    /// Removes a file. Blocks on the disk.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        if self.inner.holds.load(Ordering::Acquire) == 0 {
            return fs::remove_file(path);
        }
        let aside = self.inner.dir.join(REMOVED);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&aside)?;
        let inode = fs::symlink_metadata(path)?.ino();
        fs::rename(path, aside.join(inode.to_string()))
    }
}

/// Nothing is removed as long as this is held.
pub(super) struct Holding {
    _gate: OwnedRwLockWriteGuard<()>,
    hold: Hold,
}

impl Holding {
    /// Lets removals go on; what they remove stays readable.
    pub(super) fn settle(self) -> Hold {
        self.hold
    }
}

/// What is removed stays readable as long as this is held.
pub(super) struct Hold {
    inner: Arc<Inner>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let inner = self.inner.clone();
        let release = move || {
            let gate = inner.gate.blocking_write();
            if inner.holds.fetch_sub(1, Ordering::AcqRel) > 1 {
                return;
            }
            let (aside, end) = (inner.dir.join(REMOVED), inner.ends.fetch_add(1, Ordering::Relaxed));
            let away = inner.dir.join(format!("{REMOVED}.{end}"));
            let renamed = fs::rename(&aside, &away);
            drop(gate);
            let emptied = renamed.and_then(|()| fs::remove_dir_all(&away));
            if let Err(error) =
                emptied.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            {
                tracing::warn!(path = %away.display(), %error, "cannot remove what was deleted during a backup; the next start will");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(release)),
            Err(_) => release(),
        }
    }
}
