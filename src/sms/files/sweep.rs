//! At the start: removes what an ended process left half done.

use std::{fs, io, path::Path};
use types::{FileId, LogId};

use super::upload::PART;

/// Names the store whose records tell which files are somebody's.
const OWNER: &str = "store-id";

/// What a sweep did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    pub removed: usize,
    /// Files that no record names but that may be of another store.
    pub left: usize,
}

/// Removes part files, and files that `known` does not know. The latter only if the directory belongs to this
/// very store: one with other records must not delete what it never heard of. Names that are none of ours stay.
pub(super) fn sweep(dir: &Path, store: LogId, known: impl Fn(FileId) -> bool) -> io::Result<Swept> {
    fs::create_dir_all(dir)?;
    let ours = owned(dir, store)?;
    let mut swept = Swept::default();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let (stem, part) = match name.strip_suffix(PART).and_then(|stem| stem.strip_suffix('.')) {
            Some(stem) => (stem, true),
            None => (name, false),
        };
        let Ok(id) = stem.parse::<FileId>() else { continue };
        if !part && known(id) {
            continue;
        }
        if part || ours {
            fs::remove_file(entry.path())?;
            swept.removed += 1;
        } else {
            swept.left += 1;
        }
    }
    if swept.left > 0 {
        tracing::error!(
            dir = %dir.display(),
            files = swept.left,
            "files of another store lie here and are left alone: put that store back, or move the directory away"
        );
    }
    if swept.removed > 0 {
        tracing::info!(dir = %dir.display(), files = swept.removed, "removed what unfinished uploads left");
    }
    Ok(swept)
}

/// Does the directory belong to the store? One that belongs to nobody is taken.
fn owned(dir: &Path, store: LogId) -> io::Result<bool> {
    let path = dir.join(OWNER);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim() == store.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::write(&path, format!("{store}\n"))?;
            fs::File::open(&path)?.sync_all()?;
            fs::File::open(dir)?.sync_all()?;
            Ok(true)
        }
        // Not readable as text: written by somebody else, or damaged. Nothing is deleted on a guess.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
        Err(error) => Err(error),
    }
}
