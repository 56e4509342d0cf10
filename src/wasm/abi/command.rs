//! A WASI command: `_start` is called, its exit code is the answer's, its standard output the answer.

use wasmer::{ExternType, Module, TypedFunction};

use super::{Abi, Entry, Guest, How};

/// The convention.
#[derive(Debug)]
pub(super) struct Command;

impl Abi for Command {
    fn name(&self) -> &'static str {
        "wasi command"
    }

    fn fits(&self, module: &Module) -> bool {
        module.exports().any(|export| {
            export.name() == "_start"
                && matches!(export.ty(), ExternType::Function(ty) if ty.params().is_empty() && ty.results().is_empty())
        })
    }

    fn bind(&self, guest: &mut Guest<'_>) -> Result<Box<dyn Entry>, String> {
        let start = guest.procedure("_start").ok_or("no exported function _start")?;
        Ok(Box::new(Start(start)))
    }
}

struct Start(TypedFunction<(), ()>);

impl Entry for Start {
    fn call(&mut self, guest: &mut Guest<'_>) -> How {
        match self.0.call(guest.store) {
            Ok(()) => How::Exited(0),
            Err(error) => How::unwound(&error),
        }
    }
}
