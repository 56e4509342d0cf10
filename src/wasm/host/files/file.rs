//! A regular file that is open: reading, writing, its place, its length.

use cap_std::fs::{File, Metadata, MetadataExt};
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, futimens};
use std::{io, num::NonZeroU64, os::unix::fs::FileExt, sync::Arc};

use super::{Quota, Times, Tree};
use crate::host::Errno;

/// Longest file. Far above what a quota allows, and so that sums of places fit.
const LONGEST: u64 = 1 << 53;

/// A regular file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: std::fs::File,
    pub(crate) tree: Arc<Tree>,
    /// Where reading and writing go on.
    pub(crate) position: u64,
    /// Which file it is, whatever its name.
    pub(crate) identity: (u64, u64),
}

/// What of `fdflags` concerns writing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Writing {
    pub(crate) append: bool,
    pub(crate) data_sync: bool,
    pub(crate) sync: bool,
}

impl OpenFile {
    pub(crate) fn new(file: File, metadata: &Metadata, tree: Arc<Tree>) -> Self {
        Self { file: file.into_std(), tree, position: 0, identity: (metadata.dev(), metadata.ino()) }
    }

    fn quota(&self) -> Option<&Quota> {
        self.tree.quota.as_ref()
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        Metadata::from_file(&self.file)
    }

    fn length(&self) -> Result<u64, Errno> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads at a place; 0 at the end.
    pub(crate) fn read_at(&self, buffer: &mut [u8], place: u64) -> Result<usize, Errno> {
        Ok(self.file.read_at(buffer, place)?)
    }

    /// Writes as much as there is room for; at least something, or an error.
    pub(crate) fn write_at(&self, bytes: &[u8], place: u64, how: Writing) -> Result<usize, Errno> {
        let wanted = bytes.len() as u64;
        let end = place.checked_add(wanted).filter(|end| *end <= LONGEST).ok_or(Errno::Fbig)?;
        let before = self.length()?;
        // A hole before it counts as well: the guest may fill it without asking again.
        let growth = end.saturating_sub(before);
        let granted = self.quota().map_or(growth, |quota| quota.take_up_to(growth));
        let room = wanted.saturating_sub(growth - granted);
        if room == 0 && wanted > 0 {
            self.give(granted);
            return Err(Errno::Nospc);
        }
        let part = usize::try_from(room).ok().and_then(|room| bytes.get(..room)).unwrap_or(bytes);
        let written = self.file.write_at(part, place);
        // What was taken and not used, also by a short write.
        let after = self.length().unwrap_or(before);
        self.give(granted.saturating_sub(after.saturating_sub(before)));
        let written = written?;
        if how.sync {
            self.file.sync_all()?;
        } else if how.data_sync {
            self.file.sync_data()?;
        }
        Ok(written)
    }

    /// Where the next write goes.
    pub(crate) fn place(&self, how: Writing) -> Result<u64, Errno> {
        if how.append { self.length() } else { Ok(self.position) }
    }

    fn give(&self, bytes: u64) {
        if let Some(quota) = self.quota() {
            quota.give_bytes(bytes);
        }
    }

    /// `whence`: 0 from the beginning, 1 from here, 2 from the end.
    pub(crate) fn seek(&mut self, offset: i64, whence: u32) -> Result<u64, Errno> {
        let from = match whence {
            0 => 0,
            1 => self.position,
            2 => self.length()?,
            _ => return Err(Errno::Inval),
        };
        let place = from.checked_add_signed(offset).ok_or(Errno::Inval)?;
        if place > i64::MAX.cast_unsigned() {
            return Err(Errno::Inval);
        }
        self.position = place;
        Ok(place)
    }

    pub(crate) fn set_length(&self, length: u64) -> Result<(), Errno> {
        if length > LONGEST {
            return Err(Errno::Fbig);
        }
        let before = self.length()?;
        let growth = length.saturating_sub(before);
        if let Some(quota) = self.quota() {
            quota.take_bytes(growth)?;
        }
        if let Err(error) = self.file.set_len(length) {
            self.give(growth);
            return Err(error.into());
        }
        self.give(before.saturating_sub(length));
        Ok(())
    }

    /// Room on the disk; the file is longer afterwards if it was shorter.
    pub(crate) fn allocate(&self, offset: u64, length: u64) -> Result<(), Errno> {
        if length == 0 {
            return Err(Errno::Inval);
        }
        let end = offset.checked_add(length).filter(|end| *end <= LONGEST).ok_or(Errno::Fbig)?;
        let before = self.length()?;
        let growth = end.saturating_sub(before);
        if let Some(quota) = self.quota() {
            quota.take_bytes(growth)?;
        }
        if let Err(error) = fallocate(&self.file, FallocateFlags::empty(), offset, length) {
            self.give(growth);
            return Err(error.into());
        }
        Ok(())
    }

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
        if offset > i64::MAX.cast_unsigned() || length > i64::MAX.cast_unsigned() {
            return Err(Errno::Inval);
        }
        Ok(fadvise(&self.file, offset, NonZeroU64::new(length), advice)?)
    }

    pub(crate) fn set_times(&self, times: &Times) -> Result<(), Errno> {
        Ok(futimens(&self.file, &times.0)?)
    }

    /// To be called when it was closed and nothing else has it open: gives back what a file without a name held.
    pub(crate) fn forget(&self) {
        if let Ok(metadata) = self.metadata()
            && metadata.nlink() == 0
        {
            self.give(metadata.len());
        }
    }
}
