//! How far the work list has been handled: a record in the node's store, written in the same commit as what it
//! stands for, and a copy of its revision in a file of the seed's format.

use serde::{Deserialize, Serialize};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};
use supervise::{Stop, TaskResult};
use tokio::sync::watch;
use types::{Keyed, LogId, NodeId};

/// The least time between two writes of the file.
const PACE: Duration = Duration::from_secs(1);

/// How far this node has handled which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The registry's log.
    pub log_id: LogId,
    /// Everything up to this revision is in the inbox, or was seen to be nothing.
    pub rev: u64,
    /// Work up to `rev` was left with the registry for want of room: list again.
    #[serde(default)]
    pub relist: bool,
}

impl Keyed for Position {
    const PREFIX: &'static str = "agent/";

    fn id(&self) -> String {
        Self::ID.to_owned()
    }
}

impl Position {
    /// There is one.
    pub(crate) const ID: &'static str = "cursor";
}

/// Keeps `task_events_cursor_<node>.json`: the revision in decimal, replaced whole.
#[derive(Clone)]
pub(crate) struct Export {
    path: PathBuf,
    revision: watch::Receiver<Option<u64>>,
}

impl Export {
    /// For a node; `revision` moves after the commit.
    pub(crate) fn new(data_dir: &Path, node: NodeId, revision: watch::Receiver<Option<u64>>) -> Self {
        Self { path: data_dir.join(format!("task_events_cursor_{node}.json")), revision }
    }

    /// Follows the revision until told to stop; the last one is written before it returns.
    pub(crate) async fn run(&mut self, stop: &Stop) -> TaskResult {
        let mut failing = false;
        self.revision.mark_changed();
        loop {
            let go_on = tokio::select! {
                biased;
                changed = self.revision.changed() => changed.is_ok(),
                () = stop.cancelled() => false,
            };
            let now = *self.revision.borrow_and_update();
            if let Some(rev) = now {
                let path = self.path.clone();
                let written = tokio::task::spawn_blocking(move || replace(&path, rev)).await.map_err(io::Error::other);
                match written.flatten() {
                    Ok(()) => failing = false,
                    Err(error) if !failing => {
                        failing = true;
                        tracing::warn!(%error, path = %self.path.display(), "cannot export the cursor; work goes on");
                    }
                    Err(_) => {}
                }
            }
            if !go_on {
                return Ok(());
            }
            if now.is_none() {
                continue;
            }
            stop.run_until_cancelled(tokio::time::sleep(PACE)).await;
        }
    }
}

fn replace(path: &Path, rev: u64) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::File::create(&temporary)?;
    write!(file, "{rev}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
