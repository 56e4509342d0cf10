//! Records, batches of changes to them, and the log of what was changed.

use bytes::Bytes;

/// A revision of the store: one per committed batch, from 1, without gaps.
pub type Rev = u64;

/// Longest key, bytes.
pub const MOST_KEY: usize = 512;
/// Longest value, bytes. Larger things are files or objects.
pub const MOST_VALUE: usize = 8 << 20;

/// A record as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `task/<id>`.
    pub key: String,
    /// Its bytes.
    pub value: Bytes,
    /// Revision that made it.
    pub created: Rev,
    /// Revision that changed it last.
    pub modified: Rev,
}

/// What must hold for a batch to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// No such record.
    Absent(String),
    /// The record was last changed by this revision.
    At(String, Rev),
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a record.
    Put(String, Bytes),
    /// Removes a record; removing none is no change.
    Delete(String),
}

/// Changes that are applied together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What must hold.
    pub guards: Vec<Guard>,
    /// What is changed.
    pub ops: Vec<Op>,
}

impl Batch {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a guard.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// With a write.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Put(key.into(), value.into()));
        self
    }

    /// With a removal.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.ops.push(Op::Delete(key.into()));
        self
    }
}

/// Why a batch was refused: a guard did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is at {actual:?}")]
pub struct Conflict {
    /// Whose guard.
    pub key: String,
    /// The revision it is really at; none: it does not exist.
    pub actual: Option<Rev>,
}

/// What one revision changed, in the order of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision.
    pub rev: Rev,
    /// The changes. A revision that changed nothing has none.
    pub items: Vec<ChangeItem>,
}

/// One record's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeItem {
    /// Which record.
    pub key: String,
    /// Its new bytes; none: it was removed.
    pub value: Option<Bytes>,
    /// Did the record not exist before?
    pub created: bool,
}
