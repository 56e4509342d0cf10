//! The table of descriptors, and what a number in it stands for.

use super::{
    Errno,
    files::{OpenDirectory, OpenFile},
};

/// Rights of preview 1, by their bit.
pub(crate) mod rights {
    pub(crate) const FD_DATASYNC: u64 = 1;
    pub(crate) const FD_READ: u64 = 1 << 1;
    pub(crate) const FD_SEEK: u64 = 1 << 2;
    pub(crate) const FD_FDSTAT_SET_FLAGS: u64 = 1 << 3;
    pub(crate) const FD_SYNC: u64 = 1 << 4;
    pub(crate) const FD_TELL: u64 = 1 << 5;
    pub(crate) const FD_WRITE: u64 = 1 << 6;
    pub(crate) const FD_ADVISE: u64 = 1 << 7;
    pub(crate) const FD_ALLOCATE: u64 = 1 << 8;
    pub(crate) const PATH_CREATE_DIRECTORY: u64 = 1 << 9;
    pub(crate) const PATH_CREATE_FILE: u64 = 1 << 10;
    pub(crate) const PATH_LINK_SOURCE: u64 = 1 << 11;
    pub(crate) const PATH_LINK_TARGET: u64 = 1 << 12;
    pub(crate) const PATH_OPEN: u64 = 1 << 13;
    pub(crate) const FD_READDIR: u64 = 1 << 14;
    pub(crate) const PATH_READLINK: u64 = 1 << 15;
    pub(crate) const PATH_RENAME_SOURCE: u64 = 1 << 16;
    pub(crate) const PATH_RENAME_TARGET: u64 = 1 << 17;
    pub(crate) const PATH_FILESTAT_GET: u64 = 1 << 18;
    pub(crate) const PATH_FILESTAT_SET_SIZE: u64 = 1 << 19;
    pub(crate) const PATH_FILESTAT_SET_TIMES: u64 = 1 << 20;
    pub(crate) const FD_FILESTAT_GET: u64 = 1 << 21;
    pub(crate) const FD_FILESTAT_SET_SIZE: u64 = 1 << 22;
    pub(crate) const FD_FILESTAT_SET_TIMES: u64 = 1 << 23;
    pub(crate) const PATH_SYMLINK: u64 = 1 << 24;
    pub(crate) const PATH_REMOVE_DIRECTORY: u64 = 1 << 25;
    pub(crate) const PATH_UNLINK_FILE: u64 = 1 << 26;
    pub(crate) const POLL_FD_READWRITE: u64 = 1 << 27;

    /// What can be done with a regular file.
    pub(crate) const FILE: u64 = FD_DATASYNC
        | FD_READ
        | FD_SEEK
        | FD_FDSTAT_SET_FLAGS
        | FD_SYNC
        | FD_TELL
        | FD_WRITE
        | FD_ADVISE
        | FD_ALLOCATE
        | FD_FILESTAT_GET
        | FD_FILESTAT_SET_SIZE
        | FD_FILESTAT_SET_TIMES
        | POLL_FD_READWRITE;
    /// What can be done with a directory.
    pub(crate) const DIRECTORY: u64 = FD_FDSTAT_SET_FLAGS
        | FD_SYNC
        | FD_ADVISE
        | PATH_CREATE_DIRECTORY
        | PATH_CREATE_FILE
        | PATH_LINK_SOURCE
        | PATH_LINK_TARGET
        | PATH_OPEN
        | FD_READDIR
        | PATH_READLINK
        | PATH_RENAME_SOURCE
        | PATH_RENAME_TARGET
        | PATH_FILESTAT_GET
        | PATH_FILESTAT_SET_SIZE
        | PATH_FILESTAT_SET_TIMES
        | FD_FILESTAT_GET
        | FD_FILESTAT_SET_TIMES
        | PATH_SYMLINK
        | PATH_REMOVE_DIRECTORY
        | PATH_UNLINK_FILE
        | POLL_FD_READWRITE;
    /// What changes something; not in a tree that may only be read.
    pub(crate) const CHANGING: u64 = FD_WRITE
        | FD_ALLOCATE
        | PATH_CREATE_DIRECTORY
        | PATH_CREATE_FILE
        | PATH_LINK_SOURCE
        | PATH_LINK_TARGET
        | PATH_RENAME_SOURCE
        | PATH_RENAME_TARGET
        | PATH_FILESTAT_SET_SIZE
        | PATH_FILESTAT_SET_TIMES
        | FD_FILESTAT_SET_SIZE
        | FD_FILESTAT_SET_TIMES
        | PATH_SYMLINK
        | PATH_REMOVE_DIRECTORY
        | PATH_UNLINK_FILE;
}

