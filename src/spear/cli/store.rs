//! `spear store`.

use clap::Subcommand;
use std::path::PathBuf;

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
}

impl Store {
    pub(super) fn run(self) -> Result<(), Stopped> {
        let Self::Check { dir } = self;
        let report = store::redb::check(&dir).map_err(Stopped::store)?;
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
             begin with an empty store"
        )))
    }
}
