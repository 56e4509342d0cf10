//! Before any guest runs: is an endless, empty loop really stopped? The compiler may learn to move the check
//! out of such a loop (see `stop.rs`); then this runtime must not start.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use types::{Clock, Reason};

use runtime::{Limits, LogBuffer};

use crate::{
    control::Control,
    engine::{self, Loaded},
    guest::{self, Guest},
    host::{Process, process::Start},
    threads::Threads,
    watchdog::Watchdog,
};

/// `(module (func (export "_start") (loop (br 0))))`
const ENDLESS: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x09\x01\x07\0\x03\x40\x0c\0\x0b\x0b";

/// When the loop is to be stopped, and when it is given up.
const DEADLINE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the loop and stops it.
#[expect(unsafe_code, reason = "loads code that was compiled a line before")]
pub(crate) fn run(
    threads: &Threads,
    watchdog: &Watchdog,
    place: tokio::sync::OwnedSemaphorePermit,
    clock: Arc<dyn Clock>,
) -> Result<(), String> {
    let artifact = engine::compile(ENDLESS)?;
    // SAFETY: compiled by this process just now.
    let loaded = Arc::new(unsafe { Loaded::new(artifact) }?);
    let limits = Limits::default();
    let control = Arc::new(Control::default());
    let (logs, _) = LogBuffer::new(clock.clone(), 0, 1);
    let start = Start {
        args: vec!["self-test".to_owned()],
        env: Vec::new(),
        stdout_bytes: 0,
        stderr_bytes: 0,
        logs,
        clock,
        grants: Vec::new(),
        descriptors: 3,
    };
    let process = Process::new(start, control.clone()).map_err(|error| error.to_string())?;
    let guest = Guest {
        loaded,
        process,
        control: control.clone(),
        memory_bytes: limits.memory_bytes,
        memory: telemetry::Gauge::default(),
        stack_bytes: limits.stack_bytes,
    };
    let _watch = watchdog.watch(Instant::now() + DEADLINE, DEADLINE, control);
    let (done, ended) = mpsc::sync_channel(1);
    let work = move || {
        if done.send(guest::run(guest)).is_err() {
            tracing::error!("the self-test's loop was stopped too late");
        }
    };
    threads.run(place, Box::new(work)).map_err(|error| error.to_string())?;
    match ended.recv_timeout(PATIENCE) {
        Ok(Err(error)) if error.reason == Reason::Deadline => Ok(()),
        Ok(other) => Err(format!("an endless loop ended as {other:?}")),
        Err(_) => Err("an endless loop was not stopped".to_owned()),
    }
}
