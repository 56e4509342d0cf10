//! The agent's side of the registry: identity, registration, heartbeats and the work list.
//!
//! ```text
//!   connect ──► register ──► Up ──► heartbeat, load (the registry sets the pace) ──► …
//!      ▲           ▲          │ fault                       │ NODE_NOT_FOUND: register, list the work again
//!      │ back-off  └── Lost ◄─┴─────────────────────────────┘
//!      └── longer than reconnect_total_timeout: Away (not ready; or the process ends, if so configured)
//!   another agent has registered under this id: Refused (nothing is followed, registering goes on)
//!   follow: cursor ──► watch ──► one local commit {inbox, cursor} ──► executor
//! ```
//! Only the presence task changes the `Link`; everything else reads it.

pub(crate) mod connect;
pub(crate) mod cursor;
mod figures;
mod follow;
mod heartbeat;
mod identity;
pub(crate) mod load;
mod register;

#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;

pub use identity::identity;

use runtime::Runtimes;
use std::{path::PathBuf, sync::Arc};
use store::Store;
use supervise::{Live, OnError, Scope, Stop};
use telemetry::Slot;
use tokio::sync::watch;
use types::{Clock, Fault, NodeId};

use crate::{Addresses, Config, executor::Executor};
use connect::Link;
use figures::Figures;
use heartbeat::Presence;

/// What the agent is built from.
pub struct Deps {
    /// This node.
    pub id: NodeId,
    /// The registry; none: nothing is contacted.
    pub control: Option<Arc<dyn api::Control>>,
    /// The node's own records: the cursor is one of them.
    pub store: Store,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What the node can run.
    pub runtimes: Runtimes,
    /// Who does the work.
    pub executor: Arc<Executor>,
    /// The node's directory.
    pub data_dir: PathBuf,
    /// Where the node can be reached.
    pub addresses: Addresses,
    /// Settings.
    pub config: Live<Config>,
    /// Cancelled as soon as the process begins to stop.
    pub stopping: Stop,
}

/// The running agent.
pub struct Agent {
    link: watch::Receiver<Link>,
    config: Live<Config>,
    figures: Slot<Figures>,
}

impl Agent {
    /// Connects and starts the background work in `scope`, which should be of the phase that reports.
    ///
    /// # Errors
    /// With `connect_or_fail`: when the registry does not take the node in time.
    pub async fn start(deps: Deps, scope: &Scope) -> Result<Arc<Self>, Fault> {
        let (config, figures) = (deps.config.get(), Slot::default());
        let Some(control) = deps.control else {
            let (_, link) = watch::channel(Link::Alone);
            return Ok(Arc::new(Self { link, config: deps.config, figures }));
        };
        let boot = register::place(&deps.data_dir);
        let registration = register::registration(deps.id, &config, deps.addresses, &deps.runtimes, boot).await;
        let (link, reader) = watch::channel(Link::Connecting { why: None });
        let presence = Arc::new(Presence {
            control: control.clone(),
            registration,
            executor: deps.executor.clone(),
            load: load::Load::new(deps.data_dir.clone()),
            clock: deps.clock.clone(),
            config: deps.config.clone(),
            link,
            resync: watch::Sender::new(0),
            figures: figures.clone(),
        });
        if config.connect_or_fail {
            connect::first(&presence).await?;
        }
        let follow = Arc::new(follow::Follow {
            node: deps.id,
            control,
            store: deps.store,
            clock: deps.clock,
            executor: deps.executor,
            link: reader.clone(),
            resync: presence.resync.subscribe(),
            revision: watch::Sender::new(None),
            scope: scope.child("follow"),
        });
        let export = cursor::Export::new(&deps.data_dir, deps.id, follow.revision.subscribe());
        let (beats, stopping) = (presence, deps.stopping.clone());
        scope.spawn("heartbeat", OnError::StopProcess, move |stop| {
            let (presence, stopping) = (beats.clone(), stopping.clone());
            async move { presence.run(&stop, &stopping).await }
        });
        let again = OnError::Restart { first: config.sms_connect_retry, most: connect::SLOWEST };
        scope.spawn("follow", again, move |_| {
            let (follow, stopping) = (follow.clone(), deps.stopping.clone());
            async move { follow.run(&stopping).await }
        });
        scope.spawn("cursor-file", again, move |stop| {
            let mut export = export.clone();
            async move { export.run(&stop).await }
        });
        Ok(Arc::new(Self { link: reader, config: deps.config, figures }))
    }

    /// Why the node is not ready, if it is not: it was never registered, or the registry has been away too long.
    pub fn not_ready(&self) -> Option<String> {
        match &*self.link.borrow() {
            Link::Alone | Link::Up | Link::Lost { .. } => None,
            Link::Connecting { why: None } => Some("not registered with the registry yet".to_owned()),
            Link::Connecting { why: Some(why) } => Some(format!("not registered with the registry yet: {why}")),
            Link::Refused { why } => Some(format!("the registry has another agent under this id: {why}")),
            Link::Away { why } => {
                let limit = self.config.get().reconnect_total_timeout;
                Some(format!("no contact with the registry for more than {limit:?}: {why}"))
            }
        }
    }
}
