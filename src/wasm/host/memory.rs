//! The guest's memory as host functions see it: every access checked, every sum checked.

use wasmer::MemoryView;

use super::Errno;

/// The memory; empty for a guest without one.
pub(crate) struct Memory<'a>(Option<MemoryView<'a>>);

impl<'a> Memory<'a> {
    /// Over a view.
    pub(crate) fn new(view: Option<MemoryView<'a>>) -> Self {
        Self(view)
    }

    /// Is a whole range inside?
    pub(crate) fn check(&self, address: u32, length: u32) -> Result<(), Errno> {
        let size = self.0.as_ref().map_or(0, MemoryView::data_size);
        let end = u64::from(address) + u64::from(length);
        if end <= size { Ok(()) } else { Err(Errno::Fault) }
    }

    /// Copies out.
    pub(crate) fn read(&self, address: u32, into: &mut [u8]) -> Result<(), Errno> {
        let view = self.0.as_ref().ok_or(Errno::Fault)?;
        view.read(u64::from(address), into).map_err(|_| Errno::Fault)
    }

    /// Copies in.
    pub(crate) fn write(&self, address: u32, bytes: &[u8]) -> Result<(), Errno> {
        let view = self.0.as_ref().ok_or(Errno::Fault)?;
        view.write(u64::from(address), bytes).map_err(|_| Errno::Fault)
    }

    /// Copies a structure of a known size out.
    pub(crate) fn array<const N: usize>(&self, address: u32) -> Result<[u8; N], Errno> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes a number.
    pub(crate) fn write_u32(&self, address: u32, value: u32) -> Result<(), Errno> {
        self.write(address, &value.to_le_bytes())
    }

    /// Writes a number.
    pub(crate) fn write_u64(&self, address: u32, value: u64) -> Result<(), Errno> {
        self.write(address, &value.to_le_bytes())
    }
}

/// The address of element `index` of an array.
pub(crate) fn element(base: u32, index: u32, size: u32) -> Result<u32, Errno> {
    index.checked_mul(size).and_then(|offset| base.checked_add(offset)).ok_or(Errno::Fault)
}

/// A number of a structure that was copied out; the offset is known to lie inside.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u16::from_le_bytes)
}

/// See [`u16_at`].
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_le_bytes)
}

/// See [`u16_at`].
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u64::from_le_bytes)
}

/// Puts bytes into a structure that is being built.
pub(crate) fn put(structure: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(place) = structure.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len())) {
        place.copy_from_slice(bytes);
    }
}
