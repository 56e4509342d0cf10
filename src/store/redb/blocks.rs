//! The file under redb: every block carries a checksum that is verified whenever it is read from the disk.
//!
//! redb trusts the bytes it reads: a flipped bit in one of its pages can hide a record or end in a panic. So it
//! reads and writes a file that is laid out by this module:
//!
//! ```text
//!   block 0      label (512 bytes) | redb's header (512 bytes) | unused
//!   then groups  sums (one block: 512 x 8 bytes) | up to 512 data blocks
//! ```
//! * A sum is the XXH3-64 of its block, seeded with the block's number, so a block in the wrong place is found too.
//!   A block that was never written has no valid sum: redb never reads one, and a file that lost its end and was
//!   made longer again is found.
//! * redb writes its pages to free places and reads them only after a commit that put them and their sums on the
//!   disk together (one fsync), so a crash cannot part a live block from its sum.
//! * redb's header is the one thing that is overwritten in place; it lies with its sum in one sector, whose
//!   overwriting is atomic.

use ::redb::StorageBackend;
use std::{
    fmt::Debug,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a block; redb's pages are multiples of it.
pub(super) const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// Bytes of a sector before its sum.
const SECTOR_BODY: usize = SECTOR - SUM;
const SUM: usize = 8;
const PER_GROUP: u64 = (BLOCK / SUM) as u64;
const BLOCK_64: u64 = BLOCK as u64;

/// First bytes of a store. The line ends reveal a transfer as text.
const MAGIC: &[u8; 16] = b"spear store\r\n\x1a\n\0";
/// The arrangement of blocks described above.
const LAYOUT: u32 = 1;

/// What a file is read and written through; tests put a failing one in its place.
pub(super) trait Disk: Debug + Send + Sync + 'static {
    fn len(&self) -> io::Result<u64>;
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

impl Disk for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata().map_err(of("stat"))?.len())
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset).map_err(of("read"))
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset).map_err(of("write"))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len).map_err(of("ftruncate"))
    }
    fn sync(&self) -> io::Result<()> {
        self.sync_data().map_err(of("fdatasync"))
    }
}

/// Names the system call in an error.
fn of(call: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{call}: {error}"))
}

/// Which call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
    Sync,
}

/// What the file system answered, as far as decisions hang on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub call: Call,
    /// The bytes are there and wrong.
    pub damaged: bool,
    /// There is no room for them.
    pub full: bool,
    pub detail: String,
}

/// What went wrong with a file since it was opened; redb's own errors do not say which call failed.
#[derive(Debug, Default)]
pub(super) struct Faults {
    last: Mutex<Option<Fault>>,
    sync_failed: AtomicBool,
}

impl Faults {
    pub(super) fn last(&self) -> Option<Fault> {
        self.last.lock().unwrap_or_else(|broken| broken.into_inner()).clone()
    }

    /// After a failed fsync nobody knows what is on the disk, and asking again does not tell.
    pub(super) fn sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Acquire)
    }

    fn note<T>(&self, call: Call, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            if call == Call::Sync {
                self.sync_failed.store(true, Ordering::Release);
            }
            let damaged = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
            let fault = Fault { call, damaged, full: is_full(error), detail: error.to_string() };
            *self.last.lock().unwrap_or_else(|broken| broken.into_inner()) = Some(fault);
        }
        result
    }
}

/// Is it an error of missing room: disk, quota, or the largest file allowed?
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// What the first sector of a file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Label {
    Ours,
    Foreign(String),
    Newer(u32),
    Damaged(String),
}

/// A checked file.
#[derive(Debug)]
pub(super) struct Blocks {
    disk: Box<dyn Disk>,
    faults: Arc<Faults>,
    /// Still to be laid out: what was never written reads as zeros.
    fresh: bool,
}

