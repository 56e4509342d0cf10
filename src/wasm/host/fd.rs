//! What begins with a descriptor: reading, writing, its place, what it is.

use super::{
    Answer, Call, Errno,
    descriptor::{Descriptor, Stream, What, rights},
    files::{Times, Writing, filestat},
    memory::{Memory, element, put, u32_at},
};
use crate::input::Read;

/// Most vectors in one call, as on Linux.
const MOST_VECTORS: u32 = 1024;
/// Most bytes one call moves; the rest is for the next call, as the interface allows.
const MOST_BYTES: u32 = 256 * 1024;
/// Bytes copied at a time.
const CHUNK: u32 = 64 * 1024;

/// `fdflags`.
const APPEND: u16 = 1;
const DSYNC: u16 = 2;
const NONBLOCK: u16 = 4;
const RSYNC: u16 = 8;
const SYNC: u16 = 16;
const ALL_FLAGS: u32 = 31;

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

impl Descriptor {
    fn writing(&self) -> Writing {
        let has = |flag: u16| self.flags & flag != 0;
        Writing { append: has(APPEND), data_sync: has(DSYNC), sync: has(SYNC) || has(RSYNC) }
    }
}

/// Hands a piece that was read to the guest.
fn deliver(memory: &Memory<'_>, vectors: &[(u32, u32)], mut rest: &[u8]) -> Result<(), Errno> {
    for (address, length) in vectors {
        let (piece, left) = rest.split_at_checked(*length as usize).unwrap_or((rest, &[]));
        memory.write(*address, piece)?;
        rest = left;
    }
    Ok(())
}

fn count(bytes: usize) -> Result<u32, Errno> {
    u32::try_from(bytes).map_err(|_| Errno::Overflow)
}

/// Vectors and a buffer of their length, at most a chunk.
fn read_into(call: &Call<'_>, base: u32, vectors_count: u32, out: u32) -> Result<(Vec<(u32, u32)>, Vec<u8>), Errno> {
    let vectors = vectors(&call.memory, base, vectors_count)?;
    call.memory.check(out, 4)?;
    let wanted: u32 = vectors.iter().map(|(_, length)| length).sum();
    Ok((vectors, vec![0; wanted.min(CHUNK) as usize]))
}

pub(crate) fn fd_read(call: &mut Call<'_>, fd: u32, base: u32, vectors_count: u32, out: u32) -> Answer {
    call.process.descriptor(fd)?.need(rights::FD_READ)?;
    let (vectors, mut buffer) = read_into(call, base, vectors_count, out)?;
    if buffer.is_empty() {
        return Ok(call.memory.write_u32(out, 0)?);
    }
    let descriptor = call.process.descriptor(fd)?;
    let nonblocking = descriptor.flags & NONBLOCK != 0;
    let read = match &mut descriptor.what {
        What::Directory(_) => return Err(Errno::Isdir.into()),
        What::File(file) => {
            let read = file.read_at(&mut buffer, file.position)?;
            file.position = file.position.saturating_add(read as u64);
            read
        }
        What::Stream(_) => from_input(call, &mut buffer, nonblocking)?,
    };
    deliver(&call.memory, &vectors, buffer.get(..read).unwrap_or_default())?;
    Ok(call.memory.write_u32(out, count(read)?)?)
}

fn from_input(call: &mut Call<'_>, buffer: &mut [u8], nonblocking: bool) -> Answer<usize> {
    loop {
        call.check()?;
        match call.control().input.read(buffer) {
            Read::Bytes(count) => return Ok(count),
            Read::End => return Ok(0),
            Read::Nothing if nonblocking => return Err(Errno::Again.into()),
            Read::Nothing => {
                let control = call.control();
                control.input.wait(None, || control.is_stopped());
            }
        }
    }
}

pub(crate) fn fd_pread(call: &mut Call<'_>, fd: u32, base: u32, vectors_count: u32, place: u64, out: u32) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    seekable(descriptor)?;
    descriptor.need(rights::FD_READ)?;
    let (vectors, mut buffer) = read_into(call, base, vectors_count, out)?;
    let What::File(file) = &call.process.descriptor(fd)?.what else { return Err(Errno::Spipe.into()) };
    let read = file.read_at(&mut buffer, place)?;
    deliver(&call.memory, &vectors, buffer.get(..read).unwrap_or_default())?;
    Ok(call.memory.write_u32(out, count(read)?)?)
}

