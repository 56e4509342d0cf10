//! Telling somebody that an execution has ended.
//!
//! ```text
//!   execution ends ─► pending ── 2xx ─► delivered
//!                      │   ▲
//!                      │   └ anything else: again, later
//!                      └ 410, or tried for too long ─► failed
//! ```
//! A lost execution whose late report comes ends a second time: the second round begins as pending again.

use serde::{Deserialize, Serialize};

use crate::{ExecutionId, Timestamp};

/// Where the telling stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallbackStatus {
    /// It is still to be told.
    Pending,
    /// The receiver has said that it knows.
    Delivered,
    /// Given up.
    Failed,
}

impl CallbackStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// The telling of one execution's end; made in the commit that ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// Which execution.
    pub id: ExecutionId,
    /// Who is told.
    pub url: String,
    /// 1; 2 where a late report has replaced `lost`.
    pub round: u32,
    /// Where it stands.
    pub status: CallbackStatus,
    /// Tries in this round.
    #[serde(default)]
    pub tries: u32,
    /// How long this round has been tried, milliseconds of a running registry.
    #[serde(default)]
    pub spent_ms: u64,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it is tried next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<Timestamp>,
}

impl Callback {
    /// Not tried yet.
    pub fn new(id: ExecutionId, url: String, round: u32) -> Self {
        let status = CallbackStatus::Pending;
        Self { id, url, round, status, tries: 0, spent_ms: 0, last_error: None, next_try_at: None }
    }
}
