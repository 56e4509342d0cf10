//! The settings as types, one struct per section. The table of settings says what each is for; a key that is
//! missing here, or here but not there, fails a test.

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Everything.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sections {
    pub enable_swagger: bool,
    #[serde(deserialize_with = "millis")]
    pub heartbeat_timeout: Duration,
    #[serde(deserialize_with = "millis")]
    pub heartbeat_interval: Duration,
    #[serde(deserialize_with = "millis")]
    pub cleanup_interval: Duration,
    #[serde(deserialize_with = "millis")]
    pub remove_after: Duration,
    #[serde(deserialize_with = "millis")]
    pub lost_after: Duration,
    pub max_upload_bytes: u64,
    pub execution_log_max_bytes: u64,
    pub executions_kept_per_task: usize,
    #[serde(deserialize_with = "millis")]
    pub sync_wait: Duration,
    pub executions: Executions,
    pub grpc: Listener,
    pub http: Listener,
    pub database: Database,
    pub log: Log,
    pub auth: Auth,
    pub shutdown: Shutdown,
    pub metrics: Metrics,
    pub otel: Otel,
    pub spearlet: Spearlet,
}

/// `[executions]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Executions {
    #[serde(deserialize_with = "millis")]
    pub idempotency_keep: Duration,
    #[serde(default)]
    pub callback_hosts: Vec<String>,
    #[serde(deserialize_with = "millis")]
    pub callback_retry_first: Duration,
    #[serde(deserialize_with = "millis")]
    pub callback_retry_most: Duration,
    #[serde(deserialize_with = "millis")]
    pub callback_give_up_after: Duration,
    pub callback_tries: u32,
}

/// A listener.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    pub addr: SocketAddr,
}

/// `[database]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    pub db_type: DbType,
    pub path: PathBuf,
}

/// The store's engine as the operator names it.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum DbType {
    Redb,
    Memory,
    Sled,
    Rocksdb,
}

/// `[log]` and `[spearlet.logging]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How much.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
    /// Where to; none: standard error.
    pub file: Option<PathBuf>,
    /// When the file is begun anew.
    pub rotation: LogRotation,
    /// How many files of the past are kept, the current one included.
    pub keep: usize,
}

/// When a log file is begun anew.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogRotation {
    /// Never: that is somebody else's work, who sends SIGHUP.
    Never,
    /// At every full hour, UTC.
    Hourly,
    /// At midnight, UTC.
    Daily,
}

impl LogLevel {
    /// As written in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Off => "off",
        }
    }
}

/// How much is logged; what logs more is less.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What helps us.
    Debug,
    /// What operators want to know.
    Info,
    /// What they should look at.
    Warn,
    /// What went wrong.
    Error,
    /// Nothing.
    Off,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, the journal's where standard error is the journal, JSON elsewhere.
    Auto,
    /// One line with names and colours.
    Pretty,
    /// One short line.
    Compact,
    /// One JSON object.
    Json,
    /// Short, with a priority and without time: for the journal of systemd.
    Journal,
}

/// `[auth]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Auth {
    #[serde(default, deserialize_with = "secret")]
    pub token: Option<SecretString>,
    pub token_file: Option<PathBuf>,
    pub insecure_no_auth: bool,
    #[serde(default)]
    pub allowed_hosts: Vec<String>,
}

/// `[shutdown]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shutdown {
    #[serde(deserialize_with = "millis")]
    pub timeout: Duration,
}

/// `[metrics]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub enabled: bool,
}

/// `[otel]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Otel {
    pub endpoint: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    pub headers: Option<SecretString>,
    pub certificate: Option<PathBuf>,
    #[serde(deserialize_with = "millis")]
    pub timeout: Duration,
    #[serde(deserialize_with = "millis")]
    pub metrics_interval: Duration,
    pub service_name: String,
}

/// `[spearlet]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spearlet {
    pub node_name: String,
    pub sms_grpc_addr: Option<String>,
    pub sms_http_addr: Option<String>,
    pub advertise_ip: Option<String>,
    pub auto_register: bool,
    #[serde(deserialize_with = "millis")]
    pub heartbeat_interval: Duration,
    #[serde(deserialize_with = "millis")]
    pub sms_connect_timeout_ms: Duration,
    #[serde(deserialize_with = "millis")]
    pub sms_connect_retry_ms: Duration,
    #[serde(deserialize_with = "millis")]
    pub reconnect_total_timeout_ms: Duration,
    pub reconnect_exit: bool,
    pub grpc: Listener,
    pub http: SpearletHttp,
    pub storage: Storage,
    pub logging: Log,
    pub runtime: Runtime,
    pub functions: Functions,
    pub policy: Policy,
    pub artifacts: Artifacts,
    pub s3: S3,
    pub minio: S3,
}

/// `[spearlet.http]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpearletHttp {
    pub swagger_enabled: bool,
    pub server: Listener,
}

/// `[spearlet.storage]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Storage {
    pub backend: Backend,
    pub data_dir: PathBuf,
    pub max_object_size: u64,
    pub max_total_size: u64,
    pub max_objects: usize,
    pub max_cache_size_mb: u64,
}

/// Where the agent's objects are, as the operator names it.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Backend {
    Disk,
    Memory,
    Sled,
    Rocksdb,
}

/// `[spearlet.runtime]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Runtime {
    pub concurrency: usize,
    pub queue: usize,
    #[serde(deserialize_with = "millis")]
    pub default_timeout: Duration,
    #[serde(deserialize_with = "millis")]
    pub max_timeout: Duration,
    pub max_memory: u64,
    #[serde(deserialize_with = "millis")]
    pub max_cpu: Duration,
    pub invocations: usize,
    pub max_stack: usize,
    pub max_stdout: usize,
    pub max_stderr: usize,
    pub max_module: u64,
    pub compile_memory: u64,
    pub compile_concurrency: usize,
    pub compile_cache: u64,
}

/// `[spearlet.functions]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Functions {
    pub concurrency: usize,
    pub queue: usize,
    #[serde(deserialize_with = "millis")]
    pub queue_wait: Duration,
    pub warm_min: usize,
    pub warm_max: usize,
    #[serde(deserialize_with = "millis")]
    pub idle: Duration,
    pub max_uses: u64,
}

/// `[spearlet.policy]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    #[serde(default)]
    pub read: Vec<PathBuf>,
    #[serde(default)]
    pub write: Vec<PathBuf>,
    pub scratch: u64,
    #[serde(default)]
    pub env: Vec<String>,
    pub secrets_dir: Option<PathBuf>,
    #[serde(default)]
    pub outbound: Vec<String>,
}

/// `[spearlet.artifacts]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Artifacts {
    pub allow_http: bool,
    #[serde(default)]
    pub allow_hosts: Vec<String>,
    pub max_bytes: u64,
    #[serde(deserialize_with = "millis")]
    pub idle_timeout: Duration,
    #[serde(deserialize_with = "millis")]
    pub total_timeout: Duration,
}

/// `[spearlet.s3]` and `[spearlet.minio]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct S3 {
    pub endpoint: Option<String>,
    pub region: String,
    pub access_key: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    pub secret_key: Option<SecretString>,
    #[serde(default, deserialize_with = "secret")]
    pub session_token: Option<SecretString>,
    pub virtual_hosted: bool,
    pub allow_http: bool,
}

fn millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}