impl Blocks {
    /// Lays out an empty file.
    pub(super) fn create(disk: Box<dyn Disk>) -> io::Result<Self> {
        disk.set_len(BLOCK_64)?;
        let mut body = [0; SECTOR_BODY];
        body.iter_mut().zip(MAGIC.iter().chain(&LAYOUT.to_le_bytes())).for_each(|(to, from)| *to = *from);
        disk.write_at(0, &sealed(&body, 0))?;
        Ok(Self { disk, faults: Arc::default(), fresh: true })
    }

    /// A file whose label has been read.
    pub(super) fn open(disk: Box<dyn Disk>) -> Self {
        Self { disk, faults: Arc::default(), fresh: false }
    }

    pub(super) fn faults(&self) -> Arc<Faults> {
        self.faults.clone()
    }

    fn read_header(&self, out: &mut [u8]) -> io::Result<()> {
        let mut sector = [0; SECTOR];
        self.disk.read_at(SECTOR as u64, &mut sector)?;
        let untouched = self.fresh && sector.iter().all(|byte| *byte == 0);
        let Some(body) = unsealed(&sector, 1).or_else(|| untouched.then_some(&[0; SECTOR_BODY])) else {
            return Err(damaged("the header at byte 512 does not match its checksum".to_owned()));
        };
        match body.get(..out.len()) {
            Some(body) => out.copy_from_slice(body),
            None => return Err(unsupported()),
        }
        Ok(())
    }

    fn write_header(&self, data: &[u8]) -> io::Result<()> {
        let mut body = [0; SECTOR_BODY];
        let Some(place) = body.get_mut(..data.len()) else { return Err(unsupported()) };
        place.copy_from_slice(data);
        self.disk.write_at(SECTOR as u64, &sealed(&body, 1))
    }

    fn read_blocks(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        for (run, bytes) in runs(offset, out.len())? {
            let Some(out) = out.get_mut(bytes) else { return Err(unsupported()) };
            self.disk.read_at(run.data_at(), out)?;
            let mut sums = vec![0; run.count * SUM];
            self.disk.read_at(run.sums_at(), &mut sums)?;
            for ((number, block), sum) in (run.first..).zip(out.chunks_exact(BLOCK)).zip(sums.chunks_exact(SUM)) {
                if xxh3_64_with_seed(block, number).to_le_bytes() != sum {
                    return Err(damaged(format!(
                        "block {number} at byte {} does not match its checksum",
                        run.data_at() + (number - run.first) * BLOCK_64
                    )));
                }
            }
        }
        Ok(())
    }

    fn write_blocks(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        for (run, bytes) in runs(offset, data.len())? {
            let Some(data) = data.get(bytes) else { return Err(unsupported()) };
            self.disk.write_at(run.data_at(), data)?;
            let sums: Vec<u8> = (run.first..)
                .zip(data.chunks_exact(BLOCK))
                .flat_map(|(number, block)| xxh3_64_with_seed(block, number).to_le_bytes())
                .collect();
            self.disk.write_at(run.sums_at(), &sums)?;
        }
        Ok(())
    }

    /// Blocks as redb counts them, the header's among them; none in a file that was only just laid out.
    fn blocks(&self) -> io::Result<u64> {
        let len = self.disk.len()?;
        let after_label = (len / BLOCK_64).saturating_sub(1);
        let (full, rest) = (after_label / (PER_GROUP + 1), after_label % (PER_GROUP + 1));
        if len % BLOCK_64 != 0 || len == 0 || rest == 1 {
            return Err(damaged(format!("a length of {len} bytes is impossible: its end is missing")));
        }
        match full * PER_GROUP + rest.saturating_sub(1) {
            0 if self.fresh => Ok(0),
            // redb would begin a new store in it.
            0 => Err(damaged("it holds nothing but its label".to_owned())),
            data => Ok(data + 1),
        }
    }
}

