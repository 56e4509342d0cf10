//! What begins with a descriptor: reading, writing, its place, what it is.
//!
//! A file is read and written in pieces, and between two of them a stop is looked for: a call moves as much as its
//! vectors ask for, up to [`MOST_BYTES`], because not every program calls again when it got less.

use smallvec::SmallVec;

use super::{
    Answer, Call, End, Errno, Process,
    descriptor::{ALL_FLAGS, Stream, What, rights},
    files::{OpenFile, Place, Times, filestat},
    memory::{Memory, element, put, u32_at},
};
use crate::input::Read;

/// Most vectors in one call, as on Linux.
const MOST_VECTORS: u32 = 1024;
/// Most bytes one call moves; the rest is for the next call, as the interface allows.
const MOST_BYTES: u32 = 64 << 20;
/// Bytes copied at a time.
const CHUNK: u32 = 64 * 1024;

/// `fdflags`.
const APPEND: u16 = 1;
const DSYNC: u16 = 2;
const NONBLOCK: u16 = 4;
const RSYNC: u16 = 8;
const SYNC: u16 = 16;
/// What is settled when a file is opened.
const SYNC_FLAGS: u16 = DSYNC | RSYNC | SYNC;

/// Address and length of each; few in most calls.
type Vectors = SmallVec<[(u32, u32); 8]>;

