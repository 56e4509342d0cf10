//! Room on the disk, looked at before a write: redb survives a full disk only by being opened again, and the file
//! system's own answer may come late.

use rustix::fs::statvfs;
use std::path::Path;

use crate::{Error, Space};

/// Room that stays free for what makes room: removals, trimming, logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reserve {
    /// 64 MiB or 1 % of the disk, whichever is smaller.
    #[default]
    Usual,
    /// So many bytes.
    Bytes(u64),
}

const USUAL_BYTES: u64 = 64 << 20;

/// What there is, for those who watch; none when the system does not say.
pub(super) fn look(dir: &Path, file: &Path) -> Option<Space> {
    let disk = statvfs(dir).ok()?;
    Some(Space {
        file: std::fs::metadata(file).ok()?.len(),
        free: disk.f_bavail.saturating_mul(disk.f_frsize),
        size: disk.f_blocks.saturating_mul(disk.f_frsize),
    })
}

/// Looks at the room for a write that takes about `wants` bytes. A write that gives some back in the end is not
/// looked at: the reserve is there for it, and when somebody else has used that up, pages that the store has used
/// before may still do.
///
/// # Errors
/// [`Error::Full`] when the write would take from the reserve.
pub(super) fn check(dir: &Path, reserve: Reserve, wants: u64) -> Result<(), Error> {
    let disk = statvfs(dir)
        .map_err(|error| Error::Failed { path: dir.to_owned(), detail: format!("cannot ask for its room: {error}") })?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let reserve = match reserve {
        Reserve::Usual => USUAL_BYTES.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 100),
        Reserve::Bytes(bytes) => bytes,
    };
    let wanted = reserve.saturating_add(wants);
    if free >= wanted {
        return Ok(());
    }
    let detail = format!(
        "{free} bytes are free, {wanted} are wanted ({reserve} of them stay in reserve); delete something, or give it \
         a larger disk"
    );
    Err(Error::Full { path: dir.to_owned(), detail })
}
