//! The latest changes under one prefix, shared by all its readers.

use bytes::Bytes;
use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};
use store::{Change, Rev};
use tokio::sync::Notify;

/// Changes kept per prefix in memory.
const MOST_EVENTS: usize = 1024;
/// Bytes of values kept per prefix in memory.
const MOST_BYTES: usize = 4 << 20;

/// A record as its first reader decoded it; none when it did not decode.
pub(crate) type Decoded = Option<Arc<dyn Any + Send + Sync>>;

/// One change as it is shared by all readers; decoded at most once.
pub(crate) struct Event {
    pub(crate) rev: Rev,
    pub(crate) key: String,
    pub(crate) value: Option<Bytes>,
    pub(crate) created: bool,
    pub(crate) decoded: OnceLock<Decoded>,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.rev)
    }
}

/// The events of a change, all keys.
pub(crate) fn events(change: Change) -> Vec<Arc<Event>> {
    let rev = change.rev;
    let event = |item: store::ChangeItem| {
        let store::ChangeItem { key, value, created } = item;
        Arc::new(Event { rev, key, value, created, decoded: OnceLock::new() })
    };
    change.items.into_iter().map(event).collect()
}

struct State {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Of revisions up to this one the ring knows nothing.
    floor: Rev,
}

pub(crate) struct Ring {
    state: Mutex<State>,
    pub(crate) changed: Notify,
}

pub(crate) enum Read {
    /// Everything after the position.
    Events(Vec<Arc<Event>>),
    /// The position is behind the ring: read the log.
    Behind,
}

impl Ring {
    pub(crate) fn new(floor: Rev) -> Self {
        Self { state: Mutex::new(State { events: VecDeque::new(), bytes: 0, floor }), changed: Notify::new() }
    }

    /// A ring of its own for a prefix, with what is here under it.
    pub(crate) fn under(&self, prefix: &str) -> Self {
        let state = self.lock();
        let events: VecDeque<_> = state.events.iter().filter(|event| event.key.starts_with(prefix)).cloned().collect();
        let bytes = events.iter().map(|event| event.value.as_ref().map_or(0, Bytes::len)).sum();
        Self { state: Mutex::new(State { events, bytes, floor: state.floor }), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Adds the matching events of one revision, all at once.
    pub(crate) fn push(&self, events: impl Iterator<Item = Arc<Event>>) {
        let mut state = self.lock();
        for event in events {
            state.bytes += event.value.as_ref().map_or(0, Bytes::len);
            state.events.push_back(event);
        }
        while state.events.len() > MOST_EVENTS || state.bytes > MOST_BYTES {
            let Some(oldest) = state.events.pop_front() else { break };
            state.bytes -= oldest.value.as_ref().map_or(0, Bytes::len);
            state.floor = oldest.rev;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn after(&self, position: Rev) -> Read {
        let state = self.lock();
        if position < state.floor {
            return Read::Behind;
        }
        let from = state.events.partition_point(|event| event.rev <= position);
        Read::Events(state.events.range(from..).cloned().collect())
    }
}
