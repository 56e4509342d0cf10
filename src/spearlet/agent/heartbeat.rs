//! The presence task: registers, beats, tells the load, and knows how long the registry has been away.
//!
//! The registry sets the pace. A lost registry is tried again with a back-off that grows to [`SLOWEST`]; work in
//! hand goes on meanwhile. When contact is found again the node registers anew, which is harmless and tells it
//! whether the registry's log is still the same.

use api::{Control, control::Registration};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use supervise::{Live, Stop, TaskResult, backoff};
use telemetry::Slot;
use tokio::sync::watch;
use types::{Clock, Fault, LogId, NodeId, node::BOOT_KEY};

use super::{
    connect::{ANSWER, Link, SLOWEST, within},
    figures::Figures,
    load::Load,
};
use crate::{Config, executor::Executor};

/// A registry that asks for a faster pace than this is not obeyed.
const FASTEST: Duration = Duration::from_millis(50);
/// Time for the outbox to empty when the process stops, and for each last word to the registry.
const LAST_WORDS: Duration = Duration::from_millis(1200);

/// Keeps the node present at the registry.
pub(crate) struct Presence {
    pub(crate) control: Arc<dyn Control>,
    pub(crate) registration: Registration,
    pub(crate) executor: Arc<Executor>,
    pub(crate) load: Load,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Live<Config>,
    pub(crate) link: watch::Sender<Link>,
    /// Moves when the registry may no longer know this node's work: the work list is read again.
    pub(crate) resync: watch::Sender<u64>,
    pub(crate) figures: Slot<Figures>,
}

/// What one contact with the registry taught.
pub(crate) struct Contact {
    /// When to come again.
    pub(crate) next: Duration,
    /// The registry's log, when the contact was a registration.
    pub(crate) log_id: Option<LogId>,
}

impl Presence {
    fn node(&self) -> NodeId {
        self.registration.id
    }

