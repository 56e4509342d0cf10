//! What the parts of the process are given, and the rules between settings.

use secrecy::SecretString;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Effective, Log, Origin, Problem, Problems, Roles,
    layers::Merged,
    sections::{Backend, DbType, LogFormat, LogLevel, LogRotation, S3, Sections, Storage},
    watching::{Watching, watching},
};

/// The agent's REST port where the registry's web admin has its usual one.
const SPEARLET_HTTP_PORT_IN_ROLE_ALL: u16 = 8082;

/// All settings, checked.
#[derive(Debug)]
pub struct Resolved {
    /// What runs.
    pub roles: Roles,
    /// The registry's.
    pub sms: Option<SmsSettings>,
    /// The agent's.
    pub spearlet: Option<SpearletSettings>,
    /// Who may come in.
    pub auth: Auth,
    /// Logging.
    pub log: Log,
    /// Time for stopping.
    pub shutdown: supervise::Budget,
    /// Figures and traces.
    pub watching: Watching,
    /// What the operator may like to know.
    pub notices: Vec<String>,
    /// What the operator should look at.
    pub warnings: Vec<String>,
    /// Every setting with its value and origin, by name.
    pub effective: Vec<Effective>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub addr: SocketAddr,
    /// Which setting says so, for the error when it cannot be bound.
    pub setting: String,
}

/// What the registry is given.
#[derive(Clone, Debug)]
pub struct SmsSettings {
    /// gRPC.
    pub grpc: Listen,
    /// REST.
    pub http: Listen,
    /// Store, files, logs, token.
    pub data_dir: PathBuf,
    /// Its store.
    pub engine: Engine,
    /// The rest.
    pub config: sms::Config,
}

/// A store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// On disk.
    Redb,
    /// Forgets everything at the end.
    Memory,
}

/// What the agent is given.
#[derive(Clone, Debug)]
pub struct SpearletSettings {
    /// gRPC.
    pub grpc: Listen,
    /// REST.
    pub http: Listen,
    /// Identity, inbox, objects, artifacts.
    pub data_dir: PathBuf,
    /// gRPC of the registry as `host:port`; none: in this process, or none wanted.
    pub sms_addr: Option<String>,
    /// Was it given by flag? Then it must answer at the start.
    pub sms_addr_from_flag: bool,
    /// REST of the registry as `host:port`.
    pub sms_http_addr: Option<String>,
    /// The runtime for WebAssembly.
    pub wasm: WasmSettings,
    /// The rest.
    pub config: spearlet::Config,
}

/// What the runtime for WebAssembly is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WasmSettings {
    /// Guests at a time.
    pub concurrency: usize,
    /// Compiled modules that are kept, bytes.
    pub cache_bytes: u64,
    /// Compiling children at a time; none: one per processor.
    pub compile_concurrency: Option<usize>,
    /// Address space of a compiling child, bytes.
    pub compile_memory_bytes: u64,
}

/// Who may come in.
#[derive(Debug)]
pub struct Auth {
    /// The token that the operator gave.
    pub token: TokenSource,
    /// Everybody may come in.
    pub insecure_no_auth: bool,
    /// More names of the listeners.
    pub allowed_hosts: Vec<String>,
}

/// Where the operator's token is.
#[derive(Debug)]
pub enum TokenSource {
    /// None was given.
    None,
    /// Here.
    Text(SecretString),
    /// In a file.
    File(PathBuf),
}

/// Applies the rules between settings.
pub(super) fn resolve(roles: Roles, mut merged: Merged) -> Result<Resolved, Problems> {
    let mut problems = Vec::new();
    adapt(roles, &mut merged);
    check(roles, &merged, &mut problems);
    let log = log(roles, &mut merged);
    let auth = auth(&mut merged, &mut problems);
    let sms = roles.sms.then(|| registry(&mut merged));
    let spearlet = roles.spearlet.then(|| agent(roles, &mut merged, &mut problems));
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let shutdown = supervise::Budget { total: merged.sections.shutdown.timeout };
    let watching = watching(&mut merged);
    let (notices, warnings) = (merged.notices, merged.warnings);
    let effective = merged.effective.into_values().collect();
    Ok(Resolved { roles, sms, spearlet, auth, log, shutdown, watching, notices, warnings, effective })
}

