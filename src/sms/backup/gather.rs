//! What goes into an archive: a snapshot, and the files that its records need.

use std::{
    fs::{self, File},
    io,
    ops::Bound,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use store::{Record, Snapshot, redb::Stopped};
use types::{Fault, LogId, Timestamp};

use super::{
    format::{Damaged, FORMAT, Head},
    removals::{Hold, REMOVED},
};

/// Records looked at together.
pub(super) const TOGETHER: usize = 1000;

/// Which records and files of a data directory are kept.
pub trait Contents: Send + Sync {
    /// `sms` or `spearlet`.
    fn kind(&self) -> &'static str;
    /// Prefixes of the records that are kept, in order; an empty one stands for all.
    fn keeps(&self) -> &'static [&'static str];
    /// Prefixes of the records that may need a file.
    fn needs(&self) -> &'static [&'static str];
    /// The file that a record needs.
    ///
    /// # Errors
    /// The record is damaged.
    fn attachment(&self, record: &Record) -> Result<Option<Attachment>, Fault>;
    /// Files that are kept where there are any, by their names in the directory.
    fn others(&self) -> &'static [&'static str];
}

/// A file that a record needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its path in the data directory and in the archive.
    pub path: String,
    /// Length and sha256 it must have; none: it may be missing, and is taken as it is.
    pub proof: Option<(u64, String)>,
}

/// A file to be written, as it was found.
#[derive(Clone)]
pub(super) struct Attached {
    pub path: String,
    pub place: PathBuf,
    pub inode: u64,
    pub bytes: u64,
    pub sha256: Option<String>,
}

/// Everything that goes into one archive.
pub struct Source {
    pub(super) head: Head,
    pub(super) keeps: &'static [&'static str],
    pub(super) snapshot: Box<dyn Snapshot>,
    pub(super) attached: Vec<Attached>,
    pub(super) damaged: Vec<Damaged>,
    /// As long as it is read, nothing of it goes.
    pub(super) holds: Vec<Hold>,
}

impl Source {
    /// What the archive will say of itself.
    pub fn head(&self) -> &Head {
        &self.head
    }
}

/// Gathers from a directory that no process uses; it stays ours until the source is gone.
///
/// # Errors
/// A record that cannot be read.
pub async fn of_stopped(store: Stopped, dir: &Path, contents: &dyn Contents, now: Timestamp) -> Result<Source, Fault> {
    let log_id = store.log_id();
    gather(Box::new(store), dir, contents, (log_id, now)).await
}

/// Looks at the files that the records of a snapshot need. They must not go meanwhile.
pub(super) async fn gather(
    snapshot: Box<dyn Snapshot>,
    dir: &Path,
    contents: &dyn Contents,
    (log_id, now): (LogId, Timestamp),
) -> Result<Source, Fault> {
    let mut found = Found::default();
    let others = contents.others().iter().map(|name| Attachment { path: (*name).to_owned(), proof: None });
    found = look(dir, others.collect(), found).await?;
    for prefix in contents.needs() {
        let mut last = None::<String>;
        loop {
            let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let page = snapshot.list(prefix, from, TOGETHER).await?;
            let Some(end) = page.last() else { break };
            last = Some(end.key.clone());
            let mut wanted = Vec::with_capacity(page.len());
            for record in &page {
                wanted.extend(contents.attachment(record)?);
            }
            found = look(dir, wanted, found).await?;
        }
    }
    let Found { attached, damaged } = found;
    let head = Head {
        format: FORMAT,
        kind: contents.kind().to_owned(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        created_at_ms: now.millis(),
        log_id,
        rev: snapshot.rev(),
        files: attached.len() as u64,
        file_bytes: attached.iter().map(|one| one.bytes).sum(),
    };
    Ok(Source { head, keeps: contents.keeps(), snapshot, attached, damaged, holds: Vec::new() })
}

#[derive(Default)]
struct Found {
    attached: Vec<Attached>,
    damaged: Vec<Damaged>,
}

async fn look(dir: &Path, wanted: Vec<Attachment>, mut found: Found) -> Result<Found, Fault> {
    let dir = dir.to_owned();
    let looked = tokio::task::spawn_blocking(move || {
        for Attachment { path, proof } in wanted {
            let place = dir.join(&path);
            let detail = match (fs::symlink_metadata(&place), &proof) {
                (Ok(metadata), _) if !metadata.is_file() => "it is not a file".to_owned(),
                (Ok(metadata), Some((bytes, _))) if metadata.len() != *bytes => {
                    format!("it has {} bytes instead of {bytes}", metadata.len())
                }
                (Ok(metadata), _) => {
                    let (inode, bytes) = (metadata.ino(), metadata.len());
                    let sha256 = proof.map(|(_, sha256)| sha256);
                    found.attached.push(Attached { path, place, inode, bytes, sha256 });
                    continue;
                }
                (Err(error), None) if error.kind() == io::ErrorKind::NotFound => continue,
                (Err(error), Some(_)) if error.kind() == io::ErrorKind::NotFound => "it is missing".to_owned(),
                (Err(error), _) => error.to_string(),
            };
            found.damaged.push(Damaged { path, detail });
        }
        found
    });
    looked.await.map_err(|error| Fault::internal(format!("looking at the files: {error}")))
}

impl Attached {
    /// The file that was found, wherever it lies now. Blocks on the disk.
    pub(super) fn open(&self) -> io::Result<File> {
        if let Ok(file) = File::open(&self.place)
            && file.metadata()?.ino() == self.inode
        {
            return Ok(file);
        }
        let dir = self.place.parent().unwrap_or_else(|| Path::new("."));
        File::open(dir.join(REMOVED).join(self.inode.to_string()))
    }
}
