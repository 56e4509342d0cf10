//! The node agent: registers with a registry, takes its work, runs it and reports.
//!
//! ```text
//!   Control (registry) ◄── agent/: connect · register · heartbeat · follow the work list
//!        ▲                    │ one local commit: inbox + cursor, before acting
//!        │                    ▼
//!        │                executor/: queue ► artifacts/: fetch, verify ► Runtime: prepare ► start ► invoke
//!        └── outbox ◄─────────┘ result and log, on disk until the registry has them
//!   objects/: a small object store of the node's own
//! ```

pub mod agent;
pub mod artifacts;
pub mod executor;
pub mod functions;
mod gateway;
pub mod objects;

use axum::Router;
use runtime::Runtimes;
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use store::Store;
use supervise::{Live, Phase, Supervisor};
use types::{Clock, Fault, NodeId};

/// What an agent is built from.
pub struct Deps {
    /// The registry; none: the agent stands alone and only serves its own interfaces.
    pub control: Option<Arc<dyn api::Control>>,
    /// What it can run.
    pub runtimes: Runtimes,
    /// Its own records: inbox, cursor, outbox, objects.
    pub store: Store,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Its directory; exists and is locked.
    pub data_dir: PathBuf,
    /// The addresses it listens on, told to the registry.
    pub addresses: Addresses,
    /// Hears what goes on here; the registry's where that is in the same process.
    pub bus: bus::Bus,
    /// The process that this is part of, for its status.
    pub process: net::Process,
    /// Settings; a change takes effect with what is done next.
    pub config: Live<Config>,
}

/// Where the agent can be reached.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
}

/// Settings of the agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name; when it is a UUID, also its id.
    pub node_name: String,
    /// Address that the registry is told; none: found out.
    pub advertise_ip: Option<String>,
    /// Register once connected?
    pub auto_register: bool,
    /// The registry's address, for messages and to find the address to advertise; empty when it is in this process.
    pub sms_address: String,
    /// Must the first connection and registration succeed? (An address given by flag.)
    pub connect_or_fail: bool,
    /// Longest pause between heartbeats; the registry may ask for a shorter one.
    pub heartbeat_interval: Duration,
    /// How long the first connection may take.
    pub sms_connect_timeout: Duration,
    /// First pause between tries.
    pub sms_connect_retry: Duration,
    /// Time without the registry after which the agent is not ready.
    pub reconnect_total_timeout: Duration,
    /// End the process after that time, as the original did?
    pub reconnect_exit: bool,
    /// Executions at a time.
    pub concurrency: usize,
    /// Executions that may wait on this node beyond those.
    pub queue: usize,
    /// Time limit of an execution that names none, and the most it may ask for.
    pub default_timeout: Duration,
    /// The most an execution may ask for.
    pub max_timeout: Duration,
    /// Walls of a guest.
    pub limits: runtime::Limits,
    /// Calls of functions at a time, beside executions.
    pub invocations: usize,
    /// How functions are pooled, and the most that a task may ask for.
    pub functions: functions::Settings,
    /// What functions may be granted.
    pub policy: functions::Policy,
    /// Where artifacts may come from.
    pub artifacts: artifacts::Config,
    /// The object store.
    pub objects: objects::Config,
    /// Serve `/swagger-ui/` and `/api/openapi.json`?
    pub swagger_enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: "spearlet-node".to_owned(),
            advertise_ip: None,
            auto_register: true,
            sms_address: String::new(),
            connect_or_fail: false,
            heartbeat_interval: Duration::from_secs(30),
            sms_connect_timeout: Duration::from_secs(15),
            sms_connect_retry: Duration::from_millis(500),
            reconnect_total_timeout: Duration::from_secs(300),
            reconnect_exit: false,
            concurrency: 4,
            queue: 1024,
            default_timeout: Duration::from_secs(30),
            max_timeout: Duration::from_secs(3600),
            limits: runtime::Limits::default(),
            invocations: 256,
            functions: functions::Settings::default(),
            policy: functions::Policy::default(),
            artifacts: artifacts::Config::default(),
            objects: objects::Config::default(),
            swagger_enabled: true,
        }
    }
}

