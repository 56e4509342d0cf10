//! How a guest is called and how it answers: one file for each convention. The first that fits a module is taken.
//!
//! ```text
//!   module ─► of() ─► Abi ── bind(instance) ─► Entry ── call(guest) ─► How
//!                      once per module     once per instance     once per call
//! ```
//! To add one: a file with an [`Abi`], a line in [`ALL`].

mod command;
mod exports;

use std::fmt;
use wasmer::{AsStoreRef, FunctionEnv, Instance, Module, RuntimeError, Store};

use crate::{
    host::{End, Env},
    scan::clip,
};

/// A convention of calling.
pub(crate) trait Abi: fmt::Debug + Sync {
    /// Its name, as people see it.
    fn name(&self) -> &'static str;

    /// Does a module follow it?
    fn fits(&self, module: &Module) -> bool;

    /// What is called in an instance.
    ///
    /// # Errors
    /// What it lacks.
    fn bind(&self, guest: &mut Guest<'_>) -> Result<Box<dyn Entry>, String>;
}

/// What is called, looked up once.
pub(crate) trait Entry: Send {
    /// Calls it: arguments, environment and input are those of the guest's process, and its output goes there.
    fn call(&mut self, guest: &mut Guest<'_>) -> How;
}

/// An instance in its store.
pub(crate) struct Guest<'a> {
    pub(crate) store: &'a mut Store,
    pub(crate) env: &'a FunctionEnv<Env>,
    pub(crate) instance: &'a Instance,
}

/// How the guest's own code ended.
#[derive(Debug)]
pub(crate) enum How {
    /// By itself.
    Exited(i32),
    /// By a trap, or because it was stopped.
    Trapped(String),
    /// It never began: the caller is to blame.
    Refused(String),
}

impl How {
    /// The end of a call that did not return.
    pub(crate) fn unwound(error: &RuntimeError) -> Self {
        match error.downcast_ref::<End>() {
            Some(End::Exit(code)) => return Self::Exited(*code),
            Some(End::Stopped) => return Self::Trapped("stopped".to_owned()),
            None => {}
        }
        // The engine's message and the innermost function that has a name.
        let message = error.message();
        let message = message.lines().next().unwrap_or("trap");
        let name = error.trace().iter().find_map(|frame| frame.function_name());
        Self::Trapped(match name {
            Some(name) => format!("{message} (in function {})", clip(name)),
            None => message.to_owned(),
        })
    }
}

impl Guest<'_> {
    /// A function that takes and returns nothing, where there is one.
    fn procedure(&self, name: &str) -> Option<wasmer::TypedFunction<(), ()>> {
        self.instance.exports.get_typed_function(&self.store.as_store_ref(), name).ok()
    }
}

/// Every convention, the most particular first.
static ALL: [&dyn Abi; 2] = [&command::Command, &exports::Exports];

/// The convention of a module.
pub(crate) fn of(module: &Module) -> Option<&'static dyn Abi> {
    ALL.into_iter().find(|abi| abi.fits(module))
}
