//! What one execution may take: the node's limits, narrowed by its task and by itself.

use runtime::Limits;
use std::time::Duration;
use types::{Execution, Fault, Task};

use crate::Config;

/// Largest result the node's store can keep, bytes.
const MOST_RESULT: usize = store::MOST_VALUE - 1024;

/// The limits of an execution; `wall` is its deadline.
///
/// # Errors
/// When a setting of the task does not parse; the field is named.
pub(crate) fn walls(config: &Config, task: &Task, execution: &Execution) -> Result<Limits, Fault> {
    let mut limits = config.limits.clone();
    limits.stdout_bytes = limits.stdout_bytes.min(MOST_RESULT);
    if let Some(bytes) = number(task, "memory_bytes")? {
        limits.memory_bytes = limits.memory_bytes.min(bytes);
    }
    if let Some(bytes) = number(task, "stdout_bytes")? {
        limits.stdout_bytes = limits.stdout_bytes.min(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
    let asked = match execution.timeout() {
        Some(timeout) => Some(timeout),
        None => number(task, "timeout_ms")?.map(Duration::from_millis),
    };
    limits.wall = asked.unwrap_or(config.default_timeout).min(config.max_timeout);
    Ok(limits)
}

fn number(task: &Task, key: &str) -> Result<Option<u64>, Fault> {
    let Some(text) = task.config.get(key) else { return Ok(None) };
    match text.trim().parse::<u64>() {
        Ok(0) | Err(_) => {
            let detail = format!("{:?} is not a whole number above 0", types::id::clip(text));
            Err(Fault::invalid_field(format!("config.{key}"), detail))
        }
        Ok(number) => Ok(Some(number)),
    }
}
