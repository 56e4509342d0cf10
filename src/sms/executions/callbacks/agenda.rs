//! Who is to be told next: by time, a few of one host at once, so that a slow one holds up nobody else.

use net::outbound::site_of;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::{sync::Notify, time::Instant};
use types::ExecutionId;

/// Tries of one host (with its scheme and port) at a time.
const OF_ONE_HOST: usize = 4;

/// The agenda.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    state: Mutex<State>,
    /// Told of every [`Agenda::set`]; whoever takes turns knows of their ends.
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<ExecutionId, Entry>,
    hosts: HashMap<Arc<str>, Host>,
    /// Hosts that have something to do and room for it, by the time of the first.
    ready: BTreeSet<(Instant, Arc<str>)>,
}

#[derive(Debug)]
struct Entry {
    host: Arc<str>,
    /// None: nothing is left to do, once the try under way is over.
    due: Option<Instant>,
    taken: bool,
}

#[derive(Debug, Default)]
struct Host {
    due: BTreeSet<(Instant, ExecutionId)>,
    taken: usize,
    /// As it stands in `ready`.
    ready: Option<Instant>,
}

/// A try under way; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    agenda: Arc<Agenda>,
    pub(super) id: ExecutionId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.agenda.over(self.id);
    }
}

impl Agenda {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Puts an execution where it belongs now; none: nothing is to be told of it any more.
    pub(super) fn set(&self, id: ExecutionId, place: Option<(&str, Instant)>) {
        let place = place.map(|(url, due)| (Arc::from(site_of(url)), due));
        self.lock().set(id, place);
        self.moved.notify_one();
    }

    /// The next one whose time has come, if its host has room.
    pub(super) fn take(self: &Arc<Self>, now: Instant) -> Option<Turn> {
        let id = self.lock().take(now)?;
        Some(Turn { agenda: self.clone(), id })
    }

    /// Puts off what is under way: nothing about it could be written.
    pub(super) fn put_off(&self, id: ExecutionId, until: Instant) {
        if let Some(entry) = self.lock().entries.get_mut(&id)
            && entry.taken
            && entry.due.is_some()
        {
            entry.due = Some(until);
        }
    }

    fn over(&self, id: ExecutionId) {
        self.lock().over(id);
    }

    /// When the next one is due whose host has room.
    pub(super) fn next(&self) -> Option<Instant> {
        self.lock().ready.first().map(|(due, _)| *due)
    }

    /// Waits for [`Agenda::set`].
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Is something to be told of this one?
    pub(super) fn has(&self, id: ExecutionId) -> bool {
        self.lock().entries.contains_key(&id)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().entries.len()
    }
}

impl State {
    fn set(&mut self, id: ExecutionId, place: Option<(Arc<str>, Instant)>) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.taken
        {
            entry.due = place.map(|(_, due)| due);
            return;
        }
        if let Some(Entry { host, due: Some(due), .. }) = self.entries.remove(&id) {
            self.change(&host, |of| {
                of.due.remove(&(due, id));
            });
        }
        let Some((site, due)) = place else { return };
        // Thousands share a host: where its name is shared memory, it is the same.
        let host = self.hosts.get_key_value(&site).map_or(site, |(known, _)| known.clone());
        self.change(&host, |of| {
            of.due.insert((due, id));
        });
        self.entries.insert(id, Entry { host, due: Some(due), taken: false });
    }

    fn take(&mut self, now: Instant) -> Option<ExecutionId> {
        let (_, host) = self.ready.first().filter(|(due, _)| *due <= now)?.clone();
        let mut first = None;
        self.change(&host, |of| {
            first = of.due.pop_first();
            of.taken += usize::from(first.is_some());
        });
        let (_, id) = first?;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.taken = true;
        }
        Some(id)
    }

    fn over(&mut self, id: ExecutionId) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.taken) else { return };
        entry.taken = false;
        let (host, due) = (entry.host.clone(), entry.due);
        self.change(&host, |of| {
            of.taken = of.taken.saturating_sub(1);
            of.due.extend(due.map(|due| (due, id)));
        });
        if due.is_none() {
            self.entries.remove(&id);
        }
    }

    /// Changes what is known of a host, and where it stands among the others.
    fn change(&mut self, host: &Arc<str>, change: impl FnOnce(&mut Host)) {
        let of = self.hosts.entry(host.clone()).or_default();
        change(of);
        let ready = of.due.first().map(|(due, _)| *due).filter(|_| of.taken < OF_ONE_HOST);
        let before = std::mem::replace(&mut of.ready, ready);
        let idle = of.due.is_empty() && of.taken == 0;
        if idle {
            self.hosts.remove(host);
        }
        if before != ready {
            self.ready.extend(ready.map(|due| (due, host.clone())));
            if let Some(before) = before {
                self.ready.remove(&(before, host.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeMap, time::Duration};

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a list that is looked through each time: what is taken is the first that is due of a host with room,
        /// nothing is taken twice at a time, and nothing is left behind.
        #[test]
        fn the_first_that_is_due_and_has_room_is_next(steps in proptest::collection::vec((0u8..6, 0usize..12, 0u64..8), 1..120)) {
            let begin = Instant::now();
            let at = |second: u64| begin + Duration::from_secs(second);
            let ids: Vec<_> = (0..12).map(|_| ExecutionId::new()).collect();
            let host = |one: usize| format!("http://h{}.example/x", one % 2);
            let agenda = Arc::new(Agenda::default());
            let mut due = BTreeMap::<usize, u64>::new();
            let mut turns = BTreeMap::<usize, Turn>::new();
            for (what, one, second) in steps {
                match what {
                    0 | 1 => { agenda.set(ids[one], Some((&host(one), at(second)))); due.insert(one, second); }
                    2 => { agenda.set(ids[one], None); due.remove(&one); }
                    3 | 4 => {
                        let room = |one: &usize| turns.keys().filter(|other| *other % 2 == one % 2).count() < OF_ONE_HOST;
                        let free = due.iter().filter(|(one, due)| !turns.contains_key(one) && **due <= second && room(one));
                        let first = free.clone().map(|(_, due)| *due).min();
                        let taken = agenda.take(at(second));
                        let found = taken.as_ref().map(|turn| ids.iter().position(|id| *id == turn.id).unwrap());
                        prop_assert_eq!(found.map(|one| due[&one]), first);
                        prop_assert!(found.is_none_or(|one| free.clone().any(|(other, _)| *other == one)));
                        turns.extend(found.zip(taken));
                    }
                    _ => drop(turns.remove(&one)),
                }
                prop_assert_eq!(agenda.len(), due.keys().chain(turns.keys()).collect::<BTreeSet<_>>().len());
            }
            turns.clear();
            for id in &ids {
                agenda.set(*id, None);
            }
            let state = agenda.lock();
            prop_assert!(state.entries.is_empty() && state.hosts.is_empty() && state.ready.is_empty());
        }
    }
}