/// The vectors of a read or write as (address, length), cut to [`MOST_BYTES`] in all.
fn vectors(memory: &Memory<'_>, base: u32, count: u32) -> Result<Vectors, Errno> {
    if count > MOST_VECTORS {
        return Err(Errno::Inval);
    }
    let mut list = Vectors::new();
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

/// The same in pieces of at most a [`CHUNK`]. None at all are one of no bytes: the place may be one where there is
/// nothing to be read or written.
fn pieces(vectors: &[(u32, u32)]) -> impl Iterator<Item = (u32, u32)> {
    let pieces = vectors.iter().flat_map(|(address, length)| {
        let piece = move |offset: u32| (address.saturating_add(offset), CHUNK.min(length - offset));
        (0..*length).step_by(CHUNK as usize).map(piece)
    });
    pieces.chain(vectors.is_empty().then_some((0, 0)))
}

fn count(bytes: usize) -> Result<u32, Errno> {
    u32::try_from(bytes).map_err(|_| Errno::Overflow)
}

/// The regular file behind a descriptor, if it has these rights.
///
/// # Errors
/// `BADF` for all else.
fn regular(process: &mut Process, fd: u32, wanted: u64) -> Result<&mut OpenFile, Errno> {
    let descriptor = process.descriptor(fd)?;
    let right = descriptor.need(wanted);
    match &mut descriptor.what {
        What::File(file) => right.map(|()| file),
        _ => Err(Errno::Badf),
    }
}

/// As [`regular`], for what has a place.
///
/// # Errors
/// `SPIPE` for a stream that could be read or written so otherwise.
fn seekable<'a>(call: &'a mut Call<'_>, fd: u32, wanted: u64) -> Result<&'a mut OpenFile, Errno> {
    let descriptor = call.process.descriptor(fd)?;
    let way = wanted & (rights::FD_READ | rights::FD_WRITE);
    if matches!(descriptor.what, What::Stream(_)) {
        descriptor.need(way)?;
        return Err(Errno::Spipe);
    }
    regular(call.process, fd, wanted)
}

pub(crate) fn fd_read(call: &mut Call<'_>, fd: u32, base: u32, vectors_count: u32, out: u32) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    descriptor.need(rights::FD_READ)?;
    if let What::Stream(_) = descriptor.what {
        return from_input(call, fd, (base, vectors_count), out);
    }
    let mut place = regular(call.process, fd, rights::FD_READ)?.position;
    let read = read(call, fd, (base, vectors_count, out), &mut place)?;
    regular(call.process, fd, rights::FD_READ)?.position = place;
    Ok(call.memory.write_u32(out, read)?)
}

pub(crate) fn fd_pread(call: &mut Call<'_>, fd: u32, base: u32, vectors_count: u32, place: u64, out: u32) -> Answer {
    seekable(call, fd, rights::FD_READ)?;
    let mut place = place;
    let read = read(call, fd, (base, vectors_count, out), &mut place)?;
    Ok(call.memory.write_u32(out, read)?)
}

/// Reads a file from a place on until the vectors are full or it ends; the place is behind what was read then.
fn read(
    call: &mut Call<'_>,
    fd: u32,
    (base, vectors_count, out): (u32, u32, u32),
    place: &mut u64,
) -> Result<u32, super::Fault> {
    let vectors = vectors(&call.memory, base, vectors_count)?;
    call.memory.check(out, 4)?;
    let mut done = 0u32;
    for (address, length) in pieces(&vectors) {
        call.check()?;
        let into = call.memory.bytes_mut(address, length)?;
        let read = match regular(call.process, fd, rights::FD_READ)?.read_at(into, *place) {
            // What came before has been read: that is the answer.
            Err(_) if done > 0 => break,
            read => count(read?)?,
        };
        *place = place.saturating_add(u64::from(read));
        done += read;
        if read < length {
            break;
        }
    }
    Ok(done)
}

/// Reads what there is of standard input; waits for the first byte.
fn from_input(call: &mut Call<'_>, fd: u32, (base, vectors_count): (u32, u32), out: u32) -> Answer {
    let nonblocking = call.process.descriptor(fd)?.flags & NONBLOCK != 0;
    let vectors = vectors(&call.memory, base, vectors_count)?;
    call.memory.check(out, 4)?;
    let mut done = 0;
    for (address, length) in vectors {
        let into = call.memory.bytes_mut(address, length)?;
        let control = &call.process.control;
        let read = loop {
            if control.is_stopped() {
                return Err(End::Stopped.into());
            }
            match control.input.read(into) {
                Read::Bytes(read) => break count(read)?,
                Read::End => break 0,
                // What came before has been read: that is the answer.
                Read::Nothing if done > 0 => break 0,
                Read::Nothing if nonblocking => return Err(Errno::Again.into()),
                Read::Nothing => control.input.wait(None, || control.is_stopped()),
            }
        };
        done += read;
        if read < length {
            break;
        }
    }
    Ok(call.memory.write_u32(out, done)?)
}

pub(crate) fn fd_write(call: &mut Call<'_>, fd: u32, base: u32, vectors_count: u32, out: u32) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    descriptor.need(rights::FD_WRITE)?;
    let append = descriptor.flags & APPEND != 0;
    if let What::Stream(stream) = descriptor.what {
        return to_output(call, stream, (base, vectors_count), out);
    }
    let file = regular(call.process, fd, rights::FD_WRITE)?;
    let mut place = if append { file.length()? } else { file.position };
    let written = write(call, fd, (base, vectors_count, out), &mut place)?;
    regular(call.process, fd, rights::FD_WRITE)?.position = place;
    Ok(call.memory.write_u32(out, written)?)
}

/// With `append` set it writes to the end, as Linux does.
pub(crate) fn fd_pwrite(call: &mut Call<'_>, fd: u32, base: u32, vectors_count: u32, place: u64, out: u32) -> Answer {
    seekable(call, fd, rights::FD_WRITE)?;
    let mut place = place;
    let written = write(call, fd, (base, vectors_count, out), &mut place)?;
    Ok(call.memory.write_u32(out, written)?)
}

/// Writes to a file from a place on, until something is not taken whole; the place is behind what was written then.
fn write(
    call: &mut Call<'_>,
    fd: u32,
    (base, vectors_count, out): (u32, u32, u32),
    place: &mut u64,
) -> Result<u32, super::Fault> {
    let vectors = vectors(&call.memory, base, vectors_count)?;
    call.memory.check(out, 4)?;
    let flags = call.process.descriptor(fd)?.flags;
    let mut done = 0u32;
    for (address, length) in pieces(&vectors) {
        call.check()?;
        let from = call.memory.bytes(address, length)?;
        let to = if flags & APPEND != 0 { Place::End } else { Place::At(*place) };
        let (written, end) = match regular(call.process, fd, rights::FD_WRITE)?.write_at(from, to) {
            // What came before has been written: that is the answer.
            Err(_) if done > 0 => break,
            written => written?,
        };
        *place = end;
        done += count(written)?;
        if written < from.len() {
            break;
        }
    }
    if flags & SYNC_FLAGS != 0 && done > 0 {
        regular(call.process, fd, rights::FD_WRITE)?.sync(flags & SYNC_FLAGS == DSYNC)?;
    }
    Ok(done)
}

fn to_output(call: &mut Call<'_>, stream: Stream, (base, vectors_count): (u32, u32), out: u32) -> Answer {
    let vectors = vectors(&call.memory, base, vectors_count)?;
    call.memory.check(out, 4)?;
    let mut done = 0;
    for (address, length) in pieces(&vectors) {
        call.check()?;
        let bytes = call.memory.bytes(address, length)?;
        if stream == Stream::Stderr {
            call.process.write_stderr(bytes);
        } else {
            call.process.write_stdout(bytes)?;
        }
        done += length;
    }
    Ok(call.memory.write_u32(out, done)?)
}

pub(crate) fn fd_close(call: &mut Call<'_>, fd: u32) -> Answer {
    call.process.descriptors().close(fd)?;
    Ok(())
}

/// Puts one descriptor in another's place, which is closed by it.
pub(crate) fn fd_renumber(call: &mut Call<'_>, from: u32, to: u32) -> Answer {
    call.process.descriptors().renumber(from, to)?;
    Ok(())
}

/// `fdstat`: file type (0 for streams: neither file nor terminal), flags, rights.
pub(crate) fn fd_fdstat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    let mut stat = [0; 24];
    let kind = match descriptor.what {
        What::Stream(_) => 0,
        What::Directory(_) => 3,
        What::File(_) => 4,
    };
    put(&mut stat, 0, &[kind]);
    put(&mut stat, 2, &descriptor.flags.to_le_bytes());
    put(&mut stat, 8, &descriptor.rights.to_le_bytes());
    put(&mut stat, 16, &descriptor.inheriting.to_le_bytes());
    Ok(call.memory.write(out, &stat)?)
}

