//! A store that is only looked at: opening one writes to it, and here that goes to memory.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    sync::{Mutex, PoisonError},
};

use super::blocks::{BLOCK, Disk};

/// A file that is only read: what redb writes while it opens a store is kept in memory.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    state: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    /// By the number of the block in the file.
    blocks: BTreeMap<u64, Vec<u8>>,
    len: Option<u64>,
}

impl Overlay {
    pub(super) fn new(file: File) -> Self {
        Self { file, state: Mutex::default() }
    }

    /// A block as it is now; beyond the end of the file it is zeros.
    fn block(&self, written: &Written, number: u64) -> io::Result<Vec<u8>> {
        if let Some(block) = written.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = vec![0; BLOCK];
        let (at, len) = (number * BLOCK as u64, Disk::len(&self.file)?);
        let there = usize::try_from(len.saturating_sub(at)).unwrap_or(BLOCK).min(BLOCK);
        if let Some(part) = block.get_mut(..there) {
            self.file.read_at(at, part)?;
        }
        Ok(block)
    }

    /// The blocks that a range touches, and which part of each.
    fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
        let (mut at, end) = (offset, offset + len as u64);
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let (number, from) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
                let upto = (from as u64 + (end - at)).min(BLOCK as u64) as usize;
                at += (upto - from) as u64;
                (number, from..upto)
            })
        })
    }
}

impl Disk for Overlay {
    fn len(&self) -> io::Result<u64> {
        let written = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        written.len.map_or_else(|| Disk::len(&self.file), Ok)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let written = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = out.iter_mut();
        for (number, part) in Self::parts(offset, out.len()) {
            let block = self.block(&written, number)?;
            let part = block.get(part).unwrap_or_default();
            out.by_ref().zip(part).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut data = data.iter();
        for (number, part) in Self::parts(offset, data.len()) {
            let mut block = self.block(&written, number)?;
            let part = block.get_mut(part).unwrap_or_default();
            part.iter_mut().zip(data.by_ref()).for_each(|(to, from)| *to = *from);
            written.blocks.insert(number, block);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).len = Some(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
