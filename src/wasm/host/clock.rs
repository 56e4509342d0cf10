//! Clocks: wall-clock time and a monotonic one that starts with the call.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use types::Clock;

use super::{Answer, Call, Errno};

/// Clock ids.
pub(crate) const REALTIME: u32 = 0;
pub(crate) const MONOTONIC: u32 = 1;

/// The clocks of one call.
pub(crate) struct Clocks {
    wall: Arc<dyn Clock>,
    start: Instant,
}

impl Clocks {
    /// Clocks whose monotonic one starts now.
    pub(crate) fn new(wall: Arc<dyn Clock>) -> Self {
        Self { wall, start: Instant::now() }
    }

    /// Nanoseconds of a clock.
    pub(crate) fn now(&self, id: u32) -> Result<u64, Errno> {
        match id {
            REALTIME => {
                let millis = u64::try_from(self.wall.wall().millis()).map_err(|_| Errno::Overflow)?;
                millis.checked_mul(1_000_000).ok_or(Errno::Overflow)
            }
            MONOTONIC => u64::try_from(self.start.elapsed().as_nanos()).map_err(|_| Errno::Overflow),
            // Processor time is not offered: the interface lets a host say so by this number.
            _ => Err(Errno::Inval),
        }
    }

    /// The moment a subscription means; `None` lies too far ahead to ever come.
    pub(crate) fn moment(&self, id: u32, timeout: u64, absolute: bool) -> Result<Option<Instant>, Errno> {
        let now = self.now(id)?;
        let left = if absolute { timeout.saturating_sub(now) } else { timeout };
        Ok(Instant::now().checked_add(Duration::from_nanos(left)))
    }
}

/// Resolution in nanoseconds: a millisecond of wall-clock time, a nanosecond of the other.
pub(crate) fn clock_res_get(call: &mut Call<'_>, id: u32, out: u32) -> Answer {
    let resolution = match id {
        REALTIME => 1_000_000,
        MONOTONIC => 1,
        _ => return Err(Errno::Inval.into()),
    };
    Ok(call.memory.write_u64(out, resolution)?)
}

pub(crate) fn clock_time_get(call: &mut Call<'_>, id: u32, _precision: u64, out: u32) -> Answer {
    let now = call.process.clocks.now(id)?;
    Ok(call.memory.write_u64(out, now)?)
}