pub(crate) fn fd_fdstat_set_flags(call: &mut Call<'_>, fd: u32, flags: u32) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    let flags = u16::try_from(flags).ok().filter(|flags| u32::from(*flags) <= ALL_FLAGS).ok_or(Errno::Inval)?;
    if let What::Directory(_) = descriptor.what {
        return Err(Errno::Badf.into());
    }
    descriptor.need(rights::FD_FDSTAT_SET_FLAGS)?;
    // Writing as it is can be asked for when a file is opened, and not later.
    if flags & SYNC_FLAGS & !descriptor.flags != 0 {
        return Err(Errno::Inval.into());
    }
    descriptor.flags = flags;
    Ok(())
}

/// Rights can only be given up.
pub(crate) fn fd_fdstat_set_rights(call: &mut Call<'_>, fd: u32, base: u64, inheriting: u64) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    if base & !descriptor.rights != 0 || inheriting & !descriptor.inheriting != 0 {
        return Err(Errno::Notcapable.into());
    }
    (descriptor.rights, descriptor.inheriting) = (base, inheriting);
    Ok(())
}

/// `filestat`; of a stream all zero. The older one is 8 bytes shorter.
pub(crate) fn fd_filestat_get<const SIZE: usize>(call: &mut Call<'_>, fd: u32, out: u32) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    let metadata = match &descriptor.what {
        What::Stream(_) => return Ok(call.memory.write(out, &[0; SIZE])?),
        What::Directory(open) => open.dir.dir_metadata(),
        What::File(file) => file.metadata(),
    };
    Ok(call.memory.write(out, &filestat::<SIZE>(&metadata.map_err(Errno::from)?))?)
}

/// `whence` is: 0 from the beginning, 1 from here, 2 from the end.
fn seek(call: &mut Call<'_>, fd: u32, offset: u64, whence: Option<u32>, out: u32) -> Answer {
    // Asking where one is needs less.
    let wanted = if whence == Some(1) && offset == 0 { rights::FD_TELL } else { rights::FD_SEEK };
    let file = seekable(call, fd, wanted)?;
    let place = file.seek(offset.cast_signed(), whence.ok_or(Errno::Inval)?)?;
    Ok(call.memory.write_u64(out, place)?)
}