pub(crate) fn fd_write(call: &mut Call<'_>, fd: u32, base: u32, vectors_count: u32, out: u32) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    descriptor.need(rights::FD_WRITE)?;
    let how = descriptor.writing();
    write(call, fd, (base, vectors_count, out), |file, bytes| {
        let place = file.place(how)?;
        let written = file.write_at(bytes, place, how)?;
        file.position = place.saturating_add(written as u64);
        Ok(written)
    })
}

pub(crate) fn fd_pwrite(call: &mut Call<'_>, fd: u32, base: u32, vectors_count: u32, place: u64, out: u32) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    seekable(descriptor)?;
    descriptor.need(rights::FD_WRITE)?;
    let (how, mut place) = (descriptor.writing(), place);
    write(call, fd, (base, vectors_count, out), move |file, bytes| {
        let written = file.write_at(bytes, place, how)?;
        place = place.saturating_add(written as u64);
        Ok(written)
    })
}

/// Copies pieces out of the guest's memory and puts each where it belongs, until one is not taken whole.
fn write(
    call: &mut Call<'_>,
    fd: u32,
    (base, vectors_count, out): (u32, u32, u32),
    mut to_file: impl FnMut(&mut super::files::OpenFile, &[u8]) -> Result<usize, Errno>,
) -> Answer {
    let vectors = vectors(&call.memory, base, vectors_count)?;
    call.memory.check(out, 4)?;
    let (mut written, mut buffer) = (0u32, Vec::new());
    'all: for (mut address, mut length) in vectors {
        while length > 0 {
            call.check()?;
            let piece = length.min(CHUNK);
            buffer.resize(piece as usize, 0);
            call.memory.read(address, &mut buffer)?;
            let taken = match &mut call.process.descriptor(fd)?.what {
                What::Directory(_) => return Err(Errno::Isdir.into()),
                What::File(file) => match to_file(file, &buffer) {
                    // What came before has been written: that is the answer.
                    Err(_) if written > 0 => break 'all,
                    taken => count(taken?)?,
                },
                What::Stream(Stream::Stderr) => {
                    call.process.write_stderr(&buffer);
                    piece
                }
                What::Stream(_) => {
                    call.process.write_stdout(&buffer)?;
                    piece
                }
            };
            written += taken;
            if taken < piece {
                break 'all;
            }
            address = address.saturating_add(piece);
            length -= piece;
        }
    }
    Ok(call.memory.write_u32(out, written)?)
}

pub(crate) fn fd_close(call: &mut Call<'_>, fd: u32) -> Answer {
    let closed = call.process.descriptors().close(fd)?;
    closed_last(call, &closed);
    Ok(())
}

/// A file that nothing has open any more and that has no name gives back its room.
fn closed_last(call: &mut Call<'_>, closed: &Descriptor) {
    let What::File(file) = &closed.what else { return };
    if !call.process.descriptors().files().any(|open| open.identity == file.identity) {
        file.forget();
    }
}

/// Puts one descriptor in another's place, which is closed by it.
pub(crate) fn fd_renumber(call: &mut Call<'_>, from: u32, to: u32) -> Answer {
    if let Some(closed) = call.process.descriptors().renumber(from, to)? {
        closed_last(call, &closed);
    }
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
    if flags > ALL_FLAGS {
        return Err(Errno::Inval.into());
    }
    descriptor.need(rights::FD_FDSTAT_SET_FLAGS)?;
    descriptor.flags = u16::try_from(flags).map_err(|_| Errno::Inval)?;
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

/// Has it a place to be moved?
fn seekable(descriptor: &Descriptor) -> Result<(), Errno> {
    match descriptor.what {
        What::Stream(_) => Err(Errno::Spipe),
        What::Directory(_) => Err(Errno::Isdir),
        What::File(_) => Ok(()),
    }
}

/// A regular file that may be changed or asked so.
fn regular<'a>(
    call: &'a mut Call<'_>,
    fd: u32,
    wanted: u64,
    (stream, directory): (Errno, Errno),
) -> Result<&'a mut super::files::OpenFile, Errno> {
    let descriptor = call.process.descriptor(fd)?;
    match descriptor.what {
        What::Stream(_) => return Err(stream),
        What::Directory(_) => return Err(directory),
        What::File(_) => descriptor.need(wanted)?,
    }
    match &mut descriptor.what {
        What::File(file) => Ok(file),
        _ => Err(Errno::Badf),
    }
}

