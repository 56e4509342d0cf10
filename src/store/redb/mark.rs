//! The mark of a clean stop: a small file beside the store, written after the store was closed in order and taken
//! away before it is opened for writing. Without it, the next start looks at every byte.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};
use types::LogId;
use xxhash_rust::xxh3::xxh3_64;

use crate::{Rev, directory::sync_directory};

const MARK: &str = "store.clean";

/// Where the store stood when it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub log_id: LogId,
    pub head: Rev,
}

/// Leaves the mark; it is on the disk when this returns.
pub(super) fn leave(dir: &Path, log_id: LogId, head: Rev) -> io::Result<()> {
    let text = format!("{log_id} {head}");
    let new = dir.join(format!("{MARK}.new"));
    let mut file = File::create(&new)?;
    writeln!(file, "{text} {:016x}", xxh3_64(text.as_bytes()))?;
    file.sync_all()?;
    fs::rename(&new, dir.join(MARK))?;
    sync_directory(dir)
}

/// The mark, if there is one that can be read.
pub(super) fn read(dir: &Path) -> Option<Mark> {
    let text = fs::read_to_string(dir.join(MARK)).ok()?;
    let (words, sum) = text.trim_end().rsplit_once(' ')?;
    if sum != format!("{:016x}", xxh3_64(words.as_bytes())) {
        return None;
    }
    let (log_id, head) = words.split_once(' ')?;
    Some(Mark { log_id: log_id.parse().ok()?, head: head.parse().ok()? })
}

/// Takes the mark away, before the first write.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(MARK)) {
        Ok(()) => sync_directory(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
