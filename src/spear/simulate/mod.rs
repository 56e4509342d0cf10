//! Agents that only pretend: as many nodes as wanted in one process, with the real protocol and no guests.
//!
//! ```text
//!   Plan ─► connections, shared ─► node ─┬─ presence: register, heartbeat and load at the registry's pace
//!                                        └─ work: list, watch, "run" for a while, report
//!   every answer ─► Figures ─► Summary
//! ```
//! A node is one task; what is kept of it does not grow with time. Nodes fall silent at the end, as if their
//! machines were switched off together.

mod figures;
mod node;
mod presence;
mod work;

use api::{Control, grpc::RemoteControl};
use net::{
    Token,
    channel::{ConnectOptions, connect},
    client::{FetchRules, Fetcher},
};
use std::{sync::Arc, time::Duration};
use supervise::{Budget, OnError, Phase, Supervisor};
use types::{Clock, Fault, SystemClock};

pub use figures::{Figures, Summary};

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `host:port` of the registry's gRPC interface.
    pub grpc: String,
    /// `host:port` of its REST interface, from which executables are fetched.
    pub http: String,
    /// For the registry.
    pub token: Option<Token>,
    /// Nodes.
    pub nodes: usize,
    /// Connections they share.
    pub connections: usize,
    /// How many of them follow their work list and offer a runtime; the others only live.
    pub workers: usize,
    /// Longest pause between heartbeats; the registry may ask for a shorter one.
    pub interval: Duration,
    /// Nodes appear one after the other within this time.
    pub ramp: Duration,
    /// The end; none: when the signal comes.
    pub duration: Option<Duration>,
    /// How long an execution takes.
    pub run_time: Duration,
    /// Fetch the executable of every execution?
    pub fetch: bool,
}

/// Simulates until the time is over or `signal` comes; `told` hears of the figures every ten seconds.
///
/// # Errors
/// An address is not one.
pub async fn run(
    plan: Plan,
    signal: impl Future<Output = ()>,
    told: impl Fn(&Summary) + Send + Sync + 'static,
) -> Result<Summary, Fault> {
    let plan = Arc::new(plan);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let figures = Arc::new(Figures::new(clock.monotonic()));
    let controls = connections(&plan)?;
    let supervisor = Supervisor::new(Budget { total: Duration::from_secs(5) });
    let scope = supervisor.scope(Phase::Work, "simulate");
    for (number, control) in (0..plan.nodes).zip(controls.iter().cycle()) {
        let node = node::Node::new(number, plan.clone(), control.clone(), figures.clone(), clock.clone());
        let stop = scope.stop();
        scope.spawn_once("node", async move {
            stop.run_until_cancelled(node.live()).await;
            Ok(())
        });
    }
    let (seen, watch, told) = (figures.clone(), clock.clone(), Arc::new(told));
    scope.spawn("tell", OnError::Log, move |stop| {
        let (figures, clock, told) = (seen.clone(), watch.clone(), told.clone());
        async move {
            while stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(10))).await.is_some() {
                told(&figures.summary(clock.monotonic()));
            }
            Ok(())
        }
    });
    let over = async {
        match plan.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let end = async {
        tokio::select! { () = signal => {}, () = over => {} }
        // Before the nodes are told to stop: what counts is how they stood.
        figures.summary(clock.monotonic())
    };
    let summary = Arc::new(std::sync::OnceLock::new());
    let kept = summary.clone();
    let ended = supervisor.run(async move { drop(kept.set(end.await)) }).await;
    ended.map_err(|failure| Fault::internal(failure.to_string()))?;
    Ok(summary.get().cloned().unwrap_or_else(|| figures.summary(clock.monotonic())))
}

/// The connections; each opens when it is first used.
fn connections(plan: &Plan) -> Result<Vec<Arc<dyn Control>>, Fault> {
    let rules = FetchRules { allow_http: true, allow_hosts: vec![plan.http.clone()], ..FetchRules::default() };
    let files = Fetcher::new(rules)?;
    let one = || {
        let channel = connect(&plan.grpc, plan.token.clone(), ConnectOptions::default())?;
        let control = RemoteControl::new(channel, &plan.http, files.clone(), plan.token.clone());
        Ok(Arc::new(control) as Arc<dyn Control>)
    };
    (0..plan.connections.clamp(1, plan.nodes.max(1))).map(|_| one()).collect()
}
