//! Reads an archive as it comes and takes nothing on trust.
//!
//! ```text
//!   bytes ─► header: the one that this path, length and time have ─► data: hashed, records decoded ─► padding: zeros
//!         ─► … ─► manifest: byte for byte what was seen ─► two blocks of zeros ─► the end
//! ```
//! What is read goes to a [`Receiver`] before the whole is known to be right: it keeps it aside until
//! [`Checker::finish`] has said so.

use sha2::{Digest, Sha256};
use std::{borrow::Cow, collections::HashSet};
use store::Record;
use tar::Header;
use types::{ErrorKind, Fault};

use super::format::{
    self, BLOCK, DAMAGED, Damaged, Entry, FORMAT, HEAD, Head, MANIFEST, Manifest, TRAILER, damaged, hex, is_file_path,
};

/// Longest entry that is held in memory, bytes: a page of records with the largest value in it.
const MOST_IN_MEMORY: u64 = 128 << 20;

/// Takes what is in an archive.
pub trait Receiver {
    /// What it says of itself; comes first.
    ///
    /// # Errors
    /// This and all others: the reading ends.
    fn head(&mut self, head: &Head) -> Result<(), Fault>;
    /// A record; they come in the order of their keys.
    fn record(&mut self, record: Record) -> Result<(), Fault>;
    /// A file begins.
    fn file(&mut self, path: &str, bytes: u64) -> Result<(), Fault>;
    /// The next bytes of it.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Fault>;
    /// It has ended.
    fn end(&mut self) -> Result<(), Fault>;
}

/// Drops everything.
pub struct Nowhere;

impl Receiver for Nowhere {
    fn head(&mut self, _: &Head) -> Result<(), Fault> {
        Ok(())
    }
    fn record(&mut self, _: Record) -> Result<(), Fault> {
        Ok(())
    }
    fn file(&mut self, _: &str, _: u64) -> Result<(), Fault> {
        Ok(())
    }
    fn bytes(&mut self, _: &[u8]) -> Result<(), Fault> {
        Ok(())
    }
    fn end(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

/// What a whole archive has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What it says of itself.
    pub head: Head,
    /// Records.
    pub records: u64,
    /// Bytes of the archive.
    pub bytes: u64,
    /// What was damaged before it was backed up.
    pub damaged: Vec<Damaged>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Head,
    Records,
    File,
    Damaged,
    Manifest,
}

enum State {
    Header,
    Data { left: u64 },
    Padding { left: u64 },
    Trailer { left: u64 },
    End,
}

/// The entry that is being read.
struct Current {
    part: Part,
    path: String,
    bytes: u64,
    hash: Sha256,
}

/// Reads one archive.
pub struct Checker {
    at: u64,
    state: State,
    /// A header, or an entry that is held in memory, as far as it has come.
    buffer: Vec<u8>,
    current: Option<Current>,
    head: Option<Head>,
    entries: Vec<Entry>,
    paths: HashSet<String>,
    chunks: u64,
    records: u64,
    last_key: Option<String>,
    files: (u64, u64),
    damaged: Vec<Damaged>,
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl Checker {
    /// At the beginning.
    pub fn new() -> Self {
        Self {
            at: 0,
            state: State::Header,
            buffer: Vec::new(),
            current: None,
            head: None,
            entries: Vec::new(),
            paths: HashSet::new(),
            chunks: 0,
            records: 0,
            last_key: None,
            files: (0, 0),
            damaged: Vec::new(),
        }
    }

    /// What the archive says of itself, once that has come.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `BACKUP_DAMAGED`, `BACKUP_NEWER`, or what `to` answers; nothing may be fed after one.
    pub fn feed(&mut self, mut bytes: &[u8], to: &mut dyn Receiver) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(self.wanted().min(bytes.len()));
            if taken.is_empty() {
                return Err(damaged(format!("something follows its end at byte {}", self.at)));
            }
            self.at += taken.len() as u64;
            self.take(taken, to)?;
            bytes = rest;
        }
        Ok(())
    }