/// `WHENCE` maps the numbers of a version to: from the beginning, from here, from the end.
fn seek(call: &mut Call<'_>, fd: u32, offset: u64, whence: Option<u32>, out: u32) -> Answer {
    seekable(call.process.descriptor(fd)?)?;
    let whence = whence.ok_or(Errno::Inval)?;
    // Asking where one is needs less.
    let wanted = if whence == 1 && offset == 0 { rights::FD_TELL } else { rights::FD_SEEK };
    let file = regular(call, fd, wanted, (Errno::Spipe, Errno::Isdir))?;
    let place = file.seek(offset.cast_signed(), whence)?;
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
    let place = regular(call, fd, rights::FD_TELL, (Errno::Spipe, Errno::Isdir))?.position;
    Ok(call.memory.write_u64(out, place)?)
}

pub(crate) fn fd_advise(call: &mut Call<'_>, fd: u32, offset: u64, length: u64, advice: u32) -> Answer {
    if advice > 5 {
        call.process.descriptor(fd)?;
        return Err(Errno::Inval.into());
    }
    if let What::Directory(_) = call.process.descriptor(fd)?.what {
        return Ok(());
    }
    Ok(regular(call, fd, rights::FD_ADVISE, (Errno::Spipe, Errno::Badf))?.advise(offset, length, advice)?)
}

pub(crate) fn fd_allocate(call: &mut Call<'_>, fd: u32, offset: u64, length: u64) -> Answer {
    Ok(regular(call, fd, rights::FD_ALLOCATE, (Errno::Spipe, Errno::Isdir))?.allocate(offset, length)?)
}

pub(crate) fn fd_sync(call: &mut Call<'_>, fd: u32) -> Answer {
    sync(call, fd, rights::FD_SYNC)
}

pub(crate) fn fd_datasync(call: &mut Call<'_>, fd: u32) -> Answer {
    sync(call, fd, rights::FD_DATASYNC)
}

fn sync(call: &mut Call<'_>, fd: u32, wanted: u64) -> Answer {
    let descriptor = call.process.descriptor(fd)?;
    let done = match &descriptor.what {
        What::Stream(_) => return Err(Errno::Inval.into()),
        // A name in it is as durable as the disk makes it.
        What::Directory(_) => return Ok(()),
        What::File(file) => {
            descriptor.need(wanted)?;
            if wanted == rights::FD_SYNC { file.file.sync_all() } else { file.file.sync_data() }
        }
    };
    Ok(done.map_err(Errno::from)?)
}

pub(crate) fn fd_filestat_set_size(call: &mut Call<'_>, fd: u32, size: u64) -> Answer {
    Ok(regular(call, fd, rights::FD_FILESTAT_SET_SIZE, (Errno::Inval, Errno::Isdir))?.set_length(size)?)
}

pub(crate) fn fd_filestat_set_times(call: &mut Call<'_>, fd: u32, access: u64, change: u64, which: u32) -> Answer {
    let times = Times::new(access, change, which);
    let descriptor = call.process.descriptor(fd)?;
    match &descriptor.what {
        What::Stream(_) => Err(Errno::Inval.into()),
        What::Directory(open) => {
            descriptor.need(rights::FD_FILESTAT_SET_TIMES)?;
            Ok(rustix::fs::futimens(&open.dir, &times?.0).map_err(Errno::from)?)
        }
        What::File(file) => {
            descriptor.need(rights::FD_FILESTAT_SET_TIMES)?;
            Ok(file.set_times(&times?)?)
        }
    }
}

/// The name of a granted directory; programs stop looking at the first `BADF`.
fn preopen<'a>(call: &'a mut Call<'_>, fd: u32) -> Result<&'a [u8], Errno> {
    match &call.process.descriptor(fd)?.what {
        What::Directory(open) => open.preopen.as_deref().ok_or(Errno::Badf),
        _ => Err(Errno::Badf),
    }
}

/// `prestat`: tag 0, a directory; length of its name at 4.
pub(crate) fn fd_prestat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Answer {
    let length = count(preopen(call, fd)?.len())?;
    let mut stat = [0; 8];
    put(&mut stat, 4, &length.to_le_bytes());
    Ok(call.memory.write(out, &stat)?)
}

pub(crate) fn fd_prestat_dir_name(call: &mut Call<'_>, fd: u32, path: u32, length: u32) -> Answer {
    let name = preopen(call, fd)?.to_vec();
    if (length as usize) < name.len() {
        return Err(Errno::Nametoolong.into());
    }
    Ok(call.memory.write(path, &name)?)
}
