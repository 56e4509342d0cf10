//! Room held in reserve on the disk itself, for removals: when somebody else has filled the disk to the last byte,
//! it is given back, so that what makes room can be written.

use rustix::fs::{FallocateFlags, fallocate};
use std::{
    cell::Cell,
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

const FILE: &str = "store.reserve";
/// More than the pages that one removal rewrites, of the largest group.
const BYTES: u64 = 1 << 20;

pub(super) struct Ballast {
    path: PathBuf,
    held: Cell<bool>,
}

impl Ballast {
    /// Of a data directory; nothing is held yet.
    pub(super) fn new(dir: &Path) -> Self {
        Self { path: dir.join(FILE), held: Cell::new(false) }
    }

    /// Takes the room, unless it is held. A disk that has none, or cannot promise any, is no failure: removals then
    /// have the chance that they would have had without.
    pub(super) fn hold(&self) {
        if self.held.replace(true) {
            return;
        }
        if let Err(error) = self.take() {
            tracing::debug!(path = %self.path.display(), %error, "no room is held in reserve");
        }
    }

    fn take(&self) -> io::Result<()> {
        // What is in it does not matter.
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path)?;
        Ok(fallocate(file, FallocateFlags::empty(), 0, BYTES)?)
    }

    /// Gives the room back; false when there was none.
    pub(super) fn give_back(&self) -> bool {
        self.held.set(false);
        fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_room_is_really_taken_and_given_back_once() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(dir.path());
        assert!(!ballast.give_back(), "there was nothing");
        ballast.hold();
        ballast.hold();
        let found = fs::metadata(dir.path().join(FILE)).unwrap();
        assert!(found.blocks() * 512 >= BYTES, "{} blocks", found.blocks());
        assert!(ballast.give_back() && !ballast.give_back());
        ballast.hold();
        assert!(dir.path().join(FILE).exists(), "taken again");
    }
}