/// What depends on the role.
fn adapt(roles: Roles, merged: &mut Merged) {
    let name = "spearlet.http.server.addr";
    if roles == Roles::ALL && !merged.is_set(name) {
        merged.sections.spearlet.http.server.addr.set_port(SPEARLET_HTTP_PORT_IN_ROLE_ALL);
        let addr = merged.sections.spearlet.http.server.addr;
        if let Some(effective) = merged.effective.get_mut(name) {
            effective.value = Some(addr.to_string());
        }
        merged.notices.push(format!(
            "in role all the agent's REST interface is on {addr}: port 8081 is the web admin's (--spearlet-http-addr moves it)"
        ));
    }
    if roles == Roles::ALL && merged.is_set("spearlet.sms_grpc_addr") {
        let origin = merged.origin("spearlet.sms_grpc_addr");
        merged
            .notices
            .push(format!("{origin}: spearlet.sms_grpc_addr is not used: in role all the registry is in this process"));
    }
    if merged.sections.spearlet.node_name.is_empty() {
        "spearlet-node".clone_into(&mut merged.sections.spearlet.node_name);
    }
}

/// Rules between settings.
fn check(roles: Roles, merged: &Merged, problems: &mut Vec<Problem>) {
    let sections = &merged.sections;
    let mut listeners = Vec::new();
    if roles.sms {
        listeners.extend([("grpc.addr", sections.grpc.addr), ("http.addr", sections.http.addr)]);
    }
    if roles.spearlet {
        let agent = &sections.spearlet;
        listeners
            .extend([("spearlet.grpc.addr", agent.grpc.addr), ("spearlet.http.server.addr", agent.http.server.addr)]);
    }
    for (index, (name, addr)) in listeners.iter().enumerate() {
        let twin = listeners.iter().take(index).find(|(_, other)| other == addr && addr.port() != 0);
        if let Some((other, _)) = twin {
            let text = format!("{name} is {addr}, and so is {other} ({}): each needs its own", merged.origin(other));
            problems.push(Problem::at(merged.origin(name), text));
        }
    }
    let (registry, agent) = (&sections.database.path, &sections.spearlet.storage.data_dir);
    if roles == Roles::ALL && registry == agent {
        let text =
            format!("spearlet.storage.data_dir and database.path are both {}: each needs its own", agent.display());
        problems.push(Problem::at(merged.origin("spearlet.storage.data_dir"), text));
    }
    let runtime = &sections.spearlet.runtime;
    if roles.spearlet && runtime.default_timeout > runtime.max_timeout {
        let text = "spearlet.runtime.default_timeout is longer than spearlet.runtime.max_timeout";
        problems.push(Problem::at(merged.origin("spearlet.runtime.default_timeout"), text));
    }
    for entry in sections.executions.callback_hosts.iter().filter(|_| roles.sms) {
        if let Err(fault) = net::outbound::check_entry(entry) {
            let text = format!("executions.callback_hosts: {fault}");
            problems.push(Problem::at(merged.origin("executions.callback_hosts"), text));
        }
    }
    for entry in &sections.auth.allowed_hosts {
        if let Err(fault) = net::access::check_host(entry) {
            problems.push(Problem::at(merged.origin("auth.allowed_hosts"), format!("auth.allowed_hosts: {fault}")));
        }
    }
}

