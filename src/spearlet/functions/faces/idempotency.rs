//! Calls that can be sent again: of all that bring one key, one is made, and every other gets its answer.
//!
//! ```text
//!   key ─► known? ── no ──► called, whoever asked stays or goes ──► kept, unless it is to be tried again
//!            ├── under way, same call ─► waits for it ─► its answer, replayed
//!            ├── ended, same call ─► its answer, replayed
//!            └── another call ─► 422
//! ```
//! In memory, of this node, and bounded: [`MOST`] answers of [`MOST_BYTES`] together, for [`KEEP`]; the oldest go first.
//! Calls of a registry have keys of their own, which are on its disk.

use api::{Disposition, Ended, Invocation, InvokeError, ReplyHead};
use bytes::Bytes;
use net::problem::KEY_REUSED;
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::watch;
use types::{Clock, ErrorKind, ExecutionId, Fault, FieldError, Reason, TaskId};

/// Answers that are kept.
const MOST: usize = 10_000;
/// Their bytes together.
const MOST_BYTES: usize = 64 << 20;
/// What an answer takes beside its bytes.
const EACH: usize = 512;
/// How long one is kept.
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// What a guest that ended by itself has answered.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) head: ReplyHead,
    pub(super) body: Bytes,
    pub(super) ended: Ended,
}

/// What became of a call.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    pub(super) execution: ExecutionId,
    pub(super) result: Result<Reply, InvokeError>,
    /// Given before, to another request with the same key.
    pub(super) replayed: bool,
}

impl Answered {
    /// Would the same call end the same? Else whoever sends it again wants another try.
    fn lasts(&self) -> bool {
        match &self.result {
            Ok(reply) => reply.ended.disposition != Disposition::Retry,
            Err(error) => matches!(error.reason, Reason::Trap | Reason::Memory | Reason::Output | Reason::Deadline),
        }
    }

    fn bytes(&self) -> usize {
        let own = match &self.result {
            Ok(reply) => {
                let headers: usize = reply.head.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
                reply.body.len() + headers
            }
            Err(error) => error.message.len(),
        };
        EACH + own
    }
}

/// Of which task, and the sha256 of the key: keys may be secrets.
type Id = (TaskId, [u8; 32]);

/// The sha256 of what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a call and its input. Headers are left out: a proxy may change them from one try to the next.
    pub(super) fn of(call: &Invocation, input: &[u8]) -> Self {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        for map in [&call.env, &call.head.metadata] {
            part(&map.len().to_be_bytes());
            for (name, value) in map {
                part(name.as_bytes());
                part(value.as_bytes());
            }
        }
        part(&call.args.len().to_be_bytes());
        for arg in &call.args {
            part(arg.as_bytes());
        }
        part(input);
        Self(hash.finalize().into())
    }
}

enum State {
    UnderWay(watch::Receiver<Option<Answered>>),
    Ended(Answered),
}

struct Known {
    fingerprint: Fingerprint,
    state: State,
}

#[derive(Default)]
struct Inner {
    known: HashMap<Id, Known>,
    /// Those that have ended, the oldest first, and when.
    ended: VecDeque<(Id, Duration)>,
    bytes: usize,
}

/// The calls that brought a key.
pub(super) struct Repeats {
    inner: Mutex<Inner>,
    clock: Arc<dyn Clock>,
}

/// What is known of a key.
pub(super) enum Recall {
    /// Nothing: make the call, and [`Flight::land`] it.
    New(Flight),
    /// It is under way.
    UnderWay(Answer),
    /// It has ended.
    Ended(Box<Answered>),
}

/// An answer that is still to come.
pub(super) struct Answer(watch::Receiver<Option<Answered>>);

impl Answer {
    /// Waits for it.
    ///
    /// # Errors
    /// The call was lost.
    pub(super) async fn wait(mut self) -> Result<Answered, Fault> {
        let lost = |_| Fault::internal("the node failed while it ran this; its log has the cause");
        let answered = self.0.wait_for(Option::is_some).await.map_err(lost)?.clone();
        answered.ok_or_else(|| Fault::internal("an answer that is none"))
    }
}

/// A call under way. Dropped without having landed, its key is free again.
pub(super) struct Flight {
    repeats: Arc<Repeats>,
    id: Id,
    tell: watch::Sender<Option<Answered>>,
    landed: bool,
}

impl Flight {
    /// Its answer, for who began it.
    pub(super) fn answer(&self) -> Answer {
        Answer(self.tell.subscribe())
    }

    /// Hands out the answer, and keeps it where that is right.
    pub(super) fn land(mut self, answered: Answered) {
        self.landed = true;
        self.repeats.ended(self.id, Answered { replayed: true, ..answered.clone() });
        self.tell.send_replace(Some(answered));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.landed {
            self.repeats.lock().known.remove(&self.id);
        }
    }
}

impl Repeats {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { inner: Mutex::default(), clock }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Looks a key up; one that is new is under way from now on.
    ///
    /// # Errors
    /// [`KEY_REUSED`].
    pub(super) fn recall(self: &Arc<Self>, task: TaskId, key: &str, fingerprint: Fingerprint) -> Result<Recall, Fault> {
        let id = (task, Sha256::digest(key.as_bytes()).into());
        let mut inner = self.lock();
        inner.trim(self.clock.monotonic());
        match inner.known.entry(id) {
            Entry::Vacant(vacant) => {
                let (tell, told) = watch::channel(None);
                vacant.insert(Known { fingerprint, state: State::UnderWay(told) });
                Ok(Recall::New(Flight { repeats: self.clone(), id, tell, landed: false }))
            }
            Entry::Occupied(known) if known.get().fingerprint != fingerprint => Err(reused()),
            Entry::Occupied(known) => Ok(match &known.get().state {
                State::UnderWay(told) => Recall::UnderWay(Answer(told.clone())),
                State::Ended(answered) => Recall::Ended(Box::new(answered.clone())),
            }),
        }
    }

    fn ended(&self, id: Id, answered: Answered) {
        let (now, bytes) = (self.clock.monotonic(), answered.bytes());
        let mut inner = self.lock();
        if !answered.lasts() || bytes > MOST_BYTES {
            inner.known.remove(&id);
            return;
        }
        if let Some(known) = inner.known.get_mut(&id) {
            known.state = State::Ended(answered);
            inner.bytes += bytes;
            inner.ended.push_back((id, now));
        }
        inner.trim(now);
    }
}

impl Inner {
    /// Forgets what is too old or too much.
    fn trim(&mut self, now: Duration) {
        while let Some((id, at)) = self.ended.front().copied() {
            let full = self.ended.len() > MOST || self.bytes > MOST_BYTES;
            if !full && now.saturating_sub(at) < KEEP {
                return;
            }
            self.ended.pop_front();
            if let Some(Known { state: State::Ended(gone), .. }) = self.known.remove(&id) {
                self.bytes = self.bytes.saturating_sub(gone.bytes());
            }
        }
    }
}

fn reused() -> Fault {
    let field = net::idempotency::HEADER;
    let detail = "another call of this task had this key: give every call a key of its own";
    let mut fault = Fault::new(ErrorKind::Invalid, KEY_REUSED, format!("{field}: {detail}"));
    fault.errors.push(FieldError { field: field.to_owned(), detail: detail.to_owned() });
    fault
}

#[cfg(test)]
mod tests;
