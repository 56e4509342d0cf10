//! Builds the parts of a role, hands them to each other, and stops them in order.
//!
//! ```text
//!   settings ─► bind every socket ─► take data directories ─► store ─► bus ─► sms ─► spearlet ─► ready ─► signal ─► stop
//! ```
//! With both roles in one process the agent gets the registry as an object; alone, a gRPC client of the same trait.

use net::{Access, Listener, Process, ServeOptions, Sockets, readiness::Readiness};
use runtime::Runtimes;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use store::{DataDir, Store};
use supervise::{Changer, Live, Phase, Scope, Supervisor};
use telemetry::Metrics;
use types::{Clock, SystemClock};

use crate::{
    config::{Engine, Listen, Resolved, SmsSettings, SpearletSettings, WasmSettings},
    disk,
    doors::Doors,
    instruments::Instruments,
    ready,
    reload::{Followers, InForce, Reload, Reloads},
    stopped::Stopped,
};

/// Where the registry's REST interface is when nobody says otherwise.
const SMS_HTTP: &str = "127.0.0.1:8080";

pub use crate::doors::MadeToken;

/// Which settings name the data directories, for errors.
const SMS_DIR: &str = "database.path, flag --db-path";
const SPEARLET_DIR: &str = "spearlet.storage.data_dir, flag --storage-path";

/// Where a running process can be reached, for banners and tests.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// Listener and address, in the order they were bound: `sms/http` ….
    pub listeners: Vec<(&'static str, SocketAddr)>,
    /// A token that was made or found by ourselves, and the file it is kept in.
    pub token: Option<MadeToken>,
}

impl Running {
    /// The address of a listener.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.listeners.iter().find(|(name, _)| *name == listener).map(|(_, address)| *address)
    }
}

/// The listeners of one role.
struct Pair {
    grpc: Listener,
    http: Listener,
}

/// The registry of this process, as an agent beside it sees it.
struct Local {
    control: Arc<dyn api::Control>,
    bus: bus::Bus,
}

/// What every part of the process shares.
struct House {
    supervisor: Supervisor,
    clock: Arc<dyn Clock>,
    readiness: Readiness,
    metrics: Metrics,
    /// Is `/metrics` served?
    metrics_shown: bool,
    doors: Doors,
    program: PathBuf,
    running: Running,
    sms: Option<Changer<sms::Config>>,
    spearlet: Option<(Changer<spearlet::Config>, spearlet::Config)>,
}

/// What a process is started with.
pub struct Start {
    /// Roles and their settings.
    pub settings: Resolved,
    /// What watches it; logging was started with them.
    pub instruments: Instruments,
    /// When and how settings are read again.
    pub reloads: Reloads,
    /// The path of this binary: modules are compiled in children of it.
    pub program: PathBuf,
}

/// Runs the roles until `signal`; tells `ready` where they listen as soon as they answer.
///
/// # Errors
/// Why the process could not start or had to end, with its exit code.
pub async fn serve(
    start: Start,
    signal: impl Future<Output = ()>,
    ready: impl FnOnce(&Running),
) -> Result<(), Stopped> {
    let Start { mut settings, instruments, reloads, program } = start;
    let (effective, warned) = (std::mem::take(&mut settings.effective), std::mem::take(&mut settings.warnings));
    let in_force = InForce { effective, level: settings.log.level, warned };
    let supervisor = Supervisor::new(settings.shutdown);
    let readiness = Readiness::new().until(supervisor.stopping());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut house = House {
        metrics: instruments.start(&supervisor, &readiness, clock.clone())?,
        metrics_shown: settings.watching.metrics,
        readiness,
        clock,
        doors: Doors::new(&settings.auth)?,
        program,
        running: Running::default(),
        sms: None,
        spearlet: None,
        supervisor,
    };
    let mut stores = Vec::new();
    tokio::pin!(signal);
    let started = tokio::select! {
        biased;
        () = &mut signal => None,
        started = Box::pin(house.start(settings, &mut stores)) => Some(started?),
    };
    let House { supervisor, running, doors, sms, spearlet, .. } = house;
    let ended = match started {
        None => {
            tracing::info!("told to stop before it was ready");
            supervisor.run(async {}).await
        }
        Some(()) => {
            let followers = Followers { doors, sms, spearlet, supervisor: supervisor.clone() };
            let (scope, reload) =
                (supervisor.scope(Phase::Intake, "process"), Reload::new(reloads, followers, in_force));
            scope.spawn_once("reload", reload.run(scope.stop()));
            for (listener, address) in &running.listeners {
                tracing::info!(listener, %address, "listening");
            }
            tracing::info!("ready");
            ready(&running);
            supervisor.run(signal).await
        }
    };
    match (ended, stores.iter().find_map(Store::failure)) {
        // A store fails for good only when nobody knows any more what is on its disk.
        (Err(failure), Some(_)) => Err(Stopped::disk(failure)),
        (Err(failure), None) => Err(Stopped::failed(failure)),
        (Ok(()), _) => Ok(()),
    }
}

