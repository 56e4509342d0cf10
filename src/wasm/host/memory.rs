//! The guest's memory as host functions see it: every access checked, every sum checked.

use wasmer::MemoryView;

use super::Errno;

/// The memory; empty for a guest without one.
pub(crate) struct Memory<'a>(&'a mut [u8]);

impl<'a> Memory<'a> {
    /// Over a view.
    ///
    /// # Safety
    /// Until the memory is dropped nothing else reads or writes what it is a view of, and it is not grown: the guest
    /// waits for a host call.
    #[expect(unsafe_code, reason = "the memory of a guest as bytes")]
    pub(crate) unsafe fn new(view: Option<MemoryView<'a>>) -> Self {
        // SAFETY: the caller's promise; a memory on this machine has no more bytes than its address space.
        Self(view.map_or(&mut [], |view| unsafe {
            std::slice::from_raw_parts_mut(view.data_ptr(), view.data_size() as usize)
        }))
    }

    /// Is a whole range inside?
    pub(crate) fn check(&self, address: u32, length: u32) -> Result<(), Errno> {
        self.bytes(address, length).map(|_| ())
    }

    /// A range.
    pub(crate) fn bytes(&self, address: u32, length: u32) -> Result<&[u8], Errno> {
        let start = address as usize;
        let end = start.checked_add(length as usize).ok_or(Errno::Fault)?;
        self.0.get(start..end).ok_or(Errno::Fault)
    }

    /// A range to be written.
    pub(crate) fn bytes_mut(&mut self, address: u32, length: u32) -> Result<&mut [u8], Errno> {
        let start = address as usize;
        let end = start.checked_add(length as usize).ok_or(Errno::Fault)?;
        self.0.get_mut(start..end).ok_or(Errno::Fault)
    }

    /// Copies out.
    pub(crate) fn read(&self, address: u32, into: &mut [u8]) -> Result<(), Errno> {
        let length = u32::try_from(into.len()).map_err(|_| Errno::Fault)?;
        into.copy_from_slice(self.bytes(address, length)?);
        Ok(())
    }

    /// Copies in.
    pub(crate) fn write(&mut self, address: u32, bytes: &[u8]) -> Result<(), Errno> {
        let length = u32::try_from(bytes.len()).map_err(|_| Errno::Fault)?;
        self.bytes_mut(address, length)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Copies a structure of a known size out.
    pub(crate) fn array<const N: usize>(&self, address: u32) -> Result<[u8; N], Errno> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes a number.
    pub(crate) fn write_u32(&mut self, address: u32, value: u32) -> Result<(), Errno> {
        self.write(address, &value.to_le_bytes())
    }

    /// Writes a number.
    pub(crate) fn write_u64(&mut self, address: u32, value: u64) -> Result<(), Errno> {
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
