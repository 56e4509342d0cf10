//! Nodes of which something changed that matters for placing work, since somebody looked last.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, MutexGuard},
};
use types::NodeId;

/// A set of nodes that is filled by whoever changes something and emptied by whoever ranks nodes. Its lock is held
/// for moments only, and no other is taken meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Touched(Mutex<HashSet<NodeId>>);

impl Touched {
    fn lock(&self) -> MutexGuard<'_, HashSet<NodeId>> {
        self.0.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// To be called when the change can be seen, or while whoever would look has to wait for it.
    pub(crate) fn add(&self, node: NodeId) {
        self.lock().insert(node);
    }

    /// All of them; the set is empty then.
    pub(crate) fn take(&self) -> HashSet<NodeId> {
        mem::take(&mut self.lock())
    }
}
