//! Clocks: wall-clock time, a monotonic one that starts with the call, and the processor time of the guest's thread.

use rustix::time::{ClockId, clock_gettime};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use types::Clock;

use super::{Answer, Call, Errno};

/// Clock ids.
pub(crate) const REALTIME: u32 = 0;
pub(crate) const MONOTONIC: u32 = 1;
const PROCESS_CPU: u32 = 2;
const THREAD_CPU: u32 = 3;

/// The clocks of one call.
pub(crate) struct Clocks {
    wall: Arc<dyn Clock>,
    start: Instant,
    /// Processor time of the thread when it was first asked for: what ran on it before is not the guest's.
    busy_before: Option<Duration>,
}

impl Clocks {
    /// Clocks whose monotonic one starts now.
    pub(crate) fn new(wall: Arc<dyn Clock>) -> Self {
        Self { wall, start: Instant::now(), busy_before: None }
    }

    /// Nanoseconds of a clock.
    pub(crate) fn now(&mut self, id: u32) -> Result<u64, Errno> {
        match id {
            REALTIME => {
                let millis = u64::try_from(self.wall.wall().millis()).map_err(|_| Errno::Overflow)?;
                millis.checked_mul(1_000_000).ok_or(Errno::Overflow)
            }
            MONOTONIC => u64::try_from(self.start.elapsed().as_nanos()).map_err(|_| Errno::Overflow),
            // A guest has one thread.
            PROCESS_CPU | THREAD_CPU => {
                let now = clock_gettime(ClockId::ThreadCPUTime);
                let now = Duration::try_from(now).map_err(|_| Errno::Overflow)?;
                let used = now.saturating_sub(*self.busy_before.get_or_insert(now));
                u64::try_from(used.as_nanos()).map_err(|_| Errno::Overflow)
            }
            _ => Err(Errno::Inval),
        }
    }

    /// The moment a subscription that was made at `begun` means; `None` lies too far ahead to ever come.
    pub(crate) fn moment(
        &mut self,
        id: u32,
        timeout: u64,
        absolute: bool,
        begun: Instant,
    ) -> Result<Option<Instant>, Errno> {
        if !matches!(id, REALTIME | MONOTONIC) {
            return Err(Errno::Inval);
        }
        let left = if absolute { timeout.saturating_sub(self.now(id)?) } else { timeout };
        Ok(begun.checked_add(Duration::from_nanos(left)))
    }
}

/// Resolution in nanoseconds: a millisecond of wall-clock time, a nanosecond of the others.
pub(crate) fn clock_res_get(call: &mut Call<'_>, id: u32, out: u32) -> Answer {
    let resolution = match id {
        REALTIME => 1_000_000,
        MONOTONIC | PROCESS_CPU | THREAD_CPU => 1,
        _ => return Err(Errno::Inval.into()),
    };
    Ok(call.memory.write_u64(out, resolution)?)
}

pub(crate) fn clock_time_get(call: &mut Call<'_>, id: u32, _precision: u64, out: u32) -> Answer {
    let now = call.process.clocks.now(id)?;
    Ok(call.memory.write_u64(out, now)?)
}
