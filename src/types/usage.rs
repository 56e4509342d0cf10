//! What a guest used.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What one call of a guest used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Wall-clock time in the guest.
    #[serde(default, rename = "wall_us", with = "micros")]
    pub wall: Duration,
    /// Processor time of its thread. Of a call of less than two milliseconds it may be its wall-clock time.
    #[serde(default, rename = "cpu_us", with = "micros")]
    pub cpu: Duration,
    /// Largest size of its memories, bytes.
    #[serde(default)]
    pub peak_memory_bytes: u64,
    /// Bytes it was given.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes it answered.
    #[serde(default)]
    pub bytes_out: u64,
}

impl Usage {
    /// Microseconds of wall-clock and of processor time.
    pub fn micros(&self) -> (u64, u64) {
        (micros::of(self.wall), micros::of(self.cpu))
    }
}

/// Durations as whole microseconds.
mod micros {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn of(time: Duration) -> u64 {
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(of(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}
