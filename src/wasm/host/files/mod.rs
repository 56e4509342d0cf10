//! The files a guest sees: directories that were granted to it, and a scratch directory of its own.
//!
//! ```text
//!   Grant ─► Tree ─► descriptor 3, 4, … ─ path_open ─► File | Directory, in the same tree
//!                │
//!                └ quota: what makes a file longer, or is a new name, is taken from it first
//! ```
//! cap-std finds what a path leads to without leaving the directory (`openat2` where the kernel has it). Only
//! regular files, directories and links are opened: a pipe or a device could hold the guest where no stop reaches
//! it. Sizes of one call are bounded as for streams.

mod directory;
mod file;
mod quota;
mod read_dir;
mod stat;

pub(crate) use directory::{
    path_create_directory, path_filestat_get, path_filestat_set_times, path_link, path_open, path_readlink,
    path_remove_directory, path_rename, path_symlink, path_unlink_file,
};
pub(crate) use file::{OpenFile, Writing};
pub(crate) use quota::Quota;
pub(crate) use read_dir::fd_readdir;
pub(crate) use stat::{Times, filestat};

use cap_std::fs::Dir;
use std::sync::Arc;

use super::descriptor::{Descriptor, What, rights};

/// A directory with all below it.
#[derive(Debug)]
pub(crate) struct Tree {
    /// May anything in it be changed?
    pub(crate) writable: bool,
    /// Bounds what is kept in it; none: what the disk has.
    pub(crate) quota: Option<Quota>,
}

/// A directory that is open.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    pub(crate) dir: Dir,
    pub(crate) tree: Arc<Tree>,
    /// The name that it was granted under, if it was granted itself.
    pub(crate) preopen: Option<Vec<u8>>,
    /// What was in it when it was last read from its beginning.
    listing: Vec<read_dir::Entry>,
}

impl OpenDirectory {
    fn new(dir: Dir, tree: Arc<Tree>, preopen: Option<Vec<u8>>) -> Self {
        Self { dir, tree, preopen, listing: Vec::new() }
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
        let all = rights::DIRECTORY | rights::FILE;
        let allowed = if self.tree.writable { all } else { all & !rights::CHANGING };
        let what = What::Directory(OpenDirectory::new(self.dir, Arc::new(self.tree), Some(self.name.into_bytes())));
        Descriptor { what, flags: 0, rights: allowed & rights::DIRECTORY, inheriting: allowed }
    }
}
