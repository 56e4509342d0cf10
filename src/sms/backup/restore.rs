//! Makes a data directory of an archive.
//!
//! ```text
//!   archive ─ checked as it comes ─► <dir>.restoring-<random>/ ─ whole and right? ─► fsync ─► rename to <dir>
//! ```
//! The target is not touched before everything is verified and on the disk. A directory that is there has to be empty,
//! or is exchanged with the new one in one step and kept aside.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use store::{DataDir, Record, Rev, redb::Building};
use types::{ErrorKind, Fault, LogId};

use super::{
    check::{Receiver, Summary},
    format::{Head, disk},
};

/// A directory that is being filled.
pub struct Restore {
    target: PathBuf,
    work: PathBuf,
    /// Directories above it that were not there, the nearest first.
    made: Vec<PathBuf>,
    /// What is there already; held so that nobody starts in it.
    replaces: Option<DataDir>,
    building: Option<Building>,
    file: Option<(File, PathBuf)>,
    kind: String,
    settled: bool,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The new identity of the log.
    pub log_id: LogId,
    /// The revision that it goes on after.
    pub rev: Rev,
    /// Where the old directory lies now.
    pub aside: Option<PathBuf>,
}

impl Restore {
    /// Begins to restore into `target`, which is absent or empty; with `force` what is there is moved aside at the
    /// end. Blocks on the disk, as everything here.
    ///
    /// # Errors
    /// `RESTORE_NOT_EMPTY`, `RESTORE_IN_USE`; the disk refuses.
    pub fn begin(target: &Path, force: bool) -> Result<Self, Fault> {
        let replaces = look(target, force)?;
        let Some(name) = target.file_name() else {
            return Err(Fault::invalid(format!("{} has no name of its own: give a directory", target.display())));
        };
        let above = target.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let made = above.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists());
        let made: Vec<PathBuf> = made.map(Path::to_owned).collect();
        fs::create_dir_all(above).map_err(|error| disk("make it", above, &error))?;
        let work = above.join(format!("{}.restoring-{}", name.to_string_lossy(), LogId::new()));
        directory(&work)?;
        let mut this = Self {
            target: target.to_owned(),
            work,
            made,
            replaces,
            building: None,
            file: None,
            kind: String::new(),
            settled: false,
        };
        this.building = Some(Building::begin(&this.work, "store.redb.new")?);
        Ok(this)
    }

    /// Puts what was read in its place; the checker has found it whole.
    ///
    /// # Errors
    /// The disk refuses: the target is as it was.
    pub fn settle(mut self, summary: &Summary) -> Result<Restored, Fault> {
        let (log_id, rev) = (LogId::new(), summary.head.rev);
        let Some(building) = self.building.take() else { return Err(Fault::internal("it was settled before")) };
        building.finish(log_id, rev, rev)?;
        if self.kind == "sms" {
            let files = self.work.join("files");
            directory(&files)?;
            directory(&self.work.join("logs"))?;
            // The files belong to this very store: see `sms::files`.
            keep(&files.join("store-id"), |file| writeln!(file, "{log_id}"))?;
        }
        sync_tree(&self.work)?;
        let aside = self.place()?;
        self.settled = true;
        Ok(Restored { log_id, rev, aside })
    }

    fn place(&self) -> Result<Option<PathBuf>, Fault> {
        let failed = |error: io::Error| match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::BUSY | rustix::io::Errno::XDEV) => {
                Fault::invalid(format!("{} is a mount point: restore into a directory below it", self.target.display()))
            }
            _ => disk("put the restored directory in its place", &self.target, &error),
        };
        let above = self.work.parent().unwrap_or_else(|| Path::new("."));
        let sync = || {
            let names = self.made.iter().filter_map(|made| made.parent()).filter(|above| !above.as_os_str().is_empty());
            names.chain([above]).try_for_each(|dir| File::open(dir)?.sync_all())
        };
        let Some(_held) = &self.replaces else {
            fs::rename(&self.work, &self.target).and_then(|()| sync()).map_err(failed)?;
            return Ok(None);
        };
        let exchanged = renameat_with(CWD, &self.work, CWD, &self.target, RenameFlags::EXCHANGE);
        exchanged.map_err(|error| failed(error.into()))?;
        let name = self.work.file_name().unwrap_or_default().to_string_lossy().replace(".restoring-", ".replaced-");
        let aside = above.join(name);
        fs::rename(&self.work, &aside).and_then(|()| sync()).map_err(failed)?;
        Ok(Some(aside))
    }
}

/// May it be restored there? What there is, if it is to be moved aside.
fn look(target: &Path, force: bool) -> Result<Option<DataDir>, Fault> {
    let mut entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk("look into it", target, &error)),
    };
    if entries.next().is_none() {
        return Ok(None);
    }
    if !force {
        let message = format!("{} is not empty: give another directory, or --force to move it aside", target.display());
        return Err(Fault::conflict("RESTORE_NOT_EMPTY", message));
    }
    match DataDir::open(target) {
        Ok(held) => Ok(Some(held)),
        Err(error @ store::Error::InUse { .. }) => {
            let message = format!("{error}: stop it first");
            Err(Fault::new(ErrorKind::Unavailable, "RESTORE_IN_USE", message))
        }
        Err(error) => Err(error.into()),
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        self.building = None;
        if let Err(error) = fs::remove_dir_all(&self.work) {
            tracing::warn!(path = %self.work.display(), %error, "cannot remove an unfinished restore");
        }
        for path in &self.made {
            // Not if somebody else has begun to use it.
            drop(fs::remove_dir(path));
        }
    }
}

impl Receiver for Restore {
    fn head(&mut self, head: &Head) -> Result<(), Fault> {
        if !matches!(&*head.kind, "sms" | "spearlet") {
            let message = format!("the backup is of a {:?}, which this program does not know", head.kind);
            return Err(Fault::new(ErrorKind::Unsupported, "BACKUP_NEWER", message));
        }
        self.kind.clone_from(&head.kind);
        Ok(())
    }

    fn record(&mut self, record: Record) -> Result<(), Fault> {
        match &mut self.building {
            Some(building) => Ok(building.record(&record)?),
            None => Err(Fault::internal("it was settled before")),
        }
    }

    fn file(&mut self, path: &str, _: u64) -> Result<(), Fault> {
        // The checker lets only plain names through.
        let place = self.work.join(path);
        if let Some(dir) = place.parent().filter(|dir| *dir != self.work) {
            directory(dir)?;
        }
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place);
        self.file = Some((made.map_err(|error| disk("make it", &place, &error))?, place));
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match &mut self.file {
            Some((file, place)) => file.write_all(bytes).map_err(|error| disk("write it", place, &error)),
            None => Err(Fault::internal("bytes of no file")),
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        match self.file.take() {
            Some((file, place)) => file.sync_all().map_err(|error| disk("write it to the disk", &place, &error)),
            None => Ok(()),
        }
    }
}

fn directory(path: &Path) -> Result<(), Fault> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(disk("make it", path, &error)),
        _ => Ok(()),
    }
}

fn keep(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Fault> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let kept = made.and_then(|mut file| write(&mut file).and_then(|()| file.sync_all()));
    kept.map_err(|error| disk("write it", path, &error))
}

/// The names of a directory and of those in it survive a power cut.
fn sync_tree(path: &Path) -> Result<(), Fault> {
    let synced = (|| {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                File::open(entry.path())?.sync_all()?;
            }
        }
        File::open(path)?.sync_all()
    })();
    synced.map_err(|error: io::Error| disk("write it to the disk", path, &error))
}
