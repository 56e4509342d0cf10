//! The files a guest sees: directories that were granted to it, and a scratch directory of its own.
//!
//! ```text
//!   Grant ─► Tree ─► descriptor 3, 4, … ─ path_open ─► File | Directory, in the same tree
//!                │
//!                └ quota: what makes a file longer, or is a new name, is taken from it first
//! ```
//! cap-std finds what a path leads to without leaving the directory (`openat2` where the kernel has it). Only
//! regular files, directories and links are opened: a pipe or a device could hold the guest where no stop reaches
//! it. A tree that may only be read says so by `PERM`, whatever rights its descriptors show: programs ask for what
//! they see there, and would otherwise be given less without a word.

mod directory;
mod file;
mod open;
mod quota;
mod read_dir;
mod stat;

pub(crate) use directory::{
    path_create_directory, path_filestat_get, path_filestat_set_times, path_link, path_readlink, path_remove_directory,
    path_rename, path_symlink, path_unlink_file,
};
pub(crate) use file::{OpenFile, Place};
pub(crate) use open::path_open;
pub(crate) use quota::{Ledger, Quota};
use read_dir::Reading;
pub(crate) use read_dir::fd_readdir;
pub(crate) use stat::{Times, filestat};

use cap_std::fs::Dir;
use std::sync::{Arc, MutexGuard};

use super::{
    Errno,
    descriptor::{Descriptor, What, rights},
};

/// A directory with all below it.
#[derive(Debug)]
pub(crate) struct Tree {
    /// May anything in it be changed?
    pub(crate) writable: bool,
    /// Bounds what is kept in it; none: what the disk has.
    pub(crate) quota: Option<Quota>,
}

impl Tree {
    /// Its ledger, if it has a quota.
    fn ledger(&self) -> Option<MutexGuard<'_, Ledger>> {
        self.quota.as_ref().map(Quota::ledger)
    }
}

/// A directory that is open.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    pub(crate) dir: Dir,
    pub(crate) tree: Arc<Tree>,
    /// The name that it was granted under, if it was granted itself.
    pub(crate) preopen: Option<Vec<u8>>,
    /// How far its names were read, once they are.
    reading: Option<Reading>,
}

impl OpenDirectory {
    fn new(dir: Dir, tree: Arc<Tree>, preopen: Option<Vec<u8>>) -> Self {
        Self { dir, tree, preopen, reading: None }
    }

    /// Puts its names on the disk.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        Ok(rustix::fs::fsync(read_dir::reader(&self.dir)?)?)
    }

    /// Sets the times of the last reading and writing.
    ///
    /// # Errors
    /// `PERM` in a tree that may only be read, or those of the system.
    pub(crate) fn set_times(&self, times: &Times) -> Result<(), Errno> {
        if !self.tree.writable {
            return Err(Errno::Perm);
        }
        // By a name, because what was granted may be open for nothing but being looked up in.
        Ok(rustix::fs::utimensat(&self.dir, ".", &times.0, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// A directory for a guest.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The name under which the guest finds it.
    pub(crate) name: String,
    pub(crate) dir: Dir,
    pub(crate) tree: Tree,
}

impl Grant {
    /// As an open descriptor.
    pub(crate) fn open(self) -> Descriptor {
        let what = What::Directory(OpenDirectory::new(self.dir, Arc::new(self.tree), Some(self.name.into_bytes())));
        Descriptor { what, flags: 0, rights: rights::DIRECTORY, inheriting: rights::DIRECTORY | rights::FILE }
    }
}
