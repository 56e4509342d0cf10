//! Descriptors: the three standard streams, and the answers of everything that needs more than a stream.

use super::{
    Answer, Call, Errno,
    memory::{Memory, element, put, u32_at},
};
use crate::input::Read;

/// Most vectors in one call, as on Linux.
const MOST_VECTORS: u32 = 1024;
/// Most bytes one call moves; the rest is for the next call, as the interface allows.
const MOST_BYTES: u32 = 256 * 1024;
/// Bytes copied at a time.
const CHUNK: u32 = 64 * 1024;

/// `nonblock` among a descriptor's flags, and all flags there are.
const NONBLOCK: u16 = 4;
const ALL_FLAGS: u32 = 31;

/// Rights of a stream: fd_read, fd_fdstat_set_flags, fd_write, fd_filestat_get, poll_fd_readwrite.
const READ: u64 = 1 << 1;
const SET_FLAGS: u64 = 1 << 3;
const WRITE: u64 = 1 << 6;
const STAT: u64 = 1 << 21;
const POLL: u64 = 1 << 27;

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

/// An open descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    /// The stream behind it.
    pub(crate) stream: Stream,
    flags: u16,
    rights: u64,
}

impl Descriptor {
    /// Of a stream.
    pub(crate) fn new(stream: Stream) -> Self {
        let way = if stream == Stream::Stdin { READ } else { WRITE };
        Self { stream, flags: 0, rights: way | SET_FLAGS | STAT | POLL }
    }

    pub(crate) fn may_read(&self) -> bool {
        self.rights & READ != 0
    }

    pub(crate) fn may_write(&self) -> bool {
        self.rights & WRITE != 0
    }
}

/// The vectors of a read or write as (address, length), cut to [`MOST_BYTES`] in all.
fn vectors(memory: &Memory<'_>, base: u32, count: u32) -> Result<Vec<(u32, u32)>, Errno> {
    if count > MOST_VECTORS {
        return Err(Errno::Inval);
    }
    let mut list = Vec::with_capacity(count as usize);
    let mut room = MOST_BYTES;
    let mut sum = 0u32;
    for index in 0..count {
        let vector: [u8; 8] = memory.array(element(base, index, 8)?)?;
        let (address, length) = (u32_at(&vector, 0), u32_at(&vector, 4));
        sum = sum.checked_add(length).ok_or(Errno::Inval)?;
        memory.check(address, length)?;
        let taken = length.min(room);
        room -= taken;
        if taken > 0 {
            list.push((address, taken));
        }
    }
    Ok(list)
}

pub(crate) fn fd_read(call: &mut Call<'_>, fd: u32, base: u32, count: u32, out: u32) -> Answer {
    let descriptor = *call.process.descriptor(fd)?;
    if !descriptor.may_read() {
        return Err(Errno::Badf.into());
    }
    let vectors = vectors(&call.memory, base, count)?;
    call.memory.check(out, 4)?;
    let wanted: u32 = vectors.iter().map(|(_, length)| length).sum();
    if wanted == 0 {
        return Ok(call.memory.write_u32(out, 0)?);
    }
    let mut buffer = vec![0; wanted.min(CHUNK) as usize];
    let read = loop {
        call.check()?;
        match call.control().input.read(&mut buffer) {
            Read::Bytes(count) => break count,
            Read::End => break 0,
            Read::Nothing if descriptor.flags & NONBLOCK != 0 => return Err(Errno::Again.into()),
            Read::Nothing => {
                let control = call.control();
                control.input.wait(None, || control.is_stopped());
            }
        }
    };
    let mut rest = buffer.get(..read).unwrap_or_default();
    for (address, length) in vectors {
        let (piece, left) = rest.split_at_checked(length as usize).unwrap_or((rest, &[]));
        call.memory.write(address, piece)?;
        rest = left;
    }
    Ok(call.memory.write_u32(out, u32::try_from(read).map_err(|_| Errno::Overflow)?)?)
}

pub(crate) fn fd_write(call: &mut Call<'_>, fd: u32, base: u32, count: u32, out: u32) -> Answer {
    let descriptor = *call.process.descriptor(fd)?;
    if !descriptor.may_write() {
        return Err(Errno::Badf.into());
    }
    let vectors = vectors(&call.memory, base, count)?;
    call.memory.check(out, 4)?;
    let mut written = 0u32;
    let mut buffer = Vec::new();
    for (mut address, mut length) in vectors {
        while length > 0 {
            call.check()?;
            let piece = length.min(CHUNK);
            buffer.resize(piece as usize, 0);
            call.memory.read(address, &mut buffer)?;
            match descriptor.stream {
                Stream::Stderr => call.process.write_stderr(&buffer),
                _ => call.process.write_stdout(&buffer)?,
            }
            written += piece;
            address = address.saturating_add(piece);
            length -= piece;
        }
    }
    Ok(call.memory.write_u32(out, written)?)
}

