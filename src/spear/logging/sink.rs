//! Where log lines go, off the path of whoever writes them.
//!
//! ```text
//!   event ─► formatted line ─► queue (bounded) ─► thread ─► standard error, a file, or a rotated file
//!                    full? lost, counted                 fails? lost, counted; said once when it works again
//! ```
//! Nothing that befalls a log (a full disk, a reader that went away or stands still) stops or slows the process.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};
use telemetry::Counter;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::fmt::MakeWriter;

use super::form::Form;
use crate::config::{Log, LogRotation};

/// Lines that wait to be written; more are lost.
const MOST_LINES: usize = 8192;
/// Their bytes; more are lost.
const MOST_BYTES: u64 = 16 << 20;
/// Patience with a log that stands still, at the end and when it is opened anew.
const PATIENCE: Duration = Duration::from_secs(2);

/// The queue before a log. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sink {
    orders: SyncSender<Order>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Bytes that wait.
    waiting: AtomicU64,
    /// Lines lost since that was said.
    lost: AtomicU64,
    /// All lost lines.
    total: Counter,
}

impl Counts {
    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.total.inc();
    }
}

enum Order {
    Line(Vec<u8>),
    /// Opens the file anew.
    Reopen(SyncSender<io::Result<()>>),
    /// Answers when all lines before it are written.
    Flush(SyncSender<()>),
}

/// What lines are written to.
pub(super) trait Target: Write + Send {
    /// Opens it anew, for whoever moved it away.
    fn reopen(&mut self) -> io::Result<()>;
}

impl Sink {
    /// Starts to write to a target.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(target: Box<dyn Target>, form: Form, total: Counter) -> io::Result<Self> {
        // Full: the line is lost and counted.
        let (orders, received) = sync_channel(MOST_LINES);
        let counts = Arc::new(Counts { total, ..Counts::default() });
        let scribe = Scribe { target, form, counts: counts.clone(), torn: false, error: None };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || scribe.run(&received))?;
        Ok(Self { orders, counts })
    }

    fn line(&self, line: &[u8]) {
        let bytes = line.len() as u64;
        let waiting = self.counts.waiting.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > MOST_BYTES || self.orders.try_send(Order::Line(line.to_vec())).is_err() {
            self.counts.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.lose();
        }
    }

    /// Opens the file anew.
    ///
    /// # Errors
    /// It cannot be opened, and the old one is kept; or the log stands still.
    pub(super) fn reopen(&self) -> io::Result<()> {
        let (answer, answered) = sync_channel(1);
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the log takes nothing");
        self.orders.try_send(Order::Reopen(answer)).map_err(|_| late())?;
        answered.recv_timeout(PATIENCE).map_err(|_| late())?
    }

    /// Waits for all lines to be written, but not for a log that stands still.
    pub(super) fn flush(&self) {
        let (answer, answered) = sync_channel(1);
        if self.orders.try_send(Order::Flush(answer)).is_ok() {
            // Late or gone: there is nobody left to tell.
            answered.recv_timeout(PATIENCE).ok();
        }
    }
}

/// Takes one line, whole: the formatter writes each with one call.
impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The thread that writes.
struct Scribe {
    target: Box<dyn Target>,
    form: Form,
    counts: Arc<Counts>,
    /// The last line was written in part.
    torn: bool,
    /// Why lines are lost.
    error: Option<String>,
}

impl Scribe {
    fn run(mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Line(line) => {
                    self.counts.waiting.fetch_sub(line.len() as u64, Ordering::Relaxed);
                    self.take(&line);
                }
                // Whoever asked may have given up waiting.
                Order::Reopen(answer) => {
                    let opened = self.target.reopen();
                    self.torn &= opened.is_err();
                    answer.send(opened).ok();
                }
                Order::Flush(answer) => {
                    self.target.flush().ok();
                    answer.send(()).ok();
                }
            }
        }
    }

    /// Writes a line; before it, if some were lost, that.
    fn take(&mut self, line: &[u8]) {
        let lost = self.counts.lost.load(Ordering::Relaxed);
        let told = lost == 0 || {
            let why = self.error.as_deref().unwrap_or("they came faster than they could be written");
            let notice = self.form.lost(lost, why);
            let told = self.put(notice.as_bytes());
            if told {
                self.counts.lost.fetch_sub(lost, Ordering::Relaxed);
                self.error = None;
            }
            told
        };
        if !(told && self.put(line)) {
            self.counts.lose();
        }
    }

    fn put(&mut self, line: &[u8]) -> bool {
        let torn = if self.torn { &b"\n"[..] } else { &[] };
        let mut rest: &[u8] = &[torn, line].concat();
        while !rest.is_empty() {
            match self.target.write(rest) {
                Ok(0) => return self.failed(&io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.torn = true;
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.failed(&error),
            }
        }
        self.torn = false;
        true
    }

    fn failed(&mut self, error: &io::Error) -> bool {
        self.error = Some(error.to_string());
        false
    }
}

