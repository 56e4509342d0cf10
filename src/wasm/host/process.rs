//! The process a guest believes to be: arguments, environment, descriptors, its end.

use runtime::{InvokeError, LogSink};
use std::sync::Arc;
use types::{Clock, LogStream, Reason};

use super::{
    Answer, Call, End, Errno,
    clock::Clocks,
    descriptor::{Descriptor, Table},
    files::Grant,
    memory::element,
};
use crate::control::Control;

/// Bytes of arguments and environment together, as most systems allow.
const MOST_ARGUMENT_BYTES: usize = 2 << 20;
/// Arguments and variables.
const MOST_ARGUMENTS: usize = 16 * 1024;

/// What a process begins with.
pub(crate) struct Start {
    /// `argv`, with the program's name first.
    pub(crate) args: Vec<String>,
    /// Variables.
    pub(crate) env: Vec<(String, String)>,
    /// Most bytes of standard output.
    pub(crate) stdout_bytes: usize,
    /// Most bytes of standard error.
    pub(crate) stderr_bytes: usize,
    /// Where output goes.
    pub(crate) logs: LogSink,
    /// Wall-clock time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Directories it sees, as descriptor 3 and on.
    pub(crate) grants: Vec<Grant>,
    /// Most open descriptors.
    pub(crate) descriptors: usize,
}

/// State of the process.
pub(crate) struct Process {
    args: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
    descriptors: Table,
    stdout: Vec<u8>,
    stdout_bytes: usize,
    stderr_kept: usize,
    stderr_bytes: usize,
    stderr_cut: u64,
    logs: LogSink,
    pub(super) clocks: Clocks,
    pub(super) control: Arc<Control>,
}

impl Process {
    /// A process with its three standard streams.
    ///
    /// # Errors
    /// When an argument or variable cannot be passed: it has a zero byte, a name is empty or has a `=`, or
    /// there is too much of it.
    pub(crate) fn new(start: Start, control: Arc<Control>) -> Result<Self, InvokeError> {
        let wrong = |message: String| InvokeError::new(Reason::Task, message);
        let mut args = Vec::with_capacity(start.args.len());
        for (index, arg) in start.args.into_iter().enumerate() {
            args.push(terminated(arg).ok_or_else(|| wrong(format!("args[{index}]: has a zero byte")))?);
        }
        let mut env = Vec::with_capacity(start.env.len());
        for (name, value) in start.env {
            if name.is_empty() || name.contains('=') {
                return Err(wrong(format!("env: {name:?} is not a variable's name")));
            }
            let text = terminated(format!("{name}={value}"));
            env.push(text.ok_or_else(|| wrong(format!("env: {name:?} or its value has a zero byte")))?);
        }
        let size: usize = args.iter().chain(&env).map(Vec::len).sum();
        if size > MOST_ARGUMENT_BYTES || args.len() > MOST_ARGUMENTS || env.len() > MOST_ARGUMENTS {
            return Err(wrong(format!(
                "args and env: {size} bytes in {} and {} strings; the limits are {MOST_ARGUMENT_BYTES} bytes and {MOST_ARGUMENTS} strings each",
                args.len(),
                env.len(),
            )));
        }
        let mut descriptors = Table::new(start.descriptors);
        for grant in start.grants {
            let full = |_| wrong(format!("more directories than its limit of {} descriptors", start.descriptors));
            descriptors.add(grant.open()).map_err(full)?;
        }
        Ok(Self {
            args,
            env,
            descriptors,
            stdout: Vec::new(),
            stdout_bytes: start.stdout_bytes,
            stderr_kept: 0,
            stderr_bytes: start.stderr_bytes,
            stderr_cut: 0,
            logs: start.logs,
            clocks: Clocks::new(start.clock),
            control,
        })
    }

    /// The open descriptor of a number.
    pub(super) fn descriptor(&mut self, fd: u32) -> Result<&mut Descriptor, Errno> {
        self.descriptors.get(fd)
    }

    /// All of them.
    pub(super) fn descriptors(&mut self) -> &mut Table {
        &mut self.descriptors
    }

