//! Error numbers of WASI preview 1 (both versions use the same ones).

use rustix::io::Errno as System;
use std::io;

/// An error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Errno {
    /// Permission denied.
    Acces = 2,
    /// Resource unavailable, try again.
    Again = 6,
    /// Bad file descriptor.
    Badf = 8,
    /// Device or resource busy.
    Busy = 10,
    /// Quota of the disk exceeded.
    Dquot = 19,
    /// File exists.
    Exist = 20,
    /// Bad address.
    Fault = 21,
    /// File too large.
    Fbig = 22,
    /// Not UTF-8.
    Ilseq = 25,
    /// Invalid argument.
    Inval = 28,
    /// I/O error.
    Io = 29,
    /// Is a directory.
    Isdir = 31,
    /// Too many symbolic links.
    Loop = 32,
    /// Too many open descriptors.
    Mfile = 33,
    /// Too many links.
    Mlink = 34,
    /// File name too long.
    Nametoolong = 37,
    /// Too many files open in the system.
    Nfile = 41,
    /// No such file or directory.
    Noent = 44,
    /// Not enough memory.
    Nomem = 48,
    /// No space left.
    Nospc = 51,
    /// Not a directory.
    Notdir = 54,
    /// Directory not empty.
    Notempty = 55,
    /// Not a socket.
    Notsock = 57,
    /// Not supported.
    Notsup = 58,
    /// No such device or address.
    Nxio = 60,
    /// Value too large.
    Overflow = 61,
    /// Operation not permitted.
    Perm = 63,
    /// Read-only file system.
    Rofs = 69,
    /// Invalid seek.
    Spipe = 70,
    /// Text file busy.
    Txtbsy = 74,
    /// Cross-device link.
    Xdev = 75,
    /// Not allowed by the descriptor's rights.
    Notcapable = 76,
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error().map(System::from_raw_os_error) {
            Some(errno) => errno.into(),
            // Found out by the sandbox and not by the system: the path leads out of its directory.
            None => match error.kind() {
                io::ErrorKind::PermissionDenied => Self::Perm,
                io::ErrorKind::NotFound => Self::Noent,
                io::ErrorKind::AlreadyExists => Self::Exist,
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Self::Inval,
                io::ErrorKind::Unsupported => Self::Notsup,
                _ => Self::Io,
            },
        }
    }
}

impl From<System> for Errno {
    fn from(errno: System) -> Self {
        match errno {
            System::ACCESS => Self::Acces,
            System::AGAIN => Self::Again,
            System::BADF => Self::Badf,
            System::BUSY => Self::Busy,
            System::DQUOT => Self::Dquot,
            System::EXIST => Self::Exist,
            System::FBIG => Self::Fbig,
            System::INVAL => Self::Inval,
            System::ISDIR => Self::Isdir,
            System::LOOP => Self::Loop,
            // The process has too few, not the guest too many; to it that is the same.
            System::MFILE => Self::Mfile,
            System::MLINK => Self::Mlink,
            System::NAMETOOLONG => Self::Nametoolong,
            System::NFILE => Self::Nfile,
            System::NOENT => Self::Noent,
            System::NOMEM => Self::Nomem,
            System::NOSPC => Self::Nospc,
            System::NOTDIR => Self::Notdir,
            System::NOTEMPTY => Self::Notempty,
            System::NOTSUP => Self::Notsup,
            System::NXIO => Self::Nxio,
            System::OVERFLOW => Self::Overflow,
            System::PERM => Self::Perm,
            System::ROFS => Self::Rofs,
            System::SPIPE => Self::Spipe,
            System::TXTBSY => Self::Txtbsy,
            System::XDEV => Self::Xdev,
            _ => Self::Io,
        }
    }
}