/// All of `fdflags`.
pub(crate) const ALL_FLAGS: u32 = 31;

/// Which stream a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What is open.
#[derive(Debug)]
pub(crate) enum What {
    /// A standard stream.
    Stream(Stream),
    /// A regular file.
    File(OpenFile),
    /// A directory.
    Directory(OpenDirectory),
}

/// An open descriptor.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) what: What,
    /// `fdflags`: append 1, dsync 2, nonblock 4, rsync 8, sync 16.
    pub(crate) flags: u16,
    pub(crate) rights: u64,
    pub(crate) inheriting: u64,
}

impl Descriptor {
    /// Of a standard stream.
    pub(crate) fn stream(stream: Stream) -> Self {
        let way = if stream == Stream::Stdin { rights::FD_READ } else { rights::FD_WRITE };
        let rights = way | rights::FD_FDSTAT_SET_FLAGS | rights::FD_FILESTAT_GET | rights::POLL_FD_READWRITE;
        Self { what: What::Stream(stream), flags: 0, rights, inheriting: 0 }
    }

    /// # Errors
    /// `NOTCAPABLE`, or `BADF` where the way is wrong: what a program expects that reads what it only writes.
    pub(crate) fn need(&self, wanted: u64) -> Result<(), Errno> {
        if self.rights & wanted == wanted {
            return Ok(());
        }
        let way = rights::FD_READ | rights::FD_WRITE;
        Err(if wanted & way != 0 { Errno::Badf } else { Errno::Notcapable })
    }
}

/// The open descriptors of a process, by number.
#[derive(Debug)]
pub(crate) struct Table {
    /// The last one is open.
    all: Vec<Option<Descriptor>>,
    open: usize,
    most: usize,
}

impl Table {
    /// With the three streams; at most so many at a time.
    pub(crate) fn new(most: usize) -> Self {
        let all =
            Vec::from([Stream::Stdin, Stream::Stdout, Stream::Stderr].map(|stream| Some(Descriptor::stream(stream))));
        Self { open: all.len(), all, most }
    }

    /// # Errors
    /// `BADF`.
    pub(crate) fn get(&mut self, fd: u32) -> Result<&mut Descriptor, Errno> {
        self.all.get_mut(fd as usize).and_then(Option::as_mut).ok_or(Errno::Badf)
    }

    /// The same, to be looked at.
    ///
    /// # Errors
    /// `BADF`.
    pub(crate) fn look(&self, fd: u32) -> Result<&Descriptor, Errno> {
        self.all.get(fd as usize).and_then(Option::as_ref).ok_or(Errno::Badf)
    }

    /// Is there room for one more?
    ///
    /// # Errors
    /// `MFILE`.
    pub(crate) fn room(&self) -> Result<(), Errno> {
        if self.open < self.most { Ok(()) } else { Err(Errno::Mfile) }
    }

    /// Under the lowest number that is free.
    ///
    /// # Errors
    /// `MFILE` when there are enough.
    pub(crate) fn add(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        self.room()?;
        let free = self.all.iter().position(Option::is_none).unwrap_or(self.all.len());
        let number = u32::try_from(free).map_err(|_| Errno::Mfile)?;
        match self.all.get_mut(free) {
            Some(place) => *place = Some(descriptor),
            None => self.all.push(Some(descriptor)),
        }
        self.open += 1;
        Ok(number)
    }

    /// # Errors
    /// `BADF`.
    pub(crate) fn close(&mut self, fd: u32) -> Result<Descriptor, Errno> {
        let closed = self.all.get_mut(fd as usize).and_then(Option::take).ok_or(Errno::Badf)?;
        self.open -= 1;
        while self.all.pop_if(|last| last.is_none()).is_some() {}
        Ok(closed)
    }

    /// Puts one in another's place, which is handed back.
    ///
    /// # Errors
    /// `BADF` when either is not open.
    pub(crate) fn renumber(&mut self, from: u32, to: u32) -> Result<Option<Descriptor>, Errno> {
        self.look(to)?;
        self.look(from)?;
        if from == to {
            return Ok(None);
        }
        let moved = self.close(from)?;
        Ok(Some(std::mem::replace(self.get(to)?, moved)))
    }
}
