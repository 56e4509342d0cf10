//! Looks at the room on the disks of the data directories, so that an operator hears of a full one before, and not
//! only from, the callers that are refused.
//!
//! A disk that is low is a limit, not an end: reading, heartbeats and removals go on, so the process stays ready.

use net::readiness::Check;
use std::{path::PathBuf, time::Duration};
use supervise::{OnError, Scope};

/// How often a disk is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Low is less than this, or a twentieth of the disk if that is smaller: where uploads begin to be refused.
const LOW: u64 = 64 << 20;

/// Watches the disk of a directory until the scope stops; `check` says when it is low.
pub(crate) fn watch(dir: PathBuf, check: Check, scope: &Scope) {
    check.set_ready();
    scope.spawn("disk", OnError::Log, move |stop| {
        let (dir, check) = (dir.clone(), check.clone());
        async move {
            let mut low = false;
            let mut tick = tokio::time::interval(EVERY);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    _ = tick.tick() => {}
                }
                let place = dir.clone();
                // A disk that hangs must not hang an executor thread.
                let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&place)).await?;
                match asked.map_err(std::io::Error::from) {
                    Ok(disk) => {
                        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
                        let (free, whole) = (bytes(disk.f_bavail), bytes(disk.f_blocks));
                        let state = judge(free, whole, low);
                        match (&state, low) {
                            (Some(_), false) => {
                                tracing::warn!(path = %dir.display(), free, whole,
                                    "the disk is low on space: what needs room is refused until there is more");
                            }
                            (None, true) => {
                                tracing::info!(path = %dir.display(), free, whole, "the disk has space again");
                            }
                            _ => {}
                        }
                        low = state.is_some();
                        match state {
                            Some(reason) => check.set_limited(format!("{}: {reason}", dir.display())),
                            None => check.set_ready(),
                        }
                    }
                    Err(error) => check.set_limited(format!("{}: cannot ask for its room: {error}", dir.display())),
                }
            }
        }
    });
}

/// What is wrong with a disk with so many bytes free of so many in all; one that was low needs more to be well again.
fn judge(free: u64, whole: u64, was_low: bool) -> Option<String> {
    let least = LOW.min(whole / 20);
    let wanted = if was_low { least.saturating_mul(5) / 4 } else { least };
    (free < wanted).then(|| {
        format!(
            "{free} of {whole} bytes are free; what needs room is refused, reading and removing go on; delete \
             something, or give it a larger disk"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_below_64_mib_or_a_twentieth_and_well_again_with_a_quarter_more() {
        let (large, small) = (1 << 40, 100 << 20);
        for (free, whole, was_low, low) in [
            (LOW, large, false, false),
            (LOW - 1, large, false, true),
            (LOW + 1, large, true, true),
            (LOW * 5 / 4, large, true, false),
            (5 << 20, small, false, false),
            ((5 << 20) - 1, small, false, true),
            (0, 0, false, false),
        ] {
            assert_eq!(judge(free, whole, was_low).is_some(), low, "{free} of {whole}, low before: {was_low}");
        }
    }
}
