//! The memory of a guest: one mapping of all that it may ever have.
//!
//! ```text
//!   base ──────────────── length ─────────────── capacity ── guard ──
//!   │ what the guest has │ not yet: zero, unreachable │ no access │
//! ```
//! Compiled code compares every address with the length ([`STYLE`]), so growing and shrinking change a number and no
//! mapping: threads of one process would queue for that. A page takes memory when it is first written.
//!
//! Growth asks the budget first; a refused one answers -1 to the guest and is remembered, because a guest that then
//! fails failed for lack of memory.

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};
use std::{
    io,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard},
};
use wasmer::{
    MemoryError, MemoryStyle, MemoryType, Pages,
    sys::vm::{LinearMemory, VMMemoryDefinition},
};

use crate::budget::Budget;

/// Exact bounds checks in the code: nothing behind the length can be reached, mapped or not.
pub(crate) const STYLE: MemoryStyle = MemoryStyle::Dynamic { offset_guard_size: 0 };

/// Behind all memories, in case a check is wrong.
const GUARD: usize = 64 << 10;
/// Bytes of a page of WebAssembly.
pub(crate) const WASM_PAGE: usize = 64 << 10;

/// Address space of one memory.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: an address range; who reads and writes it says why it may.
#[expect(unsafe_code, reason = "an address range")]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "an address range")]
unsafe impl Sync for Mapping {}

impl Mapping {
    #[expect(unsafe_code, reason = "maps memory")]
    fn new(capacity: usize) -> io::Result<Self> {
        let length = capacity.checked_add(GUARD).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at a place that the kernel chooses; its end is made inaccessible before anybody knows
        // of it. Huge pages would make one touched byte a copy of two megabytes.
        unsafe {
            let base = mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags)?;
            let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
            let mapping = Self { base, length };
            mprotect(base.as_ptr().add(capacity).cast(), GUARD, MprotectFlags::empty())?;
            // A kernel without huge pages refuses, and is right.
            let _no_huge_pages = madvise(base.as_ptr().cast(), capacity, Advice::LinuxNoHugepage);
            Ok(mapping)
        }
    }
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "unmaps what it mapped")]
    fn drop(&mut self) {
        // SAFETY: the very range that was mapped; nobody has it any more.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.length) } {
            tracing::error!(%error, "the memory of a guest cannot be unmapped");
        }
    }
}

/// A memory as the instance owns it.
#[derive(Debug)]
pub(crate) struct GuestMemory {
    _mapping: Arc<Mapping>,
    definition: NonNull<VMMemoryDefinition>,
    ty: MemoryType,
    capacity: usize,
    budget: Arc<Budget>,
}

// SAFETY: the definition belongs to the instance that owns this memory, and moves with it.
#[expect(unsafe_code, reason = "a pointer into the instance that owns this")]
unsafe impl Send for GuestMemory {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a pointer into the instance that owns this")]
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// A memory whose definition lies in an instance.
    ///
    /// # Safety
    /// `definition` is a place for a definition in the instance that will own this memory.
    #[expect(unsafe_code, reason = "writes the definition")]
    pub(crate) unsafe fn new(
        ty: &MemoryType,
        definition: NonNull<VMMemoryDefinition>,
        budget: Arc<Budget>,
        handles: &Handles,
    ) -> Result<Self, MemoryError> {
        let generic = |error: io::Error| MemoryError::Generic(error.to_string());
        let length = ty.minimum.bytes().0;
        let most = usize::try_from(budget.most()).unwrap_or(usize::MAX) / WASM_PAGE * WASM_PAGE;
        let declared = ty.maximum.unwrap_or(Pages::max_value()).bytes().0;
        let capacity = declared.min(most).max(length);
        if !budget.take(length as u64) {
            return Err(MemoryError::Generic(format!("over the memory limit of {} bytes", budget.most())));
        }
        let mapping = Mapping::new(capacity).map(Arc::new).inspect_err(|_| budget.give_back(length as u64));
        let mapping = mapping.map_err(generic)?;
        // SAFETY: the caller's promise.
        unsafe { definition.write(VMMemoryDefinition { base: mapping.base.as_ptr(), current_length: length }) };
        handles.lock().push(Handle { mapping: mapping.clone(), definition });
        Ok(Self { _mapping: mapping, definition, ty: *ty, capacity, budget })
    }

