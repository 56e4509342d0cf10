//! `spear store`: looks after the store of a data directory that no process uses.

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Subcommand;
use serde_json::{Map, Value, json};
use std::{
    io::{self, BufWriter, StdoutLock, Write},
    path::{Path, PathBuf},
};
use store::{Change, Record, redb::Stopped as StoppedStore};
use types::Timestamp;

use super::output;
use crate::stopped::Stopped;

/// Look after a store.
#[derive(Subcommand, Clone, Debug)]
pub(super) enum Store {
    /// Read all of it and verify every checksum; nothing is changed
    Check {
        /// The data directory, such as ./data/sms
        dir: PathBuf,
    },
    /// Write its records as lines of JSON; what is damaged is named and left out
    ///
    /// A line is {"key", "value" or "value_base64", "created", "modified"}: the value as JSON where it is JSON, else
    /// in base64; the revisions that made it and changed it last. With --changes, the log instead: {"rev", "time",
    /// "changes": [{"key", "op", "value" or "value_base64"}]}.
    Dump {
        /// The data directory, such as ./data/sms
        dir: PathBuf,
        /// Only keys that begin with this, such as task/
        #[arg(long, default_value = "")]
        prefix: String,
        /// The log of changes instead of the records
        #[arg(long)]
        changes: bool,
        /// Of the log, what comes after this revision
        #[arg(long, requires = "changes", default_value_t = 0)]
        after: u64,
    },
    /// Rewrite it to the size of what is in it
    ///
    /// Every record is verified and copied to a new file, which takes the place of the old one when it is complete
    /// and on the disk: whatever happens meanwhile, the store is whole. Needs room for the copy.
    Compact {
        /// The data directory, such as ./data/sms
        dir: PathBuf,
    },
}

impl Store {
    pub(super) fn run(self) -> Result<(), Stopped> {
        match self {
            Self::Check { dir } => check(&dir),
            Self::Dump { dir, prefix, changes, after } => dump(&dir, &prefix, changes.then_some(after)),
            Self::Compact { dir } => compact(&dir),
        }
    }
}

fn check(dir: &Path) -> Result<(), Stopped> {
    let report = store::redb::check(dir).map_err(Stopped::store)?;
    let path = report.path.display();
    let log = report.log_id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    let stop = if report.clean { "in order" } else { "not in order" };
    output::say(&format!(
        "{path}: {} bytes, log {log}, revisions {} to {}, {} records, {} log entries, closed {stop}\n",
        report.bytes,
        report.floor.saturating_add(1).min(report.head),
        report.head,
        report.records,
        report.entries
    ))?;
    if report.damage.is_empty() {
        return output::say("no damage found\n");
    }
    for finding in &report.damage {
        output::say(&format!("damage: {finding}\n"))?;
    }
    Err(Stopped::disk(format!(
        "{path} is damaged: restore a backup of the data directory, or move store.redb and store.clean away to \
         begin with an empty store; `spear store dump {}` writes what is whole",
        dir.display()
    )))
}

fn compact(dir: &Path) -> Result<(), Stopped> {
    let done = store::redb::compact(dir).map_err(Stopped::store)?;
    output::say(&format!(
        "{} bytes before, {} after; {} records, {} log entries\n",
        done.before, done.after, done.records, done.entries
    ))
}

/// Why a dump ends early.
enum Ended {
    Store(store::Error),
    Output(io::Error),
}

impl From<store::Error> for Ended {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

/// Writes lines and names what cannot be written.
struct Dump<'a> {
    out: BufWriter<StdoutLock<'a>>,
    damaged: u64,
}

impl Dump<'_> {
    fn line(&mut self, line: Result<Value, String>) -> Result<(), Ended> {
        let line = match line {
            Ok(line) => line,
            Err(detail) => {
                self.damaged += 1;
                output::complain(&format!("damage: {detail}"));
                return Ok(());
            }
        };
        writeln!(self.out, "{line}").map_err(Ended::Output)
    }
}

fn dump(dir: &Path, prefix: &str, changes: Option<u64>) -> Result<(), Stopped> {
    let store = StoppedStore::open(dir).map_err(Stopped::store)?;
    let mut dump = Dump { out: BufWriter::new(io::stdout().lock()), damaged: 0 };
    let walked = match changes {
        None => store.records(prefix, |record| dump.line(record.map(|record| of_record(&record)))),
        Some(after) => store.changes(after, |entry| match entry {
            Ok((change, time)) => of_change(&change, time, prefix).map_or(Ok(()), |line| dump.line(Ok(line))),
            Err(detail) => dump.line(Err(detail)),
        }),
    };
    let walked = walked.and_then(|()| dump.out.flush().map_err(Ended::Output));
    match walked {
        Err(Ended::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Ended::Output(error)) => Err(Stopped::failed(format!("cannot write to standard output: {error}"))),
        Err(Ended::Store(error)) => {
            // What was read before it is whole.
            drop(dump.out.flush());
            Err(Stopped::disk(format!("{error}; what comes after it cannot be read")))
        }
        Ok(()) if dump.damaged > 0 => {
            Err(Stopped::disk(format!("{} damaged, named above; the rest was written", dump.damaged)))
        }
        Ok(()) => Ok(()),
    }
}

/// The value under a name that says how it is written.
fn value(line: &mut Map<String, Value>, bytes: &[u8]) {
    match serde_json::from_slice(bytes) {
        Ok(value) => line.insert("value".to_owned(), value),
        Err(_) => line.insert("value_base64".to_owned(), STANDARD.encode(bytes).into()),
    };
}

fn of_record(record: &Record) -> Value {
    let mut line = Map::new();
    line.insert("key".to_owned(), record.key.clone().into());
    value(&mut line, &record.value);
    line.insert("created".to_owned(), record.created.into());
    line.insert("modified".to_owned(), record.modified.into());
    Value::Object(line)
}

/// A log entry; none when it changed nothing under the prefix.
fn of_change(change: &Change, time: Timestamp, prefix: &str) -> Option<Value> {
    let wanted = change.items.iter().filter(|item| item.key.starts_with(prefix));
    let items: Vec<Value> = wanted
        .map(|item| {
            let op = match (&item.value, item.created) {
                (None, _) => "deleted",
                (Some(_), true) => "created",
                (Some(_), false) => "updated",
            };
            let mut line =
                Map::from_iter([("key".to_owned(), Value::from(item.key.clone())), ("op".to_owned(), Value::from(op))]);
            if let Some(bytes) = &item.value {
                value(&mut line, bytes);
            }
            Value::Object(line)
        })
        .collect();
    let shown = prefix.is_empty() || !items.is_empty();
    shown.then(|| json!({"rev": change.rev, "time": time.to_string(), "changes": items}))
}
