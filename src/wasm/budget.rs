//! The memory limit: one budget for all memories and tables of an instance.
//!
//! Memories are wrapped, so each growth asks the budget first; a refused one answers -1 to the guest and is
//! remembered, because a guest that then fails failed for lack of memory. Tables cannot be wrapped: a table
//! that may grow gets a fixed allowance, counted from the start, as its maximum.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use telemetry::Gauge;
use wasmer::{
    MemoryError, MemoryStyle, MemoryType, Pages, TableType,
    sys::{
        BaseTunables, Tunables,
        vm::{LinearMemory, TableStyle, VMConfig, VMMemory, VMMemoryDefinition, VMTable, VMTableDefinition},
    },
};

/// A table's element is a pointer; a vector that grows may have twice the room it needs.
pub(crate) const TABLE_ELEMENT_BYTES: u64 = 16;

/// Elements a table may grow by.
const TABLE_ALLOWANCE: u32 = 16 * 1024;

/// What an instance may have, and has.
#[derive(Debug)]
pub(crate) struct Budget {
    most: u64,
    used: AtomicU64,
    peak: AtomicU64,
    refused: AtomicBool,
    /// What all guests have together.
    together: Gauge,
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.together.add(-signed(*self.used.get_mut()));
    }
}

/// For a gauge; no machine has more.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Budget {
    /// A budget of that many bytes; what is taken of it is added to `together` while the budget lives.
    pub(crate) fn new(most: u64, together: Gauge) -> Arc<Self> {
        let (used, peak, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { most, used, peak, refused, together })
    }

    /// Takes bytes, or refuses and remembers it.
    fn take(&self, bytes: u64) -> bool {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.most)
        });
        match taken {
            Ok(before) => {
                self.peak.fetch_max(before.saturating_add(bytes), Ordering::Relaxed);
                self.together.add(signed(bytes));
                true
            }
            Err(_) => {
                self.refused.store(true, Ordering::Relaxed);
                false
            }
        }
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.together.add(-signed(bytes));
    }

    /// Was something refused?
    pub(crate) fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// The most that was in use at once.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// The limit.
    pub(crate) fn most(&self) -> u64 {
        self.most
    }
}

/// The tunables of one call.
pub(crate) struct CallTunables {
    base: BaseTunables,
    budget: Arc<Budget>,
    config: VMConfig,
}

impl CallTunables {
    /// For a call with that budget and stack.
    pub(crate) fn new(budget: Arc<Budget>, stack_bytes: usize) -> Self {
        Self { base: BaseTunables::new(), budget, config: VMConfig { wasm_stack_size: Some(stack_bytes) } }
    }

    fn too_much(&self) -> String {
        format!("over the memory limit of {} bytes", self.budget.most())
    }

    fn counted(
        &self,
        ty: &MemoryType,
        make: impl FnOnce() -> Result<VMMemory, MemoryError>,
    ) -> Result<VMMemory, MemoryError> {
        let bytes = ty.minimum.bytes().0 as u64;
        if !self.budget.take(bytes) {
            return Err(MemoryError::Generic(self.too_much()));
        }
        Ok(VMMemory(Box::new(Counted { inner: make()?, budget: self.budget.clone() })))
    }

    fn table(&self, ty: &TableType) -> Result<TableType, String> {
        let room = ty.maximum.unwrap_or(u32::MAX).saturating_sub(ty.minimum).min(TABLE_ALLOWANCE);
        let most = ty.minimum.saturating_add(room);
        if !self.budget.take(u64::from(most) * TABLE_ELEMENT_BYTES) {
            return Err(self.too_much());
        }
        Ok(TableType { maximum: Some(most), ..*ty })
    }
}

#[expect(unsafe_code, reason = "hands pointers from wasmer to wasmer")]
impl Tunables for CallTunables {
    fn memory_style(&self, memory: &MemoryType) -> MemoryStyle {
        self.base.memory_style(memory)
    }

    fn table_style(&self, table: &TableType) -> TableStyle {
        self.base.table_style(table)
    }

    fn create_host_memory(&self, ty: &MemoryType, style: &MemoryStyle) -> Result<VMMemory, MemoryError> {
        self.counted(ty, || self.base.create_host_memory(ty, style))
    }

    unsafe fn create_vm_memory(
        &self,
        ty: &MemoryType,
        style: &MemoryStyle,
        location: NonNull<VMMemoryDefinition>,
    ) -> Result<VMMemory, MemoryError> {
        // SAFETY: the location is handed on as it came.
        self.counted(ty, || unsafe { self.base.create_vm_memory(ty, style, location) })
    }

    fn create_host_table(&self, ty: &TableType, style: &TableStyle) -> Result<VMTable, String> {
        self.base.create_host_table(&self.table(ty)?, style)
    }

    unsafe fn create_vm_table(
        &self,
        ty: &TableType,
        style: &TableStyle,
        location: NonNull<VMTableDefinition>,
    ) -> Result<VMTable, String> {
        // SAFETY: the location is handed on as it came.
        unsafe { self.base.create_vm_table(&self.table(ty)?, style, location) }
    }

    fn vmconfig(&self) -> &VMConfig {
        &self.config
    }
}

/// A memory whose growth is counted.
#[derive(Debug)]
struct Counted {
    inner: VMMemory,
    budget: Arc<Budget>,
}

impl LinearMemory for Counted {
    fn ty(&self) -> MemoryType {
        self.inner.ty()
    }

    fn size(&self) -> Pages {
        LinearMemory::size(&self.inner)
    }

    fn style(&self) -> MemoryStyle {
        self.inner.style()
    }

    fn grow(&mut self, delta: Pages) -> Result<Pages, MemoryError> {
        let refuse = |current: Pages| MemoryError::CouldNotGrow { current, attempted_delta: delta };
        // Pages are 64 KiB: 2^16 of them are all a memory can have.
        let bytes = u64::from(delta.0) * 65_536;
        if !self.budget.take(bytes) {
            return Err(refuse(self.size()));
        }
        let grown = self.inner.grow(delta);
        if grown.is_err() {
            self.budget.give_back(bytes);
        }
        grown
    }

    fn vmmemory(&self) -> NonNull<VMMemoryDefinition> {
        self.inner.vmmemory()
    }

    fn try_clone(&self) -> Result<Box<dyn LinearMemory + Send + Sync + 'static>, MemoryError> {
        Err(MemoryError::Generic("a guest's memory is not shared".to_owned()))
    }

    fn copy(&self) -> Result<Box<dyn LinearMemory + Send + Sync + 'static>, MemoryError> {
        Err(MemoryError::Generic("a guest's memory is not copied".to_owned()))
    }
}
