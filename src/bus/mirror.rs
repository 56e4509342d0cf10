//! A live map of one type of record.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    sync::{Arc, RwLock, RwLockReadGuard},
    time::Duration,
};
use store::{Keyed, Rev};
use supervise::{OnError, Scope};
use tokio::sync::watch;

use crate::{Bus, Delivery, Error, From};

type Map<P> = Arc<RwLock<BTreeMap<String, P>>>;

/// Hears of every entry that has changed what it is now (none: gone), after the map shows it and before
/// [`Mirror::reached`] and [`Mirror::watch`] tell. The map is not locked meanwhile.
pub type OnChange<P> = Arc<dyn Fn(&str, Option<&P>) + Send + Sync>;

/// A map by id that follows the store: list, follow, and list again when the log was trimmed meanwhile.
pub struct Mirror<R, P = Arc<R>> {
    map: Map<P>,
    rev: watch::Receiver<Rev>,
    of: PhantomData<fn() -> R>,
}

impl<R, P> Clone for Mirror<R, P> {
    fn clone(&self) -> Self {
        Self { map: self.map.clone(), rev: self.rev.clone(), of: PhantomData }
    }
}

impl<R: Keyed, P: Clone + Send + Sync + 'static> Mirror<R, P> {
    pub(crate) async fn start(
        bus: &Bus,
        scope: &Scope,
        project: fn(Arc<R>) -> P,
        told: OnChange<P>,
    ) -> Result<Self, Error> {
        let (first, rev) = list(bus, project).await?;
        first.iter().for_each(|(id, now)| told(id, Some(now)));
        let map: Map<P> = Arc::new(RwLock::new(first));
        let (sender, receiver) = watch::channel(rev);
        let (bus, follow, sender) = (bus.clone(), map.clone(), Arc::new(sender));
        let restart = OnError::Restart { first: Duration::from_millis(50), most: Duration::from_secs(5) };
        scope.spawn(&format!("mirror/{}", R::PREFIX.trim_end_matches('/')), restart, move |stop| {
            let (bus, map, sender, told) = (bus.clone(), follow.clone(), sender.clone(), told.clone());
            async move {
                let from = *sender.borrow();
                tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    ended = run(&bus, &map, (&sender, &told), from, project) => match ended {
                        Err(Error::Closed) => Ok(()),
                        other => Ok(other?),
                    },
                }
            }
        });
        Ok(Self { map, rev: receiver, of: PhantomData })
    }

    /// One entry.
    pub fn get(&self, id: &str) -> Option<P> {
        self.read().get(id).cloned()
    }

    /// The whole map, locked for reading: do not hold it across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, P>> {
        self.map.read().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Waits until the map shows a revision that changed one of its records: what a caller wrote, it then reads.
    pub async fn reached(&self, rev: Rev) {
        // An error means that the mirror has stopped, and then nobody reads it any more.
        drop(self.rev.clone().wait_for(|now| *now >= rev).await);
    }

    /// Moves whenever the map has changed.
    pub fn watch(&self) -> watch::Receiver<Rev> {
        self.rev.clone()
    }
}

async fn list<R: Keyed, P>(bus: &Bus, project: fn(Arc<R>) -> P) -> Result<(BTreeMap<String, P>, Rev), Error> {
    let (mut map, mut broken) = (BTreeMap::new(), None);
    let rev = bus
        .store()
        .scan(R::PREFIX, |record| match store::decode::<R>(&record.key, &record.value) {
            Ok(decoded) => {
                map.insert(decoded.id(), project(Arc::new(decoded)));
            }
            Err(error) => broken = Some(error),
        })
        .await?;
    match broken {
        Some(error) => Err(error.into()),
        None => Ok((map, rev)),
    }
}

async fn run<R: Keyed, P: Clone + Send + Sync + 'static>(
    bus: &Bus,
    map: &Map<P>,
    (moved, told): (&watch::Sender<Rev>, &OnChange<P>),
    from: Rev,
    project: fn(Arc<R>) -> P,
) -> Result<(), Error> {
    let mut changes = bus.changes::<R>(From::After(from));
    loop {
        match changes.next().await? {
            Delivery::Set { id, now, .. } => {
                let now = project(now);
                map.write().unwrap_or_else(|broken| broken.into_inner()).insert(id.clone(), now.clone());
                told(&id, Some(&now));
            }
            Delivery::Gone { id, .. } => {
                map.write().unwrap_or_else(|broken| broken.into_inner()).remove(&id);
                told(&id, None);
            }
            Delivery::Lagged { .. } => {
                let (all, rev) = list(bus, project).await?;
                let now = all.clone();
                let before = std::mem::replace(&mut *map.write().unwrap_or_else(|broken| broken.into_inner()), all);
                before.keys().filter(|id| !now.contains_key(*id)).for_each(|id| told(id, None));
                now.iter().for_each(|(id, now)| told(id, Some(now)));
                changes.seek(rev);
            }
        }
        moved.send_replace(changes.cursor());
    }
}
