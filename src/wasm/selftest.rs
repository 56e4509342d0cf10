//! Before any guest runs: is an endless, empty loop really stopped? The compiler may learn to move the check
//! out of such a loop (see `stop.rs`); then this runtime must not start.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use types::Reason;

use runtime::{Limits, LogBuffer, Reuse, Streams};

use crate::{
    Shared,
    control::Control,
    engine::{self, Compiler, Loaded},
    host::process::{Process, Start},
    live::{Live, Make, thread_time},
    scan::Facts,
    watchdog::{Cpu, Until},
};

/// `(module (func (export "_start") (loop (br 0))))`
const ENDLESS: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x09\x01\x07\0\x03\x40\x0c\0\x0b\x0b";

/// When the loop is to be stopped, and when it is given up.
const DEADLINE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the loop and stops it, in the code of each compiler.
pub(crate) fn run(shared: &Shared) -> Result<(), String> {
    [Compiler::Cranelift, Compiler::Singlepass].into_iter().try_for_each(|compiler| stops(shared, compiler))
}

#[expect(unsafe_code, reason = "loads code that was compiled a line before")]
fn stops(shared: &Shared, compiler: Compiler) -> Result<(), String> {
    let artifact = engine::compile(ENDLESS, compiler)?;
    // SAFETY: compiled by this process just now.
    let loaded = Arc::new(unsafe { Loaded::new(artifact.into(), compiler, Facts { puts_back: true }) }?);
    let limits = Limits::default();
    let make = Make {
        loaded: &loaded,
        memory_bytes: limits.memory_bytes,
        stack_bytes: limits.stack_bytes,
        memory: telemetry::Gauge::default(),
        pages: shared.pages.as_ref(),
        mappings: &shared.mappings,
        reuse: Reuse::Clean,
    };
    let mut live = Live::make(&make).map_err(|error| error.to_string())?;
    let control: Arc<Control> = Arc::default();
    let start = Start {
        arguments: Arc::default(),
        stdout_bytes: 0,
        stderr_bytes: 0,
        streams: Streams::logged(LogBuffer::new(shared.clock.clone(), 0, 1).0),
        holds_logs: false,
        clock: shared.clock.clone(),
        grants: Vec::new(),
        descriptors: 3,
    };
    let process = Process::new(start, control.clone()).map_err(|error| error.to_string())?;
    let cpu = Cpu { thread: 0, before: Duration::ZERO, limit: PATIENCE };
    let until = Until { deadline: Instant::now() + DEADLINE, limit: DEADLINE, cpu: Some(cpu) };
    let (done, ended) = mpsc::sync_channel(1);
    let called = control.clone();
    let work = move || {
        if done.send(live.call(process, &called, Some(thread_time()))).is_err() {
            tracing::error!("the self-test's loop was stopped too late");
        }
    };
    let place = shared.places.clone().try_acquire_owned().map_err(|error| error.to_string())?;
    let _watch = shared.watchdog.watch(until, control);
    shared.threads.run(place, Box::new(work)).map_err(|error| error.to_string())?;
    match ended.recv_timeout(PATIENCE) {
        Ok(Err(error)) if error.reason == Reason::Deadline => Ok(()),
        Ok(other) => Err(format!("an endless loop ended as {other:?} ({})", compiler.as_str())),
        Err(_) => Err(format!("an endless loop was not stopped ({})", compiler.as_str())),
    }
}