/// One process has one log: the registry's settings, or the agent's when it is alone.
fn log(roles: Roles, merged: &mut Merged) -> Log {
    let agents = merged.sections.spearlet.logging.clone();
    let mut log = merged.sections.log.clone();
    let set = |merged: &Merged, own: &str| merged.is_set(own);
    if !roles.sms {
        let shared = std::mem::replace(&mut log, agents);
        // A file with only [log] in it was meant for this process too.
        let shared_counts =
            |own: &str| !set(merged, &format!("spearlet.logging.{own}")) && set(merged, &format!("log.{own}"));
        log.level = if shared_counts("level") { shared.level } else { log.level };
        log.format = if shared_counts("format") { shared.format } else { log.format };
        log.file = if shared_counts("file") { shared.file } else { log.file };
        log.rotation = if shared_counts("rotation") { shared.rotation } else { log.rotation };
        log.keep = if shared_counts("keep") { shared.keep } else { log.keep };
    } else if roles.spearlet {
        let differs = agents != log;
        let own = ["level", "format", "file", "rotation", "keep"].map(|own| format!("spearlet.logging.{own}"));
        let said = own.iter().map(|name| merged.origin(name)).find(|origin| *origin != Origin::Default);
        if let (true, Some(origin)) = (differs, said) {
            merged
                .notices
                .push(format!("{origin}: [spearlet.logging] is not used in role all: [log] decides for the process"));
        }
    }
    log.file = log.file.map(|file| at_home(file, merged.home.as_deref()));
    log
}

fn auth(merged: &mut Merged, problems: &mut Vec<Problem>) -> Auth {
    let section = &mut merged.sections.auth;
    let (text, file) = (section.token.take(), section.token_file.take());
    let (insecure_no_auth, allowed_hosts) = (section.insecure_no_auth, std::mem::take(&mut section.allowed_hosts));
    let token = match (file, text) {
        (Some(file), text) => {
            if text.is_some() {
                let (of_text, of_file) = (merged.origin("auth.token"), merged.origin("auth.token_file"));
                merged.warnings.push(format!("{of_text}: the token is not used: {of_file} names a file with another"));
            }
            TokenSource::File(at_home(file, merged.home.as_deref()))
        }
        (None, Some(text)) => TokenSource::Text(text),
        (None, None) => TokenSource::None,
    };
    if insecure_no_auth && !matches!(token, TokenSource::None) {
        let text = "auth.insecure_no_auth lets everybody in, but a token is configured too: choose one";
        problems.push(Problem::at(merged.origin("auth.insecure_no_auth"), text));
    }
    Auth { token, insecure_no_auth, allowed_hosts }
}

fn registry(merged: &mut Merged) -> SmsSettings {
    let Sections { grpc, http, database, .. } = &merged.sections;
    let data_dir = at_home(database.path.clone(), merged.home.as_deref());
    let (grpc, http) =
        (listen(merged, "grpc.addr", "grpc-addr", grpc.addr), listen(merged, "http.addr", "http-addr", http.addr));
    let engine = match database.db_type {
        DbType::Memory => Engine::Memory,
        DbType::Redb | DbType::Sled | DbType::Rocksdb => Engine::Redb,
    };
    if matches!(database.db_type, DbType::Sled | DbType::Rocksdb) {
        let word = if database.db_type == DbType::Sled { "sled" } else { "rocksdb" };
        let warning = format!(
            "{}: database.db_type = {word} means redb here: the store is {}",
            merged.origin("database.db_type"),
            data_dir.display()
        );
        merged.warnings.push(warning);
    }
    let sections = &merged.sections;
    let third = sections.heartbeat_timeout / 3;
    let heartbeat_interval = sections.heartbeat_interval.min(third).max(Duration::from_millis(100));
    if merged.is_set("heartbeat_interval") && heartbeat_interval < sections.heartbeat_interval {
        let origin = merged.origin("heartbeat_interval");
        merged.warnings.push(format!(
            "{origin}: heartbeat_interval is cut to a third of heartbeat_timeout, {heartbeat_interval:?}"
        ));
    }
    let sections = &merged.sections;
    let config = sms::Config {
        heartbeat_timeout: sections.heartbeat_timeout,
        cleanup_interval: sections.cleanup_interval,
        remove_after: sections.remove_after,
        lost_after: sections.lost_after,
        heartbeat_interval,
        max_upload_bytes: sections.max_upload_bytes,
        execution_log_max_bytes: sections.execution_log_max_bytes,
        executions_kept_per_task: sections.executions_kept_per_task,
        sync_wait: sections.sync_wait,
        idempotency_keep: sections.executions.idempotency_keep,
        callback_hosts: sections.executions.callback_hosts.clone(),
        callback_retry_first: sections.executions.callback_retry_first,
        callback_retry_most: sections.executions.callback_retry_most,
        callback_give_up_after: sections.executions.callback_give_up_after,
        callback_tries: sections.executions.callback_tries,
        enable_swagger: sections.enable_swagger,
    };
    SmsSettings { grpc, http, data_dir, engine, config }
}

