//! The stop flag: what makes every guest stoppable, whatever it does.
//!
//! While a module is compiled, two `i32` globals are appended to it and a check is put at every function entry
//! and every loop header:
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

use std::sync::OnceLock;
use wasmer::{
    ExportIndex, GlobalInit, GlobalType, Mutability, Type,
    sys::{
        FunctionMiddleware, MiddlewareError, MiddlewareReaderState, ModuleMiddleware,
        wasmparser::{BlockType, Operator},
    },
    wasmparser as _,
};
