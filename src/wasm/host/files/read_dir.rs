//! `fd_readdir`: the names in a directory, from a cookie on.
//!
//! An entry: the next cookie u64, inode u64 at 8, length of the name u32 at 16, type u8 at 20; then the name. What
//! does not fit is cut, which tells the caller to come again with a larger buffer.
//!
//! The system's own cookies mean a place whatever happens to the directory meanwhile, but they need all 64 bits, and
//! `telldir` of the C library keeps 32. So the guest's count: 0 is `.`, 1 is `..`, and from 2 on they number the names as
//! they are read. [`Reading`] knows the system's cookie of each name in the last answer, which is where every program
//! goes on, also one that removes what it has read; and of every so many others, for those that go back.

use cap_std::fs::{Dir, MetadataExt};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, openat, seek, statat},
    io::Errno as System,
};
use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use crate::host::{
    Answer, Call, End, Errno,
    descriptor::{What, rights},
    memory::put,
};

const HEAD: usize = 24;
/// Bytes of one answer.
const MOST_BYTES: u32 = 256 * 1024;
/// Bytes asked of the system at a time: what one entry may need, and enough that asking costs little.
const BATCH: std::ops::RangeInclusive<usize> = 1024..=(32 * 1024);
/// Names between two places that are kept, at first.
const SPACING: u64 = 64;
/// Places that are kept; of more every second is forgotten.
const MOST_MARKS: usize = 1 << 14;

/// `filetype` of preview 1.
const DIRECTORY: u8 = 3;

/// Where the reading of a directory is.
#[derive(Debug)]
pub(crate) struct Reading {
    reader: OwnedFd,
    /// The number of the first name of the last answer.
    first: u64,
    /// Where the system has the names from there on, and the one behind them.
    recent: Vec<u64>,
    /// Where it has every [`Reading::spacing`]th.
    marks: Vec<u64>,
    spacing: u64,
}

impl Reading {
    fn new(reader: OwnedFd) -> Self {
        Self { reader, first: 0, recent: Vec::new(), marks: vec![0], spacing: SPACING }
    }

    /// Begins at a name: the system's cookie from which it can be reached, and how many names lie between.
    fn begin(&mut self, number: u64) -> (u64, u64) {
        let kept = number.checked_sub(self.first).and_then(|at| self.recent.get(usize::try_from(at).ok()?));
        let place = match kept {
            _ if number == 0 => {
                // From the beginning everything may be different.
                (self.marks, self.spacing) = (vec![0], SPACING);
                (0, 0)
            }
            Some(cookie) => (*cookie, 0),
            None => {
                let mark = (number / self.spacing).min(self.marks.len() as u64 - 1);
                let cookie = usize::try_from(mark).ok().and_then(|mark| self.marks.get(mark)).copied();
                (cookie.unwrap_or(0), number - mark * self.spacing)
            }
        };
        self.first = number;
        self.recent.clear();
        place
    }

    /// Keeps where the system has a name.
    fn at(&mut self, number: u64, cookie: u64) {
        if number >= self.first {
            self.recent.push(cookie);
        }
        if number == self.marks.len() as u64 * self.spacing {
            self.marks.push(cookie);
        }
        if self.marks.len() > MOST_MARKS {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.spacing *= 2;
        }
    }
}

/// An answer that is being put together.
struct Listing {
    bytes: Vec<u8>,
    room: usize,
}

impl Listing {
    /// Adds as much of an entry as fits. Is there room for more?
    fn push(&mut self, next: u64, inode: u64, kind: u8, name: &[u8]) -> bool {
        let mut head = [0; HEAD];
        put(&mut head, 0, &next.to_le_bytes());
        put(&mut head, 8, &inode.to_le_bytes());
        // The system's names are far shorter.
        put(&mut head, 16, &u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
        put(&mut head, 20, &[kind]);
        for part in [&head[..], name] {
            let left = self.room - self.bytes.len();
            self.bytes.extend_from_slice(part.get(..left).unwrap_or(part));
        }
        self.bytes.len() < self.room
    }
}

pub(crate) fn fd_readdir(call: &mut Call<'_>, fd: u32, buffer: u32, length: u32, cookie: u64, out: u32) -> Answer {
    call.memory.check(buffer, length)?;
    call.memory.check(out, 4)?;
    let descriptor = call.process.descriptor(fd)?;
    let What::Directory(open) = &descriptor.what else { return Err(Errno::Badf.into()) };
    descriptor.need(rights::FD_READDIR)?;
    let mut listing = Listing { bytes: Vec::new(), room: length.min(MOST_BYTES) as usize };
    // What lies above a granted directory is nobody's business: it is its own parent, as a root is.
    let own = open.dir.dir_metadata()?.ino();
    let mut more = listing.room > 0;
    for (at, name) in (0..).zip([&b"."[..], b".."]) {
        more = more && (cookie > at || listing.push(at + 1, own, DIRECTORY, name));
    }
    if more {
        rest(call, fd, cookie.saturating_sub(2), &mut listing)?;
    }
    call.memory.write(buffer, &listing.bytes)?;
    Ok(call.memory.write_u32(out, u32::try_from(listing.bytes.len()).map_err(|_| Errno::Overflow)?)?)
}

/// All other names, from this one on.
fn rest(call: &mut Call<'_>, fd: u32, wanted: u64, listing: &mut Listing) -> Answer {
    let control = call.control().clone();
    let What::Directory(open) = &mut call.process.descriptor(fd)?.what else { return Err(Errno::Badf.into()) };
    let reading = match &mut open.reading {
        Some(reading) => reading,
        None => match reader(&open.dir) {
            Ok(reader) => open.reading.insert(Reading::new(reader)),
            // It was removed while it was open.
            Err(Errno::Noent) => return Ok(()),
            Err(error) => return Err(error.into()),
        },
    };
    let (mut cookie, between) = reading.begin(wanted);
    let mut number = wanted - between;
    let reader = reading.reader.try_clone().map_err(Errno::from)?;
    seek(&reader, SeekFrom::Start(cookie)).map_err(Errno::from)?;
    let mut batch = vec![MaybeUninit::uninit(); (2 * listing.room).clamp(*BATCH.start(), *BATCH.end())];
    let mut entries = RawDir::new(&reader, &mut batch);
    loop {
        if entries.is_buffer_empty() && control.is_stopped() {
            return Err(End::Stopped.into());
        }
        let entry = match entries.next() {
            None | Some(Err(System::NOENT)) => break,
            Some(Err(error)) => return Err(Errno::from(error).into()),
            Some(Ok(entry)) => entry,
        };
        let (at, name) = (cookie, entry.file_name().to_bytes());
        cookie = entry.next_entry_cookie();
        // Names that are not UTF-8 could not be opened by this interface.
        if name == b"." || name == b".." || std::str::from_utf8(name).is_err() {
            continue;
        }
        reading.at(number, at);
        number += 1;
        if number <= wanted {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not say.
            FileType::Unknown => statat(&reader, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
            known => known,
        };
        if !listing.push(number + 2, entry.ino(), file_type(kind), name) {
            break;
        }
    }
    reading.at(number, cookie);
    Ok(())
}

/// A directory once more, so that its names can be read.
pub(super) fn reader(dir: &Dir) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(dir.as_fd(), ".", flags, Mode::empty())?)
}

fn file_type(kind: FileType) -> u8 {
    match kind {
        FileType::BlockDevice => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => DIRECTORY,
        FileType::RegularFile => 4,
        FileType::Socket => 6,
        FileType::Symlink => 7,
        FileType::Fifo | FileType::Unknown => 0,
    }
}

#[cfg(test)]
mod tests;
