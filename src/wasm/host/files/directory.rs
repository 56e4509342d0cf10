//! What begins with a directory and a path, other than opening.
//!
//! The errors are those of the system and of cap-std, in their order. A path is only looked at here where the two
//! differ from what programs expect: a slash at its end asks for a directory.

use cap_fs_ext::DirExt;
use cap_std::fs::{Dir, MetadataExt};
use rustix::fs::{AtFlags, utimensat};
use std::{io, sync::Arc};

use super::{Times, Tree, filestat, quota};
use crate::host::{
    Answer, Call, Errno,
    descriptor::{Table, What, rights},
};

/// Longest path, as most systems have it.
const LONGEST_PATH: u32 = 4096;

/// `lookupflags`: follow a link at the end of the path.
pub(super) const FOLLOW: u32 = 1;
pub(super) const LOOKUP_FLAGS: u32 = FOLLOW;

/// A path from the guest's memory.
pub(super) fn path(call: &Call<'_>, address: u32, length: u32) -> Result<String, Errno> {
    call.memory.check(address, length)?;
    if length > LONGEST_PATH {
        return Err(Errno::Nametoolong);
    }
    let mut bytes = vec![0; length as usize];
    call.memory.read(address, &mut bytes)?;
    String::from_utf8(bytes).map_err(|_| Errno::Ilseq)
}

/// The directory behind a descriptor, if it has these rights and its tree allows them.
pub(super) fn directory(table: &Table, fd: u32, wanted: u64) -> Result<(&Dir, &Arc<Tree>), Errno> {
    let descriptor = table.look(fd)?;
    let What::Directory(open) = &descriptor.what else { return Err(Errno::Badf) };
    descriptor.need(wanted)?;
    if wanted & rights::CHANGING != 0 && !open.tree.writable {
        return Err(Errno::Perm);
    }
    Ok((&open.dir, &open.tree))
}

/// Does it ask for a directory by how it ends?
fn asks_for_directory(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.")
}

/// Is its last part a name with a slash behind it?
fn names_directory(path: &str) -> bool {
    let last = without_slash(path).rsplit('/').next().unwrap_or_default();
    path.ends_with('/') && !matches!(last, "" | "." | "..")
}

fn without_slash(path: &str) -> &str {
    let cut = path.trim_end_matches('/');
    if cut.is_empty() { path } else { cut }
}

pub(crate) fn path_create_directory(call: &mut Call<'_>, fd: u32, at: u32, length: u32) -> Answer {
    let path = path(call, at, length)?;
    let (dir, tree) = directory(call.process.descriptors(), fd, rights::PATH_CREATE_DIRECTORY)?;
    Ok(quota::named(tree.ledger().as_deref_mut(), || dir.create_dir(without_slash(&path)))?)
}

pub(crate) fn path_filestat_get<const SIZE: usize>(
    call: &mut Call<'_>,
    fd: u32,
    look: u32,
    at: u32,
    length: u32,
    out: u32,
) -> Answer {
    let path = path(call, at, length)?;
    if look > LOOKUP_FLAGS {
        return Err(Errno::Inval.into());
    }
    let (dir, _) = directory(call.process.descriptors(), fd, rights::PATH_FILESTAT_GET)?;
    // A link in front of a slash is followed in any case.
    let follow = look & FOLLOW != 0 || asks_for_directory(&path);
    let metadata = if follow { dir.metadata(&path)? } else { dir.symlink_metadata(&path)? };
    Ok(call.memory.write(out, &filestat::<SIZE>(&metadata))?)
}

#[expect(clippy::too_many_arguments, reason = "the interface has them")]
pub(crate) fn path_filestat_set_times(
    call: &mut Call<'_>,
    fd: u32,
    look: u32,
    at: u32,
    length: u32,
    access: u64,
    change: u64,
    which: u32,
) -> Answer {
    let times = Times::new(access, change, which)?;
    let path = path(call, at, length)?;
    if look > LOOKUP_FLAGS {
        return Err(Errno::Inval.into());
    }
    let (dir, _) = directory(call.process.descriptors(), fd, rights::PATH_FILESTAT_SET_TIMES)?;
    // No file is opened for it, which could wait: the last part of the path, free of links by now or itself the
    // link that is meant, is a plain name in a directory that was found inside.
    let path = if look & FOLLOW != 0 {
        dir.canonicalize(&path)?.into_os_string().into_string().map_err(|_| Errno::Ilseq)?
    } else {
        path
    };
    let (parent, name) = split(&path)?;
    let parent = parent.map(|parent| dir.open_dir(parent)).transpose()?;
    let at = parent.as_ref().unwrap_or(dir);
    Ok(utimensat(at, name, &times.0, AtFlags::SYMLINK_NOFOLLOW).map_err(Errno::from)?)
}