    /// Bytes for standard output: kept whole up to the limit; more ends the guest.
    pub(super) fn write_stdout(&mut self, bytes: &[u8]) -> Answer {
        let room = self.stdout_bytes.saturating_sub(self.stdout.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.stdout.extend_from_slice(kept);
        self.logs.write(LogStream::Stdout, kept);
        if kept.len() < bytes.len() {
            let message = format!("standard output is over its limit of {} bytes", self.stdout_bytes);
            self.control.stop(Reason::Output, message);
            return Err(End::Stopped.into());
        }
        Ok(())
    }

    /// Bytes for standard error: cut at the limit and counted.
    pub(super) fn write_stderr(&mut self, bytes: &[u8]) {
        let room = self.stderr_bytes.saturating_sub(self.stderr_kept);
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.stderr_kept += kept.len();
        self.stderr_cut = self.stderr_cut.saturating_add((bytes.len() - kept.len()) as u64);
        if !kept.is_empty() {
            self.logs.write(LogStream::Stderr, kept);
        }
    }

    /// The end: says what was cut, and gives what was written to standard output.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        if self.stderr_cut > 0 {
            let message = format!("stderr: {} more bytes were not kept (limit {})", self.stderr_cut, self.stderr_bytes);
            self.logs.system("warn", message);
            self.stderr_cut = 0;
        }
        std::mem::take(&mut self.stdout)
    }
}

#[cfg(test)]
impl Process {
    /// Flushes the log for a test to read.
    pub(super) fn close_logs(&self) {
        self.logs.close();
    }
}

fn terminated(text: String) -> Option<Vec<u8>> {
    let mut bytes = text.into_bytes();
    if bytes.contains(&0) {
        return None;
    }
    bytes.push(0);
    Some(bytes)
}

fn sizes(call: &Call<'_>, strings: &[Vec<u8>], count: u32, size: u32) -> Answer {
    // Both fit: the bounds of `Process::new` are far below.
    call.memory.write_u32(count, u32::try_from(strings.len()).map_err(|_| Errno::Overflow)?)?;
    let bytes: usize = strings.iter().map(Vec::len).sum();
    Ok(call.memory.write_u32(size, u32::try_from(bytes).map_err(|_| Errno::Overflow)?)?)
}

fn strings(call: &Call<'_>, strings: &[Vec<u8>], pointers: u32, bytes: u32) -> Answer {
    let mut at = bytes;
    for (index, text) in (0u32..).zip(strings) {
        call.memory.write_u32(element(pointers, index, 4)?, at)?;
        call.memory.write(at, text)?;
        at = u32::try_from(text.len()).ok().and_then(|length| at.checked_add(length)).ok_or(Errno::Fault)?;
    }
    Ok(())
}

pub(crate) fn args_sizes_get(call: &mut Call<'_>, count: u32, size: u32) -> Answer {
    sizes(call, &call.process.args, count, size)
}

pub(crate) fn args_get(call: &mut Call<'_>, pointers: u32, bytes: u32) -> Answer {
    strings(call, &call.process.args, pointers, bytes)
}

pub(crate) fn environ_sizes_get(call: &mut Call<'_>, count: u32, size: u32) -> Answer {
    sizes(call, &call.process.env, count, size)
}

pub(crate) fn environ_get(call: &mut Call<'_>, pointers: u32, bytes: u32) -> Answer {
    strings(call, &call.process.env, pointers, bytes)
}

/// A signal to itself: ignored ones are ignored, the others end the guest as a shell reports it.
pub(crate) fn proc_raise(_call: &mut Call<'_>, signal: u32) -> Answer {
    match signal {
        // none, chld, cont, urg, winch
        0 | 16 | 17 | 22 | 27 => Ok(()),
        1..=30 => Err(End::Exit(128 + signal.cast_signed()).into()),
        _ => Err(Errno::Inval.into()),
    }
}

pub(crate) fn sched_yield(_call: &mut Call<'_>) -> Answer {
    std::thread::yield_now();
    Ok(())
}
