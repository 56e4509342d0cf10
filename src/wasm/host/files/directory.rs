//! Everything that begins with a directory and a path.

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt, OpenOptionsMaybeDirExt};
use cap_std::fs::{Dir, Metadata, MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::{AtFlags, OFlags, utimensat};
use std::{io, sync::Arc};

use super::{OpenDirectory, OpenFile, Times, Tree, filestat};
use crate::host::{
    Answer, Call, Errno,
    descriptor::{Descriptor, What, rights},
};

/// Longest path, as most systems have it.
const LONGEST_PATH: u32 = 4096;

/// `lookupflags`: follow a link at the end of the path.
const FOLLOW: u32 = 1;

/// `oflags` of `path_open`.
const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;

/// `fdflags`.
const SYNC_FLAGS: u32 = 2 | 8 | 16;
const ALL_FD_FLAGS: u32 = 31;

/// A path from the guest's memory.
fn path(call: &Call<'_>, address: u32, length: u32) -> Result<String, Errno> {
    if length > LONGEST_PATH {
        return Err(Errno::Nametoolong);
    }
    let mut bytes = vec![0; length as usize];
    call.memory.read(address, &mut bytes)?;
    if bytes.contains(&0) {
        return Err(Errno::Ilseq);
    }
    let path = String::from_utf8(bytes).map_err(|_| Errno::Ilseq)?;
    match path.as_str() {
        "" => Err(Errno::Noent),
        absolute if absolute.starts_with('/') => Err(Errno::Perm),
        _ => Ok(path),
    }
}

/// The directory behind a descriptor, if it has these rights.
fn directory<'a>(call: &'a mut Call<'_>, fd: u32, wanted: u64) -> Result<(&'a Dir, &'a Arc<Tree>), Errno> {
    let descriptor = call.process.descriptor(fd)?;
    let What::Directory(open) = &descriptor.what else { return Err(Errno::Notdir) };
    descriptor.need(wanted)?;
    Ok((&open.dir, &open.tree))
}

fn without_slash(path: &str) -> &str {
    let cut = path.trim_end_matches('/');
    if cut.is_empty() { path } else { cut }
}

fn entry_taken(tree: &Tree, make: impl FnOnce() -> io::Result<()>) -> Result<(), Errno> {
    if let Some(quota) = &tree.quota {
        quota.take_entry()?;
    }
    make().map_err(|error| {
        if let Some(quota) = &tree.quota {
            quota.give_entry();
        }
        error.into()
    })
}

/// Gives back what a name held that is gone now. A file that is still open holds its bytes until it is closed.
fn name_gone(call: &mut Call<'_>, tree: &Tree, metadata: &Metadata) {
    let Some(quota) = &tree.quota else { return };
    quota.give_entry();
    let identity = (metadata.dev(), metadata.ino());
    let last = metadata.is_file() && metadata.nlink() == 1;
    if last && !call.process.descriptors().files().any(|file| file.identity == identity) {
        quota.give_bytes(metadata.len());
    }
}

pub(crate) fn path_create_directory(call: &mut Call<'_>, fd: u32, at: u32, length: u32) -> Answer {
    let path = path(call, at, length)?;
    let (dir, tree) = directory(call, fd, rights::PATH_CREATE_DIRECTORY)?;
    Ok(entry_taken(tree, || dir.create_dir(without_slash(&path)))?)
}

pub(crate) fn path_filestat_get<const SIZE: usize>(
    call: &mut Call<'_>,
    fd: u32,
    flags: u32,
    at: u32,
    length: u32,
    out: u32,
) -> Answer {
    let path = path(call, at, length)?;
    let (dir, _) = directory(call, fd, rights::PATH_FILESTAT_GET)?;
    let metadata = if flags & FOLLOW != 0 { dir.metadata(&path)? } else { dir.symlink_metadata(&path)? };
    Ok(call.memory.write(out, &filestat::<SIZE>(&metadata))?)
}

#[expect(clippy::too_many_arguments, reason = "the interface has them")]
pub(crate) fn path_filestat_set_times(
    call: &mut Call<'_>,
    fd: u32,
    flags: u32,
    at: u32,
    length: u32,
    access: u64,
    change: u64,
    which: u32,
) -> Answer {
    let path = path(call, at, length)?;
    let times = Times::new(access, change, which)?;
    let (dir, _) = directory(call, fd, rights::PATH_FILESTAT_SET_TIMES)?;
    // The last part of the path is a plain name in a directory that was found inside.
    let (parent, name) = split(dir, &path, flags & FOLLOW != 0)?;
    let at = parent.as_ref().unwrap_or(dir);
    Ok(utimensat(at, name.as_str(), &times.0, AtFlags::SYMLINK_NOFOLLOW).map_err(Errno::from)?)
}

