//! What a guest may reach beyond its own memory. Nothing is granted by default.

use std::path::PathBuf;

/// The grants of a function, already narrowed by the node's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Directories of the host.
    pub directories: Vec<Directory>,
    /// A directory of its own that is empty at the beginning of each call.
    pub scratch: Option<Scratch>,
}

impl Grants {
    /// Can a call leave anything behind, or see what another did?
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty() && self.scratch.is_none()
    }
}

/// A directory of the host that a guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where it is.
    pub host: PathBuf,
    /// Under which name the guest sees it.
    pub guest: String,
    /// May the guest change it?
    pub writable: bool,
}

/// A directory that lives as long as a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// Under which name the guest sees it.
    pub guest: String,
    /// Most bytes of all its files.
    pub bytes: u64,
    /// Most files, directories and links in it.
    pub entries: u64,
}