fn agent(roles: Roles, merged: &mut Merged, problems: &mut Vec<Problem>) -> SpearletSettings {
    let (grpc_flag, http_flag) = match roles.sms {
        true => ("spearlet-grpc-addr", "spearlet-http-addr"),
        false => ("grpc-addr", "http-addr"),
    };
    let section = &merged.sections.spearlet;
    let grpc = listen(merged, "spearlet.grpc.addr", grpc_flag, section.grpc.addr);
    let http = listen(merged, "spearlet.http.server.addr", http_flag, section.http.server.addr);
    let data_dir = at_home(section.storage.data_dir.clone(), merged.home.as_deref());
    if matches!(section.storage.backend, Backend::Sled | Backend::Rocksdb) {
        let origin = merged.origin("spearlet.storage.backend");
        merged.warnings.push(format!("{origin}: spearlet.storage.backend: sled and rocksdb mean disk here"));
    }
    let s3 = service(merged, "spearlet.s3", &merged.sections.spearlet.s3, problems);
    let minio = service(merged, "spearlet.minio", &merged.sections.spearlet.minio, problems);
    let policy = super::functions::policy(merged);
    let section = &merged.sections.spearlet;
    let sms_addr = section.sms_grpc_addr.clone().filter(|_| !roles.sms);
    let sms_http_addr = section.sms_http_addr.clone().filter(|_| !roles.sms);
    let sms_addr_from_flag = sms_addr.is_some() && matches!(merged.origin("spearlet.sms_grpc_addr"), Origin::Flag(_));
    let wasm = WasmSettings {
        // Every call that runs is a guest.
        concurrency: section.runtime.concurrency + section.runtime.invocations,
        cache_bytes: section.runtime.compile_cache,
        compile_concurrency: Some(section.runtime.compile_concurrency).filter(|count| *count > 0),
        compile_memory_bytes: section.runtime.compile_memory,
    };
    let config = spearlet::Config {
        node_name: section.node_name.clone(),
        advertise_ip: section.advertise_ip.clone(),
        auto_register: section.auto_register,
        sms_address: sms_addr.clone().unwrap_or_default(),
        connect_or_fail: sms_addr_from_flag,
        heartbeat_interval: section.heartbeat_interval,
        sms_connect_timeout: section.sms_connect_timeout_ms,
        sms_connect_retry: section.sms_connect_retry_ms,
        reconnect_total_timeout: section.reconnect_total_timeout_ms,
        reconnect_exit: section.reconnect_exit,
        concurrency: section.runtime.concurrency,
        queue: section.runtime.queue,
        default_timeout: section.runtime.default_timeout,
        max_timeout: section.runtime.max_timeout,
        limits: limits(&section.runtime),
        invocations: section.runtime.invocations,
        functions: super::functions::settings(&section.functions),
        policy,
        artifacts: spearlet::artifacts::Config {
            allow_http: section.artifacts.allow_http,
            allow_hosts: section.artifacts.allow_hosts.clone(),
            sms_http_addr: sms_http_addr.clone(),
            max_cache_bytes: section.storage.max_cache_size_mb << 20,
            max_artifact_bytes: section.artifacts.max_bytes,
            idle_timeout: section.artifacts.idle_timeout,
            total_timeout: section.artifacts.total_timeout,
            s3,
            minio,
            ..Default::default()
        },
        objects: objects(&section.storage),
        swagger_enabled: section.http.swagger_enabled,
    };
    SpearletSettings { grpc, http, data_dir, sms_addr, sms_addr_from_flag, sms_http_addr, wasm, config }
}