/// The directory in which the last part of a path lies (none: the one it begins in), and that part, which is never
/// `..`.
fn split(path: &str) -> Result<(Option<&str>, &str), Errno> {
    if path.is_empty() {
        return Err(Errno::Noent);
    }
    let last = path.rsplit('/').next().unwrap_or(path);
    Ok(match path.rsplit_once('/') {
        _ if matches!(last, "" | "." | "..") => (Some(path), "."),
        Some((parent, name)) => (Some(if parent.is_empty() { "/" } else { parent }), name),
        None => (None, path),
    })
}

#[expect(clippy::too_many_arguments, reason = "the interface has them")]
pub(crate) fn path_link(
    call: &mut Call<'_>,
    fd: u32,
    look: u32,
    at: u32,
    length: u32,
    to: u32,
    new_at: u32,
    new_length: u32,
) -> Answer {
    let (old, new) = (path(call, at, length)?, path(call, new_at, new_length)?);
    let table = call.process.descriptors();
    let (source, source_tree) = directory(table, fd, rights::PATH_LINK_SOURCE)?;
    let (target, tree) = directory(table, to, rights::PATH_LINK_TARGET)?;
    if look != 0 {
        return Err(Errno::Inval.into());
    }
    one_account(source_tree, tree)?;
    Ok(quota::named(tree.ledger().as_deref_mut(), || source.hard_link(&old, target, &new))?)
}

/// Bytes cannot move from one account to another.
fn one_account(from: &Arc<Tree>, to: &Arc<Tree>) -> Result<(), Errno> {
    if !Arc::ptr_eq(from, to) && (from.quota.is_some() || to.quota.is_some()) { Err(Errno::Xdev) } else { Ok(()) }
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
    let (dir, _) = directory(call.process.descriptors(), fd, rights::PATH_READLINK)?;
    let target = dir.read_link(&path)?.into_os_string().into_string().map_err(|_| Errno::Ilseq)?;
    let shown = target.as_bytes().get(..size as usize).unwrap_or(target.as_bytes());
    call.memory.write(buffer, shown)?;
    Ok(call.memory.write_u32(out, u32::try_from(shown.len()).map_err(|_| Errno::Overflow)?)?)
}

pub(crate) fn path_remove_directory(call: &mut Call<'_>, fd: u32, at: u32, length: u32) -> Answer {
    let path = path(call, at, length)?;
    let (dir, tree) = directory(call.process.descriptors(), fd, rights::PATH_REMOVE_DIRECTORY)?;
    let mut ledger = tree.ledger();
    dir.remove_dir(without_slash(&path))?;
    if let Some(ledger) = &mut ledger {
        ledger.removed();
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
    let table = call.process.descriptors();
    let (source, source_tree) = directory(table, fd, rights::PATH_RENAME_SOURCE)?;
    let (target, tree) = directory(table, to, rights::PATH_RENAME_TARGET)?;
    one_account(source_tree, tree)?;
    let mut ledger = tree.ledger();
    let moved = source.symlink_metadata(without_slash(&old)).ok();
    let replaced = target.symlink_metadata(without_slash(&new));
    let found = replaced.as_ref().map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |_| true);
    if found && names_directory(&new) && moved.as_ref().is_some_and(|moved| !moved.is_dir()) {
        return Err(Errno::Notdir.into());
    }
    source.rename(&old, target, &new)?;
    let (Some(ledger), Ok(replaced)) = (&mut ledger, replaced) else { return Ok(()) };
    // Of two names of one file neither goes away.
    let identity = (replaced.dev(), replaced.ino());
    if moved.is_none_or(|moved| (moved.dev(), moved.ino()) != identity) {
        ledger.unnamed(&replaced);
    }
    Ok(())
}

pub(crate) fn path_symlink(call: &mut Call<'_>, at: u32, length: u32, fd: u32, new_at: u32, new_length: u32) -> Answer {
    let (target, link) = (path(call, at, length)?, path(call, new_at, new_length)?);
    let (dir, tree) = directory(call.process.descriptors(), fd, rights::PATH_SYMLINK)?;
    Ok(quota::named(tree.ledger().as_deref_mut(), || DirExt::symlink(dir, &target, &link))?)
}

pub(crate) fn path_unlink_file(call: &mut Call<'_>, fd: u32, at: u32, length: u32) -> Answer {
    let path = path(call, at, length)?;
    let (dir, tree) = directory(call.process.descriptors(), fd, rights::PATH_UNLINK_FILE)?;
    let mut ledger = tree.ledger();
    let gone = dir.symlink_metadata(&path).ok();
    dir.remove_file(&path)?;
    if let (Some(ledger), Some(gone)) = (&mut ledger, gone) {
        ledger.unnamed(&gone);
    }
    Ok(())
}
