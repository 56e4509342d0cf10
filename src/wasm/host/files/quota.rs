//! How much a guest may keep in a tree.
//!
//! What counts:
//! * entries: the names in it, whatever they stand for, so a file with two names counts twice;
//! * bytes: the lengths of its regular files, each once, holes included, also of one that has no name any more for as
//!   long as it is open.
//!
//! Both are taken before they are used, and the ledger stays locked over the operation itself: whoever shares the tree
//! finds numbers that are true. What a guest leaves open when it is killed is closed, and so given back, with its table
//! of descriptors. Where there is too little the answer is `NOSPC`, which programs know from a full disk, and not
//! `DQUOT`, which few expect.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    sync::{Mutex, MutexGuard},
};

use crate::host::Errno;

/// Which file it is, whatever its name: device and inode.
pub(crate) type Identity = (u64, u64);

/// The bounds of a tree, shared by all its descriptors.
#[derive(Debug)]
pub(crate) struct Quota {
    ledger: Mutex<Ledger>,
}

/// What is left, and which files are open.
#[derive(Debug)]
pub(crate) struct Ledger {
    bytes: u64,
    entries: u64,
    open: BTreeMap<Identity, usize>,
}

impl Quota {
    /// So many bytes in so many files, directories and links, in a tree that is empty.
    pub(crate) fn new(bytes: u64, entries: u64) -> Self {
        Self { ledger: Mutex::new(Ledger { bytes, entries, open: BTreeMap::new() }) }
    }

    /// The ledger, for one operation.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

impl Ledger {
    /// What is left: bytes and entries.
    #[cfg(test)]
    pub(crate) fn left(&self) -> (u64, u64) {
        (self.bytes, self.entries)
    }

    /// How many of these bytes there are.
    pub(super) fn room(&self, bytes: u64) -> u64 {
        self.bytes.min(bytes)
    }

    fn give_bytes(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn take_entry(&mut self) -> Result<(), Errno> {
        self.entries = self.entries.checked_sub(1).ok_or(Errno::Nospc)?;
        Ok(())
    }

    fn give_entry(&mut self) {
        self.entries = self.entries.saturating_add(1);
    }

    /// A file was opened once more.
    pub(super) fn opened(&mut self, identity: Identity) {
        *self.open.entry(identity).or_default() += 1;
    }

    /// It was closed: the last to do so gives back what a file without a name held.
    pub(super) fn closed(&mut self, identity: Identity, file: &File) {
        let Some(count) = self.open.get_mut(&identity) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.open.remove(&identity);
        if let Ok(metadata) = file.metadata()
            && metadata.nlink() == 0
        {
            self.give_bytes(metadata.len());
        }
    }

    /// A name is gone. `gone` is what it stood for, as that was before.
    pub(super) fn unnamed(&mut self, gone: &cap_std::fs::Metadata) {
        use cap_std::fs::MetadataExt as _;
        self.give_entry();
        // A file that is open holds its bytes until it is closed.
        if gone.is_file() && gone.nlink() == 1 && !self.open.contains_key(&(gone.dev(), gone.ino())) {
            self.give_bytes(gone.len());
        }
    }

    /// A directory is gone.
    pub(super) fn removed(&mut self) {
        self.give_entry();
    }
}

/// Makes a name, which is taken from the ledger first.
///
/// # Errors
/// `NOSPC`, or what the making says.
pub(super) fn named<T>(ledger: Option<&mut Ledger>, make: impl FnOnce() -> io::Result<T>) -> Result<T, Errno> {
    let Some(ledger) = ledger else { return Ok(make()?) };
    ledger.take_entry()?;
    make().map_err(|error| {
        ledger.give_entry();
        error.into()
    })
}

/// Changes the length of a file that has `before` bytes, by at most `growth`, which is taken first, and books what
/// really came of it.
///
/// # Errors
/// `NOSPC`, or what the change says.
pub(super) fn resized<T>(
    ledger: Option<&mut Ledger>,
    file: &File,
    (before, growth): (u64, u64),
    change: impl FnOnce() -> io::Result<T>,
) -> Result<T, Errno> {
    let Some(ledger) = ledger else { return Ok(change()?) };
    ledger.bytes = ledger.bytes.checked_sub(growth).ok_or(Errno::Nospc)?;
    let changed = change();
    // A short write, or one that failed, took less; a file that is shorter now gives back.
    let after = file.metadata().map_or_else(|_| before.saturating_add(growth), |metadata| metadata.len());
    let grown = after.saturating_sub(before);
    ledger.give_bytes(growth.saturating_sub(grown));
    ledger.give_bytes(before.saturating_sub(after));
    Ok(changed?)
}
