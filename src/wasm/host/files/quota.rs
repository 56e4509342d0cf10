//! How much a guest may keep in a tree: bytes and entries, taken before they are used.

use std::sync::{Mutex, MutexGuard};

use crate::host::Errno;

/// What is left. Shared by all descriptors of a tree.
#[derive(Debug)]
pub(crate) struct Quota {
    left: Mutex<Left>,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    bytes: u64,
    entries: u64,
}

impl Quota {
    /// So many bytes in so many files, directories and links.
    pub(crate) fn new(bytes: u64, entries: u64) -> Self {
        Self { left: Mutex::new(Left { bytes, entries }) }
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// # Errors
    /// `NOSPC`: nothing is taken then.
    pub(crate) fn take_bytes(&self, bytes: u64) -> Result<(), Errno> {
        let mut left = self.left();
        left.bytes = left.bytes.checked_sub(bytes).ok_or(Errno::Nospc)?;
        Ok(())
    }

    /// As many of these as there are.
    pub(crate) fn take_up_to(&self, bytes: u64) -> u64 {
        let mut left = self.left();
        let taken = left.bytes.min(bytes);
        left.bytes -= taken;
        taken
    }

    pub(crate) fn give_bytes(&self, bytes: u64) {
        let mut left = self.left();
        left.bytes = left.bytes.saturating_add(bytes);
    }

    /// # Errors
    /// `NOSPC`.
    pub(crate) fn take_entry(&self) -> Result<(), Errno> {
        let mut left = self.left();
        left.entries = left.entries.checked_sub(1).ok_or(Errno::Nospc)?;
        Ok(())
    }

    pub(crate) fn give_entry(&self) {
        let mut left = self.left();
        left.entries = left.entries.saturating_add(1);
    }
}
