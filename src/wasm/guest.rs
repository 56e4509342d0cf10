//! One call of a guest, on its own thread, from an empty store to the verdict.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};
use telemetry::Gauge;
use wasmer::{
    Engine, Extern, FunctionEnv, Imports, Instance, InstantiationError, LinkError, RuntimeError, Store,
    sys::NativeEngineExt,
};

use api::{Outcome, Usage};
use runtime::InvokeError;
use types::Reason;

use crate::{
    budget::{Budget, CallTunables},
    control::Control,
    engine::Loaded,
    host::{self, End, Env, Process},
    scan::clip,
    stop::{Flag, START},
};

/// Everything a call needs.
pub(crate) struct Guest {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) process: Process,
    pub(crate) control: Arc<Control>,
    pub(crate) memory_bytes: u64,
    /// What all guests have together.
    pub(crate) memory: Gauge,
    pub(crate) stack_bytes: usize,
}

/// How the guest's own code ended.
enum How {
    Exited(i32),
    Trapped(String),
    /// It never began.
    Refused(String),
}

/// Runs it to its end.
pub(crate) fn run(guest: Guest) -> Result<Outcome, InvokeError> {
    let started = Instant::now();
    let budget = Budget::new(guest.memory_bytes, guest.memory.clone());
    let control = guest.control.clone();
    let ended = catch_unwind(AssertUnwindSafe(|| execute(guest, &budget)));
    let usage = Usage { wall: started.elapsed(), peak_memory_bytes: budget.peak() };
    let ended = ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(panic = text, "a host function or the engine panicked");
        Err(InvokeError::new(Reason::Internal, "the engine failed while the guest ran"))
    });
    // Whatever the guest made of being stopped, it was stopped.
    let verdict = match control.stopped() {
        Some(stopped) => Err(InvokeError::new(stopped.reason, stopped.message)),
        None => ended.and_then(|(how, result)| judge(how, result, &budget)),
    };
    match verdict {
        Ok(outcome) => Ok(Outcome { usage, ..outcome }),
        Err(error) => Err(InvokeError { usage, ..error }),
    }
}

fn judge(how: How, result: Vec<u8>, budget: &Budget) -> Result<Outcome, InvokeError> {
    let starved = |how: &str| {
        let message = format!("it asked for more memory than its limit of {} bytes, then {how}", budget.most());
        Err(InvokeError::new(Reason::Memory, message))
    };
    match how {
        How::Exited(code) if code != 0 && budget.refused() => starved(&format!("ended with exit code {code}")),
        How::Exited(exit_code) => Ok(Outcome { exit_code, result: result.into(), usage: Usage::default() }),
        How::Trapped(message) if budget.refused() => starved(&format!("trapped: {message}")),
        How::Trapped(message) => Err(InvokeError::new(Reason::Trap, message)),
        How::Refused(_) if budget.refused() => {
            let message = format!("its memories and tables are larger than the limit of {} bytes", budget.most());
            Err(InvokeError::new(Reason::Memory, message))
        }
        How::Refused(message) => {
            tracing::error!(message, "a guest could not be instantiated");
            Err(InvokeError::new(Reason::Internal, "the module could not be instantiated on this node"))
        }
    }
}

fn execute(guest: Guest, budget: &Arc<Budget>) -> Result<(How, Vec<u8>), InvokeError> {
    let Guest { loaded, process, control, stack_bytes, .. } = guest;
    // A clone shares the code; the tunables are this call's own.
    let mut engine: Engine = loaded.engine().clone();
    engine.set_tunables(CallTunables::new(budget.clone(), stack_bytes));
    let mut store = Store::new(engine);
    let env = FunctionEnv::new(&mut store, Env { process, memory: None });
    let imports = link(&mut store, &env, &loaded)?;
    let how = match Instance::new(&mut store, loaded.module(), &imports) {
        Ok(instance) => {
            let flag = Flag::find(&mut store)
                .ok_or_else(|| InvokeError::new(Reason::Internal, "the compiled module has no stop flag"))?;
            // Declared after the store, so dropped before it, also by a panic.
            let armed = control.arm(flag);
            let how = call(&mut store, &env, &instance);
            drop(armed);
            how
        }
        Err(InstantiationError::Start(error)) => trapped(&error),
        Err(InstantiationError::Link(LinkError::Trap(error))) => trapped(&error),
        Err(error) => How::Refused(error.to_string()),
    };
    let result = env.as_mut(&mut store).process.finish();
    Ok((how, result))
}

/// Exactly the functions the module imports.
pub(crate) fn link(store: &mut Store, env: &FunctionEnv<Env>, loaded: &Loaded) -> Result<Imports, InvokeError> {
    let mut imports = Imports::new();
    for import in loaded.module().imports() {
        let found = host::find(import.module(), import.name()).and_then(|name| name.link_for(import.module()));
        let Some(make) = found else {
            let message = format!("no host function {}.{}", clip(import.module()), clip(import.name()));
            return Err(InvokeError::new(Reason::InvalidModule, message));
        };
        imports.define(import.module(), import.name(), Extern::Function(make(store, env)));
    }
    Ok(imports)
}

fn call(store: &mut Store, env: &FunctionEnv<Env>, instance: &Instance) -> How {
    env.as_mut(store).memory = instance.exports.get_memory("memory").ok().cloned();
    for name in [START, "_start"] {
        let Ok(function) = instance.exports.get_function(name) else { continue };
        if let Err(error) = function.call(store, &[]) {
            return match error.downcast_ref::<End>() {
                Some(End::Exit(code)) => How::Exited(*code),
                Some(End::Stopped) => How::Trapped("stopped".to_owned()),
                None => trapped(&error),
            };
        }
    }
    How::Exited(0)
}

/// The engine's message and the innermost function that has a name.
fn trapped(error: &RuntimeError) -> How {
    let message = error.message();
    let message = message.lines().next().unwrap_or("trap");
    let name = error.trace().iter().find_map(|frame| frame.function_name());
    How::Trapped(match name {
        Some(name) => format!("{message} (in function {})", clip(name)),
        None => message.to_owned(),
    })
}