impl House {
    /// Builds and starts the parts; when it returns, they answer.
    async fn start(&mut self, settings: Resolved, stores: &mut Vec<Store>) -> Result<(), Stopped> {
        let sms_sockets = match &settings.sms {
            Some(sms) => Some(self.bind(("sms/grpc", &sms.grpc), ("sms/http", &sms.http)).await?),
            None => None,
        };
        let agent_sockets = match &settings.spearlet {
            Some(agent) => Some(self.bind(("spearlet/grpc", &agent.grpc), ("spearlet/http", &agent.http)).await?),
            None => None,
        };
        let (who, listeners) = ((settings.roles.name(), env!("CARGO_PKG_VERSION")), &self.running.listeners);
        let process = Process::new(who, listeners, &self.supervisor, &self.readiness, self.clock.clone());
        let mut local = None;
        if let (Some(sms), Some(sockets)) = (settings.sms, sms_sockets) {
            local = Some(self.start_sms(sms, sockets, &process, stores).await?);
        }
        if let (Some(agent), Some(sockets)) = (settings.spearlet, agent_sockets) {
            self.start_spearlet(agent, sockets, local, (&process, stores)).await?;
        }
        self.running.token = self.doors.made();
        self.supervisor.watchdog();
        self.supervisor.ready();
        Ok(())
    }

    async fn bind(&mut self, grpc: (&'static str, &Listen), http: (&'static str, &Listen)) -> Result<Pair, Stopped> {
        let grpc = Sockets::bind(grpc.0, &grpc.1.setting, grpc.1.addr).await.map_err(Stopped::bind)?;
        let http = Sockets::bind(http.0, &http.1.setting, http.1.addr).await.map_err(Stopped::bind)?;
        for listener in [&grpc, &http] {
            self.running.listeners.push((listener.name(), listener.local_addr()));
        }
        Ok(Pair { grpc, http })
    }

    async fn open_store(&self, data: &DataDir, engine: Engine, name: &str) -> Result<Store, Stopped> {
        let scope = self.supervisor.scope(Phase::Store, name);
        Ok(match engine {
            Engine::Memory => Store::start(Arc::new(store::Memory::new()), &scope),
            Engine::Redb => {
                let config = store::redb::Config::new(data.clone(), self.clock.clone());
                let opened = tokio::task::spawn_blocking(move || store::Redb::open(config)).await;
                let engine = opened.map_err(Stopped::failed)?.map_err(Stopped::store)?;
                Store::start(Arc::new(engine), &scope)
            }
        })
    }

    async fn start_sms(
        &mut self,
        settings: SmsSettings,
        sockets: Pair,
        process: &Process,
        stores: &mut Vec<Store>,
    ) -> Result<Local, Stopped> {
        let data = DataDir::open(&settings.data_dir).map_err(|error| Stopped::directory(error, SMS_DIR))?;
        let access = (self.doors.open(&sockets.grpc, data.path())?, self.doors.open(&sockets.http, data.path())?);
        let store = self.open_store(&data, settings.engine, "sms/store").await?;
        stores.push(store.clone());
        store.measure(&self.metrics, "sms");
        let bus = bus::Bus::start(&store, &self.supervisor.scope(Phase::Bus, "sms/bus"));
        bus.measure(&self.metrics, "sms");
        let retention = self.supervisor.scope(Phase::Store, "sms/store");
        store::retention::start(&store, &retention, self.clock.clone(), store::Retention::default());
        let (changer, config) = Live::new(settings.config);
        self.sms = Some(changer);
        let deps = sms::Deps {
            store: store.clone(),
            bus: bus.clone(),
            clock: self.clock.clone(),
            data_dir: data.path().to_owned(),
            process: process.clone(),
            config,
        };
        disk::watch(data.path().to_owned(), self.readiness.check("sms/disk"), &retention);
        let sms = sms::Sms::start(deps, &self.supervisor).await.map_err(Stopped::fault)?;
        sms.measure(&self.metrics);
        let scope = self.supervisor.scope(Phase::Report, "ready");
        ready::watch_store(&self.readiness, &scope, "sms/store", &store);
        let asked = sms.clone();
        ready::watch(&self.readiness, &scope, "sms/files", move || {
            let sms = asked.clone();
            async move { sms.files_not_ready().await }
        });
        let control = sms.control();
        let http = sms.http().merge(self.beside());
        self.open_doors(sockets, access, http, sms.grpc().map_err(Stopped::fault)?);
        Ok(Local { control, bus })
    }