fn objects(section: &Storage) -> spearlet::objects::Config {
    spearlet::objects::Config {
        backend: match section.backend {
            Backend::Memory => spearlet::objects::Backend::Memory,
            Backend::Disk | Backend::Sled | Backend::Rocksdb => spearlet::objects::Backend::Disk,
        },
        max_object_size: section.max_object_size,
        max_total_bytes: section.max_total_size,
        max_objects: section.max_objects,
    }
}

fn limits(section: &super::sections::Runtime) -> runtime::Limits {
    runtime::Limits {
        memory_bytes: section.max_memory,
        stack_bytes: section.max_stack,
        wall: section.default_timeout,
        cpu: section.max_cpu,
        stdout_bytes: section.max_stdout,
        stderr_bytes: section.max_stderr,
        artifact_bytes: section.max_module,
    }
}

/// An S3 service, when anything is set for it.
fn service(merged: &Merged, name: &str, section: &S3, problems: &mut Vec<Problem>) -> Option<spearlet::artifacts::S3> {
    let key = |own: &str| format!("{name}.{own}");
    let keys = ["endpoint", "region", "access_key", "secret_key", "session_token", "virtual_hosted", "allow_http"];
    let wanted = match name {
        // Amazon's has an address of its own: any setting is a wish for it.
        "spearlet.s3" => keys.iter().any(|own| merged.is_set(&key(own))),
        _ => section.endpoint.is_some() || section.access_key.is_some() || section.secret_key.is_some(),
    };
    if !wanted {
        return None;
    }
    let mut refuse = |own: &str, text: &str| {
        problems.push(Problem::at(merged.origin(&key(own)), format!("{name}.{own}: {text}")));
    };
    match &section.endpoint {
        Some(endpoint) if endpoint.starts_with("http://") && !section.allow_http => {
            refuse("endpoint", &format!("http:// is not encrypted: use https://, or set {name}.allow_http = true"));
        }
        None if name == "spearlet.minio" => {
            refuse("endpoint", "is missing: minio:// needs one, such as \"https://127.0.0.1:9000\"")
        }
        _ => {}
    }
    match (&section.access_key, &section.secret_key) {
        (Some(_), None) => refuse("access_key", "secret_key is missing: both are needed, or none"),
        (None, Some(_)) => refuse("secret_key", "access_key is missing: both are needed, or none"),
        _ => {}
    }
    Some(spearlet::artifacts::S3 {
        endpoint: section.endpoint.clone(),
        region: section.region.clone(),
        virtual_hosted: section.virtual_hosted,
        access_key: section.access_key.clone(),
        secret_key: section.secret_key.clone(),
        session_token: section.session_token.clone(),
        allow_http: section.allow_http,
    })
}

fn listen(merged: &Merged, name: &str, flag: &str, addr: SocketAddr) -> Listen {
    let setting = match merged.origin(name) {
        Origin::Flag(given) => format!("{name}, flag --{given}"),
        Origin::Default => format!("{name}, flag --{flag}"),
        origin => format!("{name} from {origin}; flag --{flag} goes before it"),
    };
    Listen { addr, setting }
}

/// `~/` is the home directory, as in a shell.
pub(super) fn at_home(path: PathBuf, home: Option<&str>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => Path::new(home).join(rest),
        _ => path,
    }
}

impl Log {
    /// Before the configuration is read, and when it cannot be.
    pub fn usual() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Auto, file: None, rotation: LogRotation::Never, keep: 7 }
    }
}
