//! Logs of executions on the node's disk, until the registry has them.
//!
//! One file per execution, one JSON line per log line, numbers without gaps. What reaches the file is shipped in
//! batches while the execution runs and to the end afterwards; the registry skips numbers it has, so a repeat is
//! harmless, and its answer says from where to go on.

use api::{Control, control::LogBatch};
use std::{
    io::SeekFrom,
    path::{Path, PathBuf},
};
use tokio::{
    fs::{File, OpenOptions},
    io::{self, AsyncBufReadExt, AsyncSeekExt, AsyncWriteExt, BufReader},
};
use types::{Clock, ExecutionId, Fault, LogLine, LogStream};

use crate::agent::connect::{LONG_ANSWER, within};

/// Lines in one batch.
const MOST_LINES: usize = 500;
/// Bytes in one batch.
const MOST_BYTES: usize = 256 * 1024;
/// Bytes of one execution's log on this disk.
const MOST_LOG: u64 = 16 << 20;
/// Longest line that is read back; written ones are far shorter.
const MOST_LINE: u64 = 1 << 20;
/// Answers in a row that do not move on before the rest of a log is given up.
const MOST_STUCK: u32 = 5;

/// The file of an execution.
pub(crate) fn path(dir: &Path, id: ExecutionId) -> PathBuf {
    dir.join(format!("{id}.ndjson"))
}

/// The writing end. A disk that refuses is noted once; the execution goes on without its log.
pub(crate) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    next_seq: u64,
    bytes: u64,
    dropped: u64,
}

impl LogFile {
    /// Opens a log for appending, without a torn last line; a new one begins with `first_seq`.
    pub(crate) async fn open(dir: &Path, id: ExecutionId, first_seq: u64) -> Self {
        let path = path(dir, id);
        match opened(&path, first_seq).await {
            Ok((file, next_seq, bytes)) => Self { path, file: Some(file), next_seq, bytes, dropped: 0 },
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "cannot keep the log of an execution");
                Self { path, file: None, next_seq: first_seq, bytes: 0, dropped: 0 }
            }
        }
    }

    /// The number of the next line.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Appends lines; what is over the limit is counted.
    pub(crate) async fn append(&mut self, lines: Vec<LogLine>) {
        let mut text = Vec::new();
        for line in lines {
            if self.dropped > 0 || self.bytes + text.len() as u64 > MOST_LOG {
                self.dropped += 1;
            } else {
                self.encode(&mut text, line);
            }
        }
        self.write(text).await;
    }

    /// Says what was cut, adds a last line of Spear's own and has everything on disk.
    pub(crate) async fn finish(&mut self, clock: &dyn Clock, level: &str, message: String) {
        let mut text = Vec::new();
        let ts_ms = clock.wall().millis();
        let line = |level: &str, message| LogLine {
            ts_ms,
            seq: 0,
            stream: LogStream::System,
            level: level.to_owned(),
            message,
            raw_base64: None,
            unterminated: false,
        };
        if self.dropped > 0 {
            let message = format!("{} more lines were not kept (limit {MOST_LOG} bytes)", self.dropped);
            self.encode(&mut text, line("warn", message));
        }
        self.encode(&mut text, line(level, message));
        self.write(text).await;
        if let Some(file) = &mut self.file
            && let Err(error) = file.sync_data().await
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot sync the log of an execution");
        }
    }

    fn encode(&mut self, text: &mut Vec<u8>, mut line: LogLine) {
        line.seq = self.next_seq;
        if let Ok(json) = serde_json::to_vec(&line) {
            text.extend_from_slice(&json);
            text.push(b'\n');
            self.next_seq += 1;
        }
    }

    async fn write(&mut self, text: Vec<u8>) {
        let Some(file) = &mut self.file else { return };
        let written = async {
            file.write_all(&text).await?;
            file.flush().await
        };
        match written.await {
            Ok(()) => self.bytes += text.len() as u64,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "the log of an execution ends here");
                self.file = None;
            }
        }
    }
}