    /// The end of the bytes.
    ///
    /// # Errors
    /// `BACKUP_DAMAGED`: it is cut off.
    pub fn finish(self) -> Result<Summary, Fault> {
        match (self.state, self.head) {
            (State::End, Some(head)) => {
                Ok(Summary { head, records: self.records, bytes: self.at, damaged: self.damaged })
            }
            _ if self.at == 0 => Err(damaged("it is empty")),
            _ => {
                let place = self.current.map(|current| format!(", in {}", current.path)).unwrap_or_default();
                Err(damaged(format!("it is cut off at byte {}{place}", self.at)))
            }
        }
    }

    /// Bytes until something is to be decided; 0: there should be none.
    fn wanted(&self) -> usize {
        let left = match self.state {
            State::Header => (BLOCK - self.buffer.len()) as u64,
            State::Data { left } | State::Padding { left } | State::Trailer { left } => left,
            State::End => 0,
        };
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    fn take(&mut self, bytes: &[u8], to: &mut dyn Receiver) -> Result<(), Fault> {
        match self.state {
            State::Header => {
                self.buffer.extend_from_slice(bytes);
                if self.buffer.len() < BLOCK { Ok(()) } else { self.header(to) }
            }
            State::Data { left } => {
                let Some(current) = &mut self.current else { return Err(damaged("bytes of nothing")) };
                current.hash.update(bytes);
                match current.part {
                    Part::File => to.bytes(bytes)?,
                    _ => self.buffer.extend_from_slice(bytes),
                }
                self.data(left - bytes.len() as u64, to)
            }
            State::Padding { left } => {
                self.zeros(bytes)?;
                self.padding(left - bytes.len() as u64);
                Ok(())
            }
            State::Trailer { left } => {
                self.zeros(bytes)?;
                let left = left - bytes.len() as u64;
                self.state = if left == 0 { State::End } else { State::Trailer { left } };
                Ok(())
            }
            State::End => Ok(()),
        }
    }

    fn zeros(&self, bytes: &[u8]) -> Result<(), Fault> {
        match bytes.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(damaged(format!("there should be zeros before byte {}", self.at))),
        }
    }

    fn header(&mut self, to: &mut dyn Receiver) -> Result<(), Fault> {
        let block = std::mem::take(&mut self.buffer);
        let begins = self.at - BLOCK as u64;
        let begun = self.head.is_some();
        let wrong = |what: &str| match begun {
            true => Err(damaged(format!("the header at byte {begins} {what}"))),
            false => Err(damaged("it does not begin as one")),
        };
        let header = Header::from_byte_slice(&block);
        let path = String::from_utf8_lossy(&header.path_bytes()).into_owned();
        let (Ok(bytes), Ok(time)) = (header.size(), header.mtime()) else { return wrong("makes no sense") };
        let seconds = self.head.as_ref().map_or(time, format::seconds);
        if !format::header(&path, bytes, seconds).is_ok_and(|wanted| wanted[..] == block[..]) {
            return wrong("is not as it was written");
        }
        let part = match &*path {
            HEAD => Part::Head,
            DAMAGED => Part::Damaged,
            MANIFEST => Part::Manifest,
            path if path == format::records_path(self.chunks) => Part::Records,
            path if is_file_path(path) => Part::File,
            _ => return wrong("names something that no backup has"),
        };
        let before = self.entries.last().and(self.current.as_ref()).map(|current| current.part);
        let in_order = match (before, part) {
            (None, part) => part == Part::Head,
            (Some(before), Part::Records | Part::File) => before <= part,
            (Some(before), _) => before < part,
        };
        if !in_order || !self.paths.insert(path.clone()) {
            return wrong("is out of its place");
        }
        if part == Part::File {
            to.file(&path, bytes)?;
            self.files = (self.files.0 + 1, self.files.1.saturating_add(bytes));
        } else if bytes > self.most(part) {
            return wrong("tells a length that is too much");
        }
        self.current = Some(Current { part, path, bytes, hash: Sha256::new() });
        self.data(bytes, to)
    }

    /// Longest entry that can be right, bytes. A manifest has a line for each entry before it: a path, a length and a
    /// hash.
    fn most(&self, part: Part) -> u64 {
        match part {
            Part::Manifest => self.entries.iter().map(|entry| entry.path.len() as u64 + 256).sum::<u64>() + 4096,
            _ => MOST_IN_MEMORY,
        }
    }

