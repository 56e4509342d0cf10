//! What a guest used, as REST shows it.

use serde::Serialize;
use types::Usage;
use utoipa::ToSchema;

/// What a guest used.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
pub struct UsageView {
    /// Wall-clock time in the guest, microseconds.
    wall_us: u64,
    /// Processor time of its thread, microseconds. Of a call of less than two milliseconds it may be `wall_us`.
    cpu_us: u64,
    /// Largest size of its memories.
    peak_memory_bytes: u64,
    /// Bytes of standard input that it read.
    bytes_in: u64,
    /// Bytes of its answer.
    bytes_out: u64,
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        let (wall_us, cpu_us) = usage.micros();
        let Usage { peak_memory_bytes, bytes_in, bytes_out, .. } = usage;
        Self { wall_us, cpu_us, peak_memory_bytes, bytes_in, bytes_out }
    }
}