/// The file, the number of its next line, and its length.
async fn opened(path: &Path, first_seq: u64) -> io::Result<(File, u64, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).await?;
    let (mut whole, mut next_seq) = (0, first_seq);
    let mut reader = Lines::new(&mut file, 0).await?;
    while let Some((line, end)) = reader.next().await? {
        (whole, next_seq) = (end, line.seq + 1);
    }
    file.set_len(whole).await?;
    Ok((file, next_seq, whole))
}

/// Reads whole, well-formed lines; a torn or broken one is the end.
struct Lines<'a> {
    reader: BufReader<&'a mut File>,
    end: u64,
}

impl<'a> Lines<'a> {
    async fn new(file: &'a mut File, from: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(from)).await?;
        Ok(Self { reader: BufReader::with_capacity(64 * 1024, file), end: from })
    }

    /// The next line and the offset behind it.
    async fn next(&mut self) -> io::Result<Option<(LogLine, u64)>> {
        let mut bytes = Vec::new();
        let read = io::AsyncReadExt::take(&mut self.reader, MOST_LINE).read_until(b'\n', &mut bytes).await?;
        if bytes.pop() != Some(b'\n') {
            return Ok(None);
        }
        let Ok(line) = serde_json::from_slice::<LogLine>(&bytes) else { return Ok(None) };
        self.end += read as u64;
        Ok(Some((line, self.end)))
    }
}

/// The sending end.
pub(crate) struct Shipper {
    id: ExecutionId,
    attempt: u32,
    path: PathBuf,
    offset: u64,
    /// The number the registry expects next, as far as we know.
    next_seq: u64,
    stuck: u32,
}

/// What one batch came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shipped {
    /// There may be more.
    More,
    /// The registry has everything that was on disk.
    All,
    /// The registry does not move on: the rest is given up.
    Stuck,
}

impl Shipper {
    /// For the lines of an attempt from `next_seq` on.
    pub(crate) fn new(dir: &Path, (id, attempt): (ExecutionId, u32), next_seq: u64) -> Self {
        Self { id, attempt, path: path(dir, id), offset: 0, next_seq, stuck: 0 }
    }

    /// The number the registry expects next.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Sends one batch; with `last`, the one that reaches the end says so. Nothing new and not `last`: no call.
    pub(crate) async fn step(&mut self, registry: &dyn Control, last: bool) -> Result<Shipped, Fault> {
        let (lines, offset, at_end) = self.read().await.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, path = %self.path.display(), "cannot read the log of an execution");
            }
            (Vec::new(), self.offset, true)
        });
        if lines.is_empty() && !last && at_end {
            self.offset = offset;
            return Ok(Shipped::All);
        }
        let ends = lines.first().zip(lines.last()).map(|(first, last)| (first.seq, last.seq));
        let batch = LogBatch { execution_id: self.id, attempt: self.attempt, lines, finished: last && at_end };
        let answer = within(LONG_ANSWER, "log", registry.append_logs(batch)).await?;
        let reached = if at_end { Shipped::All } else { Shipped::More };
        let Some((first, last)) = ends else { return Ok(reached) };
        self.next_seq = answer.next_seq;
        if answer.next_seq > last {
            (self.offset, self.stuck) = (offset, 0);
            return Ok(reached);
        }
        // The registry took a part, or lacks lines before these: once more from where it stands.
        if answer.next_seq < first {
            self.offset = 0;
        }
        self.stuck = if answer.next_seq > first { 0 } else { self.stuck + 1 };
        Ok(if self.stuck > MOST_STUCK { Shipped::Stuck } else { Shipped::More })
    }

    /// The next lines to send, the offset behind them, and whether that is the end of the file for now.
    async fn read(&self) -> io::Result<(Vec<LogLine>, u64, bool)> {
        let mut file = File::open(&self.path).await?;
        let mut reader = Lines::new(&mut file, self.offset).await?;
        let (mut lines, mut bytes, mut offset) = (Vec::new(), 0, self.offset);
        while let Some((line, end)) = reader.next().await? {
            let size = usize::try_from(end - offset).unwrap_or(usize::MAX);
            if line.seq >= self.next_seq {
                if lines.len() >= MOST_LINES || (bytes + size > MOST_BYTES && !lines.is_empty()) {
                    return Ok((lines, offset, false));
                }
                bytes += size;
                lines.push(line);
            }
            offset = end;
        }
        Ok((lines, offset, true))
    }
}
