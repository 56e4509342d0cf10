//! `filestat` and the times that can be set.

use cap_std::fs::{FileType, FileTypeExt, Metadata, MetadataExt};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use std::time::Duration;

use crate::host::{Errno, memory::put};

/// `filetype` of preview 1.
pub(crate) fn file_type(kind: FileType) -> u8 {
    match kind {
        kind if kind.is_block_device() => 1,
        kind if kind.is_char_device() => 2,
        kind if kind.is_dir() => 3,
        kind if kind.is_file() => 4,
        kind if kind.is_socket() => 6,
        kind if kind.is_symlink() => 7,
        _ => 0,
    }
}

fn nanos(seconds: i64, rest: i64) -> u64 {
    u64::try_from(i128::from(seconds) * 1_000_000_000 + i128::from(rest)).unwrap_or(0)
}

/// The structure; `SIZE` 56 is that of `wasi_unstable`, whose link count has four bytes.
pub(crate) fn filestat<const SIZE: usize>(metadata: &Metadata) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    put(&mut bytes, 0, &metadata.dev().to_le_bytes());
    put(&mut bytes, 8, &metadata.ino().to_le_bytes());
    put(&mut bytes, 16, &[file_type(metadata.file_type())]);
    let times = [
        nanos(metadata.atime(), metadata.atime_nsec()),
        nanos(metadata.mtime(), metadata.mtime_nsec()),
        nanos(metadata.ctime(), metadata.ctime_nsec()),
    ];
    let rest = if SIZE == 56 {
        let links = u32::try_from(metadata.nlink()).unwrap_or(u32::MAX);
        put(&mut bytes, 20, &links.to_le_bytes());
        24
    } else {
        put(&mut bytes, 24, &metadata.nlink().to_le_bytes());
        32
    };
    put(&mut bytes, rest, &metadata.size().to_le_bytes());
    for (at, time) in (rest + 8..).step_by(8).zip(times) {
        put(&mut bytes, at, &time.to_le_bytes());
    }
    bytes
}

/// Times to set, as the caller gave them.
pub(crate) struct Times(pub(crate) Timestamps);

impl Times {
    /// `which`: access 1, access now 2, change 4, change now 8.
    ///
    /// # Errors
    /// `INVAL` for both ways of one time, or another bit.
    pub(crate) fn new(access: u64, change: u64, which: u32) -> Result<Self, Errno> {
        let one = |set: u32, now: u32, time: u64| match (which & set != 0, which & now != 0) {
            (true, true) => Err(Errno::Inval),
            (true, false) => {
                let time = Duration::from_nanos(time);
                let seconds = i64::try_from(time.as_secs()).map_err(|_| Errno::Overflow)?;
                Ok(Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() })
            }
            (false, true) => Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_NOW }),
            (false, false) => Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }),
        };
        if which > 15 {
            return Err(Errno::Inval);
        }
        Ok(Self(Timestamps { last_access: one(1, 2, access)?, last_modification: one(4, 8, change)? }))
    }
}
