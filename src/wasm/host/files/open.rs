//! `path_open`.

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt, OpenOptionsMaybeDirExt};
use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;
use std::{io, sync::Arc};

use super::{
    Ledger, OpenDirectory, OpenFile, Tree,
    directory::{FOLLOW, LOOKUP_FLAGS, directory, path},
    file, quota,
};
use crate::host::{
    Answer, Call, Errno,
    descriptor::{ALL_FLAGS, Descriptor, What, rights},
};

/// `oflags`.
const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;
const OPEN_FLAGS: u32 = CREATE | DIRECTORY | EXCLUSIVE | TRUNCATE;

/// How it is to be opened.
#[derive(Clone, Copy)]
struct Opening {
    follow: bool,
    flags: u32,
    read: bool,
    write: bool,
}

impl Opening {
    fn has(self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn options(self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(self.read).write(self.write).maybe_dir(true);
        options.follow(if self.follow { FollowSymlinks::Yes } else { FollowSymlinks::No });
        // A pipe without a writer, and whatever else may block, is found out afterwards and not waited for.
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
        options
    }
}

/// The rights that are asked for say whether a file is read or written. All else that its kind allows it has, as far
/// as its directory hands that down: programs count on it, and can give up what they will not use.
#[expect(clippy::too_many_arguments, reason = "the interface has them")]
pub(crate) fn path_open(
    call: &mut Call<'_>,
    fd: u32,
    look: u32,
    at: u32,
    length: u32,
    flags: u32,
    base: u64,
    _inheriting: u64,
    fd_flags: u32,
    out: u32,
) -> Answer {
    let path = path(call, at, length)?;
    call.memory.check(out, 4)?;
    if look > LOOKUP_FLAGS || flags > OPEN_FLAGS || fd_flags > ALL_FLAGS {
        return Err(Errno::Inval.into());
    }
    if let What::File(_) = call.process.descriptor(fd)?.what {
        return Err(Errno::Notdir.into());
    }
    let asked = base & (rights::FD_READ | rights::FD_WRITE);
    let mut wanted = rights::PATH_OPEN;
    wanted |= if flags & CREATE != 0 { rights::PATH_CREATE_FILE } else { 0 };
    wanted |= if flags & TRUNCATE != 0 { rights::PATH_FILESTAT_SET_SIZE } else { 0 };
    let handed_down = call.process.descriptor(fd)?.inheriting;
    let room = call.process.descriptors().room();
    let (dir, tree) = directory(call.process.descriptors(), fd, wanted)?;
    if asked & !handed_down != 0 {
        return Err(Errno::Notcapable.into());
    }
    if flags & DIRECTORY != 0 && flags & !DIRECTORY != 0 {
        return Err(Errno::Inval.into());
    }
    let written = asked & rights::FD_WRITE != 0;
    let write = written || flags & (CREATE | TRUNCATE) != 0;
    if write && !tree.writable {
        return Err(Errno::Perm.into());
    }
    // Nothing asked for: it is opened to be looked at.
    let read = asked & rights::FD_READ != 0 || !written;
    let how = Opening { follow: look & FOLLOW != 0, flags, read, write };
    room?;
    let what = open(dir, tree, &path, how)?;
    let descriptor = if let What::File(_) = what {
        let unused = if read { 0 } else { rights::FD_READ } | if written { 0 } else { rights::FD_WRITE };
        let flags = u16::try_from(fd_flags).map_err(|_| Errno::Inval)?;
        Descriptor { what, flags, rights: handed_down & rights::FILE & !unused, inheriting: 0 }
    } else {
        Descriptor { what, flags: 0, rights: handed_down & rights::DIRECTORY, inheriting: handed_down }
    };
    let number = call.process.descriptors().add(descriptor)?;
    Ok(call.memory.write_u32(out, number)?)
}

fn open(dir: &Dir, tree: &Arc<Tree>, path: &str, how: Opening) -> Result<What, Errno> {
    let mut ledger = tree.ledger();
    let file = find_or_make(dir, ledger.as_deref_mut(), path, how)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        let dir = Dir::from_std_file(file.into_std());
        return Ok(What::Directory(OpenDirectory::new(dir, tree.clone(), None)));
    }
    if how.has(DIRECTORY) {
        return Err(Errno::Notdir);
    }
    if !metadata.is_file() {
        return Err(Errno::Acces);
    }
    let file = file.into_std();
    if how.has(TRUNCATE) {
        file::set_length(&file, ledger.as_deref_mut(), 0)?;
    }
    Ok(What::File(OpenFile::new(file, &metadata, tree.clone(), ledger.as_deref_mut())))
}

/// What is there, or what is made if it may be. Only a name that is made is taken from the ledger, so it is looked for
/// first.
fn find_or_make(dir: &Dir, ledger: Option<&mut Ledger>, path: &str, how: Opening) -> Result<File, Errno> {
    let mut options = how.options();
    if !how.has(CREATE) {
        return Ok(dir.open_with(path, &options)?);
    }
    if how.has(EXCLUSIVE) {
        options.create_new(true);
        return quota::named(ledger, || dir.open_with(path, &options));
    }
    // No file is made by a name that ends like that: the system says why.
    if !path.ends_with('/') {
        match dir.open_with(path, &options) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return Ok(found?),
        }
    }
    options.create(true);
    quota::named(ledger, || dir.open_with(path, &options))
}
