//! Callbacks: who asked to be told is told when an execution has ended, at least once.
//!
//! ```text
//!   the commit that ends an execution ─► record `callback/<id>`, pending ─► mirror ─► agenda, by host and time
//!                                             ▲                                          │ 16 at a time, 4 of a host
//!                                             └── one commit for each try ◄── POST ◄─────┘
//! ```
//! Only hosts of `executions.callback_hosts` are called; that is looked at when the execution is asked for, and again,
//! with the addresses that the host has then, at each try. Between two tries lies a pause that doubles. An execution
//! whose callback is pending is not removed.

mod agenda;
mod tell;

use net::{client::Poster, outbound::AllowedHosts, problem::CALLBACK_REFUSED};
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use store::{Batch, Error, Keyed, Op, Store, Table, encode};
use supervise::{Live, Scope};
use tokio::time::Instant;
use types::{Callback, CallbackStatus, Clock, ErrorKind, Execution, ExecutionId, Fault, FieldError, Timestamp};

use self::agenda::Agenda;
use crate::Config;

/// The setting that says which may.
const SETTING: &str = "executions.callback_hosts";
/// Callbacks that may be pending; more are refused until some have come to an end.
const MOST_PENDING: usize = 100_000;

/// What is needed to tell.
pub(super) struct Callbacks {
    table: Table<Callback>,
    seen: bus::Mirror<Callback>,
    agenda: Arc<Agenda>,
    config: Live<Config>,
    /// With the hosts that it was made for.
    poster: Mutex<Option<(Vec<String>, Poster)>>,
}

/// Adds to a batch that ends an execution, that this is to be told.
pub(super) fn begin(before: &Execution, after: &Execution, batch: &mut Batch) -> Result<(), Error> {
    let Some(url) = &after.callback_url else { return Ok(()) };
    if before.status == after.status || !after.status.terminal() {
        return Ok(());
    }
    let round = if before.status.terminal() { 2 } else { 1 };
    let callback = Callback::new(after.id, url.clone(), round);
    batch.ops.push(Op::Put(callback.key(), encode(&callback)?));
    Ok(())
}

impl Callbacks {
    /// Reads what is still to be told.
    pub(super) async fn start(
        store: &Store,
        bus: &bus::Bus,
        config: Live<Config>,
        (clock, scope): (&Arc<dyn Clock>, &Scope),
    ) -> Result<Self, Fault> {
        let agenda = Arc::new(Agenda::default());
        let (told, clock, most) = (agenda.clone(), clock.clone(), config.clone());
        let told = move |id: &str, callback: Option<&Arc<Callback>>| {
            let Ok(id) = id.parse::<ExecutionId>() else { return };
            let pending = callback.filter(|callback| callback.status == CallbackStatus::Pending);
            let most = most.get().callback_retry_most;
            told.set(id, pending.map(|callback| (&*callback.url, due(callback.next_try_at, clock.wall(), most))));
        };
        let seen = bus.mirror_telling::<Callback, _>(scope, |callback| callback, Arc::new(told)).await;
        let seen = seen.map_err(crate::bus_fault)?;
        Ok(Self { table: Table::new(store), seen, agenda, config, poster: Mutex::default() })
    }

    /// Refuses who cannot be told.
    pub(super) fn check(&self, url: &str) -> Result<(), Fault> {
        if self.agenda.len() >= MOST_PENDING {
            let message = format!("{MOST_PENDING} callbacks are pending already");
            return Err(Fault::new(ErrorKind::Exhausted, "TOO_MANY_CALLBACKS", message));
        }
        let Err(fault) = self.poster()?.hosts().target(url) else { return Ok(()) };
        if fault.kind != ErrorKind::Denied {
            return Err(Fault::invalid_field("callback_url", fault.message));
        }
        let mut refused = Fault::new(ErrorKind::Denied, CALLBACK_REFUSED, format!("callback_url: {}", fault.message));
        refused.errors.push(FieldError { field: "callback_url".to_owned(), detail: fault.message });
        Err(refused)
    }

    /// Who posts, by the hosts that may be called now.
    fn poster(&self) -> Result<Poster, Fault> {
        let config = self.config.get();
        let mut made = self.made();
        if let Some((hosts, poster)) = &*made
            && *hosts == config.callback_hosts
        {
            return Ok(poster.clone());
        }
        let poster = Poster::new(AllowedHosts::new(SETTING, &config.callback_hosts)?);
        *made = Some((config.callback_hosts.clone(), poster.clone()));
        Ok(poster)
    }

    fn made(&self) -> MutexGuard<'_, Option<(Vec<String>, Poster)>> {
        self.poster.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Lets tests answer for the name server.
    #[cfg(test)]
    pub(super) fn resolve_by(&self, lookup: Arc<dyn net::client::Lookup>) {
        let hosts = self.config.get().callback_hosts.clone();
        let poster = Poster::with_lookup(AllowedHosts::new(SETTING, &hosts).unwrap(), lookup);
        *self.made() = Some((hosts, poster));
    }

    /// How the telling of an execution's end goes; none when nobody wants to be told.
    pub(super) fn of(&self, execution: &Execution) -> Option<Arc<Callback>> {
        let url = execution.callback_url.as_ref()?;
        let id = execution.id;
        Some(self.seen.get(&id.to_string()).unwrap_or_else(|| Arc::new(Callback::new(id, url.clone(), 1))))
    }

    /// Is the end of an execution still to be told, as far as is seen?
    pub(super) fn pending(&self, id: ExecutionId) -> bool {
        self.agenda.has(id)
    }

    /// The same, as the store has it.
    pub(super) async fn is_pending(&self, execution: &Execution) -> Result<bool, Fault> {
        if execution.callback_url.is_none() {
            return Ok(false);
        }
        Ok(self.table.get(&execution.id).await?.is_some_and(|found| found.record.status == CallbackStatus::Pending))
    }

    /// How many are pending.
    pub(super) fn waiting(&self) -> usize {
        self.agenda.len()
    }
}

/// When something is due, by a clock that does not jump: what jumps cannot make it later than the longest pause.
fn due(at: Option<Timestamp>, now: Timestamp, most: Duration) -> Instant {
    let left = at.map_or(0, |at| at.millis().saturating_sub(now.millis()));
    Instant::now() + Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(most)
}

#[cfg(test)]
mod tests;
