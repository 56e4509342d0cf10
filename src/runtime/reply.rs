//! The answer of a guest on its way out: a bounded queue from a thread that writes to an async reader.
//!
//! ```text
//!   guest's thread ── write() ──► [pieces, at most MOST_QUEUED bytes + one piece] ──► next().await ── caller
//!                     waits for room, or for a stop
//! ```
//! A reader that goes away makes every write fail: the guest is told that nobody listens.

use api::ReplyHead;
use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};
use tokio::sync::Notify;

/// Bytes in the queue over which the writer waits.
const MOST_QUEUED: usize = 256 * 1024;

/// One piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// What comes with the body; at most once, before it.
    Head(ReplyHead),
    /// Bytes of it.
    Bytes(Bytes),
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Piece>,
    queued: usize,
    ended: bool,
    abandoned: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    room: Condvar,
    readable: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

/// Why nothing more can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Nobody reads any more.
    Abandoned,
    /// The writer was to stop.
    Stopped,
}

/// The writing end; when the last one is dropped the answer is over.
#[derive(Clone, Debug)]
pub struct ReplyWriter(Arc<Writer>);

#[derive(Debug)]
struct Writer(Arc<Shared>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.readable.notify_one();
    }
}

/// The reading end.
#[derive(Debug)]
pub struct ReplyReader(Arc<Shared>);

/// A queue.
pub fn reply() -> (ReplyWriter, ReplyReader) {
    let shared = Arc::new(Shared::default());
    (ReplyWriter(Arc::new(Writer(shared.clone()))), ReplyReader(shared))
}

impl ReplyWriter {
    /// Hands out a piece; waits on the calling thread while the queue is full and `stopped` does not say so. Whoever
    /// makes `stopped` true must call [`ReplyWriter::wake`].
    ///
    /// # Errors
    /// [`Closed`].
    pub fn write(&self, piece: Piece, stopped: impl Fn() -> bool) -> Result<(), Closed> {
        let shared = &self.0.0;
        let mut state = shared.lock();
        while state.queued >= MOST_QUEUED && !state.abandoned && !stopped() {
            state = shared.room.wait(state).unwrap_or_else(|broken| broken.into_inner());
        }
        if state.abandoned {
            return Err(Closed::Abandoned);
        }
        if stopped() {
            return Err(Closed::Stopped);
        }
        if let Piece::Bytes(bytes) = &piece {
            state.queued += bytes.len();
        }
        state.pieces.push_back(piece);
        drop(state);
        shared.readable.notify_one();
        Ok(())
    }

    /// The same for writers that are not on a thread of their own.
    ///
    /// # Errors
    /// [`Closed::Abandoned`].
    pub async fn send(&self, piece: Piece) -> Result<(), Closed> {
        // Room is looked for at a steady pace: only tests and short answers go this way.
        loop {
            {
                let state = self.0.0.lock();
                if state.abandoned {
                    return Err(Closed::Abandoned);
                }
                if state.queued < MOST_QUEUED {
                    break;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        self.write(piece, || false)
    }

    /// Wakes a writer that waits, to look for a stop.
    pub fn wake(&self) {
        drop(self.0.0.lock());
        self.0.0.room.notify_all();
    }
}

impl ReplyReader {
    /// The next piece; none at the end.
    pub async fn next(&mut self) -> Option<Piece> {
        loop {
            let readable = self.0.readable.notified();
            {
                let mut state = self.0.lock();
                if let Some(piece) = state.pieces.pop_front() {
                    if let Piece::Bytes(bytes) = &piece {
                        state.queued = state.queued.saturating_sub(bytes.len());
                    }
                    drop(state);
                    self.0.room.notify_all();
                    return Some(piece);
                }
                if state.ended {
                    return None;
                }
            }
            readable.await;
        }
    }
}

impl Drop for ReplyReader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        state.pieces.clear();
        drop(state);
        self.0.room.notify_all();
    }
}
