//! From what a function is granted to directories that its guest can open.

use cap_std::{ambient_authority, fs::Dir};
use runtime::{Grants, InvokeError};
use std::path::{Path, PathBuf};
use types::Reason;

use crate::host::files::{Grant, Quota, Tree};

/// A directory that lives as long as a call.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the scratch directory of a call cannot be removed");
        }
    }
}

/// Opens everything. The scratch directory is made below `room` and goes with the guard.
///
/// # Errors
/// A directory is not there, or the disk refuses.
pub(crate) fn open(grants: &Grants, room: &Path) -> Result<(Vec<Grant>, Option<Scratch>), InvokeError> {
    let mut opened = Vec::new();
    for directory in &grants.directories {
        let dir = Dir::open_ambient_dir(&directory.host, ambient_authority()).map_err(|error| {
            let message = format!("grants.fs: {} cannot be opened: {}", directory.host.display(), error.kind());
            InvokeError::new(Reason::Task, message)
        })?;
        let tree = Tree { writable: directory.writable, quota: None };
        opened.push(Grant { name: directory.guest.clone(), dir, tree });
    }
    let Some(scratch) = &grants.scratch else { return Ok((opened, None)) };
    let failed = |error: std::io::Error| {
        tracing::error!(path = %room.display(), %error, "no scratch directory can be made");
        InvokeError::new(Reason::Internal, "the node cannot make a scratch directory")
    };
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| failed(std::io::Error::other("no random bytes")))?;
    let path = room.join(format!("{:032x}", u128::from_le_bytes(random)));
    std::fs::create_dir_all(&path).map_err(failed)?;
    let guard = Scratch(path);
    let dir = Dir::open_ambient_dir(&guard.0, ambient_authority()).map_err(failed)?;
    let tree = Tree { writable: true, quota: Some(Quota::new(scratch.bytes, scratch.entries)) };
    opened.push(Grant { name: scratch.guest.clone(), dir, tree });
    Ok((opened, Some(guard)))
}
