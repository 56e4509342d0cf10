//! The process a guest believes to be: arguments, environment, descriptors, its end.

use bytes::Bytes;
use runtime::{Closed, InvokeError, Piece, Streams};
use std::sync::Arc;
use types::{Clock, LogStream, Reason};

use super::{
    Answer, Call, End, Errno, Memory,
    clock::Clocks,
    descriptor::{Descriptor, Table},
    files::Grant,
    memory::element,
};
use crate::{control::Control, input::Read};

/// Bytes of arguments and environment together, as most systems allow.
const MOST_ARGUMENT_BYTES: usize = 2 << 20;
/// Arguments and variables.
const MOST_ARGUMENTS: usize = 16 * 1024;

/// Arguments and environment as a guest reads them, each with its zero byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    args: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
}

impl Arguments {
    /// From text: `argv`, with the program's name first, and variables.
    ///
    /// # Errors
    /// One of them cannot be passed: it has a zero byte, a name is empty or has a `=`, or there is too much of it.
    pub(crate) fn new<'a>(
        args: impl IntoIterator<Item = &'a str>,
        env: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, InvokeError> {
        let wrong = |message: String| InvokeError::new(Reason::Task, message);
        let mut all = Self::default();
        for (index, arg) in args.into_iter().enumerate() {
            all.args.push(terminated(arg.to_owned()).ok_or_else(|| wrong(format!("args[{index}]: has a zero byte")))?);
        }
        for (name, value) in env {
            if name.is_empty() || name.contains('=') {
                return Err(wrong(format!("env: {name:?} is not a variable's name")));
            }
            let text = terminated(format!("{name}={value}"));
            all.env.push(text.ok_or_else(|| wrong(format!("env: {name:?} or its value has a zero byte")))?);
        }
        let Self { args, env } = &all;
        let size: usize = args.iter().chain(env).map(Vec::len).sum();
        if size > MOST_ARGUMENT_BYTES || args.len() > MOST_ARGUMENTS || env.len() > MOST_ARGUMENTS {
            return Err(wrong(format!(
                "args and env: {size} bytes in {} and {} strings; the limits are {MOST_ARGUMENT_BYTES} bytes and {MOST_ARGUMENTS} strings each",
                args.len(),
                env.len(),
            )));
        }
        Ok(all)
    }
}

/// What a process begins with.
pub(crate) struct Start {
    /// `argv` and the environment.
    pub(crate) arguments: Arc<Arguments>,
    /// Most bytes of standard output.
    pub(crate) stdout_bytes: usize,
    /// Most bytes of standard error.
    pub(crate) stderr_bytes: usize,
    /// Where output goes.
    pub(crate) streams: Streams,
    /// Is the log held back until the end? What is tried may be tried again.
    pub(crate) holds_logs: bool,
    /// Wall-clock time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Directories it sees, as descriptor 3 and on.
    pub(crate) grants: Vec<Grant>,
    /// Most open descriptors.
    pub(crate) descriptors: usize,
}

/// State of the process.
pub(crate) struct Process {
    arguments: Arc<Arguments>,
    descriptors: Table,
    stdout: Vec<u8>,
    stdout_written: usize,
    stdout_bytes: usize,
    stderr_kept: usize,
    stderr_bytes: usize,
    stderr_cut: u64,
    streams: Streams,
    held: Option<Vec<(LogStream, Vec<u8>)>>,
    pub(super) clocks: Clocks,
    pub(super) control: Arc<Control>,
}

/// What a process leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Standard output that was not handed out before.
    pub(crate) stdout: Vec<u8>,
    /// Bytes of standard output in all.
    pub(crate) written: u64,
    /// Bytes of standard input that it read.
    pub(crate) read: u64,
}

impl Process {
    /// A process with its three standard streams.
    ///
    /// # Errors
    /// It has more directories than descriptors.
    pub(crate) fn new(start: Start, control: Arc<Control>) -> Result<Self, InvokeError> {
        let mut descriptors = Table::new(start.descriptors);
        for grant in start.grants {
            descriptors.add(grant.open()).map_err(|_| {
                let message = format!("more directories than its limit of {} descriptors", start.descriptors);
                InvokeError::new(Reason::Task, message)
            })?;
        }
        Ok(Self {
            arguments: start.arguments,
            descriptors,
            stdout: Vec::new(),
            stdout_written: 0,
            stdout_bytes: start.stdout_bytes,
            stderr_kept: 0,
            stderr_bytes: start.stderr_bytes,
            stderr_cut: 0,
            streams: start.streams,
            held: start.holds_logs.then(Vec::new),
            clocks: Clocks::new(start.clock),
            control,
        })
    }

