//! The control plane: nodes, tasks, files, executions, and the events of all of them.
//!
//! ```text
//!   REST ──► gateway.rs ─┐                                   ┌─► store: records + change log
//!   gRPC ──► */grpc.rs ──┼─► nodes · tasks · files · executions ─┤
//!   agent ─► control.rs ─┘        (one service each)         └─◄ bus: mirrors, events, work lists
//! ```
//! Every feature folder has the same files: `service` decides, `records` says what is stored, `http` and `grpc`
//! translate. A write is acknowledged when it is on disk and visible to the next read.

pub mod agent;
pub mod backup;
mod control;
pub mod events;
pub mod executions;
pub mod files;
mod gateway;
mod groups;
pub mod nodes;
mod page;
mod status;
pub mod tasks;

use axum::Router;
use bus::Bus;
use std::{path::PathBuf, sync::Arc, time::Duration};
use store::Store;
use supervise::{Live, Phase, Supervisor};
use types::{Clock, Fault};

/// What the registry is built from.
pub struct Deps {
    /// Its records.
    pub store: Store,
    /// Follows that store.
    pub bus: Bus,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where files and logs lie; exists and is locked.
    pub data_dir: PathBuf,
    /// The process that this is part of, for its status.
    pub process: net::Process,
    /// Settings; a change takes effect with what is done next.
    pub config: Live<Config>,
}

/// Settings of the registry.
#[derive(Clone, Debug)]
pub struct Config {
    /// Silence after which a node is offline.
    pub heartbeat_timeout: Duration,
    /// Period of the sweep that looks for silent nodes.
    pub cleanup_interval: Duration,
    /// Time offline after which a node is removed.
    pub remove_after: Duration,
    /// Time offline after which a node's running executions are lost and its waiting ones go elsewhere.
    pub lost_after: Duration,
    /// Pace of heartbeats told to agents; at most a third of the timeout.
    pub heartbeat_interval: Duration,
    /// Bytes of an uploaded file.
    pub max_upload_bytes: u64,
    /// Bytes of log kept per execution.
    pub execution_log_max_bytes: u64,
    /// Finished executions kept per task.
    pub executions_kept_per_task: usize,
    /// Longest wait of a synchronous run.
    pub sync_wait: Duration,
    /// How long an idempotency key is kept, at most as long as its execution.
    pub idempotency_keep: Duration,
    /// Hosts that callbacks may go to, as [`net::outbound`] has them; none: there are no callbacks.
    pub callback_hosts: Vec<String>,
    /// Pause after the first try of a callback that failed; each one after it is twice as long.
    pub callback_retry_first: Duration,
    /// Longest pause between two tries.
    pub callback_retry_most: Duration,
    /// How long a callback is tried, by the time that the process runs.
    pub callback_give_up_after: Duration,
    /// How often a callback is tried.
    pub callback_tries: u32,
    /// Serve `/swagger-ui/` and `/api/openapi.json`?
    pub enable_swagger: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_timeout: Duration::from_secs(90),
            cleanup_interval: Duration::from_secs(30),
            remove_after: Duration::from_secs(24 * 3600),
            lost_after: Duration::from_secs(300),
            heartbeat_interval: Duration::from_secs(10),
            max_upload_bytes: 64 << 20,
            execution_log_max_bytes: 10 << 20,
            executions_kept_per_task: 1000,
            sync_wait: Duration::from_secs(60),
            idempotency_keep: Duration::from_secs(24 * 3600),
            callback_hosts: Vec::new(),
            callback_retry_first: Duration::from_secs(1),
            callback_retry_most: Duration::from_secs(300),
            callback_give_up_after: Duration::from_secs(24 * 3600),
            callback_tries: 300,
            enable_swagger: true,
        }
    }
}

/// A running registry.
#[derive(Clone)]
pub struct Sms {
    pub(crate) nodes: Arc<nodes::Service>,
    pub(crate) tasks: Arc<tasks::Service>,
    pub(crate) files: Arc<files::Service>,
    pub(crate) executions: Arc<executions::Service>,
    pub(crate) backups: Arc<backup::Backups>,
    pub(crate) data_dir: Arc<std::path::Path>,
    pub(crate) bus: Bus,
    pub(crate) config: Live<Config>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) process: net::Process,
    pub(crate) health: tonic_health::server::HealthReporter,
    /// Cancelled when the process begins to stop: endless streams end on it.
    pub(crate) stopping: supervise::Stop,
}

impl Sms {
    /// Builds the services and starts their background work under `supervisor`.
    ///
    /// # Errors
    /// When the store or the data directory cannot be read.
    pub async fn start(deps: Deps, supervisor: &Supervisor) -> Result<Self, Fault> {
        let scope = supervisor.scope(Phase::Work, "sms");
        let config = deps.config;
        let (store, bus, clock) = (deps.store, deps.bus, deps.clock);
        let nodes = nodes::Service::start(&store, &bus, clock.clone(), config.clone(), &scope).await?;
        let files =
            files::Service::start(&store, &bus, (clock.clone(), config.clone()), deps.data_dir.join("files"), &scope)
                .await?;
        let logs = deps.data_dir.join("logs");
        let executions = executions::Service::start(
            executions::Deps {
                store: &store,
                bus: &bus,
                clock: clock.clone(),
                config: config.clone(),
                logs,
                nodes: nodes.clone(),
            },
            &scope,
        )
        .await?;
        let tasks = tasks::Service::start(&store, clock.clone(), executions.clone()).await?;
        let stopping = supervisor.stopping();
        let health = gateway::health_reporter(&scope, stopping.clone(), store).await;
        let process = deps.process;
        let (backups, data_dir) = (backup::Backups::new(&scope), deps.data_dir.into());
        Ok(Self { nodes, tasks, files, executions, backups, data_dir, bus, config, clock, process, health, stopping })
    }

    /// Measures from now on.
    pub fn measure(&self, metrics: &telemetry::Metrics) {
        self.nodes.measure(metrics);
        self.executions.measure(metrics);
        self.files.measure(metrics);
    }

    /// What agents in this process use.
    pub fn control(&self) -> Arc<dyn api::Control> {
        Arc::new(control::LocalControl::new(self.clone()))
    }

    /// Can files be uploaded and read? For readiness: none when they can, else the reason.
    pub async fn files_not_ready(&self) -> Option<String> {
        let error = self.files.is_there().await.err()?;
        Some(format!("the directory of files cannot be used: {error}"))
    }

    /// The REST routes, with OpenAPI and Swagger when enabled; health routes are the caller's.
    pub fn http(&self) -> Router {
        gateway::http(self)
    }

    /// The gRPC routes with health and reflection.
    ///
    /// # Errors
    /// When the descriptors compiled in are broken.
    pub fn grpc(&self) -> Result<Router, Fault> {
        gateway::grpc(self)
    }
}

/// A failure of the bus as callers see it.
pub(crate) fn bus_fault(error: bus::Error) -> Fault {
    match error {
        bus::Error::Closed => Fault::unavailable("the registry is stopping"),
        bus::Error::Store(error) => error.into(),
    }
}