pub(crate) fn fd_close(call: &mut Call<'_>, fd: u32) -> Answer {
    let slot = call.process.slot(fd)?;
    slot.take().map(drop).ok_or_else(|| Errno::Badf.into())
}

/// Puts one descriptor in another's place, which is closed by it.
pub(crate) fn fd_renumber(call: &mut Call<'_>, from: u32, to: u32) -> Answer {
    call.process.descriptor(to)?;
    let moved = *call.process.descriptor(from)?;
    if from != to {
        *call.process.slot(from)? = None;
        *call.process.slot(to)? = Some(moved);
    }
    Ok(())
}

/// `fdstat`: file type (0: neither file nor terminal), flags, rights.
pub(crate) fn fd_fdstat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Answer {
    let descriptor = *call.process.descriptor(fd)?;
    let mut stat = [0; 24];
    put(&mut stat, 2, &descriptor.flags.to_le_bytes());
    put(&mut stat, 8, &descriptor.rights.to_le_bytes());
    Ok(call.memory.write(out, &stat)?)
}

pub(crate) fn fd_fdstat_set_flags(call: &mut Call<'_>, fd: u32, flags: u32) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    if flags > ALL_FLAGS {
        return Err(Errno::Inval.into());
    }
    if descriptor.rights & SET_FLAGS == 0 {
        return Err(Errno::Notcapable.into());
    }
    descriptor.flags = u16::try_from(flags).map_err(|_| Errno::Inval)?;
    Ok(())
}

/// Rights can only be given up.
pub(crate) fn fd_fdstat_set_rights(call: &mut Call<'_>, fd: u32, base: u64, inheriting: u64) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    if base & !descriptor.rights != 0 || inheriting != 0 {
        return Err(Errno::Notcapable.into());
    }
    descriptor.rights = base;
    Ok(())
}

/// `filestat` of a stream: all zero (type 0: neither file nor terminal). The older one is 8 bytes shorter.
pub(crate) fn fd_filestat_get<const SIZE: usize>(call: &mut Call<'_>, fd: u32, out: u32) -> Answer {
    call.process.descriptor(fd)?;
    Ok(call.memory.write(out, &[0; SIZE])?)
}

fn not_a_file(call: &mut Call<'_>, fd: u32, errno: Errno) -> Answer {
    call.process.descriptor(fd)?;
    Err(errno.into())
}

pub(crate) fn fd_seek(call: &mut Call<'_>, fd: u32, _offset: u64, whence: u32, _out: u32) -> Answer {
    call.process.descriptor(fd)?;
    // The two versions number the three ways differently; a stream refuses each of them.
    Err(if whence > 2 { Errno::Inval } else { Errno::Spipe }.into())
}

pub(crate) fn fd_tell(call: &mut Call<'_>, fd: u32, _out: u32) -> Answer {
    not_a_file(call, fd, Errno::Spipe)
}

pub(crate) fn fd_pread(call: &mut Call<'_>, fd: u32, _: u32, _: u32, _: u64, _: u32) -> Answer {
    not_a_file(call, fd, Errno::Spipe)
}

pub(crate) fn fd_pwrite(call: &mut Call<'_>, fd: u32, _: u32, _: u32, _: u64, _: u32) -> Answer {
    not_a_file(call, fd, Errno::Spipe)
}

pub(crate) fn fd_advise(call: &mut Call<'_>, fd: u32, _offset: u64, _length: u64, advice: u32) -> Answer {
    not_a_file(call, fd, if advice > 5 { Errno::Inval } else { Errno::Spipe })
}

pub(crate) fn fd_allocate(call: &mut Call<'_>, fd: u32, _offset: u64, _length: u64) -> Answer {
    not_a_file(call, fd, Errno::Spipe)
}

pub(crate) fn fd_sync(call: &mut Call<'_>, fd: u32) -> Answer {
    not_a_file(call, fd, Errno::Inval)
}

pub(crate) fn fd_filestat_set_size(call: &mut Call<'_>, fd: u32, _size: u64) -> Answer {
    not_a_file(call, fd, Errno::Inval)
}

pub(crate) fn fd_filestat_set_times(call: &mut Call<'_>, fd: u32, _: u64, _: u64, _: u32) -> Answer {
    not_a_file(call, fd, Errno::Inval)
}

pub(crate) fn fd_readdir(call: &mut Call<'_>, fd: u32, _: u32, _: u32, _: u64, _: u32) -> Answer {
    not_a_file(call, fd, Errno::Notdir)
}

/// Nothing is pre-opened: programs stop looking at the first EBADF.
pub(crate) fn fd_prestat_get(_call: &mut Call<'_>, _fd: u32, _out: u32) -> Answer {
    Err(Errno::Badf.into())
}

pub(crate) fn fd_prestat_dir_name(_call: &mut Call<'_>, _fd: u32, _path: u32, _length: u32) -> Answer {
    Err(Errno::Badf.into())
}
