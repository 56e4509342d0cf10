//! The memory limit: one budget for all memories and tables of an instance.
//!
//! Memories are our own (`memory.rs`) and ask it for each growth. Tables cannot be: a table that may grow gets a fixed
//! allowance, counted from the start, as its maximum.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use telemetry::Gauge;
use wasmer::{
    MemoryError, MemoryStyle, MemoryType, TableType,
    sys::{
        BaseTunables, Tunables,
        vm::{TableStyle, VMConfig, VMMemory, VMMemoryDefinition, VMTable, VMTableDefinition},
    },
};

use crate::memory::{GuestMemory, Handles, STYLE};

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
    pub(crate) fn take(&self, bytes: u64) -> bool {
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
                self.refuse();
                false
            }
        }
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.together.add(-signed(bytes));
    }

    /// Remembers that something was refused.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// What is in use, bytes.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A new call begins: back to `used` bytes.
    pub(crate) fn put_back(&self, used: u64) {
        let now = self.used.swap(used, Ordering::Relaxed);
        if now != used {
            self.together.add(signed(used) - signed(now));
        }
        self.peak.store(used, Ordering::Relaxed);
        self.refused.store(false, Ordering::Relaxed);
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

/// The tunables with which code is compiled: they decide how it reaches its memories.
pub(crate) struct CompileTunables(BaseTunables);

impl CompileTunables {
    pub(crate) fn new() -> Self {
        Self(BaseTunables::new())
    }
}

#[expect(unsafe_code, reason = "hands pointers from wasmer to wasmer")]
impl Tunables for CompileTunables {
    fn memory_style(&self, _: &MemoryType) -> MemoryStyle {
        STYLE
    }

    fn table_style(&self, table: &TableType) -> TableStyle {
        self.0.table_style(table)
    }

    fn create_host_memory(&self, _: &MemoryType, _: &MemoryStyle) -> Result<VMMemory, MemoryError> {
        Err(only_compiles())
    }

    unsafe fn create_vm_memory(
        &self,
        _: &MemoryType,
        _: &MemoryStyle,
        _: NonNull<VMMemoryDefinition>,
    ) -> Result<VMMemory, MemoryError> {
        Err(only_compiles())
    }

    fn create_host_table(&self, ty: &TableType, style: &TableStyle) -> Result<VMTable, String> {
        self.0.create_host_table(ty, style)
    }

    unsafe fn create_vm_table(
        &self,
        ty: &TableType,
        style: &TableStyle,
        location: NonNull<VMTableDefinition>,
    ) -> Result<VMTable, String> {
        // SAFETY: the location is handed on as it came.
        unsafe { self.0.create_vm_table(ty, style, location) }
    }
}

fn only_compiles() -> MemoryError {
    MemoryError::Generic("this engine only compiles".to_owned())
}

/// The tunables of one instance.
pub(crate) struct InstanceTunables {
    base: BaseTunables,
    budget: Arc<Budget>,
    handles: Handles,
    config: VMConfig,
}

impl InstanceTunables {
    /// For an instance with that budget and stack; its memories come into `handles`.
    pub(crate) fn new(budget: Arc<Budget>, handles: Handles, stack_bytes: usize) -> Self {
        Self { base: BaseTunables::new(), budget, handles, config: VMConfig { wasm_stack_size: Some(stack_bytes) } }
    }

    fn too_much(&self) -> String {
        format!("over the memory limit of {} bytes", self.budget.most())
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
impl Tunables for InstanceTunables {
    fn memory_style(&self, _: &MemoryType) -> MemoryStyle {
        STYLE
    }

    fn table_style(&self, table: &TableType) -> TableStyle {
        self.base.table_style(table)
    }

    fn create_host_memory(&self, _: &MemoryType, _: &MemoryStyle) -> Result<VMMemory, MemoryError> {
        Err(MemoryError::Generic("guests have memories of their own only".to_owned()))
    }

    unsafe fn create_vm_memory(
        &self,
        ty: &MemoryType,
        _: &MemoryStyle,
        location: NonNull<VMMemoryDefinition>,
    ) -> Result<VMMemory, MemoryError> {
        // SAFETY: the location is handed on as it came.
        let memory = unsafe { GuestMemory::new(ty, location, self.budget.clone(), &self.handles) }?;
        Ok(VMMemory(Box::new(memory)))
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
