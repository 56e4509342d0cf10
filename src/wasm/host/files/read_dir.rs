//! `fd_readdir`: the names in a directory, from a cookie on.
//!
//! An entry: the next cookie u64, inode u64 at 8, length of the name u32 at 16, type u8 at 20; then the name. What
//! does not fit is cut, which tells the caller to come again with a larger buffer. `.` and `..` are among them.

use cap_std::fs::{Dir, MetadataExt};
use std::os::unix::ffi::OsStringExt;

use super::stat::file_type;
use crate::host::{
    Answer, Call, Errno,
    descriptor::{What, rights},
    memory::put,
};

const HEAD: usize = 24;
/// Bytes of one answer.
const MOST_BYTES: u32 = 256 * 1024;
/// Entries of a directory that are kept for the calls to come; more are not shown.
const MOST_ENTRIES: usize = 1 << 16;

/// A name in a directory.
#[derive(Debug)]
pub(super) struct Entry {
    inode: u64,
    kind: u8,
    name: Vec<u8>,
}

pub(crate) fn fd_readdir(call: &mut Call<'_>, fd: u32, buffer: u32, length: u32, cookie: u64, out: u32) -> Answer {
    call.memory.check(buffer, length)?;
    call.memory.check(out, 4)?;
    let descriptor = call.process.descriptor(fd)?;
    descriptor.need(if matches!(descriptor.what, What::Directory(_)) { rights::FD_READDIR } else { 0 })?;
    let What::Directory(open) = &mut descriptor.what else { return Err(Errno::Notdir.into()) };
    if cookie == 0 || open.listing.is_empty() {
        open.listing = list(&open.dir)?;
    }
    let room = length.min(MOST_BYTES) as usize;
    let mut bytes = Vec::with_capacity(room);
    let skipped = usize::try_from(cookie).unwrap_or(usize::MAX);
    for (next, entry) in (1u64..).zip(&open.listing).skip(skipped) {
        if bytes.len() >= room {
            break;
        }
        let mut head = [0; HEAD];
        put(&mut head, 0, &next.to_le_bytes());
        put(&mut head, 8, &entry.inode.to_le_bytes());
        put(&mut head, 16, &u32::try_from(entry.name.len()).map_err(|_| Errno::Overflow)?.to_le_bytes());
        put(&mut head, 20, &[entry.kind]);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&entry.name);
    }
    bytes.truncate(room);
    call.memory.write(buffer, &bytes)?;
    Ok(call.memory.write_u32(out, u32::try_from(bytes.len()).map_err(|_| Errno::Overflow)?)?)
}

/// All entries, always in one order, so that a cookie means the same as long as nothing changes.
fn list(dir: &Dir) -> Result<Vec<Entry>, Errno> {
    const DIRECTORY: u8 = 3;
    let own = dir.dir_metadata()?.ino();
    // What lies above a granted directory is nobody's business: it is its own parent, as a root is.
    let mut entries: Vec<Entry> =
        [&b"."[..], b".."].map(|name| Entry { inode: own, kind: DIRECTORY, name: name.to_vec() }).into();
    for entry in dir.entries()?.take(MOST_ENTRIES) {
        let entry = entry?;
        let kind = entry.file_type().map_or(0, file_type);
        // Names that are not UTF-8 could not be opened by this interface.
        let Ok(name) = String::from_utf8(entry.file_name().into_vec()) else { continue };
        entries.push(Entry { inode: entry.metadata()?.ino(), kind, name: name.into_bytes() });
    }
    entries.get_mut(2..).unwrap_or_default().sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