impl StorageBackend for Blocks {
    fn len(&self) -> io::Result<u64> {
        self.faults.note(Call::Read, self.blocks().map(|blocks| blocks * BLOCK_64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let done = if offset == 0 { self.read_header(out) } else { self.read_blocks(offset, out) };
        self.faults.note(Call::Read, done)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.note(Call::Write, self.disk.set_len(disk_len(len / BLOCK_64)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.note(Call::Sync, self.disk.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let done = if offset == 0 { self.write_header(data) } else { self.write_blocks(offset, data) };
        self.faults.note(Call::Write, done)
    }
}

/// Neighbouring blocks of one group.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    count: usize,
}

impl Run {
    fn group_at(self) -> u64 {
        BLOCK_64 + (self.first - 1) / PER_GROUP * (PER_GROUP + 1) * BLOCK_64
    }
    fn sums_at(self) -> u64 {
        self.group_at() + (self.first - 1) % PER_GROUP * SUM as u64
    }
    fn data_at(self) -> u64 {
        self.group_at() + BLOCK_64 + (self.first - 1) % PER_GROUP * BLOCK_64
    }
}

/// Whole blocks from `offset`, cut at the ends of groups, each with its range of the caller's bytes.
fn runs(offset: u64, len: usize) -> io::Result<Vec<(Run, std::ops::Range<usize>)>> {
    if offset < BLOCK_64 || !offset.is_multiple_of(BLOCK_64) || !len.is_multiple_of(BLOCK) {
        return Err(unsupported());
    }
    let (mut first, mut left, mut at) = (offset / BLOCK_64, (len / BLOCK) as u64, 0);
    let mut runs = Vec::with_capacity(1);
    while left > 0 {
        let count = left.min(PER_GROUP - (first - 1) % PER_GROUP);
        let bytes = count as usize * BLOCK;
        runs.push((Run { first, count: count as usize }, at..at + bytes));
        (first, left, at) = (first + count, left - count, at + bytes);
    }
    Ok(runs)
}

/// Length of a file that holds so many blocks, the header's among them.
fn disk_len(blocks: u64) -> u64 {
    let data = blocks.saturating_sub(1);
    (1 + data + data.div_ceil(PER_GROUP)) * BLOCK_64
}

/// A sector with its sum behind it.
fn sealed(body: &[u8; SECTOR_BODY], number: u64) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    let sum = xxh3_64_with_seed(body, !number).to_le_bytes();
    sector.iter_mut().zip(body.iter().chain(&sum)).for_each(|(to, from)| *to = *from);
    sector
}

/// The body of a sector whose sum holds.
fn unsealed(sector: &[u8; SECTOR], number: u64) -> Option<&[u8; SECTOR_BODY]> {
    let (body, sum) = sector.split_first_chunk::<SECTOR_BODY>()?;
    (xxh3_64_with_seed(body, !number).to_le_bytes() == sum).then_some(body)
}

/// Reads the label of a file, before anything else may touch it.
pub(super) fn label(disk: &dyn Disk) -> io::Result<Label> {
    let len = disk.len()?;
    let mut sector = [0; SECTOR];
    if len < SECTOR as u64 {
        let mut start = vec![0; usize::try_from(len).unwrap_or(0)];
        disk.read_at(0, &mut start)?;
        let cut = start.iter().zip(MAGIC).all(|(found, known)| found == known);
        let text = format!("it is only {len} bytes long");
        return Ok(if cut { Label::Damaged(text) } else { Label::Foreign(text) });
    }
    disk.read_at(0, &mut sector)?;
    if !sector.starts_with(MAGIC) {
        let start: Vec<u8> = sector.iter().copied().take(MAGIC.len()).collect();
        return Ok(Label::Foreign(format!("it begins with \"{}\"", start.escape_ascii())));
    }
    let Some(body) = unsealed(&sector, 0) else {
        return Ok(Label::Damaged("its label does not match its checksum".to_owned()));
    };
    match body.get(MAGIC.len()..).and_then(|rest| rest.first_chunk::<4>()) {
        Some(layout) if u32::from_le_bytes(*layout) > LAYOUT => Ok(Label::Newer(u32::from_le_bytes(*layout))),
        _ => Ok(Label::Ours),
    }
}

fn damaged(detail: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "redb reads and writes its header or whole blocks")
}
