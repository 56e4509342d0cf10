//! Logs of executions: one file each, `<data>/logs/<execution>.ndjson`.
//!
//! A line of the file is a [`LogLine`] or a [`Mark`]:
//! ```text
//!   {"ts_ms":…,"seq":1,"stream":"stdout","level":"info","message":"hello"}
//!   {"mark":"truncated","next_seq":812}      the cap was reached: later lines are counted, not kept
//!   {"mark":"finished","next_seq":900}       the node has delivered everything
//! ```
//! Invariants: numbers rise from 1 without gaps, so appending is idempotent; lines are on disk before they are
//! acknowledged and only then read; an unfinished last line (a crash while writing) is cut when the file is
//! opened, a broken line before others is damage and reported. A failed fsync ends the process. An attempt asks
//! where the log stands before it writes; from then on no earlier attempt can add to it.

use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
};
use supervise::Live;
use tokio::sync::watch;
use types::{Clock, ErrorKind, ExecutionId, Fault, LogLine, LogStream};

use super::line;
use crate::{Config, backup::Removals};

/// Bytes of a page, beyond which it ends early.
const MOST_PAGE_BYTES: usize = 1 << 20;
/// Logs whose state is kept in memory while nobody uses them.
const MOST_IDLE: usize = 512;
/// A position is remembered for every so many lines.
const STRIDE: u64 = 128;
/// Room kept below the cap for the line that says so and the marks.
const RESERVE: u64 = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MarkKind {
    Truncated,
    Finished,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Mark {
    mark: MarkKind,
    next_seq: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Line(LogLine),
    Mark(Mark),
}

/// How far a log has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The number expected next.
    pub(crate) next_seq: u64,
    /// Has the node delivered everything?
    pub(crate) finished: bool,
    /// Was the cap reached?
    pub(crate) truncated: bool,
}

/// Lines of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    /// The lines, in order.
    pub(crate) lines: Vec<LogLine>,
    /// Is nothing kept after them now?
    pub(crate) end: bool,
    /// How far the log had come.
    pub(crate) reach: Reach,
}

/// Tells everybody who listens about new lines of any log.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Whose.
    pub execution_id: ExecutionId,
    /// The lines.
    pub lines: Arc<[LogLine]>,
}

impl bus::Signal for Appended {}

struct Open {
    file: Option<File>,
    bytes: u64,
    next_seq: u64,
    finished: bool,
    truncated: bool,
    /// Offset of line 1, 1 + STRIDE, …
    offsets: Vec<u64>,
}

impl Open {
    fn reach(&self) -> Reach {
        Reach { next_seq: self.next_seq, finished: self.finished, truncated: self.truncated }
    }
}

/// One log, shared by all who use it.
pub(crate) struct Log {
    path: PathBuf,
    /// None until first used, and after a failed write.
    open: Mutex<Option<Open>>,
    /// The latest attempt that has called; changed under the lock of `open`.
    attempt: AtomicU32,
    reach: watch::Sender<Reach>,
}

