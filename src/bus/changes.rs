//! Readers of changes.

use bytes::Bytes;
use std::{collections::VecDeque, marker::PhantomData, sync::Arc};
use store::{Keyed, Rev};

use crate::{
    Error,
    ring::{Event, Read, Ring, events},
    tail::Inner,
};

/// Revisions read from the log at once by a reader that is behind.
const PAGE: usize = 256;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the next change.
    Now,
    /// With the first change after a revision.
    After(Rev),
}

/// One change, undecoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawChange {
    /// Its revision.
    pub rev: Rev,
    /// Which record.
    pub key: String,
    /// Its new bytes; none: removed.
    pub value: Option<Bytes>,
    /// Did it not exist before?
    pub created: bool,
}

/// What a reader of raw changes gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawDelivery {
    /// A change.
    Change(RawChange),
    /// The log begins after `floor`: list again, then [`RawChanges::seek`].
    Lagged {
        /// Revisions up to this one are no longer kept.
        floor: Rev,
    },
}

/// What a reader of one type of record gets.
#[derive(Debug)]
pub enum Delivery<R> {
    /// A record was written.
    Set {
        /// By this revision.
        rev: Rev,
        /// Did it not exist before?
        created: bool,
        /// The rest of its key.
        id: String,
        /// As it is since then.
        now: Arc<R>,
    },
    /// A record was removed.
    Gone {
        /// By this revision.
        rev: Rev,
        /// The rest of its key.
        id: String,
    },
    /// The log begins after `floor`: list again, then [`Changes::seek`].
    Lagged {
        /// Revisions up to this one are no longer kept.
        floor: Rev,
    },
}

/// Changes under a prefix.
pub struct RawChanges {
    bus: Arc<Inner>,
    ring: Arc<Ring>,
    prefix: String,
    /// Everything up to here has been taken over into `pending` or handed out.
    position: Rev,
    pending: VecDeque<Arc<Event>>,
}

impl RawChanges {
    pub(crate) fn new(bus: Arc<Inner>, prefix: &str, from: From) -> Self {
        debug_assert!(prefix.is_empty() || prefix.ends_with('/'), "a prefix ends with a slash");
        let ring = bus.ring(prefix);
        let position = match from {
            From::Now => *bus.tail.borrow(),
            From::After(rev) => rev,
        };
        Self { bus, ring, prefix: prefix.to_owned(), position, pending: VecDeque::new() }
    }

    /// The last revision of which everything was handed out; store it with the effect of the last change.
    pub fn cursor(&self) -> Rev {
        match self.pending.front() {
            Some(next) => next.rev - 1,
            None => self.position,
        }
    }

    /// Goes on after another revision.
    pub fn seek(&mut self, rev: Rev) {
        self.position = rev;
        self.pending.clear();
    }

    /// The next change; waits for it. May be dropped while waiting without losing anything.
    ///
    /// # Errors
    /// [`Error::Closed`] when the bus has stopped and everything before was handed out.
    pub async fn next(&mut self) -> Result<RawDelivery, Error> {
        Ok(match self.event().await? {
            Ok(event) => RawDelivery::Change(RawChange {
                rev: event.rev,
                key: event.key.clone(),
                value: event.value.clone(),
                created: event.created,
            }),
            Err(floor) => RawDelivery::Lagged { floor },
        })
    }

    /// The next event, or the floor of the log when the reader is behind it.
    async fn event(&mut self) -> Result<Result<Arc<Event>, Rev>, Error> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Ok(event));
            }
            if let Some(lagged) = self.fill().await? {
                return Ok(Err(lagged));
            }
        }
    }

    /// Takes over what there is, or waits for more. The floor of the log when it begins too late.
    async fn fill(&mut self) -> Result<Option<Rev>, Error> {
        let ring = self.ring.clone();
        let changed = ring.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        // Read before the ring: whatever the tail has passed is in the ring by then.
        let tail = *self.bus.tail.borrow();
        match ring.after(self.position) {
            Read::Events(found) => {
                self.position = self.position.max(tail).max(found.last().map_or(0, |event| event.rev));
                self.pending.extend(found);
                if self.pending.is_empty() {
                    let mut closed = self.bus.tail.clone();
                    tokio::select! {
                        () = changed => {}
                        // Fails only when the sender is gone, which is when the tail has ended.
                        _ = closed.wait_for(|_| false) => return Err(Error::Closed),
                    }
                }
                Ok(None)
            }
            Read::Behind => match self.bus.store.changes(self.position, PAGE).await {
                Ok(page) => {
                    self.bus.figures.see(|figures| figures.behind.inc());
                    for change in page {
                        self.position = change.rev;
                        let matching = events(change).into_iter().filter(|event| event.key.starts_with(&self.prefix));
                        self.pending.extend(matching);
                    }
                    Ok(None)
                }
                Err(store::Error::Trimmed { floor }) => {
                    self.bus.figures.see(|figures| figures.lagged.inc());
                    Ok(Some(floor))
                }
                Err(error) => Err(error.into()),
            },
        }
    }
}

/// Changes of one type of record.
pub struct Changes<R> {
    raw: RawChanges,
    of: PhantomData<fn() -> R>,
}

impl<R: Keyed> Changes<R> {
    pub(crate) fn new(raw: RawChanges) -> Self {
        Self { raw, of: PhantomData }
    }

    /// See [`RawChanges::cursor`].
    pub fn cursor(&self) -> Rev {
        self.raw.cursor()
    }

    /// See [`RawChanges::seek`].
    pub fn seek(&mut self, rev: Rev) {
        self.raw.seek(rev);
    }

    /// The next change; waits for it. May be dropped while waiting without losing anything.
    ///
    /// # Errors
    /// [`Error::Closed`] when the bus has stopped; [`store::Error::Decode`] when a record is not an `R`.
    pub async fn next(&mut self) -> Result<Delivery<R>, Error> {
        let event = match self.raw.event().await? {
            Ok(event) => event,
            Err(floor) => return Ok(Delivery::Lagged { floor }),
        };
        let id = event.key.strip_prefix(R::PREFIX).unwrap_or(&event.key).to_owned();
        let Some(value) = &event.value else { return Ok(Delivery::Gone { rev: event.rev, id }) };
        let decoded = event.decoded.get_or_init(|| {
            let record = store::decode::<R>(&event.key, value).ok()?;
            Some(Arc::new(record))
        });
        match decoded.clone().and_then(|record| record.downcast::<R>().ok()) {
            Some(now) => Ok(Delivery::Set { rev: event.rev, created: event.created, id, now }),
            // Again, for the reason; also when another reader decoded it as another type.
            None => match store::decode::<R>(&event.key, value) {
                Ok(now) => Ok(Delivery::Set { rev: event.rev, created: event.created, id, now: Arc::new(now) }),
                Err(error) => Err(error.into()),
            },
        }
    }
}
