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

/// What a write does to the room.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wants {
    /// It takes about so much.
    Room(u64),
    /// It gives some back in the end; a quarter of the reserve is there for that.
    ToFree,
}

/// What there is, for those who watch; none when the system does not say.
pub(super) fn look(dir: &Path, file: &Path) -> Option<Space> {
    let disk = statvfs(dir).ok()?;
    Some(Space {
        file: std::fs::metadata(file).ok()?.len(),
        free: disk.f_bavail.saturating_mul(disk.f_frsize),
        size: disk.f_blocks.saturating_mul(disk.f_frsize),
    })
}

/// Is there room for a write, however small? Blocks on the disk.
///
/// # Errors
/// [`Error::Full`] with what is free and what stays in reserve; [`Error::Failed`] when the disk does not say.
pub fn room(dir: &Path, reserve: Reserve) -> Result<(), Error> {
    check(dir, reserve, Wants::Room(0))
}

/// # Errors
/// [`Error::Full`] when the write would take from the reserve.
pub(super) fn check(dir: &Path, reserve: Reserve, wants: Wants) -> Result<(), Error> {
    let disk = statvfs(dir)
        .map_err(|error| Error::Failed { path: dir.to_owned(), detail: format!("cannot ask for its room: {error}") })?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let reserve = match reserve {
        Reserve::Usual => USUAL_BYTES.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 100),
        Reserve::Bytes(bytes) => bytes,
    };
    let wanted = match wants {
        Wants::Room(bytes) => reserve.saturating_add(bytes),
        Wants::ToFree => reserve / 4,
    };
    if free >= wanted {
        return Ok(());
    }
    let detail = format!("{free} bytes are free, {wanted} are wanted ({reserve} of them stay in reserve)");
    Err(Error::Full { path: dir.to_owned(), detail })
}
