//! Standard input of a guest: a bounded queue from an async stream to a thread that reads.
//!
//! ```text
//!   body ─ next().await ─► push().await ──► [pieces, at most MOST_QUEUED bytes + one piece] ──► read()  guest's thread
//!                            waits for room                                       waits for bytes, end, stop
//! ```

use bytes::{Buf, Bytes};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard},
    time::Instant,
};
use tokio::sync::Notify;

/// Bytes in the queue over which the async side waits.
const MOST_QUEUED: usize = 256 * 1024;

#[derive(Debug, Default)]
struct State {
    /// What is read next; what was not handed out of it.
    front: Bytes,
    /// What follows it.
    pieces: VecDeque<Bytes>,
    queued: usize,
    taken: u64,
    ended: bool,
    /// Does the guest wait? To wake nobody costs a call of the system, too.
    waits: bool,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Input {
    state: Mutex<State>,
    readable: Condvar,
    room: Notify,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// That many bytes.
    Bytes(usize),
    /// Nothing more will come.
    End,
    /// Nothing yet.
    Nothing,
}

impl Input {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    fn wake_reader(&self, state: &State) {
        if state.waits {
            self.readable.notify_all();
        }
    }

    /// Adds a piece; waits for room first.
    pub(crate) async fn push(&self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if state.queued < MOST_QUEUED {
                    state.queued += piece.len();
                    state.pieces.push_back(piece);
                    self.wake_reader(&state);
                    return;
                }
            }
            room.await;
        }
    }

    /// Nothing more will come.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        self.wake_reader(&state);
    }

    /// Wakes whoever waits, to look for a stop.
    pub(crate) fn wake(&self) {
        // Taking the lock closes the gap between a reader's look at the stop and its wait.
        let state = self.lock();
        self.wake_reader(&state);
    }

    /// Takes what is there, without waiting.
    pub(crate) fn read(&self, into: &mut [u8]) -> Read {
        let mut state = self.lock();
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            if state.front.is_empty() {
                let Some(next) = state.pieces.pop_front() else { break };
                state.front = next;
            }
            let count = state.front.len().min(rest.len());
            state.front.copy_to_slice(rest.get_mut(..count).unwrap_or_default());
            done += count;
        }
        state.queued = state.queued.saturating_sub(done);
        state.taken += done as u64;
        let ended = state.ended && state.queued == 0;
        drop(state);
        self.room.notify_one();
        match done {
            0 if ended => Read::End,
            0 => Read::Nothing,
            done => Read::Bytes(done),
        }
    }

    /// Bytes that were read.
    pub(crate) fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// The whole of it: nothing more will come.
    pub(crate) fn fill(&self, bytes: Bytes) {
        let mut state = self.lock();
        state.queued = bytes.len();
        state.pieces.clear();
        state.front = bytes;
        state.ended = true;
        self.wake_reader(&state);
    }

    /// Bytes that can be read at once; `None` at the end.
    pub(crate) fn ready(&self) -> Option<usize> {
        let state = self.lock();
        (!state.ended || state.queued > 0).then_some(state.queued)
    }

    /// Waits until something can be read, the end is known, `stopped` says so, or the moment has come.
    pub(crate) fn wait(&self, until: Option<Instant>, stopped: impl Fn() -> bool) {
        let mut state = self.lock();
        while state.queued == 0 && !state.ended && !stopped() {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return;
            }
            let left = left.unwrap_or(std::time::Duration::from_secs(3600));
            state.waits = true;
            state = match self.readable.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(broken) => broken.into_inner().0,
            };
            state.waits = false;
        }
    }
}
