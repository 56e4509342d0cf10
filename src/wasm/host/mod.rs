//! WASI preview 1 as this runtime offers it: our own functions over bounded, cancellable standard streams.
//!
//! ```text
//!   guest ── call ──► names.rs (table) ──► enter() ──► clock, random, fd, files, poll, process, socket
//!                                            │ stopped? → the guest is ended, not answered
//!                                            └ Ok → 0, Errno → its number, End → unwinds the guest
//! ```
//! Rules for every function here: pointers and lengths come from the guest, so each access goes through
//! [`Memory`], which checks it and answers EFAULT; every loop and every wait looks for a stop; a call moves a
//! bounded number of bytes; nothing panics. There is no network: the functions of sockets exist and answer what they
//! answer for descriptors that are none.
//!
//! Source of names, types and layouts: the witx of `wasi_snapshot_preview1` and of the older `wasi_unstable`,
//! which differs in the numbers of `whence`, in `filestat` and in `subscription`.

mod clock;
mod descriptor;
mod errno;
mod fd;
pub(crate) mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod memory;
mod names;
mod poll;
pub(crate) mod process;
mod random;
mod socket;
#[cfg(test)]
mod tests;

use std::{fmt, io, sync::Arc};
use wasmer::{FunctionEnvMut, RuntimeError};

pub(crate) use errno::Errno;
pub(crate) use memory::Memory;
pub(crate) use names::{Kind, Link, MODULES, Name, find};
pub(crate) use process::Process;

use crate::control::Control;

/// Why a guest does not go on after a host call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It called `proc_exit`, or raised a signal that ends it.
    Exit(i32),
    /// It was stopped; the control knows why.
    Stopped,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit {code}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for End {}

/// What a host function answers other than success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A number for the guest.
    Errno(Errno),
    /// The guest ends here.
    End(End),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Errno(error.into())
    }
}

impl From<End> for Fault {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// What a host function returns.
pub(crate) type Answer<T = ()> = Result<T, Fault>;

/// What host functions of one call share.
#[derive(Default)]
pub(crate) struct Env {
    /// The process the guest believes to be, while it is called.
    pub(crate) process: Option<Process>,
    /// Its memory, once there is one.
    pub(crate) memory: Option<wasmer::Memory>,
}

/// One host call.
pub(crate) struct Call<'a> {
    process: &'a mut Process,
    memory: Memory<'a>,
}

impl Call<'_> {
    fn control(&self) -> &Arc<Control> {
        &self.process.control
    }

    /// Ends the guest if somebody wants it stopped.
    fn check(&self) -> Answer {
        if self.process.control.is_stopped() { Err(End::Stopped.into()) } else { Ok(()) }
    }
}

/// Runs one host function for the guest.
fn enter(mut env: FunctionEnvMut<'_, Env>, act: impl FnOnce(&mut Call<'_>) -> Answer) -> Result<i32, RuntimeError> {
    let (env, store) = env.data_and_store_mut();
    // SAFETY: the guest waits until this returns, and nobody else has its memory.
    #[expect(unsafe_code, reason = "the memory of a guest as bytes")]
    let memory = unsafe { Memory::new(env.memory.as_ref().map(|memory| memory.view(&store))) };
    let Some(process) = &mut env.process else { return Err(RuntimeError::new("no call is under way")) };
    let mut call = Call { process, memory };
    let answer = call.check().and_then(|()| act(&mut call)).and_then(|()| call.check());
    match answer {
        Ok(()) => Ok(0),
        Err(Fault::Errno(errno)) => Ok(errno as i32),
        Err(Fault::End(end)) => Err(RuntimeError::user(Box::new(end))),
    }
}