    /// `argv`, without the zero bytes.
    pub(crate) fn args(&self) -> impl Iterator<Item = &[u8]> {
        self.arguments.args.iter().map(|arg| arg.strip_suffix(b"\0").unwrap_or(arg))
    }

    /// All of standard input; none: it is longer than `most`, or the guest was stopped meanwhile.
    pub(crate) fn read_input(&mut self, most: usize) -> Option<Vec<u8>> {
        let (mut all, mut part) = (Vec::new(), [0; 4096]);
        loop {
            match self.control.input.read(&mut part) {
                Read::Bytes(count) => all.extend_from_slice(part.get(..count)?),
                Read::End => return Some(all),
                Read::Nothing if self.control.is_stopped() => return None,
                Read::Nothing => self.control.input.wait(None, || self.control.is_stopped()),
            }
            if all.len() > most {
                return None;
            }
        }
    }

    /// An answer that the guest did not write itself.
    ///
    /// # Errors
    /// It is over the limit of standard output.
    pub(crate) fn answer(&mut self, bytes: &[u8]) -> Result<(), End> {
        match self.write_stdout(bytes) {
            Err(super::Fault::End(end)) => Err(end),
            _ => Ok(()),
        }
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
        let room = self.stdout_bytes.saturating_sub(self.stdout_written);
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.stdout_written += kept.len();
        if self.streams.logs_stdout {
            self.log(LogStream::Stdout, kept);
        }
        match &self.streams.reply {
            Some(reply) if !kept.is_empty() => {
                let piece = Piece::Bytes(Bytes::copy_from_slice(kept));
                if let Err(closed) = reply.write(piece, || self.control.is_stopped()) {
                    if closed == Closed::Abandoned {
                        self.control.stop(Reason::Cancelled, "nobody reads its answer any more");
                    }
                    return Err(End::Stopped.into());
                }
            }
            Some(_) => {}
            None => self.stdout.extend_from_slice(kept),
        }
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
            self.log(LogStream::Stderr, kept);
        }
    }

    fn log(&mut self, stream: LogStream, bytes: &[u8]) {
        match &mut self.held {
            Some(held) => held.push((stream, bytes.to_vec())),
            None => self.streams.logs.write(stream, bytes),
        }
    }

    /// The end: hands out the log, unless it was a try that `overran`, and what is left.
    pub(crate) fn finish(mut self, overran: bool) -> Left {
        for (stream, bytes) in self.held.take().filter(|_| !overran).unwrap_or_default() {
            self.streams.logs.write(stream, &bytes);
        }
        if self.stderr_cut > 0 && !overran {
            let message = format!("stderr: {} more bytes were not kept (limit {})", self.stderr_cut, self.stderr_bytes);
            self.streams.logs.system("warn", message);
        }
        Left { stdout: self.stdout, written: self.stdout_written as u64, read: self.control.input.taken() }
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

fn sizes(memory: &mut Memory<'_>, strings: &[Vec<u8>], count: u32, size: u32) -> Answer {
    // Both fit: the bounds of `Process::new` are far below.
    memory.write_u32(count, u32::try_from(strings.len()).map_err(|_| Errno::Overflow)?)?;
    let bytes: usize = strings.iter().map(Vec::len).sum();
    Ok(memory.write_u32(size, u32::try_from(bytes).map_err(|_| Errno::Overflow)?)?)
}

fn strings(memory: &mut Memory<'_>, strings: &[Vec<u8>], pointers: u32, bytes: u32) -> Answer {
    let mut at = bytes;
    for (index, text) in (0u32..).zip(strings) {
        memory.write_u32(element(pointers, index, 4)?, at)?;
        memory.write(at, text)?;
        at = u32::try_from(text.len()).ok().and_then(|length| at.checked_add(length)).ok_or(Errno::Fault)?;
    }
    Ok(())
}

pub(crate) fn args_sizes_get(call: &mut Call<'_>, count: u32, size: u32) -> Answer {
    sizes(&mut call.memory, &call.process.arguments.args, count, size)
}

pub(crate) fn args_get(call: &mut Call<'_>, pointers: u32, bytes: u32) -> Answer {
    strings(&mut call.memory, &call.process.arguments.args, pointers, bytes)
}

pub(crate) fn environ_sizes_get(call: &mut Call<'_>, count: u32, size: u32) -> Answer {
    sizes(&mut call.memory, &call.process.arguments.env, count, size)
}

pub(crate) fn environ_get(call: &mut Call<'_>, pointers: u32, bytes: u32) -> Answer {
    strings(&mut call.memory, &call.process.arguments.env, pointers, bytes)
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