    fn data(&mut self, left: u64, to: &mut dyn Receiver) -> Result<(), Fault> {
        self.state = State::Data { left };
        let Some(current) = self.current.as_mut().filter(|_| left == 0) else { return Ok(()) };
        let (part, path, bytes) = (current.part, current.path.clone(), current.bytes);
        let sha256 = hex(std::mem::take(&mut current.hash));
        let held = std::mem::take(&mut self.buffer);
        match part {
            Part::Head => self.read_head(&held, to)?,
            Part::Records => self.read_records(&path, &held, to)?,
            Part::File => to.end()?,
            Part::Damaged => {
                let told = serde_json::from_slice(&held);
                self.damaged = told.map_err(|error| damaged(format!("{path}: {error}")))?;
            }
            Part::Manifest => self.compare(&held)?,
        }
        self.entries.push(Entry { path, bytes, sha256 });
        self.padding(format::padding(bytes));
        Ok(())
    }

    fn padding(&mut self, left: u64) {
        let last = self.current.as_ref().is_some_and(|current| current.part == Part::Manifest);
        self.state = match (left, last) {
            (1.., _) => State::Padding { left },
            (0, true) => State::Trailer { left: TRAILER },
            (0, false) => State::Header,
        };
    }

    fn read_head(&mut self, held: &[u8], to: &mut dyn Receiver) -> Result<(), Fault> {
        #[derive(serde::Deserialize)]
        struct Form {
            format: u32,
        }
        let wrong = |error: serde_json::Error| damaged(format!("{HEAD}: {error}"));
        let Form { format } = serde_json::from_slice(held).map_err(wrong)?;
        if format > FORMAT {
            let message = format!("the backup has format {format}, this program reads up to {FORMAT}: use a newer one");
            return Err(Fault::new(ErrorKind::Unsupported, "BACKUP_NEWER", message));
        }
        let head: Head = serde_json::from_slice(held).map_err(wrong)?;
        to.head(&head)?;
        self.head = Some(head);
        Ok(())
    }

    fn read_records(&mut self, path: &str, held: &[u8], to: &mut dyn Receiver) -> Result<(), Fault> {
        let rev = self.head.as_ref().map_or(0, |head| head.rev);
        let Some(held) = held.strip_suffix(b"\n") else { return Err(damaged(format!("{path}: its last line is cut"))) };
        for line in held.split(|byte| *byte == b'\n') {
            let record = format::record(line).map_err(|error| damaged(format!("{path}: {error}")))?;
            if record.modified > rev {
                let (key, modified) = (&record.key, record.modified);
                return Err(damaged(format!("{path}: {key:?} was changed by revision {modified}, the last is {rev}")));
            }
            if self.last_key.as_ref().is_some_and(|last| *last >= record.key) {
                return Err(damaged(format!("{path}: {:?} is out of order", record.key)));
            }
            self.last_key = Some(record.key.clone());
            self.records += 1;
            to.record(record)?;
        }
        self.chunks += 1;
        Ok(())
    }

    /// The manifest says exactly what was read.
    fn compare(&self, held: &[u8]) -> Result<(), Fault> {
        let seen = serde_json::to_vec(&Manifest { entries: Cow::Borrowed(&self.entries) });
        let seen = seen.map_err(|error| Fault::internal(error.to_string()))?;
        let files = self.head.as_ref().map(|head| (head.files, head.file_bytes));
        if seen == held && files == Some(self.files) {
            return Ok(());
        }
        let told: Manifest<'_> =
            serde_json::from_slice(held).map_err(|error| damaged(format!("{MANIFEST}: {error}")))?;
        let differs = self.entries.iter().zip(told.entries.iter()).find(|(seen, told)| seen != told);
        Err(match differs {
            Some((seen, told)) if seen.path == told.path => {
                damaged(format!("{}: its SHA-256 is {}, the manifest says {}", seen.path, seen.sha256, told.sha256))
            }
            _ => damaged("the manifest names other entries than there are"),
        })
    }
}
