//! Who this node is. The id outlives restarts and moves of address; losing it would orphan the node's work, so
//! a damaged file is refused and never replaced silently.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use types::{ErrorKind, Fault, NodeId, id::clip};
use uuid::Uuid;

/// Name of the file in the data directory.
const FILE: &str = "node-id";

/// The node's id: its name when that is a UUID, else what `<data>/node-id` holds; made at the first start.
///
/// # Errors
/// When the file is damaged, cannot be read or cannot be written.
pub async fn identity(data_dir: &Path, node_name: &str) -> Result<NodeId, Fault> {
    if let Ok(id) = node_name.parse::<NodeId>() {
        return Ok(id);
    }
    let path = data_dir.join(FILE);
    let done = tokio::task::spawn_blocking(move || load_or_create(&path)).await;
    done.map_err(|error| Fault::internal(format!("reading the identity file: {error}")))?
}

fn load_or_create(path: &Path) -> Result<NodeId, Fault> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(1024).read_to_string(&mut text)) {
        Ok(_) => text.trim().parse::<NodeId>().map_err(|_| match text.trim() {
            "" => damaged(path, "it is empty"),
            other => damaged(path, &format!("{:?} is not a UUID", clip(other))),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Random (version 4): an id derived from time or address could be shared by two machines.
            let id = NodeId(Uuid::new_v4());
            create(path, id).map_err(|error| {
                let message = format!("cannot write {}: {error}; the node keeps its identity there", path.display());
                Fault::new(ErrorKind::Internal, "NODE_IDENTITY_UNWRITABLE", message)
            })?;
            tracing::info!(node = %id, path = %path.display(), "made a new node identity");
            Ok(id)
        }
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Err(damaged(path, "it is a directory")),
        Err(error) => Err(damaged(path, &error.to_string())),
    }
}

fn damaged(path: &Path, what: &str) -> Fault {
    let message = format!(
        "the node's identity file {} is damaged: {what}. Restore it from a backup, or set node_name to the id the \
         registry lists for this node; to make a new identity on purpose, delete it",
        path.display()
    );
    Fault::new(ErrorKind::Internal, "NODE_IDENTITY_DAMAGED", message)
}

fn create(path: &Path, id: NodeId) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    let parent = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    File::open(parent)?.sync_all()
}
