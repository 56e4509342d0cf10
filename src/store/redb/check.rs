//! Looks at everything: every page through redb, every record and log entry through their checksums.

use ::redb::{Database, ReadableDatabase, ReadableTable};
use std::{
    fs::File,
    path::{Path, PathBuf},
};
use types::LogId;

use super::{
    FILE,
    blocks::{Label, label},
    format::{FORMAT, LOG, META, Meta, RECORDS, STORE, read_change, read_record},
    mark::{self, Mark},
    overlay::Overlay,
    slot::{self, Opened, Trouble, guarded},
};
use crate::{DataDir, Error, Rev, directory::unusable};

/// Findings that a report names one by one.
const MOST_FINDINGS: usize = 100;

/// What a check of a store found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Was it closed in order?
    pub clean: bool,
    /// Identity of its log, if that can be read.
    pub log_id: Option<LogId>,
    /// Last revision.
    pub head: Rev,
    /// Last revision before the oldest log entry.
    pub floor: Rev,
    /// Records that are whole.
    pub records: u64,
    /// Log entries that are whole.
    pub entries: u64,
    /// What is wrong, the first 100 findings; empty: nothing.
    pub damage: Vec<String>,
}

/// Checks the store of a data directory that no process has open. Nothing is written but the lock.
///
/// # Errors
/// As [`super::Redb::open`], except that damage is told in the report.
pub fn check(dir: &Path) -> Result<Report, Error> {
    let path = dir.join(FILE);
    let file = File::open(&path).map_err(|error| unusable(&path, "cannot open the store", &error))?;
    let _held = DataDir::open(dir)?;
    let bytes = file.metadata().map_err(|error| unusable(&path, "cannot look at it", &error))?.len();
    let mut report = Report {
        path: path.clone(),
        bytes,
        clean: false,
        log_id: None,
        head: 0,
        floor: 0,
        records: 0,
        entries: 0,
        damage: Vec::new(),
    };
    match label(&file).map_err(|error| unusable(&path, "cannot read it", &error))? {
        Label::Ours => {}
        Label::Foreign(detail) => return Err(Error::Foreign { path, detail }),
        Label::Newer(found) => return Err(Error::Version { path, found, known: FORMAT }),
        Label::Damaged(detail) => {
            report.damage.push(detail);
            return Ok(report);
        }
    }
    let disk = Overlay::new(file);
    match slot::open_blocks(&path, super::Blocks::open(Box::new(disk)), 64 << 20) {
        Ok(mut opened) => {
            let mark = mark::read(dir);
            look(&path, &mut opened, &mut report);
            report.clean = mark.is_some_and(|mark| Some(mark.log_id) == report.log_id && mark.head == report.head);
            slot::shut(opened);
        }
        Err(Error::Corrupt { detail, .. }) => report.damage.push(detail),
        Err(error) => return Err(error),
    }
    Ok(report)
}

/// What is looked at when a store is opened for use: a little after a clean stop, everything otherwise.
pub(super) fn opened(path: &Path, opened: &mut Opened, mark: Option<Mark>) -> Result<Meta, Error> {
    let said = |trouble| slot::explain(path, trouble);
    let meta = guarded(|| ends(&opened.db)).map_err(said)?;
    if meta.oldest_reader > FORMAT {
        return Err(Error::Version { path: path.to_owned(), found: meta.format, known: FORMAT });
    }
    match mark {
        Some(mark) if mark.log_id == meta.log_id && mark.head == meta.head => return Ok(meta),
        Some(mark) if mark.log_id == meta.log_id && mark.head > meta.head => {
            return Err(said(Trouble::Damage(format!(
                "it ends at revision {} but was closed at revision {}: an older copy lies in its place",
                meta.head, mark.head
            ))));
        }
        _ => {}
    }
    if meta.head > 0 {
        tracing::info!(path = %path.display(), head = meta.head, "the store was not closed in order, all of it is checked");
    }
    guarded(|| Ok(opened.db.check_integrity()?)).map_err(said)?;
    let mut found = Walked::default();
    guarded(|| walk(&opened.db, meta, &mut found)).map_err(said)?;
    match found.damage.into_iter().next() {
        Some(detail) => Err(said(Trouble::Damage(detail))),
        None => Ok(meta),
    }
}

/// What the store says of itself, and whether its log begins and ends there.
pub(super) fn ends(db: &Database) -> Result<Meta, Trouble> {
    let txn = db.begin_read()?;
    let meta = slot::meta(&txn)?;
    let log = txn.open_table(LOG)?;
    let first = log.first()?.map(|(rev, _)| rev.value());
    let last = log.last()?.map(|(rev, _)| rev.value());
    let wanted = (meta.floor < meta.head).then_some((meta.floor + 1, meta.head));
    if first.zip(last) != wanted {
        return Err(Trouble::Damage(format!("its log reaches from {first:?} to {last:?}, not {wanted:?}")));
    }
    Ok(meta)
}

fn look(path: &Path, opened: &mut Opened, report: &mut Report) {
    let mut found = Walked::default();
    let looked = guarded(|| {
        let meta = ends(&opened.db)?;
        (report.log_id, report.head, report.floor) = (Some(meta.log_id), meta.head, meta.floor);
        opened.db.check_integrity()?;
        walk(&opened.db, meta, &mut found)
    });
    (report.records, report.entries) = (found.records, found.entries);
    report.damage.append(&mut found.damage);
    if let Err(trouble) = looked {
        report.damage.push(match slot::explain(path, trouble) {
            Error::Corrupt { detail, .. } => detail,
            error => error.to_string(),
        });
    }
}

#[derive(Default)]
struct Walked {
    records: u64,
    entries: u64,
    damage: Vec<String>,
}

impl Walked {
    fn wrong(&mut self, detail: String) {
        if self.damage.len() < MOST_FINDINGS {
            self.damage.push(detail);
        }
    }
}

fn walk(db: &Database, meta: Meta, found: &mut Walked) -> Result<(), Trouble> {
    let txn = db.begin_read()?;
    for record in txn.open_table(RECORDS)?.iter()? {
        let (key, bytes) = record?;
        match read_record(key.value(), bytes.value()) {
            Ok(record) if (1..=record.modified).contains(&record.created) && record.modified <= meta.head => {
                found.records += 1;
            }
            Ok(record) => found.wrong(format!(
                "record {:?}: made by revision {}, changed by {}, but the last is {}",
                record.key, record.created, record.modified, meta.head
            )),
            Err(detail) => found.wrong(format!("record \"{}\": {detail}", key.value().escape_ascii())),
        }
    }
    let mut next = meta.floor + 1;
    for entry in txn.open_table(LOG)?.iter()? {
        let (rev, bytes) = entry?;
        let rev = rev.value();
        if rev != next {
            found.wrong(format!("log entry {rev} stands where {next} should"));
        }
        next = rev.saturating_add(1);
        match read_change(rev, bytes.value()) {
            Ok(_) => found.entries += 1,
            Err(detail) => found.wrong(format!("log entry {rev}: {detail}")),
        }
    }
    if next != meta.head + 1 {
        found.wrong(format!("the log ends before entry {next}, the head is {}", meta.head));
    }
    match txn.open_table(META)?.iter()?.count() {
        1 => {}
        count => {
            found.wrong(format!("it says {count} things of itself, not only {:?}", STORE.escape_ascii().to_string()))
        }
    }
    Ok(())
}