impl Log {
    /// Moves when lines are added or the end is told.
    pub(crate) fn watch(&self) -> watch::Receiver<Reach> {
        self.reach.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

/// All logs.
pub(crate) struct Logs {
    dir: PathBuf,
    config: Live<Config>,
    clock: Arc<dyn Clock>,
    pub(crate) removals: Removals,
    logs: Mutex<HashMap<ExecutionId, Arc<Log>>>,
    failed: watch::Sender<Option<(PathBuf, Arc<io::Error>)>>,
}

/// The word of an attempt that another has followed.
pub(super) fn stale(attempt: u32, now: u32) -> Fault {
    let message = format!("the lines are of attempt {attempt}; the execution is at attempt {now}");
    Fault::conflict("STALE_ATTEMPT", message)
}

fn broken(path: &Path, error: &io::Error) -> Fault {
    tracing::error!(path = %path.display(), %error, "log file failed");
    if error.kind() == io::ErrorKind::StorageFull || error.kind() == io::ErrorKind::QuotaExceeded {
        return Fault::new(ErrorKind::StorageFull, "STORAGE_FULL", "no space is left for logs");
    }
    Fault::new(ErrorKind::Unavailable, "STORAGE_FAILED", format!("the log cannot be used: {}", error.kind()))
}

impl Logs {
    /// In a directory, made if missing.
    pub(crate) fn open(dir: PathBuf, config: Live<Config>, clock: Arc<dyn Clock>) -> Result<Self, Fault> {
        fs::create_dir_all(&dir).map_err(|error| broken(&dir, &error))?;
        let removals = Removals::open(&dir).map_err(|error| broken(&dir, &error))?;
        Ok(Self { dir, config, clock, removals, logs: Mutex::default(), failed: watch::Sender::new(None) })
    }

    /// Waits for a failure after which nothing more may be acknowledged.
    pub(crate) async fn failure(&self) -> (PathBuf, Arc<io::Error>) {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    fn path(&self, id: ExecutionId) -> PathBuf {
        self.dir.join(format!("{id}.ndjson"))
    }

    /// The log of an execution; forgets others that nobody uses when there are many.
    pub(crate) fn get(&self, id: ExecutionId) -> Arc<Log> {
        let mut logs = self.logs.lock().unwrap_or_else(|broken| broken.into_inner());
        if logs.len() >= MOST_IDLE && !logs.contains_key(&id) {
            logs.retain(|_, log| Arc::strong_count(log) > 1);
        }
        let fresh = || {
            let (path, reach) = (self.path(id), watch::Sender::new(Reach::default()));
            Arc::new(Log { path, open: Mutex::default(), attempt: AtomicU32::new(0), reach })
        };
        logs.entry(id).or_insert_with(fresh).clone()
    }

    /// Adds lines of an attempt; those the log has are skipped. Returns what was new and how far the log is now.
    ///
    /// # Errors
    /// `STALE_ATTEMPT` when a later attempt has called; `LOG_GAP` with the number expected; `LOG_FINISHED` for lines after the end.
    pub(crate) async fn append(
        self: &Arc<Self>,
        (id, attempt): (ExecutionId, u32),
        lines: Vec<LogLine>,
        finished: bool,
    ) -> Result<(Vec<LogLine>, Reach), Fault> {
        for (at, line) in lines.iter().enumerate() {
            line::check(at, line)?;
        }
        let (logs, log) = (self.clone(), self.get(id));
        blocking(move || {
            let mut slot = log.lock();
            let latest = log.attempt.fetch_max(attempt, Ordering::Relaxed);
            if latest > attempt {
                return Err(stale(attempt, latest));
            }
            let open = logs.ready(&log.path, &mut slot)?;
            let added = logs.add(&log.path, open, lines, finished);
            let reach = open.reach();
            if added.as_ref().is_err_and(|fault| fault.kind != ErrorKind::Conflict) {
                // What the file holds now is unknown: it is read again before it is used again.
                *slot = None;
            }
            drop(slot);
            let added = added?;
            log.reach.send_if_modified(|now| std::mem::replace(now, reach) != reach);
            Ok((added, reach))
        })
        .await
    }

    /// Up to `limit` lines after a number.
    pub(crate) async fn page(self: &Arc<Self>, id: ExecutionId, after: u64, limit: usize) -> Result<Page, Fault> {
        let (logs, log) = (self.clone(), self.get(id));
        blocking(move || {
            let mut slot = log.lock();
            let open = logs.ready(&log.path, &mut slot)?;
            let (reach, bytes) = (open.reach(), open.bytes);
            let nearest = usize::try_from(after / STRIDE).unwrap_or(usize::MAX);
            let from = open.offsets.get(nearest).or_else(|| open.offsets.last()).copied().unwrap_or(0);
            drop(slot);
            // What lies below `bytes` never changes, so it is read without the lock.
            let mut page = Page { reach, end: true, ..Page::default() };
            if bytes > 0 {
                read_page(&log.path, (from, bytes), (after, limit), &mut page)?;
            }
            Ok(page)
        })
        .await
    }

    /// Removes a log with its file; removing none is fine.
    pub(crate) async fn remove(self: &Arc<Self>, id: ExecutionId) -> Result<(), Fault> {
        let logs = self.clone();
        blocking(move || {
            let log = logs.get(id);
            let entered = logs.removals.enter();
            let mut slot = log.lock();
            *slot = None;
            let removed = entered.remove(&log.path);
            drop(slot);
            logs.logs.lock().unwrap_or_else(|broken| broken.into_inner()).remove(&id);
            log.reach.send_replace(Reach { finished: true, ..Reach::default() });
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(broken(&log.path, &error)),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Removes the files of executions that are no more (a crash between record and file).
    pub(crate) async fn sweep(
        self: &Arc<Self>,
        keep: impl Fn(ExecutionId) -> bool + Send + 'static,
    ) -> Result<usize, Fault> {
        let logs = self.clone();
        blocking(move || {
            let (mut removed, entered) = (0, logs.removals.enter());
            for entry in fs::read_dir(&logs.dir).map_err(|error| broken(&logs.dir, &error))? {
                let path = entry.map_err(|error| broken(&logs.dir, &error))?.path();
                let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
                let ours = path.extension().is_some_and(|extension| extension == "ndjson");
                if let Some(id) = id.filter(|_| ours)
                    && !keep(id)
                {
                    entered.remove(&path).map_err(|error| broken(&path, &error))?;
                    removed += 1;
                }
            }
            Ok(removed)
        })
        .await
    }

    fn ready<'a>(&self, path: &Path, slot: &'a mut Option<Open>) -> Result<&'a mut Open, Fault> {
        let open = match slot.take() {
            Some(open) => open,
            None => load(path)?,
        };
        Ok(slot.insert(open))
    }

    fn add(&self, path: &Path, open: &mut Open, lines: Vec<LogLine>, finished: bool) -> Result<Vec<LogLine>, Fault> {
        let mut fresh: Vec<LogLine> = Vec::with_capacity(lines.len());
        let mut next = open.next_seq;
        for line in lines {
            if line.seq < next {
                continue;
            }
            // Of a log that was cut nothing more is kept, so there a gap is no loss.
            if line.seq > next && !open.truncated {
                let message = format!("expected line {next}, got {}", line.seq);
                let mut fault = Fault::conflict("LOG_GAP", message);
                let detail = format!("expected {next}");
                fault.errors.push(types::FieldError { field: "lines.seq".to_owned(), detail });
                return Err(fault);
            }
            next = line.seq.saturating_add(1);
            fresh.push(line);
        }
        if open.finished && !fresh.is_empty() {
            let message = format!("the log was finished before line {}", open.next_seq);
            return Err(Fault::conflict("LOG_FINISHED", message));
        }
        let finish = finished && !open.finished;
        if fresh.is_empty() && !finish {
            return Ok(fresh);
        }
        let kept = self.write(path, open, fresh, next, finish)?;
        (open.next_seq, open.finished) = (next, open.finished || finish);
        Ok(kept)
    }

    /// Writes lines and marks in one piece, and returns the lines that were kept.
    fn write(
        &self,
        path: &Path,
        open: &mut Open,
        mut fresh: Vec<LogLine>,
        next_seq: u64,
        finish: bool,
    ) -> Result<Vec<LogLine>, Fault> {
        let mut text = Vec::new();
        let mut offsets = Vec::new();
        let (mut kept, most_bytes) = (0, self.config.get().execution_log_max_bytes.max(2 * RESERVE));
        for line in &mut fresh {
            if open.truncated {
                break;
            }
            let start = text.len();
            push(&mut text, line)?;
            let over = open.bytes + text.len() as u64 > most_bytes - RESERVE;
            if over {
                text.truncate(start);
                let message = format!("the log is over its limit of {most_bytes} bytes; later lines are not kept");
                (line.ts_ms, line.stream) = (self.clock.wall().millis(), LogStream::System);
                (line.level, line.message) = ("warn".to_owned(), message);
                (line.raw_base64, line.unterminated) = (None, false);
                push(&mut text, line)?;
            }
            if (line.seq - 1) % STRIDE == 0 {
                offsets.push(open.bytes + start as u64);
            }
            kept += 1;
            if over {
                push(&mut text, &Mark { mark: MarkKind::Truncated, next_seq })?;
                open.truncated = true;
            }
        }
        fresh.truncate(kept);
        if finish {
            push(&mut text, &Mark { mark: MarkKind::Finished, next_seq })?;
        }
        if !text.is_empty() {
            self.to_disk(path, open, &text)?;
            open.bytes += text.len() as u64;
            open.offsets.extend(offsets);
        }
        Ok(fresh)
    }

    fn to_disk(&self, path: &Path, open: &mut Open, text: &[u8]) -> Result<(), Fault> {
        let made = open.file.is_none();
        let file = match &mut open.file {
            Some(file) => file,
            empty => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                empty.insert(file.map_err(|error| broken(path, &error))?)
            }
        };
        file.write_all(text).map_err(|error| broken(path, &error))?;
        let synced = file.sync_data().and_then(|()| if made { File::open(&self.dir)?.sync_all() } else { Ok(()) });
        synced.map_err(|error| {
            // The system may have dropped what it could not write, so no later answer could be believed.
            let fault = broken(path, &error);
            self.failed.send_replace(Some((path.to_owned(), Arc::new(error))));
            fault
        })
    }
}

fn push(text: &mut Vec<u8>, entry: &impl Serialize) -> Result<(), Fault> {
    serde_json::to_writer(&mut *text, entry).map_err(|error| Fault::internal(error.to_string()))?;
    text.push(b'\n');
    Ok(())
}

/// Reads a log from disk and cuts an unfinished end.
fn load(path: &Path) -> Result<Open, Fault> {
    let mut open = Open { file: None, bytes: 0, next_seq: 1, finished: false, truncated: false, offsets: Vec::new() };
    let file = match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(open),
        Err(error) => return Err(broken(path, &error)),
    };
    let mut reader = BufReader::new(&file);
    let (mut line, mut torn, mut number) = (Vec::new(), None, 0u64);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(|error| broken(path, &error))?;
        if read == 0 {
            break;
        }
        number += 1;
        let entry = (line.last() == Some(&b'\n')).then(|| serde_json::from_slice(&line).ok()).flatten();
        let good = entry.is_some_and(|entry| torn.is_none() && take(&mut open, &entry, read as u64));
        match (good, torn) {
            (true, _) => {}
            (false, None) => torn = Some(number),
            (false, Some(first)) if serde_json::from_slice::<Entry>(&line).is_ok() => {
                tracing::error!(path = %path.display(), line = first, "log file is damaged");
                return Err(Fault::new(
                    ErrorKind::Internal,
                    "LOG_CORRUPT",
                    format!("the log file of this execution is damaged at line {first}"),
                ));
            }
            (false, Some(_)) => {}
        }
    }
    if let Some(first) = torn {
        tracing::warn!(path = %path.display(), line = first, "cutting the unfinished end of a log");
        file.set_len(open.bytes).map_err(|error| broken(path, &error))?;
    }
    // What was read may not have reached the disk before; from here on it counts as acknowledged.
    file.sync_data().map_err(|error| broken(path, &error))?;
    open.file = Some(file);
    Ok(open)
}

/// Takes one entry of the file into account; false when it does not follow those before it.
fn take(open: &mut Open, entry: &Entry, size: u64) -> bool {
    match entry {
        Entry::Line(line) => {
            if line.seq != open.next_seq {
                return false;
            }
            if (line.seq - 1) % STRIDE == 0 {
                open.offsets.push(open.bytes);
            }
            open.next_seq += 1;
        }
        Entry::Mark(mark) => {
            open.truncated |= mark.mark == MarkKind::Truncated;
            open.finished |= mark.mark == MarkKind::Finished;
            open.next_seq = open.next_seq.max(mark.next_seq);
        }
    }
    open.bytes += size;
    true
}

fn read_page(path: &Path, bytes: (u64, u64), wanted: (u64, usize), page: &mut Page) -> Result<(), Fault> {
    let ((from, to), (after, limit)) = (bytes, wanted);
    let mut file = File::open(path).map_err(|error| broken(path, &error))?;
    file.seek(SeekFrom::Start(from)).map_err(|error| broken(path, &error))?;
    let mut size = 0;
    for line in BufReader::new(file.take(to - from)).lines() {
        let line = line.map_err(|error| broken(path, &error))?;
        let entry = serde_json::from_str(&line).map_err(|error| {
            tracing::error!(path = %path.display(), %error, "log file is damaged");
            Fault::new(ErrorKind::Internal, "LOG_CORRUPT", "the log file of this execution is damaged")
        })?;
        let Entry::Line(entry) = entry else { continue };
        if entry.seq <= after {
            continue;
        }
        if page.lines.len() == limit || size > MOST_PAGE_BYTES {
            page.end = false;
            break;
        }
        size += line.len();
        page.lines.push(entry);
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Fault::internal(format!("reading or writing a log failed: {error}"))),
    }
}
