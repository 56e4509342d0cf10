//! The stop flag: what makes every guest stoppable, whatever it does.
//!
//! While a module is compiled, two `i32` globals are appended to it and a check is put at every function entry
//! and every loop header, and into long fills and copies (`bulk.rs`, which has three more globals):
//!
//! ```text
//!   global.get $flag   if   unreachable   end      (i32.const 0   global.set $sink)
//! ```
//! The host raises the flag by one atomic store; the guest then traps in its own code, by the ordinary path.
//! The store to `$sink` is needed: without it cranelift moves the read of the flag out of loops that store
//! nothing, and `loop (br 0)` would never stop. The self-test (`selftest.rs`) keeps this honest.
//!
//! The start function is moved aside too: it becomes an export that is called after the flag is armed, so no
//! guest code runs before it can be stopped, nor before its memory can be found.

use std::sync::{
    OnceLock,
    atomic::{AtomicI32, Ordering},
};
use wasmer::{
    AsStoreMut, ExportIndex, GlobalInit, GlobalType, LocalFunctionIndex, ModuleInfo, Mutability, Store, Type,
    sys::{
        FunctionMiddleware, MiddlewareError, MiddlewareReaderState, ModuleMiddleware,
        wasmparser::{BlockType, Operator},
    },
};

use crate::bulk::{self, Operands};

/// Part of every artifact's header: raise it when the code that is put in changes.
pub(crate) const VERSION: u32 = 2;

/// The start function's name as an export. Guests that export this name themselves are refused.
pub(crate) const START: &str = "\0start";

/// Indices of the globals that are appended.
#[derive(Clone, Copy, Debug)]
struct Globals {
    bulk: Operands,
    flag: u32,
    sink: u32,
}

/// The middleware of one compilation.
#[derive(Debug, Default)]
pub(crate) struct StopFlag {
    globals: OnceLock<Globals>,
}

impl ModuleMiddleware for StopFlag {
    fn generate_function_middleware<'a>(&self, _function: LocalFunctionIndex) -> Box<dyn FunctionMiddleware<'a> + 'a> {
        Box::new(Checks { globals: self.globals.get().copied(), entered: false, pushed: None })
    }

    fn transform_module_info(&self, info: &mut ModuleInfo) -> Result<(), MiddlewareError> {
        let mut append = || {
            info.global_initializers.push(GlobalInit::I32Const(0));
            info.globals.push(GlobalType::new(Type::I32, Mutability::Var)).as_u32()
        };
        let bulk = Operands { destination: append(), source: append(), length: append() };
        // These stay the last: see [`Flag::find`].
        let globals = Globals { bulk, flag: append(), sink: append() };
        self.globals.set(globals).map_err(|_| MiddlewareError::new("stop", "used for a second module"))?;
        if let Some(start) = info.start_function.take()
            && info.exports.insert(START.to_owned(), ExportIndex::Function(start)).is_some()
        {
            return Err(MiddlewareError::new("stop", "an export has a reserved name"));
        }
        Ok(())
    }
}

/// Puts the checks into one function.
#[derive(Debug)]
struct Checks {
    globals: Option<Globals>,
    entered: bool,
    /// The constant that the operator before this one pushed.
    pushed: Option<i32>,
}

impl<'a> FunctionMiddleware<'a> for Checks {
    fn feed(&mut self, operator: Operator<'a>, state: &mut MiddlewareReaderState<'a>) -> Result<(), MiddlewareError> {
        let globals =
            self.globals.ok_or_else(|| MiddlewareError::new("stop", "the module was not prepared for its checks"))?;
        if !self.entered {
            self.entered = true;
            check(globals, state);
        }
        let pushed = self.pushed.take();
        match operator {
            Operator::MemoryFill { mem } if !bulk::is_short(pushed) => {
                bulk::fill(mem, globals.bulk, &|state| check(globals, state), state);
            }
            Operator::MemoryCopy { dst_mem, src_mem } if !bulk::is_short(pushed) => {
                bulk::copy((src_mem, dst_mem), globals.bulk, &|state| check(globals, state), state);
            }
            Operator::Loop { .. } => {
                state.push_operator(operator);
                check(globals, state);
            }
            _ => {
                if let Operator::I32Const { value } = operator {
                    self.pushed = Some(value);
                }
                state.push_operator(operator);
            }
        }
        Ok(())
    }
}

fn check(globals: Globals, state: &mut MiddlewareReaderState<'_>) {
    state.extend([
        Operator::GlobalGet { global_index: globals.flag },
        Operator::If { blockty: BlockType::Empty },
        Operator::Unreachable,
        Operator::End,
        Operator::I32Const { value: 0 },
        Operator::GlobalSet { global_index: globals.sink },
    ]);
}

/// The address of one instance's flag. Valid while the instance's store lives; `control.rs` sees to that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag(*const AtomicI32);

// SAFETY: the pointer is only used for atomic stores, and only while the instance lives (see `Control`).
#[expect(unsafe_code, reason = "an address that another thread stores to")]
unsafe impl Send for Flag {}

impl Flag {
    /// Finds the flag of the one instance in a store.
    pub(crate) fn find(store: &mut Store) -> Option<Self> {
        // A store holds one instance and no host globals, and the flag is the last but one of the instance's.
        let objects = store.objects_mut().as_sys();
        let count = objects.iter_globals().len();
        let flag = objects.iter_globals().nth(count.checked_sub(2)?)?;
        let expected = GlobalType::new(Type::I32, Mutability::Var);
        (*flag.ty() == expected).then(|| Self(flag.vmglobal().as_ptr().cast::<AtomicI32>().cast_const()))
    }

    /// Raises it.
    ///
    /// # Safety
    /// The store in which it was found must still exist.
    #[expect(unsafe_code, reason = "stores into the instance's own memory")]
    pub(crate) unsafe fn raise(&self) {
        // SAFETY: the definition of a global is 16 bytes, aligned, inside the instance, which lives by the
        // caller's promise; generated code reads it as a plain i32, which on every supported target is the
        // same access as a relaxed atomic one.
        unsafe { (*self.0).store(1, Ordering::Release) }
    }

    /// Takes it back.
    ///
    /// # Safety
    /// As for [`Flag::raise`].
    #[expect(unsafe_code, reason = "stores into the instance's own memory")]
    pub(crate) unsafe fn lower(&self) {
        // SAFETY: as above.
        unsafe { (*self.0).store(0, Ordering::Release) }
    }
}
