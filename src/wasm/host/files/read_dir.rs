//! `fd_readdir`: the names in a directory, from a cookie on.
//!
//! An entry: the next cookie u64, inode u64 at 8, length of the name u32 at 16, type u8 at 20; then the name. What
//! does not fit is cut, which tells the caller to come again with a larger buffer. `.` and `..` come first: cookies 0
//! and 1 stand for them, and all others are the system's own, plus 2. So nothing is kept between two calls, and what
//! happens to a directory meanwhile shows as it does in any program.

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
    Answer, Call, Errno,
    descriptor::{What, rights},
    memory::put,
};

const HEAD: usize = 24;
/// Bytes of one answer.
const MOST_BYTES: u32 = 256 * 1024;
/// Bytes asked of the system at a time: what one entry may need, and enough that asking costs little.
const BATCH: std::ops::RangeInclusive<usize> = 1024..=(32 * 1024);

/// `filetype` of preview 1.
const DIRECTORY: u8 = 3;

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

/// All other names, from one of the system's cookies on.
fn rest(call: &mut Call<'_>, fd: u32, cookie: u64, listing: &mut Listing) -> Answer {
    let control = call.control().clone();
    let What::Directory(open) = &mut call.process.descriptor(fd)?.what else { return Err(Errno::Badf.into()) };
    let reader = match &open.reader {
        Some(reader) => reader,
        None => match reader(&open.dir) {
            Ok(reader) => open.reader.insert(reader),
            // It was removed while it was open.
            Err(Errno::Noent) => return Ok(()),
            Err(error) => return Err(error.into()),
        },
    };
    match seek(reader, SeekFrom::Start(cookie)) {
        Ok(_) => {}
        // No cookie that the system ever gave: there is nothing behind it.
        Err(System::INVAL | System::OVERFLOW) => return Ok(()),
        Err(error) => return Err(Errno::from(error).into()),
    }
    let mut batch = vec![MaybeUninit::uninit(); (2 * listing.room).clamp(*BATCH.start(), *BATCH.end())];
    let mut entries = RawDir::new(reader, &mut batch);
    loop {
        if entries.is_buffer_empty() && control.is_stopped() {
            return Err(crate::host::End::Stopped.into());
        }
        let entry = match entries.next() {
            None | Some(Err(System::NOENT)) => return Ok(()),
            Some(Err(error)) => return Err(Errno::from(error).into()),
            Some(Ok(entry)) => entry,
        };
        let name = entry.file_name().to_bytes();
        // Names that are not UTF-8 could not be opened by this interface.
        if name == b"." || name == b".." || std::str::from_utf8(name).is_err() {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not say.
            FileType::Unknown => statat(reader, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
            known => known,
        };
        if !listing.push(entry.next_entry_cookie().saturating_add(2), entry.ino(), file_type(kind), name) {
            return Ok(());
        }
    }
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
