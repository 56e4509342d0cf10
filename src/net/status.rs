//! What a process says of itself: where it listens, whether it is ready, and everything that it supervises.

use serde::Serialize;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use supervise::Supervisor;
use types::Clock;
use utoipa::ToSchema;

use crate::readiness::Readiness;

/// What the parts of a process need to tell its status. Cheap to clone.
#[derive(Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

struct Inner {
    version: &'static str,
    role: &'static str,
    listeners: Vec<(&'static str, SocketAddr)>,
    supervisor: Supervisor,
    readiness: Readiness,
    clock: Arc<dyn Clock>,
    started: Duration,
}

/// The state of a process.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProcessStatus {
    /// Of the program.
    version: &'static str,
    /// `sms`, `spearlet` or `all`.
    role: &'static str,
    /// Its number at the operating system.
    pid: u32,
    /// Whole seconds since it started.
    uptime_seconds: u64,
    /// Where it listens, in the order in which that began.
    listeners: Vec<ListenerStatus>,
    /// Is everything ready?
    ready: bool,
    /// What is not ready; empty when `ready`.
    reasons: Vec<NotReady>,
    /// Everything that is supervised, in the order of stopping; tasks of one name are counted together.
    scopes: Vec<ScopeStatus>,
}

/// A listener.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ListenerStatus {
    /// `sms/http`, `sms/grpc`, `spearlet/http` ….
    name: &'static str,
    /// IP address and port.
    address: String,
}

/// A check that is not ready.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct NotReady {
    /// Which.
    check: String,
    /// Why.
    reason: String,
}

/// Supervised tasks of one name.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ScopeStatus {
    /// `scope/task`.
    name: String,
    /// When they stop: `intake`, `work`, `report`, `bus` or `store`.
    phase: &'static str,
    /// `running`, `backing_off` (waits to be started again) or `ended` (failed, and not started again).
    state: &'static str,
    /// How many have not ended.
    count: u64,
    /// How often they were started again.
    restarts: u64,
    /// The last error of one of them.
    last_error: Option<String>,
}

impl Process {
    /// Of this process, which starts now.
    pub fn new(
        (role, version): (&'static str, &'static str),
        listeners: &[(&'static str, SocketAddr)],
        supervisor: &Supervisor,
        readiness: &Readiness,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (supervisor, readiness, started) = (supervisor.clone(), readiness.clone(), clock.monotonic());
        let listeners = listeners.to_vec();
        Self { inner: Arc::new(Inner { version, role, listeners, supervisor, readiness, clock, started }) }
    }

    /// Its state now.
    pub fn status(&self) -> ProcessStatus {
        let inner = &*self.inner;
        let reasons: Vec<NotReady> =
            inner.readiness.reasons().into_iter().map(|(check, reason)| NotReady { check, reason }).collect();
        let address =
            |(name, address): &(&'static str, SocketAddr)| ListenerStatus { name, address: address.to_string() };
        ProcessStatus {
            version: inner.version,
            role: inner.role,
            pid: std::process::id(),
            uptime_seconds: inner.clock.monotonic().saturating_sub(inner.started).as_secs(),
            listeners: inner.listeners.iter().map(address).collect(),
            ready: reasons.is_empty(),
            reasons,
            scopes: inner.supervisor.scopes().into_iter().map(ScopeStatus::from).collect(),
        }
    }
}

impl From<supervise::ScopeStatus> for ScopeStatus {
    fn from(scope: supervise::ScopeStatus) -> Self {
        let (phase, state) = (scope.phase.name(), scope.state.name());
        let supervise::ScopeStatus { name, count, restarts, last_error, .. } = scope;
        Self { name, phase, state, count, restarts, last_error }
    }
}
