//! `spear restore`: a data directory from an archive.

use clap::Args;
use sms::backup::Restore as Restoring;
use std::path::PathBuf;

use super::{
    backup::{ended, read, warn},
    output,
};
use crate::stopped::Stopped;

/// Make a data directory from a backup
///
/// Verifies all of the archive before anything is put in its place. Ids stay as they were; the log of changes begins
/// anew, so that agents and readers of events list again. The token of the API is not in a backup: copy it to
/// DIR/token before the start, or a new one is made where one is needed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  spear restore spear.tar --data-dir ./data/sms")]
pub(super) struct Restore {
    /// The archive, or - for standard input
    file: PathBuf,
    /// The directory to make, such as ./data/sms; it must be empty or absent
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Move a directory that is not empty aside
    #[arg(long)]
    force: bool,
}

impl Restore {
    pub(super) fn run(&self) -> Result<(), Stopped> {
        let mut restoring = Restoring::begin(&self.data_dir, self.force).map_err(|fault| ended(&fault))?;
        let summary = read(&self.file, "restore", &mut restoring)?;
        let done = restoring.settle(&summary).map_err(|fault| ended(&fault))?;
        let dir = self.data_dir.display();
        if let Some(aside) = &done.aside {
            output::say(&format!("what was in {dir} is in {} now\n", aside.display()))?;
        }
        let (records, files) = (summary.records, summary.head.files);
        output::say(&format!("{dir}: revision {}, {records} records, {files} files, log {}\n", done.rev, done.log_id))?;
        warn(&summary)
    }
}
