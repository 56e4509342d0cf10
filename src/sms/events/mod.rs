//! Events: committed changes, to whoever wants to follow them.
//!
//! ```text
//!   change log ─► Reader: whole revisions ─┬─► http        GET /api/v1/events (SSE), everything public
//!                                          ├─► task_events sms.TaskService/SubscribeTaskEvents, one node
//!                                          └─► work        an agent's work list, one node
//! ```
//! A position is `<log_id>:<revision>`. A reader whose position cannot be continued (trimmed, of another log, ahead
//! of this one) is told so and never moved on silently. Replay and live events come from one reader, so there is
//! no gap and no repetition between them.

pub mod http;
mod reader;
mod record;
mod task_events;
mod work;

pub(crate) use task_events::task_events;
pub(crate) use work::{list_work, watch_work};

#[cfg(test)]
mod tests;