pub(crate) fn fd_seek(call: &mut Call<'_>, fd: u32, offset: u64, whence: u32, out: u32) -> Answer {
    seek(call, fd, offset, (whence <= 2).then_some(whence), out)
}

/// The older version counts: from here, from the end, from the beginning.
pub(crate) fn fd_seek_unstable(call: &mut Call<'_>, fd: u32, offset: u64, whence: u32, out: u32) -> Answer {
    seek(call, fd, offset, [1, 2, 0].get(whence as usize).copied(), out)
}

pub(crate) fn fd_tell(call: &mut Call<'_>, fd: u32, out: u32) -> Answer {
    let place = seekable(call, fd, rights::FD_TELL)?.position;
    Ok(call.memory.write_u64(out, place)?)
}

pub(crate) fn fd_advise(call: &mut Call<'_>, fd: u32, offset: u64, length: u64, advice: u32) -> Answer {
    Ok(regular(call.process, fd, rights::FD_ADVISE)?.advise(offset, length, advice)?)
}

pub(crate) fn fd_allocate(call: &mut Call<'_>, fd: u32, offset: u64, length: u64) -> Answer {
    let control = call.control().clone();
    Ok(regular(call.process, fd, rights::FD_ALLOCATE)?.allocate(offset, length, || control.is_stopped())?)
}

pub(crate) fn fd_sync(call: &mut Call<'_>, fd: u32) -> Answer {
    sync(call, fd, rights::FD_SYNC)
}

pub(crate) fn fd_datasync(call: &mut Call<'_>, fd: u32) -> Answer {
    sync(call, fd, rights::FD_DATASYNC)
}

fn sync(call: &mut Call<'_>, fd: u32, wanted: u64) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    if let What::Directory(open) = &descriptor.what {
        descriptor.need(rights::FD_SYNC)?;
        return Ok(open.sync()?);
    }
    Ok(regular(call.process, fd, wanted)?.sync(wanted == rights::FD_DATASYNC)?)
}

pub(crate) fn fd_filestat_set_size(call: &mut Call<'_>, fd: u32, size: u64) -> Answer {
    Ok(regular(call.process, fd, rights::FD_FILESTAT_SET_SIZE)?.set_length(size)?)
}

pub(crate) fn fd_filestat_set_times(call: &mut Call<'_>, fd: u32, access: u64, change: u64, which: u32) -> Answer {
    let times = Times::new(access, change, which)?;
    let descriptor = call.process.descriptor(fd)?;
    if let What::Directory(open) = &descriptor.what {
        descriptor.need(rights::FD_FILESTAT_SET_TIMES)?;
        return Ok(open.set_times(&times)?);
    }
    Ok(regular(call.process, fd, rights::FD_FILESTAT_SET_TIMES)?.set_times(&times)?)
}

/// The name of a granted directory, or what is answered for all else that is open.
fn preopen<'a>(call: &'a mut Call<'_>, fd: u32, none: Errno) -> Result<&'a [u8], Errno> {
    match &call.process.descriptor(fd)?.what {
        What::Directory(open) => open.preopen.as_deref().ok_or(none),
        _ => Err(none),
    }
}

/// `prestat`: tag 0, a directory; length of its name at 4. Programs stop looking at the first `BADF`.
pub(crate) fn fd_prestat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Answer {
    let length = count(preopen(call, fd, Errno::Badf)?.len())?;
    let mut stat = [0; 8];
    put(&mut stat, 4, &length.to_le_bytes());
    Ok(call.memory.write(out, &stat)?)
}

pub(crate) fn fd_prestat_dir_name(call: &mut Call<'_>, fd: u32, path: u32, length: u32) -> Answer {
    let name = preopen(call, fd, Errno::Notdir)?.to_vec();
    if (length as usize) < name.len() {
        return Err(Errno::Nametoolong.into());
    }
    Ok(call.memory.write(path, &name)?)
}