    async fn start_spearlet(
        &mut self,
        settings: SpearletSettings,
        sockets: Pair,
        local: Option<Local>,
        (process, stores): (&Process, &mut Vec<Store>),
    ) -> Result<(), Stopped> {
        let data = DataDir::open(&settings.data_dir).map_err(|error| Stopped::directory(error, SPEARLET_DIR))?;
        let access = (self.doors.open(&sockets.grpc, data.path())?, self.doors.open(&sockets.http, data.path())?);
        let store = self.open_store(&data, Engine::Redb, "spearlet/store").await?;
        stores.push(store.clone());
        store.measure(&self.metrics, "spearlet");
        let retention = self.supervisor.scope(Phase::Store, "spearlet/store");
        store::retention::start(&store, &retention, self.clock.clone(), store::Retention::default());
        disk::watch(data.path().to_owned(), self.readiness.check("spearlet/disk"), &retention);
        let wasm = self.wasm(&settings.wasm, data.path().join("modules"))?;
        let bus = match &local {
            Some(local) => local.bus.clone(),
            None => bus::Bus::start(&store, &self.supervisor.scope(Phase::Bus, "spearlet/bus")),
        };
        let control = match (local, &settings.sms_addr) {
            (Some(local), _) => Some(local.control),
            (None, Some(grpc)) => Some(self.remote(grpc, settings.sms_http_addr.as_deref().unwrap_or(SMS_HTTP))?),
            (None, None) => None,
        };
        let (changer, config) = Live::new(settings.config.clone());
        self.spearlet = Some((changer, settings.config));
        let deps = spearlet::Deps {
            control,
            runtimes: Runtimes::new().with(Arc::new(wasm)),
            store: store.clone(),
            clock: self.clock.clone(),
            data_dir: data.path().to_owned(),
            bus,
            addresses: spearlet::Addresses { grpc: sockets.grpc.local_addr(), http: sockets.http.local_addr() },
            process: process.clone(),
            config,
        };
        let agent = spearlet::Spearlet::start(deps, &self.supervisor).await.map_err(Stopped::fault)?;
        agent.measure(&self.metrics);
        let scope = self.supervisor.scope(Phase::Report, "ready");
        ready::watch_store(&self.readiness, &scope, "spearlet/store", &store);
        let asked = agent.clone();
        ready::watch(&self.readiness, &scope, "spearlet/registry", move || std::future::ready(asked.not_ready()));
        let http = agent.http().merge(self.beside());
        self.open_doors(sockets, access, http, agent.grpc().map_err(Stopped::fault)?);
        Ok(())
    }

    fn wasm(&self, settings: &WasmSettings, cache_dir: PathBuf) -> Result<wasm::Wasm, Stopped> {
        let mut config = wasm::Config::new(&self.program, cache_dir);
        config.background = Some(self.supervisor.scope(Phase::Work, "wasm"));
        config.cache_bytes = settings.cache_bytes;
        config.concurrency = settings.concurrency;
        config.compile_concurrency = settings.compile_concurrency.unwrap_or(config.compile_concurrency);
        config.compile_memory_bytes = settings.compile_memory_bytes;
        config.clock = self.clock.clone();
        config.metrics = self.metrics.clone();
        let wasm = wasm::Wasm::new(config);
        wasm.map_err(|error| Stopped::failed(format!("the runtime for WebAssembly does not work here: {error}")))
    }

    /// A registry in another process.
    fn remote(&self, grpc: &str, http: &str) -> Result<Arc<dyn api::Control>, Stopped> {
        let channel = net::channel::connect(grpc, self.doors.credential(), net::channel::ConnectOptions::default());
        let rules = net::client::FetchRules {
            allow_http: true,
            allow_hosts: vec![http.to_owned()],
            max_bytes: 1 << 30,
            ..net::client::FetchRules::default()
        };
        let files = net::client::Fetcher::new(rules).map_err(Stopped::fault)?;
        let channel = channel.map_err(Stopped::fault)?;
        Ok(Arc::new(api::grpc::RemoteControl::new(channel, http, files, self.doors.credential())))
    }

    /// Routes of every HTTP listener: probes and figures.
    fn beside(&self) -> axum::Router {
        let probes = self.readiness.router();
        if self.metrics_shown { probes.merge(net::metrics::router(&self.metrics)) } else { probes }
    }

    /// Begins to answer.
    fn open_doors(&self, sockets: Pair, access: (Access, Access), http: axum::Router, grpc: axum::Router) {
        let scope: Scope = self.supervisor.scope(Phase::Intake, "listen");
        let stopping = self.supervisor.stopping();
        // Nothing new comes in once the intake stops, but a call in hand may wait for the work it is about.
        let connections = self.supervisor.scope(Phase::Report, "connections");
        let metrics = Some(self.metrics.clone());
        let options = ServeOptions { connection_scope: Some(connections), metrics, ..ServeOptions::default() };
        net::serve(sockets.http, http, access.1, options.clone(), &scope, stopping.clone());
        net::serve(sockets.grpc, grpc, access.0, options, &scope, stopping);
    }
}
