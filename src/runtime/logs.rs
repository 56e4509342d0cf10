//! From a guest's output to numbered log lines.
//!
//! A guest's thread writes bytes into a [`LogSink`]; it never waits. The executor drains lines from the
//! [`LogBuffer`] behind it. The buffer keeps no more than a bound per stream and execution, in bytes and in lines:
//! what is over it is counted, and the count becomes the last line.

use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Sleep, sleep},
};
use types::{Clock, LogLine, LogStream};

/// Longest line kept whole; a longer one is continued in the next.
const MOST_LINE: usize = 16 * 1024;
/// What a line costs beside its bytes: short lines fill the bound too, not only long ones.
const LINE_COST: usize = 64;
/// How long the end of a line is waited for before its beginning is handed out.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Stream {
    partial: Vec<u8>,
    kept: usize,
    lines: usize,
    dropped: u64,
}

impl Stream {
    /// Takes what there is room for, in bytes and in lines; the rest is counted.
    fn admit<'a>(&mut self, bytes: &'a [u8], most: usize) -> &'a [u8] {
        // What follows a cut would continue the wrong line.
        let room = if self.dropped > 0 { 0 } else { most.saturating_sub(self.kept) };
        let lines = (most / LINE_COST).max(1).saturating_sub(self.lines);
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let end = ends.take(lines.saturating_add(1)).enumerate().find(|(line, _)| *line == lines);
        let taken = end.map_or(bytes.len(), |(_, end)| end - 1).min(room);
        let kept = bytes.get(..taken).unwrap_or_default();
        self.dropped += (bytes.len() - kept.len()) as u64;
        self.kept += kept.len();
        self.lines += kept.iter().filter(|byte| **byte == b'\n').count();
        kept
    }
}

#[derive(Default)]
struct State {
    lines: Vec<LogLine>,
    next_seq: u64,
    stdout: Stream,
    stderr: Stream,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
    clock: Arc<dyn Clock>,
    most_per_stream: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

/// Where a guest's output goes. Cheap to clone, never blocks.
#[derive(Clone)]
pub struct LogSink(Arc<Shared>);

impl fmt::Debug for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogSink")
    }
}

/// The reading end.
pub struct LogBuffer(Arc<Shared>);

impl LogBuffer {
    /// A buffer that keeps `most_per_stream` bytes of each of stdout and stderr and numbers its lines from
    /// `first_seq`.
    pub fn new(clock: Arc<dyn Clock>, most_per_stream: usize, first_seq: u64) -> (LogSink, Self) {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { next_seq: first_seq.max(1), ..State::default() }),
            wake: Notify::new(),
            clock,
            most_per_stream,
        });
        (LogSink(shared.clone()), Self(shared))
    }

    /// Ends the log and gives what was not handed out, without waiting.
    pub fn drain(&self) -> Vec<LogLine> {
        LogSink(self.0.clone()).close();
        std::mem::take(&mut self.0.lock().lines)
    }

    /// Waits for lines; an empty list means that the sink was closed and everything has been read. A line whose end
    /// does not come is handed out as far as it is: somebody may be looking.
    pub async fn next(&self) -> Vec<LogLine> {
        let mut linger = pin!(None::<Sleep>);
        loop {
            let woken = self.0.wake.notified();
            let begun = {
                let mut state = self.0.lock();
                if !state.lines.is_empty() || state.closed {
                    return std::mem::take(&mut state.lines);
                }
                !state.stdout.partial.is_empty() || !state.stderr.partial.is_empty()
            };
            match (begun, linger.as_mut().as_pin_mut()) {
                (true, Some(linger)) => tokio::select! {
                    () = woken => {}
                    () = linger => LogSink(self.0.clone()).flush(&mut self.0.lock()),
                },
                (true, None) => linger.set(Some(sleep(LINGER))),
                (false, _) => woken.await,
            }
        }
    }
}

impl LogSink {
    /// Bytes of a guest's stream; whole lines become log lines at once.
    pub fn write(&self, stream: LogStream, bytes: &[u8]) {
        let mut state = self.0.lock();
        let source = match stream {
            LogStream::Stdout => &mut state.stdout,
            LogStream::Stderr | LogStream::System => &mut state.stderr,
        };
        let bytes = source.admit(bytes, self.0.most_per_stream);
        let mut ready = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let ended = piece.last() == Some(&b'\n');
            source.partial.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            while source.partial.len() > MOST_LINE {
                let rest = source.partial.split_off(MOST_LINE);
                ready.push((std::mem::replace(&mut source.partial, rest), true));
            }
            if ended {
                ready.push((std::mem::take(&mut source.partial), false));
            }
        }
        for (line, unterminated) in ready {
            self.output(&mut state, stream, &line, unterminated);
        }
        drop(state);
        self.0.wake.notify_one();
    }

    /// A line of Spear's own.
    pub fn system(&self, level: &str, message: impl Into<String>) {
        self.said(&mut self.0.lock(), level, message.into());
        self.0.wake.notify_one();
    }

    /// Ends the log: unfinished lines are flushed and what was cut is said.
    pub fn close(&self) {
        let mut state = self.0.lock();
        if !state.closed {
            self.flush(&mut state);
            for stream in [LogStream::Stdout, LogStream::Stderr] {
                let source = if stream == LogStream::Stdout { &mut state.stdout } else { &mut state.stderr };
                let dropped = source.dropped;
                if dropped > 0 {
                    let name = stream.as_str();
                    let most = self.0.most_per_stream;
                    let message = format!("{name}: {dropped} more bytes were not kept (limit {most})");
                    self.said(&mut state, "warn", message);
                }
            }
            state.closed = true;
        }
        drop(state);
        self.0.wake.notify_one();
    }

    /// What is there of lines that have not ended.
    fn flush(&self, state: &mut State) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let source = if stream == LogStream::Stdout { &mut state.stdout } else { &mut state.stderr };
            let begun = std::mem::take(&mut source.partial);
            if !begun.is_empty() {
                self.output(state, stream, &begun, true);
            }
        }
    }

    fn said(&self, state: &mut State, level: &str, message: String) {
        self.push(state, (LogStream::System, level), (message, None), false);
    }

    fn output(&self, state: &mut State, stream: LogStream, line: &[u8], unterminated: bool) {
        self.push(state, (stream, "info"), text(line), unterminated);
    }

    fn push(
        &self,
        state: &mut State,
        (stream, level): (LogStream, &str),
        (message, raw_base64): (String, Option<String>),
        unterminated: bool,
    ) {
        let (ts_ms, seq, level) = (self.0.clock.wall().millis(), state.next_seq, level.to_owned());
        state.next_seq += 1;
        state.lines.push(LogLine { ts_ms, seq, stream, level, message, raw_base64, unterminated });
    }
}

/// A line as text, and its bytes where the text has others.
fn text(line: &[u8]) -> (String, Option<String>) {
    let message = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
    let raw = (message.as_bytes() != line).then(|| STANDARD.encode(line));
    (message, raw)
}