/// A running agent.
#[derive(Clone)]
pub struct Spearlet {
    pub(crate) id: NodeId,
    pub(crate) node_name: Arc<str>,
    pub(crate) objects: Arc<objects::Service>,
    pub(crate) executor: Arc<executor::Executor>,
    pub(crate) functions: Arc<functions::Functions>,
    pub(crate) faces: Arc<functions::faces::Faces>,
    pub(crate) agent: Arc<agent::Agent>,
    pub(crate) swagger_enabled: bool,
    pub(crate) process: net::Process,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Spearlet {
    /// Builds the parts and starts their background work under `supervisor`.
    ///
    /// # Errors
    /// When its directory cannot be used, or `connect_or_fail` is set and the registry does not answer in time.
    pub async fn start(deps: Deps, supervisor: &Supervisor) -> Result<Self, Fault> {
        let (settings, config) = (deps.config.clone(), deps.config.get());
        let clock = deps.clock;
        let id = agent::identity(&deps.data_dir, &config.node_name).await?;
        let objects = objects::Service::open(
            &deps.store,
            clock.clone(),
            &config.objects,
            deps.data_dir.join("objects"),
            supervisor.scope(Phase::Work, "objects"),
        )
        .await?;
        let artifacts =
            artifacts::Fetcher::open(&config.artifacts, deps.data_dir.join("artifacts"), deps.control.clone()).await?;
        let artifacts = Arc::new(artifacts);
        let functions = functions::Functions::start(
            functions::Deps {
                clock: clock.clone(),
                runtimes: deps.runtimes.clone(),
                artifacts: artifacts.clone(),
                control: deps.control.clone(),
                config: settings.clone(),
                stopping: supervisor.stopping(),
                bus: deps.bus,
            },
            &supervisor.scope(Phase::Work, "functions"),
        );
        let executor = executor::Executor::start(
            executor::Deps {
                node: id,
                store: deps.store.clone(),
                clock: clock.clone(),
                artifacts,
                functions: functions.clone(),
                control: deps.control.clone(),
                data_dir: deps.data_dir.clone(),
                config: settings.clone(),
                stopping: supervisor.stopping(),
                // Leaves time to end the guests and to write down how they ended.
                drain: supervisor.budget().share(Phase::Work).mul_f64(0.8),
            },
            &supervisor.scope(Phase::Work, "executor"),
            &supervisor.scope(Phase::Report, "outbox"),
        )
        .await?;
        let data_dir = deps.data_dir.clone();
        let agent = agent::Agent::start(
            agent::Deps {
                id,
                control: deps.control,
                store: deps.store,
                clock: clock.clone(),
                runtimes: deps.runtimes,
                executor: executor.clone(),
                data_dir: deps.data_dir,
                addresses: deps.addresses,
                config: settings.clone(),
                stopping: supervisor.stopping(),
            },
            &supervisor.scope(Phase::Report, "agent"),
        )
        .await?;
        let faces = functions::faces::Faces::new(functions::faces::Deps {
            functions: functions.clone(),
            executor: executor.clone(),
            agent: agent.clone(),
            clock: clock.clone(),
            data_dir,
        });
        let swagger_enabled = config.swagger_enabled;
        let (node_name, process) = (config.node_name.as_str().into(), deps.process);
        Ok(Self { id, node_name, objects, executor, functions, faces, agent, swagger_enabled, process, clock })
    }

    /// Its id, kept on disk.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Calls its functions: what triggers are given.
    pub fn invoker(&self) -> Arc<dyn api::Invoker> {
        Arc::new(functions::LocalInvoker(self.functions.clone()))
    }

    /// Measures from now on.
    pub fn measure(&self, metrics: &telemetry::Metrics) {
        self.agent.measure(metrics);
        self.executor.measure(metrics);
        self.functions.measure(metrics);
        self.executor.artifacts().measure(metrics);
        self.objects.measure(metrics);
    }

    /// Is the registry reachable (or none wanted)? For readiness: none when it is, else the reason.
    pub fn not_ready(&self) -> Option<String> {
        self.agent.not_ready()
    }

    /// The agent's REST routes, with OpenAPI and Swagger when enabled; health probes are the caller's.
    pub fn http(&self) -> Router {
        gateway::http(self)
    }

    /// The agent's gRPC routes with health and reflection.
    ///
    /// # Errors
    /// When the descriptors compiled in are broken.
    pub fn grpc(&self) -> Result<Router, Fault> {
        gateway::grpc(self)
    }
}
