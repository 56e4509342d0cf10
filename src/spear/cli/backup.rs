//! `spear backup`: an archive of everything that a registry keeps, checked while it is written.
//!
//! ```text
//!   GET /api/v1/backup ──┐
//!   a stopped directory ─┴─► checker ─► .NAME.<pid>.part ─ whole and right? ─► fsync ─► rename to NAME
//! ```

use bytes::Bytes;
use clap::{Args, Subcommand};
use futures_util::StreamExt;
use serde::Deserialize;
use sms::backup::{self, Attachment, Checker, Contents, Nowhere, Registry, Sink, Summary};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use store::{Record, redb::Stopped as StoppedStore};
use types::{Clock, ErrorKind, Fault, SystemClock};

use super::{Environment, connection::Connection, output, progress::Progress};
use crate::stopped::Stopped;

/// Back up a registry, while it runs
///
/// Writes one archive (a tar) of its records as of one revision, the files that were uploaded and the logs of
/// executions, and verifies it while it is written. The file appears when it is complete. The token of the API is not
/// in it: keep DATA-DIR/token by other means.
///
/// With --data-dir, the directory of a registry or an agent that is stopped. Of an agent, its objects and its
/// identity are kept: work, artifacts and compiled modules come back from the registry.
#[derive(Args, Clone, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  spear backup -O spear.tar\n  spear backup verify spear.tar"
)]
pub(super) struct Backup {
    #[command(subcommand)]
    command: Option<BackupCommand>,
    /// The archive to write, or - for standard output [default: spear-backup-<time>.tar]
    #[arg(short = 'O', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Back up this directory, which no process uses, instead of asking a registry
    #[arg(long, value_name = "DIR", conflicts_with_all = ["addr", "token_file", "ca_file", "context"])]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand, Clone, Debug)]
enum BackupCommand {
    /// Read an archive to its end and verify every byte of it
    Verify {
        /// The archive, or - for standard input
        file: PathBuf,
    },
}

impl Backup {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Stopped> {
        if let Some(BackupCommand::Verify { file }) = self.command {
            return verify(&file);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Stopped::failed)?;
        runtime.block_on(async {
            tokio::select! {
                done = self.take(environment) => done,
                // What was written so far goes with it.
                _ = tokio::signal::ctrl_c() => Err(Stopped { code: 130, message: "interrupted; nothing was kept".into() }),
            }
        })
    }

    async fn take(&self, environment: &Environment) -> Result<(), Stopped> {
        let now = SystemClock::new().wall();
        let file = self.file.clone().unwrap_or_else(|| {
            let time = now.to_string().replace([':', '.'], "-");
            PathBuf::from(format!("spear-backup-{time}.tar"))
        });
        let written = match &self.data_dir {
            Some(dir) => {
                let mut store = StoppedStore::open(dir).map_err(Stopped::store)?;
                store.verify().map_err(Stopped::store)?;
                let source = backup::of_stopped(store, dir, contents(dir), now).await.map_err(|fault| ended(&fault))?;
                let mut taker = Taker::new(&file)?;
                backup::write(source, &mut taker).await.map_err(|fault| ended(&fault))?;
                taker
            }
            None => {
                let target = self.connection.target(environment)?;
                let content =
                    target.open()?.download("/api/v1/backup").await.map_err(|fault| target.refused(&fault))?;
                let (mut taker, mut bytes) = (Taker::new(&file)?, content.bytes);
                while let Some(piece) = bytes.next().await {
                    let piece = piece.map_err(|error| {
                        let next = "nothing was kept; the log of the registry may have the reason";
                        Stopped::failed(format!("the backup broke off: {error}; {next}"))
                    })?;
                    taker.take(&piece)?;
                }
                taker
            }
        };
        written.finish()
    }
}

/// What of a directory is kept.
fn contents(dir: &Path) -> &'static dyn Contents {
    if dir.join("objects").is_dir() || dir.join("node-id").exists() { &Agent } else { &Registry }
}

/// An agent's directory: its objects and its identity. Everything else is the registry's, and of an older moment it
/// would be work that was done since.
struct Agent;

impl Contents for Agent {
    fn kind(&self) -> &'static str {
        "spearlet"
    }

    fn keeps(&self) -> &'static [&'static str] {
        &["object/"]
    }

    fn needs(&self) -> &'static [&'static str] {
        &["object/"]
    }

    fn attachment(&self, record: &Record) -> Result<Option<Attachment>, Fault> {
        #[derive(Deserialize)]
        struct Object {
            blob: String,
            size: u64,
            sha256: String,
        }
        let Object { blob, size, sha256 } = store::decode(&record.key, &record.value)?;
        Ok(Some(Attachment { path: format!("objects/{blob}"), proof: Some((size, sha256)) }))
    }

    fn others(&self) -> &'static [&'static str] {
        &["node-id"]
    }
}

/// Takes an archive, checks it, and keeps it.
struct Taker {
    checker: Checker,
    out: Out,
    bar: Progress,
}

enum Out {
    Standard,
    Part(Part),
}

/// The file while it is written; dropping it removes it.
struct Part {
    file: File,
    part: PathBuf,
    place: PathBuf,
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is there no more once it has its name.
        drop(fs::remove_file(&self.part));
    }
}

