//! A regular file that is open: reading, writing, its place, its length.

use cap_std::fs::{Metadata, MetadataExt};
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, futimens};
use std::{io, num::NonZeroU64, os::unix::fs::FileExt, sync::Arc};

use super::{
    Times, Tree,
    quota::{Identity, Ledger, resized},
};
use crate::host::Errno;

/// Longest file. Far above what a quota allows, and so that sums of places fit.
const LONGEST: u64 = 1 << 53;

/// Bytes that are allocated at a time.
const STEP: u64 = 64 << 20;

/// A regular file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: std::fs::File,
    tree: Arc<Tree>,
    /// Where reading and writing go on.
    pub(crate) position: u64,
    identity: Identity,
}

/// Where a write goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// To this offset.
    At(u64),
    /// To the end, wherever that is by then.
    End,
}

impl OpenFile {
    /// Over a file that was opened in a tree whose ledger is this one.
    pub(super) fn new(file: std::fs::File, metadata: &Metadata, tree: Arc<Tree>, ledger: Option<&mut Ledger>) -> Self {
        let identity = (metadata.dev(), metadata.ino());
        if let Some(ledger) = ledger {
            ledger.opened(identity);
        }
        Self { file, tree, position: 0, identity }
    }

    /// What it is.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        Metadata::from_file(&self.file)
    }

    /// Bytes in it.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn length(&self) -> Result<u64, Errno> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads at a place; 0 at the end.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn read_at(&self, buffer: &mut [u8], place: u64) -> Result<usize, Errno> {
        Ok(self.file.read_at(buffer, place)?)
    }

    /// Writes as much as there is room for: at least something, or an error. Answers how much, and where it ended.
    ///
    /// # Errors
    /// `NOSPC` over the quota, `FBIG`, `INVAL`, or those of the system.
    pub(crate) fn write_at(&self, bytes: &[u8], place: Place) -> Result<(usize, u64), Errno> {
        let mut ledger = self.tree.ledger();
        let before = self.length()?;
        let place = match place {
            Place::At(place) => place,
            Place::End => before,
        };
        let wanted = bytes.len() as u64;
        let end = place.checked_add(wanted).filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::Inval)?;
        if end > LONGEST && wanted > 0 {
            return Err(Errno::Fbig);
        }
        // A hole before it counts as well: the guest may fill it without asking again.
        let growth = if wanted > 0 { end.saturating_sub(before) } else { 0 };
        let granted = ledger.as_ref().map_or(growth, |ledger| ledger.room(growth));
        let part = wanted.saturating_sub(growth - granted);
        if part == 0 && wanted > 0 {
            return Err(Errno::Nospc);
        }
        let part = usize::try_from(part).ok().and_then(|part| bytes.get(..part)).unwrap_or(bytes);
        let write = || self.file.write_at(part, place);
        let written = resized(ledger.as_deref_mut(), &self.file, (before, granted), write)?;
        Ok((written, place.saturating_add(written as u64)))
    }

    /// Puts on the disk what was written.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn sync(&self, only_data: bool) -> Result<(), Errno> {
        Ok(if only_data { self.file.sync_data() } else { self.file.sync_all() }?)
    }

    /// `whence`: 0 from the beginning, 1 from here, 2 from the end.
    ///
    /// # Errors
    /// `INVAL` before the beginning, or beyond any end.
    pub(crate) fn seek(&mut self, offset: i64, whence: u32) -> Result<u64, Errno> {
        let from = match whence {
            0 => 0,
            1 => self.position,
            2 => self.length()?,
            _ => return Err(Errno::Inval),
        };
        self.position = from.checked_add_signed(offset).ok_or(Errno::Inval)?;
        Ok(self.position)
    }

    /// Makes it as long as that.
    ///
    /// # Errors
    /// `NOSPC` over the quota, `FBIG`, `INVAL`, or those of the system.
    pub(crate) fn set_length(&self, length: u64) -> Result<(), Errno> {
        self.changeable()?;
        set_length(&self.file, self.tree.ledger().as_deref_mut(), length)
    }

    /// Room on the disk for a part; the file is longer afterwards if it was shorter. Goes on in steps until `stopped`.
    ///
    /// # Errors
    /// As of [`OpenFile::set_length`].
    pub(crate) fn allocate(&self, offset: u64, length: u64, stopped: impl Fn() -> bool) -> Result<(), Errno> {
        self.changeable()?;
        let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok() && length > 0);
        let end = end.ok_or(Errno::Inval)?;
        if end > LONGEST {
            return Err(Errno::Fbig);
        }
        let mut ledger = self.tree.ledger();
        let before = self.length()?;
        resized(ledger.as_deref_mut(), &self.file, (before, end.saturating_sub(before)), || {
            let mut offset = offset;
            while offset < end && !stopped() {
                let step = STEP.min(end - offset);
                fallocate(&self.file, FallocateFlags::empty(), offset, step)?;
                offset += step;
            }
            Ok(())
        })
    }

    /// Tells the system how it will be read.
    ///
    /// # Errors
    /// `INVAL`, or those of the system.
    pub(crate) fn advise(&self, offset: u64, length: u64, advice: u32) -> Result<(), Errno> {
        let advice = match advice {
            0 => Advice::Normal,
            1 => Advice::Sequential,
            2 => Advice::Random,
            3 => Advice::WillNeed,
            4 => Advice::DontNeed,
            5 => Advice::NoReuse,
            _ => return Err(Errno::Inval),
        };
        Ok(fadvise(&self.file, offset, NonZeroU64::new(length), advice)?)
    }

    /// Sets the times of the last reading and writing.
    ///
    /// # Errors
    /// `PERM` in a tree that may only be read, or those of the system.
    pub(crate) fn set_times(&self, times: &Times) -> Result<(), Errno> {
        self.changeable()?;
        Ok(futimens(&self.file, &times.0)?)
    }

    fn changeable(&self) -> Result<(), Errno> {
        if self.tree.writable { Ok(()) } else { Err(Errno::Perm) }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(mut ledger) = self.tree.ledger() {
            ledger.closed(self.identity, &self.file);
        }
    }
}

/// See [`OpenFile::set_length`].
pub(super) fn set_length(file: &std::fs::File, ledger: Option<&mut Ledger>, length: u64) -> Result<(), Errno> {
    if i64::try_from(length).is_err() {
        return Err(Errno::Inval);
    }
    if length > LONGEST {
        return Err(Errno::Fbig);
    }
    let before = file.metadata()?.len();
    resized(ledger, file, (before, length.saturating_sub(before)), || file.set_len(length))
}