    #[expect(unsafe_code, reason = "reads the definition")]
    fn length(&self) -> usize {
        // SAFETY: the definition lives as long as the instance, which owns this; see `new`.
        unsafe { self.definition.as_ref().current_length }
    }
}

impl LinearMemory for GuestMemory {
    fn ty(&self) -> MemoryType {
        MemoryType { minimum: self.size(), ..self.ty }
    }

    fn size(&self) -> Pages {
        Pages(u32::try_from(self.length() / WASM_PAGE).unwrap_or(u32::MAX))
    }

    fn style(&self) -> MemoryStyle {
        STYLE
    }

    #[expect(unsafe_code, reason = "writes the definition")]
    fn grow(&mut self, delta: Pages) -> Result<Pages, MemoryError> {
        let current = self.size();
        let refuse = || MemoryError::CouldNotGrow { current, attempted_delta: delta };
        // Pages are 64 KiB: 2^16 of them are all a memory can have.
        let bytes = delta.0 as usize * WASM_PAGE;
        let length = self.length().checked_add(bytes).ok_or_else(refuse)?;
        let declared = self.ty.maximum.unwrap_or(Pages::max_value()).bytes().0;
        // Over its own maximum is the guest's affair; over the limit is ours.
        if length > declared {
            return Err(refuse());
        }
        if length > self.capacity {
            self.budget.refuse();
            return Err(refuse());
        }
        if !self.budget.take(bytes as u64) {
            return Err(refuse());
        }
        // SAFETY: as in `length`; the guest does not run while it grows its memory.
        unsafe { self.definition.as_mut().current_length = length };
        Ok(current)
    }

    fn vmmemory(&self) -> NonNull<VMMemoryDefinition> {
        self.definition
    }

    fn try_clone(&self) -> Result<Box<dyn LinearMemory + Send + Sync + 'static>, MemoryError> {
        Err(MemoryError::Generic("a guest's memory is not shared".to_owned()))
    }

    fn copy(&self) -> Result<Box<dyn LinearMemory + Send + Sync + 'static>, MemoryError> {
        Err(MemoryError::Generic("a guest's memory is not copied".to_owned()))
    }
}

/// The memories of an instance, for whoever puts them back between calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handles(Arc<Mutex<Vec<Handle>>>);

impl Handles {
    fn lock(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.0.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// All of them, in the order in which they were made.
    pub(crate) fn take(&self) -> Vec<Handle> {
        std::mem::take(&mut self.lock())
    }
}

/// One memory of an instance.
#[derive(Debug)]
pub(crate) struct Handle {
    mapping: Arc<Mapping>,
    definition: NonNull<VMMemoryDefinition>,
}

// SAFETY: kept beside the store that has the instance, and moves with it.
#[expect(unsafe_code, reason = "a pointer into an instance")]
unsafe impl Send for Handle {}

impl Handle {
    /// Where it begins.
    pub(crate) fn base(&self) -> *mut u8 {
        self.mapping.base.as_ptr()
    }

    /// Bytes it has now.
    ///
    /// # Safety
    /// The instance exists.
    #[expect(unsafe_code, reason = "reads the definition")]
    pub(crate) unsafe fn length(&self) -> usize {
        // SAFETY: the caller's promise.
        unsafe { self.definition.as_ref().current_length }
    }

    /// Gives it another length, at most what it had at some time.
    ///
    /// # Safety
    /// The instance exists and no guest runs in it.
    #[expect(unsafe_code, reason = "writes the definition")]
    pub(crate) unsafe fn set_length(&mut self, length: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.definition.as_mut().current_length = length };
    }
}