impl Taker {
    fn new(file: &Path) -> Result<Self, Stopped> {
        let out = if file == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(Stopped::usage("standard output is a terminal: redirect it, or name a file with -O"));
            }
            Out::Standard
        } else {
            Out::Part(Part::begin(file)?)
        };
        Ok(Self { checker: Checker::new(), out, bar: Progress::on_terminal("backup", None) })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.checker.feed(bytes, &mut Nowhere).map_err(|fault| ended(&fault))?;
        self.bar.add(bytes.len() as u64);
        match &mut self.out {
            Out::Standard => {
                let written = io::stdout().lock().write_all(bytes);
                written.map_err(|error| Stopped::failed(format!("cannot write to standard output: {error}")))
            }
            Out::Part(part) => part.file.write_all(bytes).map_err(|error| unwritable(&part.place, &error)),
        }
    }

    fn finish(self) -> Result<(), Stopped> {
        let Self { checker, out, bar } = self;
        bar.finish();
        let summary = checker.finish().map_err(|fault| ended(&fault))?;
        match out {
            Out::Standard => {
                io::stdout().lock().flush().map_err(Stopped::failed)?;
                output::hint(&told("standard output", &summary));
            }
            Out::Part(part) => {
                let place = part.place.clone();
                part.keep().map_err(|error| unwritable(&place, &error))?;
                output::say(&told(&place.display().to_string(), &summary))?;
            }
        }
        warn(&summary)
    }
}

impl Part {
    fn begin(place: &Path) -> Result<Self, Stopped> {
        let Some(name) = place.file_name() else {
            return Err(Stopped::usage(format!("{} is not the name of a file", place.display())));
        };
        let part = place.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
        let file = made.map_err(|error| unwritable(place, &error))?;
        Ok(Self { file, part, place: place.to_owned() })
    }

    fn keep(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.part, &self.place)?;
        let above = self.place.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        File::open(above)?.sync_all()
    }
}

impl Sink for &mut Taker {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.take(&bytes).map_err(io::Error::other)
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Stopped {
    let message = format!("cannot write {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Stopped { code: 75, message },
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Stopped::usage(message),
        _ => Stopped::disk(message),
    }
}

fn told(place: &str, summary: &Summary) -> String {
    let Summary { head, records, bytes, .. } = summary;
    let whose = if head.kind == "sms" { "registry" } else { "agent" };
    format!("{place}: {whose}, revision {}, {records} records, {} files, {bytes} bytes\n", head.rev, head.files)
}

/// Names what was damaged before it was backed up.
pub(super) fn warn(summary: &Summary) -> Result<(), Stopped> {
    for one in &summary.damaged {
        output::complain(&format!("damaged before it was backed up: {}: {}", one.path, one.detail));
    }
    match summary.damaged.len() {
        0 => Ok(()),
        count => Err(Stopped::failed(format!("{count} files are damaged or missing, named above; all else is whole"))),
    }
}

/// Reads an archive, from a file or standard input, into `to`.
pub(super) fn read(file: &Path, what: &str, to: &mut dyn backup::Receiver) -> Result<Summary, Stopped> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => {
            Stopped::usage(format!("cannot read {}: {error}", file.display()))
        }
        _ => Stopped::disk(format!("cannot read {}: {error}", file.display())),
    };
    let (mut input, total): (Box<dyn Read>, Option<u64>) = if file == Path::new("-") {
        (Box::new(io::stdin().lock()), None)
    } else {
        let opened = File::open(file).map_err(failed)?;
        let total = opened.metadata().map_err(failed)?.len();
        (Box::new(opened), Some(total))
    };
    let (mut checker, bar, mut buffer) = (Checker::new(), Progress::on_terminal(what, total), vec![0; 256 * 1024]);
    loop {
        let read = input.read(&mut buffer).map_err(failed)?;
        let piece = buffer.get(..read).unwrap_or_default();
        if piece.is_empty() {
            break;
        }
        checker.feed(piece, to).map_err(|fault| named(file, &fault))?;
        bar.add(read as u64);
    }
    bar.finish();
    checker.finish().map_err(|fault| named(file, &fault))
}

fn named(file: &Path, fault: &Fault) -> Stopped {
    let stopped = ended(fault);
    Stopped { message: format!("{}: {}", file.display(), stopped.message), ..stopped }
}

fn verify(file: &Path) -> Result<(), Stopped> {
    let summary = read(file, "verify", &mut Nowhere)?;
    output::say(&told(&file.display().to_string(), &summary))?;
    warn(&summary)?;
    output::say("no damage found\n")
}

/// The end of a command for what went wrong here.
pub(super) fn ended(fault: &Fault) -> Stopped {
    let code = match (fault.kind, &*fault.code) {
        (_, "RESTORE_NOT_EMPTY") => 2,
        (ErrorKind::StorageFull | ErrorKind::Unavailable, _) => 75,
        (_, "STORAGE_FAILED" | "STORAGE_CORRUPT") => 74,
        (ErrorKind::Invalid, code) if code != "BACKUP_DAMAGED" => 2,
        _ => 1,
    };
    Stopped { code, message: fault.message.clone() }
}
