//! A data directory: one process has it for as long as it lives.

use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::Error;

/// File of the lock; it holds the pid of its owner and stays when the owner ends.
const LOCK: &str = "lock";

/// A data directory that this process has for itself. Cheap to clone; the last clone gives it up.
#[derive(Clone, Debug)]
pub struct DataDir {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Dropping it unlocks; so does the end of the process, however it ends.
    _lock: File,
}

impl DataDir {
    /// Makes the directory (0700) if it is missing and takes it. Blocks on the disk: for the start of a program.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has it, [`Error::Foreign`] when another program's data lies there,
    /// [`Error::Unusable`] when it cannot be made or written, [`Error::Full`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        refuse_foreign(&path)?;
        let missing: Vec<PathBuf> = path.ancestors().take_while(|part| is_missing(part)).map(Path::to_owned).collect();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| unusable(&path, "cannot make the directory", &error))?;
        for part in &missing {
            keep_name(part).map_err(|error| unusable(part, "cannot sync the directory above", &error))?;
        }
        let place = path.join(LOCK);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&place);
        let mut lock = opened.map_err(|error| unusable(&place, "cannot open it for writing", &error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::InUse { path, pid: owner(&mut lock) }),
            Err(error) => return Err(unusable(&place, "cannot lock it", &error.into())),
        }
        let named = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        named.map_err(|error| unusable(&place, "cannot write it", &error))?;
        Ok(Self { inner: Arc::new(Inner { path, _lock: lock }) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

/// Makes names in a directory survive a power cut.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn is_missing(path: &Path) -> bool {
    !path.as_os_str().is_empty() && !path.exists()
}

/// Makes a new directory's own name survive a power cut.
fn keep_name(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    match sync_directory(above) {
        // It may be written but not read.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

/// The pid in a lock file.
fn owner(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.take(32).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// The path of another program's database: nothing may be written there, not even a lock.
fn refuse_foreign(path: &Path) -> Result<(), Error> {
    let foreign = |detail: &str| Err(Error::Foreign { path: path.to_owned(), detail: detail.to_owned() });
    if path.is_file() {
        return foreign("it is a file, not a directory");
    }
    let has = |name: &str| path.join(name).exists();
    if has("conf") && has("db") && has("blobs") {
        return foreign("it holds a sled database; give another path or move it away");
    }
    if has("CURRENT") && has("IDENTITY") {
        return foreign("it holds a RocksDB database; give another path or move it away");
    }
    Ok(())
}

pub(crate) fn unusable(path: &Path, what: &str, error: &io::Error) -> Error {
    let (path, detail) = (path.to_owned(), format!("{what}: {error}"));
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { path, detail },
        // Not a matter of settings or permissions.
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Error::Failed { path, detail },
        _ => Error::Unusable { path, detail },
    }
}
