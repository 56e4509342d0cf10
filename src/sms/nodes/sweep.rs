//! Looks at the clock, marks nodes that fell silent as offline, and removes those that stay so.

use futures_util::{StreamExt, stream};
use std::{sync::Arc, time::Duration};
use supervise::{Live, OnError, Scope};
use tokio::time::MissedTickBehavior;
use types::{Liveness, NodeId};

use super::{Service, liveness::TICK, service::rules};
use crate::Config;

/// Transitions written at once; group commit makes one disk write of them.
const TOGETHER: usize = 256;

/// Watches over the nodes until the scope stops, by rules that may change.
pub(super) fn start(service: &Arc<Service>, config: Live<Config>, scope: &Scope) {
    let service = service.clone();
    let restart = OnError::Restart { first: Duration::from_secs(1), most: Duration::from_secs(10) };
    scope.spawn("liveness", restart, move |stop| {
        let (service, mut config) = (service.clone(), config.clone());
        async move {
            let mut tick = tokio::time::interval(TICK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    _ = tick.tick() => service.tick().await,
                    () = config.changed() => {
                        let now = service.clock.monotonic();
                        service.pulses().obey(rules(&config.get()), now);
                    }
                }
            }
        }
    });
}

impl Service {
    /// One look at the clock and, when it is time, at the nodes. Failures are logged: the next sweep tries again.
    pub(super) async fn tick(&self) {
        let now = self.clock.monotonic();
        let verdict = {
            let mut pulses = self.pulses();
            if let Some(pause) = pulses.tick(now) {
                let seconds = pause.as_secs();
                self.figures.see(|figures| figures.pauses.inc());
                tracing::warn!(seconds, "this process was stopped for a while; every node gets its full time again");
            }
            if !pulses.sweep_due(now) {
                return;
            }
            let nodes: Vec<_> = self.nodes.read().values().map(|node| (node.id, node.liveness)).collect();
            pulses.sweep(now, &nodes)
        };
        match verdict.brake {
            Some(true) => tracing::error!(
                silent = verdict.silent.len(),
                "most nodes fell silent at once: is it the network, or this host? They are shown as offline, but \
                 nothing is removed until most are back or deleted by hand"
            ),
            Some(false) => tracing::info!("enough nodes are back: removal goes on"),
            None => {}
        }
        stream::iter(verdict.silent).for_each_concurrent(TOGETHER, |id| self.mark_offline(id)).await;
        stream::iter(verdict.expired).for_each_concurrent(TOGETHER, |id| self.expire(id)).await;
    }

    pub(super) async fn mark_offline(&self, id: NodeId) {
        let silent = |service: &Self| service.pulses().is_silent(id, service.clock.monotonic());
        match self.set_liveness(id, Liveness::Offline, silent).await {
            // Heard of while that was written: the heartbeat saw it online and wrote nothing.
            Ok(()) if !silent(self) => {
                if let Err(error) = self.set_liveness(id, Liveness::Online, |_| true).await {
                    tracing::error!(node = %id, %error, "cannot mark a node online; its next heartbeat will");
                }
            }
            Ok(()) => {
                self.figures.see(|figures| figures.silent.inc());
                tracing::warn!(node = %id, "node is silent and now offline");
            }
            Err(fault) if fault.kind == types::ErrorKind::NotFound => {}
            Err(error) => tracing::error!(node = %id, %error, "cannot mark a silent node offline"),
        }
    }

    async fn expire(&self, id: NodeId) {
        match self.remove(id, |node| node.liveness == Liveness::Offline).await {
            Ok(true) => {
                self.figures.see(|figures| figures.removed.inc());
                tracing::warn!(node = %id, "node was offline for too long and is removed");
            }
            Ok(false) => {}
            Err(error) => tracing::error!(node = %id, %error, "cannot remove a node"),
        }
    }
}
