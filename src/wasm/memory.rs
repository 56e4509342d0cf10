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

use std::{
    io,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard},
};
use wasmer::{
    MemoryError, MemoryStyle, MemoryType, Pages,
    sys::vm::{LinearMemory, VMMemoryDefinition},
};

use crate::{
    budget::Budget,
    mapping::{Mapping, Mappings},
};

/// Exact bounds checks in the code: nothing behind the length can be reached, mapped or not.
pub(crate) const STYLE: MemoryStyle = MemoryStyle::Dynamic { offset_guard_size: 0 };

/// Bytes of a page of WebAssembly.
pub(crate) const WASM_PAGE: usize = 64 << 10;

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
        let mapping = handles.map(capacity).inspect_err(|_| budget.give_back(length as u64)).map_err(generic)?;
        // SAFETY: the caller's promise.
        unsafe { definition.write(VMMemoryDefinition { base: mapping.base(), current_length: length }) };
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
#[derive(Clone, Debug)]
pub(crate) struct Handles {
    all: Arc<Mutex<Vec<Handle>>>,
    mappings: Arc<Mappings>,
    untouched: bool,
}

impl Handles {
    /// None yet. Their address space comes from `mappings`; `untouched`: without a page that takes memory already.
    pub(crate) fn new(mappings: Arc<Mappings>, untouched: bool) -> Self {
        Self { all: Arc::default(), mappings, untouched }
    }

    fn map(&self, capacity: usize) -> io::Result<Arc<Mapping>> {
        self.mappings.take(capacity, self.untouched).map(Arc::new)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.all.lock().unwrap_or_else(|broken| broken.into_inner())
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
        self.mapping.base()
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
