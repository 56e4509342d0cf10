//! What needs a file system or a network: there is none yet. No descriptor is a directory or a socket, so
//! these functions answer what they would answer for any other descriptor.

use super::{Answer, Call, Errno};

/// A path relative to a descriptor that is not a directory.
pub(crate) fn path(call: &mut Call<'_>, fd: u32, _path: u32, _length: u32) -> Answer {
    call.process.descriptor(fd)?;
    Err(Errno::Notdir.into())
}

pub(crate) fn path_filestat_get(call: &mut Call<'_>, fd: u32, _: u32, path_at: u32, length: u32, _: u32) -> Answer {
    path(call, fd, path_at, length)
}

#[expect(clippy::too_many_arguments, reason = "the interface has them")]
pub(crate) fn path_filestat_set_times(
    call: &mut Call<'_>,
    fd: u32,
    _: u32,
    path_at: u32,
    length: u32,
    _: u64,
    _: u64,
    _: u32,
) -> Answer {
    path(call, fd, path_at, length)
}

#[expect(clippy::too_many_arguments, reason = "the interface has them")]
pub(crate) fn path_link(
    call: &mut Call<'_>,
    fd: u32,
    _: u32,
    path_at: u32,
    length: u32,
    to: u32,
    _: u32,
    _: u32,
) -> Answer {
    call.process.descriptor(to)?;
    path(call, fd, path_at, length)
}

#[expect(clippy::too_many_arguments, reason = "the interface has them")]
pub(crate) fn path_open(
    call: &mut Call<'_>,
    fd: u32,
    _: u32,
    path_at: u32,
    length: u32,
    _: u32,
    _: u64,
    _: u64,
    _: u32,
    _: u32,
) -> Answer {
    path(call, fd, path_at, length)
}

pub(crate) fn path_readlink(call: &mut Call<'_>, fd: u32, path_at: u32, length: u32, _: u32, _: u32, _: u32) -> Answer {
    path(call, fd, path_at, length)
}

pub(crate) fn path_rename(call: &mut Call<'_>, fd: u32, path_at: u32, length: u32, to: u32, _: u32, _: u32) -> Answer {
    call.process.descriptor(to)?;
    path(call, fd, path_at, length)
}

pub(crate) fn path_symlink(call: &mut Call<'_>, path_at: u32, length: u32, fd: u32, _: u32, _: u32) -> Answer {
    path(call, fd, path_at, length)
}

fn socket(call: &mut Call<'_>, fd: u32) -> Answer {
    call.process.descriptor(fd)?;
    Err(Errno::Notsock.into())
}

pub(crate) fn sock_accept(call: &mut Call<'_>, fd: u32, _flags: u32, _out: u32) -> Answer {
    socket(call, fd)
}

pub(crate) fn sock_recv(call: &mut Call<'_>, fd: u32, _: u32, _: u32, _: u32, _: u32, _: u32) -> Answer {
    socket(call, fd)
}

pub(crate) fn sock_send(call: &mut Call<'_>, fd: u32, _: u32, _: u32, _: u32, _: u32) -> Answer {
    socket(call, fd)
}

pub(crate) fn sock_shutdown(call: &mut Call<'_>, fd: u32, _how: u32) -> Answer {
    socket(call, fd)
}
