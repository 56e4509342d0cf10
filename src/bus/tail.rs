//! The tail: follows the store's head and hands new changes to the rings.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, Weak},
};
use store::{Keyed, Rev, Store};
use supervise::{OnError, Scope};
use telemetry::Slot;
use tokio::sync::watch;
use types::LogId;

use crate::{
    Changes, Error, From, Mirror, OnChange, RawChanges, Signal, Signals,
    figures::Figures,
    ring::{Event, Ring, events},
    signal::Exchange,
};

/// Revisions read from the store at once.
const PAGE: usize = 256;

pub(crate) struct Inner {
    pub(crate) store: Store,
    /// The last revision that is in the rings; closed when the tail has ended.
    pub(crate) tail: watch::Receiver<Rev>,
    rings: Mutex<HashMap<String, Weak<Ring>>>,
    /// The ring of the empty prefix, which is always there: another one begins with what this one has of it, so that
    /// thousands of readers who come at once with a position from a moment ago need not read the log.
    recent: Arc<Ring>,
    exchange: Exchange,
    /// Set once somebody wants to know.
    pub(crate) figures: Slot<Figures>,
}

/// The bus of a process. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    pub(crate) inner: Arc<Inner>,
}

impl Bus {
    /// Follows `store` in `scope`, which should stop before the store does.
    pub fn start(store: &Store, scope: &Scope) -> Self {
        let now = *store.head().borrow();
        let (sender, tail) = watch::channel(now);
        let recent = Arc::new(Ring::new(now));
        let inner = Arc::new(Inner {
            store: store.clone(),
            tail,
            rings: Mutex::new(HashMap::from([(String::new(), Arc::downgrade(&recent))])),
            recent,
            exchange: Exchange::default(),
            figures: Slot::default(),
        });
        let (follow, sender) = (inner.clone(), Arc::new(Mutex::new(Some(sender))));
        scope.spawn("tail", OnError::StopProcess, move |stop| {
            let (inner, sender) = (follow.clone(), sender.clone());
            async move {
                // Dropped at the end, which tells every reader that nothing more comes.
                let Some(tail) = sender.lock().unwrap_or_else(|broken| broken.into_inner()).take() else {
                    return Ok(());
                };
                tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    ended = inner.run(&tail) => Ok(ended?),
                }
            }
        });
        Self { inner }
    }

    /// Changes of one type of record.
    pub fn changes<R: Keyed>(&self, from: From) -> Changes<R> {
        Changes::new(self.raw(R::PREFIX, from))
    }

    /// Changes under a prefix, undecoded. A prefix is empty or ends with a slash.
    pub fn raw(&self, prefix: &str, from: From) -> RawChanges {
        RawChanges::new(self.inner.clone(), prefix, from)
    }

    /// A live map of one type of record; `project` keeps of each what is needed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn mirror<R: Keyed, P: Clone + Send + Sync + 'static>(
        &self,
        scope: &Scope,
        project: fn(Arc<R>) -> P,
    ) -> Result<Mirror<R, P>, Error> {
        Mirror::start(self, scope, project, Arc::new(|_: &str, _: Option<&P>| ())).await
    }

    /// The same, for somebody who keeps something beside the map: `told` hears of every entry that has changed,
    /// and of all of them at first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn mirror_telling<R: Keyed, P: Clone + Send + Sync + 'static>(
        &self,
        scope: &Scope,
        project: fn(Arc<R>) -> P,
        told: OnChange<P>,
    ) -> Result<Mirror<R, P>, Error> {
        Mirror::start(self, scope, project, told).await
    }

    /// Tells everybody who listens now; never waits.
    pub fn emit<S: Signal>(&self, signal: S) {
        self.inner.exchange.emit(signal);
    }

    /// Signals of one type from now on.
    pub fn signals<S: Signal>(&self) -> Signals<S> {
        self.inner.exchange.listen()
    }

    /// The last revision that readers can see.
    pub fn head(&self) -> Rev {
        *self.inner.tail.borrow()
    }

    /// Identity of the log whose revisions these are.
    pub fn log_id(&self) -> LogId {
        self.inner.store.log_id()
    }

    /// The store below.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }
}

impl Inner {
    async fn run(&self, tail: &watch::Sender<Rev>) -> Result<(), Error> {
        let mut head = self.store.head();
        loop {
            let mut position = *tail.borrow();
            while position < *head.borrow_and_update() {
                for change in self.store.changes(position, PAGE).await? {
                    position = change.rev;
                    self.dispatch(events(change), tail, position);
                }
            }
            if head.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    fn rings(&self) -> MutexGuard<'_, HashMap<String, Weak<Ring>>> {
        self.rings.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Prefixes that somebody follows.
    pub(crate) fn followed(&self) -> usize {
        let ours = |prefix: &str| usize::from(prefix.is_empty());
        self.rings().iter().filter(|(prefix, ring)| ring.strong_count() > ours(prefix)).count()
    }

    /// Hands the events of one revision to every ring with a matching prefix, then moves the tail. Both under
    /// the lock of the rings, so that a ring made meanwhile begins either before or after the revision.
    fn dispatch(&self, events: Vec<Arc<Event>>, tail: &watch::Sender<Rev>, rev: Rev) {
        let mut rings = self.rings();
        let mut prefixes: Vec<&str> = Vec::new();
        for event in &events {
            prefixes.extend(prefixes_of(&event.key));
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        let mut gone = Vec::new();
        for prefix in prefixes {
            match rings.get(prefix).map(Weak::upgrade) {
                Some(Some(ring)) => ring.push(events.iter().filter(|event| event.key.starts_with(prefix)).cloned()),
                Some(None) => gone.push(prefix.to_owned()),
                None => {}
            }
        }
        for prefix in gone {
            rings.remove(&prefix);
        }
        tail.send_replace(rev);
    }

    /// The ring of a prefix; a new one begins as far back as the recent changes go.
    pub(crate) fn ring(&self, prefix: &str) -> Arc<Ring> {
        let mut rings = self.rings();
        if let Some(ring) = rings.get(prefix).and_then(Weak::upgrade) {
            return ring;
        }
        // Rings whose readers are gone and whose prefix never changes again would stay for ever otherwise.
        if rings.len() > 64 && rings.len().is_power_of_two() {
            rings.retain(|_, ring| ring.strong_count() > 0);
        }
        let ring = Arc::new(self.recent.under(prefix));
        rings.insert(prefix.to_owned(), Arc::downgrade(&ring));
        ring
    }
}

/// The empty prefix and every one that ends with a slash.
fn prefixes_of(key: &str) -> impl Iterator<Item = &str> {
    std::iter::once("").chain(key.match_indices('/').filter_map(|(at, _)| key.get(..=at)))
}