/// Standard error.
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl Target for Stderr {
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file, appended to.
struct Plain {
    path: PathBuf,
    file: File,
}

/// A file that is begun anew every hour or day.
struct Rotated {
    path: PathBuf,
    log: Log,
    appender: Mutex<RollingFileAppender>,
}

/// The file that the settings name.
///
/// # Errors
/// It cannot be opened.
pub(super) fn file(path: &Path, log: &Log) -> io::Result<Box<dyn Target>> {
    Ok(match log.rotation {
        LogRotation::Never => Box::new(Plain { path: path.to_owned(), file: append(path)? }),
        LogRotation::Hourly | LogRotation::Daily => {
            let appender = Mutex::new(rotated(path, log)?);
            Box::new(Rotated { path: path.to_owned(), log: log.clone(), appender })
        }
    })
}

fn append(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// `spear.log` is written as `spear.log.2026-02-03`, and is itself a link to the newest.
fn rotated(path: &Path, log: &Log) -> io::Result<RollingFileAppender> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a log file needs a name in UTF-8"))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // For links, which lead to where the process was started.
    let dir = std::path::absolute(dir)?;
    let rotation = if log.rotation == LogRotation::Hourly { Rotation::HOURLY } else { Rotation::DAILY };
    let mut builder = RollingFileAppender::builder().rotation(rotation).filename_prefix(name).max_log_files(log.keep);
    // A file of that name, from before there was rotation, is not replaced by a link.
    let taken = fs::symlink_metadata(path).is_ok_and(|found| !found.is_symlink());
    if !taken {
        builder = builder.latest_symlink(name);
    }
    builder.build(dir).map_err(io::Error::other)
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Target for Plain {
    fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        Ok(())
    }
}

impl Rotated {
    fn appender(&mut self) -> &mut RollingFileAppender {
        self.appender.get_mut().unwrap_or_else(|broken| broken.into_inner())
    }
}

impl Write for Rotated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.appender().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.appender().flush()
    }
}

impl Target for Rotated {
    fn reopen(&mut self) -> io::Result<()> {
        *self.appender() = rotated(&self.path, &self.log)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::sync::atomic::AtomicBool;

    /// A disk that is full when told so, and takes half of a line before it says it.
    #[derive(Clone, Default)]
    struct Disk {
        full: Arc<AtomicBool>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut written = self.written.lock().unwrap();
            if !self.full.load(Ordering::SeqCst) {
                return written.write(bytes);
            }
            if bytes.len() > 3 && bytes[0] != b'\n' {
                return written.write(&bytes[..3]);
            }
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Target for Disk {
        fn reopen(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_lost_to_a_full_disk_are_counted_and_said_once_when_there_is_room_again() {
        let disk = Disk::default();
        let lost = Counter::default();
        let sink = Sink::start(Box::new(disk.clone()), Form::Text, lost.clone()).unwrap();
        let say = |line: &str| {
            sink.line(line.as_bytes());
            sink.flush();
        };
        say("one\n");
        disk.full.store(true, Ordering::SeqCst);
        say("ab\n");
        say("ab\n");
        disk.full.store(false, Ordering::SeqCst);
        say("two\n");
        say("three\n");
        let written = String::from_utf8(disk.written.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = written.lines().collect();
        assert_eq!(
            (lines.first(), lines.get(lines.len() - 2..)),
            (Some(&"one"), Some(&["two", "three"][..])),
            "{written}"
        );
        let told: Vec<_> = lines.iter().filter(|line| line.contains("lost=2")).collect();
        assert!(told.len() == 1 && told[0].contains("no storage space"), "{written}");
        assert_eq!(lost.get(), 2, "the figure stays after it was said");
    }

    #[test]
    fn a_log_that_stands_still_holds_nobody_up() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.recv().ok();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl Target for Stuck {
            fn reopen(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (go, stuck) = sync_channel(0);
        let sink = Sink::start(Box::new(Stuck(stuck)), Form::Text, Counter::default()).unwrap();
        for _ in 0..MOST_LINES + 10 {
            sink.line(b"line\n");
        }
        assert!(sink.counts.lost.load(Ordering::SeqCst) >= 9, "what does not fit is counted");
        sink.line(&vec![b'x'; usize::try_from(MOST_BYTES).unwrap() + 1]);
        drop(go);
    }

    #[test]
    fn a_rotated_log_has_a_dated_file_and_a_link_to_it_and_keeps_a_file_that_was_there_before() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log { rotation: LogRotation::Daily, keep: 3, ..Log::usual() };
        let path = dir.path().join("logs/spear.log");
        let mut target = file(&path, &log).unwrap();
        target.write_all(b"line\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\n");
        let dated = fs::read_link(&path).unwrap();
        assert!(dated.file_name().unwrap().to_str().unwrap().starts_with("spear.log.20"), "{dated:?}");
        let before = dir.path().join("old.log");
        fs::write(&before, "kept\n").unwrap();
        let mut target = file(&before, &log).unwrap();
        target.write_all(b"line\n").unwrap();
        assert_eq!(fs::read_to_string(&before).unwrap(), "kept\n");
    }

    #[test]
    fn only_so_many_rotated_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for day in 1..9 {
            fs::write(dir.path().join(format!("spear.log.2020-01-0{day}")), "old").unwrap();
        }
        let log = Log { rotation: LogRotation::Daily, keep: 3, ..Log::usual() };
        file(&dir.path().join("spear.log"), &log).unwrap();
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "spear.log").collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spear.log");
        let sink = Sink::start(file(&path, &Log::usual()).unwrap(), Form::Text, Counter::default()).unwrap();
        sink.line(b"before\n");
        sink.flush();
        fs::rename(&path, dir.path().join("spear.log.1")).unwrap();
        sink.reopen().unwrap();
        sink.line(b"after\n");
        sink.flush();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after\n");
        assert_eq!(fs::read_to_string(dir.path().join("spear.log.1")).unwrap(), "before\n");
    }
}