/// The directory in which the last part of a path lies (none: the one it begins in), and that part. With `follow`
/// the path is first made free of links.
fn split(dir: &Dir, path: &str, follow: bool) -> Result<(Option<Dir>, String), Errno> {
    let whole = if follow { dir.canonicalize(path)? } else { without_slash(path).into() };
    let name = whole.file_name().and_then(|name| name.to_str()).unwrap_or(".").to_owned();
    match whole.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => Ok((Some(dir.open_dir(parent)?), name)),
        None => Ok((None, name)),
    }
}

#[expect(clippy::too_many_arguments, reason = "the interface has them")]
pub(crate) fn path_link(
    call: &mut Call<'_>,
    fd: u32,
    flags: u32,
    at: u32,
    length: u32,
    to: u32,
    new_at: u32,
    new_length: u32,
) -> Answer {
    let (old, new) = (path(call, at, length)?, path(call, new_at, new_length)?);
    let source = directory(call, fd, rights::PATH_LINK_SOURCE)?.0.try_clone()?;
    let (target, tree) = directory(call, to, rights::PATH_LINK_TARGET)?;
    if flags & FOLLOW != 0 {
        return Err(Errno::Inval.into());
    }
    Ok(entry_taken(tree, || source.hard_link(&old, target, &new))?)
}

#[expect(clippy::too_many_arguments, reason = "the interface has them")]
pub(crate) fn path_open(
    call: &mut Call<'_>,
    fd: u32,
    look: u32,
    at: u32,
    length: u32,
    open: u32,
    base: u64,
    inheriting: u64,
    flags: u32,
    out: u32,
) -> Answer {
    let path = path(call, at, length)?;
    call.memory.check(out, 4)?;
    if open > 15 || flags > ALL_FD_FLAGS {
        return Err(Errno::Inval.into());
    }
    let mut wanted = rights::PATH_OPEN;
    wanted |= if open & CREATE != 0 { rights::PATH_CREATE_FILE } else { 0 };
    wanted |= if open & TRUNCATE != 0 { rights::PATH_FILESTAT_SET_SIZE } else { 0 };
    directory(call, fd, wanted)?;
    let handed_down = call.process.descriptor(fd)?.inheriting;
    let (dir, tree) = directory(call, fd, wanted)?;
    let (base, inheriting) = (base & handed_down, inheriting & handed_down);
    let (read, write) = (base & rights::FD_READ != 0, base & rights::FD_WRITE != 0);
    if open & DIRECTORY != 0 && (open & (CREATE | EXCLUSIVE | TRUNCATE) != 0) {
        return Err(Errno::Inval.into());
    }
    if open & DIRECTORY != 0 && write {
        return Err(Errno::Isdir.into());
    }
    let what = opened((dir, tree), &path, Opening { look, open, read, write })?;
    let mask = if matches!(what, What::File(_)) { rights::FILE } else { rights::DIRECTORY };
    let inheriting = if matches!(what, What::File(_)) { 0 } else { inheriting };
    let kept = u16::try_from(flags).map_err(|_| Errno::Inval)?;
    let descriptor = Descriptor { what, flags: kept, rights: base & mask, inheriting };
    let number = call.process.descriptors().add(descriptor)?;
    Ok(call.memory.write_u32(out, number)?)
}

#[derive(Clone, Copy)]
struct Opening {
    look: u32,
    open: u32,
    read: bool,
    write: bool,
}