    /// Runs until told to stop. Between `stopping` and `stop` the node is `draining`, afterwards `offline`.
    pub(crate) async fn run(&self, stop: &Stop, stopping: &Stop) -> TaskResult {
        let (mut tries, mut log_id, mut draining) = (0u32, None, false);
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = stopping.cancelled(), if !draining => {
                    draining = true;
                    self.leave("draining").await;
                    continue;
                }
                () = tokio::time::sleep(pause) => {}
            }
            let Some(contact) = stop.run_until_cancelled(self.contact()).await else { break };
            match contact {
                Ok(contact) => {
                    tries = 0;
                    pause = self.pace(contact.next);
                    if let Some(now) = contact.log_id
                        && log_id.replace(now).is_some_and(|before| before != now)
                    {
                        tracing::warn!(log_id = %now, "the registry has another log; telling it everything again");
                        self.resync.send_modify(|count| *count += 1);
                    }
                }
                Err(fault) => {
                    self.lost(&fault)?;
                    pause = match &*self.link.borrow() {
                        Link::Away { .. } | Link::Refused { .. } => backoff(SLOWEST, SLOWEST, 0),
                        _ => backoff(self.config.get().sms_connect_retry, SLOWEST, tries),
                    };
                    tries = tries.saturating_add(1);
                }
            }
        }
        self.leave_offline().await;
        Ok(())
    }

    /// One contact: a registration where one is due, a heartbeat, the load.
    pub(crate) async fn contact(&self) -> Result<Contact, Fault> {
        let mut log_id = None;
        if *self.link.borrow() != Link::Up && self.config.get().auto_register {
            log_id = Some(self.register().await?);
        }
        let health = || {
            let count = |count: usize| count.to_string();
            let (running, waiting) = (self.executor.running(), self.executor.waiting());
            let boot = self.registration.metadata.get(BOOT_KEY).cloned().unwrap_or_default();
            let counts = [("running".to_owned(), count(running)), ("waiting".to_owned(), count(waiting))];
            BTreeMap::from_iter(counts.into_iter().chain([(BOOT_KEY.to_owned(), boot)]))
        };
        let beat = || within(ANSWER, "heartbeat", self.control.heartbeat(self.node(), health()));
        let ack = match beat().await {
            Err(fault) if fault.code == "NODE_NOT_FOUND" && self.config.get().auto_register && log_id.is_none() => {
                tracing::warn!("the registry does not know this node any more; registering again");
                log_id = Some(self.register().await?);
                self.resync.send_modify(|count| *count += 1);
                beat().await?
            }
            Err(mut fault) if fault.code == "NODE_NOT_FOUND" && !self.config.get().auto_register => {
                fault.message = "the registry does not know this node, and auto_register is off".to_owned();
                return Err(fault);
            }
            answer => answer?,
        };
        self.up();
        if let Some(load) = self.load.read(self.clock.monotonic(), self.clock.wall()).await {
            let told = within(ANSWER, "load", self.control.update_resource(self.node(), load)).await;
            // The heartbeat counted; the load is told again with the next one.
            if let Err(fault) = told {
                tracing::debug!(error = %fault, "the registry did not take the load");
            }
        }
        Ok(Contact { next: ack.next_heartbeat, log_id })
    }

    async fn register(&self) -> Result<LogId, Fault> {
        let registered = within(ANSWER, "register", self.control.register_node(self.registration.clone())).await?;
        self.figures.see(|figures| figures.registrations.inc());
        tracing::info!(node = %self.node(), log_id = %registered.log_id, "registered");
        Ok(registered.log_id)
    }

    fn up(&self) {
        let before = self.link.send_replace(Link::Up);
        if before != Link::Up {
            if matches!(before, Link::Lost { .. } | Link::Away { .. } | Link::Refused { .. }) {
                self.figures.see(|figures| figures.reconnects.inc());
                tracing::info!("the registry is back");
            }
            self.executor.nudge();
        }
    }

    /// Takes note of a failed contact; an error when the process should end because of it.
    fn lost(&self, fault: &Fault) -> Result<(), Fault> {
        let (now, limit) = (self.clock.monotonic(), self.config.get().reconnect_total_timeout);
        let why = fault.message.clone();
        self.figures.see(|figures| figures.failures.inc());
        let next = match self.link.borrow().clone() {
            Link::Up | Link::Lost { .. } | Link::Away { .. } if fault.code == "NODE_ID_IN_USE" => {
                tracing::error!(error = %fault, "another agent has taken this node's id; no work is taken here");
                Link::Refused { why }
            }
            Link::Refused { .. } => Link::Refused { why },
            Link::Up => {
                tracing::warn!(error = %fault, "lost the registry; trying again");
                Link::Lost { since: now }
            }
            Link::Lost { since } if now.saturating_sub(since) >= limit => {
                tracing::error!(error = %fault, ?limit, "no contact with the registry; work in hand goes on");
                if self.config.get().reconnect_exit {
                    let message = format!("no contact with the registry for more than {limit:?}: {why}");
                    return Err(Fault::new(fault.kind, "REGISTRY_LOST", message));
                }
                Link::Away { why }
            }
            Link::Lost { since } => Link::Lost { since },
            Link::Away { .. } => Link::Away { why },
            Link::Connecting { why: before } => {
                if before.is_none() {
                    tracing::warn!(error = %fault, "the registry does not take this node yet; trying again");
                }
                Link::Connecting { why: Some(why) }
            }
            Link::Alone => Link::Alone,
        };
        self.link.send_replace(next);
        Ok(())
    }

    /// The pause before the next beat: what the registry asks for, which scatters its nodes itself. Never longer than
    /// the setting, and then a little shorter by chance, so that nodes started together do not stay together.
    fn pace(&self, asked: Duration) -> Duration {
        let longest = self.config.get().heartbeat_interval;
        if (FASTEST..=longest).contains(&asked) {
            return asked;
        }
        let full = if asked.is_zero() { longest } else { asked.min(longest) };
        // backoff() varies by ±25 %; 4/5 of it stays within the full pause.
        (backoff(full, full, 0) * 4 / 5).max(FASTEST)
    }

    async fn leave(&self, status: &str) {
        if *self.link.borrow() != Link::Up {
            return;
        }
        if let Err(fault) = within(LAST_WORDS, "leave", self.control.leave(self.node(), status)).await {
            tracing::warn!(error = %fault, status, "the registry did not hear that this node stops");
        }
    }

    /// The last word, after the results.
    async fn leave_offline(&self) {
        if *self.link.borrow() == Link::Up && tokio::time::timeout(LAST_WORDS, self.executor.flushed()).await.is_err() {
            tracing::warn!("some results wait on disk for the next start");
        }
        self.leave("offline").await;
    }
}
