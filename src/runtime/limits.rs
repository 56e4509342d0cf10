//! The walls around a guest.

use std::time::Duration;

/// What a guest may take. All bounds are inclusive: reaching one is allowed, passing it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all its memories and tables together.
    pub memory_bytes: u64,
    /// Bytes of its stack.
    pub stack_bytes: usize,
    /// Wall-clock time of a call, host calls included.
    pub wall: Duration,
    /// Processor time of a call.
    pub cpu: Duration,
    /// Bytes of standard output; more ends the call with reason `output`.
    pub stdout_bytes: usize,
    /// Bytes of standard error; more is cut and counted.
    pub stderr_bytes: usize,
    /// Bytes of an artifact.
    pub artifact_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 128 << 20,
            stack_bytes: 1 << 20,
            wall: Duration::from_secs(30),
            cpu: Duration::from_secs(10),
            stdout_bytes: 1 << 20,
            stderr_bytes: 1 << 20,
            artifact_bytes: 64 << 20,
        }
    }
}