fn opened((dir, tree): (&Dir, &Arc<Tree>), path: &str, how: Opening) -> Result<What, Errno> {
    let follow = if how.look & FOLLOW != 0 { FollowSymlinks::Yes } else { FollowSymlinks::No };
    let (create, exclusive) = (how.open & CREATE != 0, how.open & EXCLUSIVE != 0);
    let truncate = how.open & TRUNCATE != 0;
    let mut options = OpenOptions::new();
    // Nothing asked for: a descriptor to look at. A file is only truncated by who may write it.
    options.read(how.read || !(how.write || truncate)).write(how.write || truncate);
    options.follow(follow).maybe_dir(true);
    // A pipe without a writer, and whatever else may block, is found out below and not waited for.
    options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    let existing = match dir.open_with(path, &options) {
        Ok(_) if create && exclusive => return Err(Errno::Exist),
        Ok(file) => Some(file),
        Err(error) if create && error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let file = match existing {
        Some(file) => file,
        None => {
            if path.ends_with('/') {
                return Err(Errno::Isdir);
            }
            options.write(true).create_new(true);
            let mut made = None;
            entry_taken(tree, || {
                made = Some(dir.open_with(path, &options)?);
                Ok(())
            })?;
            made.ok_or(Errno::Io)?
        }
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        if how.write || truncate {
            return Err(Errno::Isdir);
        }
        let dir = Dir::from_std_file(file.into_std());
        return Ok(What::Directory(OpenDirectory::new(dir, tree.clone(), None)));
    }
    if how.open & DIRECTORY != 0 {
        return Err(Errno::Notdir);
    }
    if !metadata.is_file() {
        return Err(Errno::Acces);
    }
    if path.ends_with('/') {
        return Err(Errno::Notdir);
    }
    let file = OpenFile::new(file, &metadata, tree.clone());
    if truncate {
        file.set_length(0)?;
    }
    Ok(What::File(file))
}

pub(crate) fn path_readlink(
    call: &mut Call<'_>,
    fd: u32,
    at: u32,
    length: u32,
    buffer: u32,
    size: u32,
    out: u32,
) -> Answer {
    let path = path(call, at, length)?;
    call.memory.check(out, 4)?;
    let (dir, _) = directory(call, fd, rights::PATH_READLINK)?;
    let target = dir.read_link_contents(&path)?;
    let bytes = target.as_os_str().as_encoded_bytes();
    let shown = bytes.get(..size as usize).unwrap_or(bytes);
    call.memory.write(buffer, shown)?;
    Ok(call.memory.write_u32(out, u32::try_from(shown.len()).map_err(|_| Errno::Overflow)?)?)
}

pub(crate) fn path_remove_directory(call: &mut Call<'_>, fd: u32, at: u32, length: u32) -> Answer {
    let path = path(call, at, length)?;
    let (dir, tree) = directory(call, fd, rights::PATH_REMOVE_DIRECTORY)?;
    dir.remove_dir(without_slash(&path))?;
    if let Some(quota) = &tree.quota {
        quota.give_entry();
    }
    Ok(())
}

pub(crate) fn path_rename(
    call: &mut Call<'_>,
    fd: u32,
    at: u32,
    length: u32,
    to: u32,
    new_at: u32,
    new_length: u32,
) -> Answer {
    let (old, new) = (path(call, at, length)?, path(call, new_at, new_length)?);
    let (source, source_tree) = directory(call, fd, rights::PATH_RENAME_SOURCE)?;
    let (source, source_tree) = (source.try_clone()?, source_tree.clone());
    let (target, target_tree) = directory(call, to, rights::PATH_RENAME_TARGET)?;
    let (target, target_tree) = (target.try_clone()?, target_tree.clone());
    // Bytes would move from one account to another.
    if !Arc::ptr_eq(&source_tree, &target_tree) && (source_tree.quota.is_some() || target_tree.quota.is_some()) {
        return Err(Errno::Xdev.into());
    }
    let replaced = target.symlink_metadata(&new).ok();
    let same = replaced.as_ref().is_some_and(|new| {
        let old = source.symlink_metadata(&old);
        old.is_ok_and(|old| (old.dev(), old.ino()) == (new.dev(), new.ino()))
    });
    source.rename(&old, &target, &new)?;
    if let Some(replaced) = replaced.filter(|_| !same) {
        name_gone(call, &target_tree, &replaced);
    }
    Ok(())
}

pub(crate) fn path_symlink(call: &mut Call<'_>, at: u32, length: u32, fd: u32, new_at: u32, new_length: u32) -> Answer {
    let (target, link) = (path(call, at, length)?, path(call, new_at, new_length)?);
    let (dir, tree) = directory(call, fd, rights::PATH_SYMLINK)?;
    Ok(entry_taken(tree, || DirExt::symlink(dir, &target, &link))?)
}

pub(crate) fn path_unlink_file(call: &mut Call<'_>, fd: u32, at: u32, length: u32) -> Answer {
    let path = path(call, at, length)?;
    let (dir, tree) = directory(call, fd, rights::PATH_UNLINK_FILE)?;
    let tree = tree.clone();
    let metadata = dir.symlink_metadata(without_slash(&path))?;
    if metadata.is_dir() {
        return Err(Errno::Isdir.into());
    }
    if path.ends_with('/') {
        return Err(Errno::Notdir.into());
    }
    dir.remove_file(&path)?;
    name_gone(call, &tree, &metadata);
    Ok(())
}
