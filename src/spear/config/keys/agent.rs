//! Settings of the agent, all under `[spearlet]`. Names, variables and flags are the seed's where it has them.

use super::{Key, Kind, Side, key, log, registry::NO_TLS};

const fn agent(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    key(Side::Agent, name, kind, default, doc)
}

/// Accepted because the original has it.
const fn idle(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Key {
    agent(name, kind, default, "Accepted for files of the original.").nothing(why)
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const NO_CERTIFICATE: &str = "a certificate is used only with TLS, which is not supported yet";

const IDENTITY: &[Key] = &[
    agent("spearlet.node_name", Kind::Text, "spearlet-node", "Name of this node; when it is a UUID, also its id.")
        .variable(&["SPEARLET_NODE_NAME"])
        .flag("node-name"),
    agent(
        "spearlet.sms_grpc_addr",
        Kind::Target,
        "",
        "gRPC address of the registry. Not set: the agent stands alone. Given by flag: a registry that does not answer \
         at the start ends the process.",
    )
    .variable(&["SPEARLET_SMS_GRPC_ADDR"])
    .flag("sms-addr")
    .also("sms-grpc-addr"),
    agent(
        "spearlet.sms_http_addr",
        Kind::Target,
        "",
        "REST address of the registry: where sms+file:// is fetched from.",
    )
    .variable(&["SPEARLET_SMS_HTTP_ADDR"])
    .flag("sms-http-addr"),
    agent(
        "spearlet.advertise_ip",
        Kind::Host,
        "",
        "Address that the registry is told for this node. Not set: the one it listens on, or, listening on all, the one \
         from which the registry is reached.",
    )
    .variable(&["SPEARLET_ADVERTISE_IP", "POD_IP"])
    .flag("advertise-ip"),
    agent("spearlet.auto_register", Kind::Switch, "true", "Register with the registry once connected.")
        .variable(&["SPEARLET_AUTO_REGISTER"])
        .flag("auto-register")
        .live(),
    agent(
        "spearlet.heartbeat_interval",
        Kind::Seconds(1, 86_400),
        "30",
        "The longest pause between heartbeats; the registry may ask for a shorter one.",
    )
    .variable(&["SPEARLET_HEARTBEAT_INTERVAL"])
    .live(),
    idle("spearlet.cleanup_interval", Kind::Seconds(1, 86_400), "300", "the agent cleans up as it goes")
        .variable(&["SPEARLET_CLEANUP_INTERVAL"]),
    agent(
        "spearlet.sms_connect_timeout_ms",
        Kind::Millis(1, 3_600_000),
        "15000",
        "How long the first connection to the registry may take.",
    )
    .variable(&["SPEARLET_SMS_CONNECT_TIMEOUT_MS"])
    .flag("sms-connect-timeout-ms"),
    agent(
        "spearlet.sms_connect_retry_ms",
        Kind::Millis(1, 3_600_000),
        "500",
        "First pause between tries to connect; it grows.",
    )
    .variable(&["SPEARLET_SMS_CONNECT_RETRY_MS"])
    .flag("sms-connect-retry-ms")
    .live(),
    agent(
        "spearlet.reconnect_total_timeout_ms",
        Kind::Millis(1, 86_400_000),
        "300000",
        "Time without the registry after which the agent says that it is not ready.",
    )
    .variable(&["SPEARLET_RECONNECT_TOTAL_TIMEOUT_MS"])
    .flag("reconnect-total-timeout-ms")
    .live(),
    agent("spearlet.reconnect_exit", Kind::Switch, "false", "End the process after that time, as the original did.")
        .variable(&["SPEARLET_RECONNECT_EXIT"])
        .live(),
    idle("spearlet.max_blocking_threads", Kind::Count(1, 1_000_000), "", "the number of threads is fixed")
        .variable(&["SPEARLET_MAX_BLOCKING_THREADS"]),
    idle("spearlet.local_models_dir", Kind::Path, "", "models are not supported")
        .variable(&["SPEARLET_LOCAL_MODELS_DIR"])
        .flag("local-models-dir"),
    idle("spearlet.llm", Kind::Subtree, "", "models are not supported"),
];

const LISTENERS: &[Key] = &[
    agent("spearlet.grpc.addr", Kind::Address, "127.0.0.1:50052", "Where the agent's gRPC listens.")
        .variable(&["SPEARLET_GRPC_ADDR"])
        .flag("spearlet-grpc-addr")
        .alone("grpc-addr"),
    agent("spearlet.grpc.enable_tls", Kind::Switch, "false", "TLS on this listener: not supported yet.")
        .variable(&["SPEARLET_GRPC_ENABLE_TLS"])
        .refused(NO_TLS),
    idle("spearlet.grpc.cert_path", Kind::Path, "", NO_CERTIFICATE).variable(&["SPEARLET_GRPC_TLS_CERT_PATH"]),
    idle("spearlet.grpc.key_path", Kind::Path, "", NO_CERTIFICATE).variable(&["SPEARLET_GRPC_TLS_KEY_PATH"]),
    agent("spearlet.http.swagger_enabled", Kind::Switch, "true", "Serve Swagger UI at /swagger-ui/ and its document.")
        .variable(&["SPEARLET_HTTP_SWAGGER_ENABLED"])
        .switch("enable-spearlet-swagger", "disable-spearlet-swagger")
        .alone("enable-swagger"),
    idle(
        "spearlet.http.cors_enabled",
        Kind::Switch,
        "false",
        "other origins are never let in: the page of a stranger could command this node",
    )
    .variable(&["SPEARLET_HTTP_CORS_ENABLED"]),
    agent(
        "spearlet.http.server.addr",
        Kind::Address,
        "127.0.0.1:8081",
        "Where the agent's REST interface listens. In role all the default is port 8082.",
    )
    .aliases(&["spearlet.http.addr"])
    .variable(&["SPEARLET_HTTP_ADDR"])
    .flag("spearlet-http-addr")
    .alone("http-addr"),
    agent("spearlet.http.server.enable_tls", Kind::Switch, "false", "TLS on this listener: not supported yet.")
        .aliases(&["spearlet.http.enable_tls"])
        .refused(NO_TLS),
    idle("spearlet.http.server.cert_path", Kind::Path, "", NO_CERTIFICATE).aliases(&["spearlet.http.cert_path"]),
    idle("spearlet.http.server.key_path", Kind::Path, "", NO_CERTIFICATE).aliases(&["spearlet.http.key_path"]),
];

const STORAGE: &[Key] = &[
    agent(
        "spearlet.storage.backend",
        Kind::Choice(&["disk", "memory", "sled", "rocksdb"]),
        "disk",
        "Where the agent's objects are. memory forgets them at the end; sled and rocksdb, the original's, mean disk. \
         Identity and unfinished work are always on disk.",
    )
    .variable(&["SPEARLET_STORAGE_BACKEND"])
    .flag("storage-backend"),
    agent("spearlet.storage.data_dir", Kind::Path, "./data/spearlet", "Data directory of the agent.")
        .variable(&["SPEARLET_STORAGE_DATA_DIR"])
        .flag("storage-path"),
    agent("spearlet.storage.max_object_size", Kind::Bytes(1, 1 << 40), "64MiB", "The largest object.")
        .variable(&["SPEARLET_STORAGE_MAX_OBJECT_SIZE"]),
    agent("spearlet.storage.max_total_size", Kind::Bytes(1, 1 << 50), "1GiB", "All objects together.")
        .variable(&["SPEARLET_STORAGE_MAX_TOTAL_SIZE"]),
    agent("spearlet.storage.max_objects", Kind::Count(1, 100_000_000), "100000", "Number of objects.")
        .variable(&["SPEARLET_STORAGE_MAX_OBJECTS"]),
    agent(
        "spearlet.storage.max_cache_size_mb",
        Kind::Count(1, 1 << 30),
        "512",
        "Megabytes of fetched artifacts that are kept.",
    )
    .variable(&["SPEARLET_STORAGE_MAX_CACHE_MB"]),
    idle("spearlet.storage.compression_enabled", Kind::Switch, "false", "objects are stored as they are")
        .variable(&["SPEARLET_STORAGE_COMPRESSION_ENABLED"]),
    agent(
        "spearlet.logging.level",
        log::LEVEL,
        "info",
        "How much is logged when the agent runs alone; in role all [log] decides.",
    )
    .aliases(&["spearlet.log.level"])
    .variable(&["SPEARLET_LOG_LEVEL"])
    .flag("spearlet-log-level")
    .alone("log-level")
    .live(),
    agent("spearlet.logging.format", log::FORMAT, "auto", log::FORMAT_DOC)
        .aliases(&["spearlet.log.format"])
        .variable(&["SPEARLET_LOG_FORMAT"])
        .flag("spearlet-log-format")
        .alone("log-format"),
    agent("spearlet.logging.file", Kind::Path, "", log::FILE_DOC)
        .aliases(&["spearlet.log.file"])
        .variable(&["SPEARLET_LOG_FILE"])
        .flag("spearlet-log-file")
        .alone("log-file"),
    agent("spearlet.logging.rotation", log::ROTATION, "never", log::ROTATION_DOC)
        .aliases(&["spearlet.log.rotation"])
        .variable(&["SPEARLET_LOG_ROTATION"])
        .flag("spearlet-log-rotation")
        .alone("log-rotation"),
    agent("spearlet.logging.keep", Kind::Count(1, 100_000), "7", log::KEEP_DOC)
        .aliases(&["spearlet.log.keep"])
        .variable(&["SPEARLET_LOG_KEEP"])
        .flag("spearlet-log-keep")
        .alone("log-keep"),
];

const RUNTIME: &[Key] = &[
    agent("spearlet.runtime.concurrency", Kind::Count(1, 10_000), "4", "Executions at a time.")
        .variable(&["SPEARLET_RUNTIME_CONCURRENCY"]),
    agent(
        "spearlet.runtime.queue",
        Kind::Count(0, 1_000_000),
        "1024",
        "Executions that may wait on this node beyond those.",
    )
    .variable(&["SPEARLET_RUNTIME_QUEUE"])
    .live(),
    agent(
        "spearlet.runtime.default_timeout",
        Kind::Seconds(1, 604_800),
        "30",
        "Time limit of an execution that names none.",
    )
    .variable(&["SPEARLET_RUNTIME_DEFAULT_TIMEOUT"])
    .live(),
    agent(
        "spearlet.runtime.max_timeout",
        Kind::Seconds(1, 604_800),
        "1h",
        "The longest time limit that an execution may ask for.",
    )
    .variable(&["SPEARLET_RUNTIME_MAX_TIMEOUT"])
    .live(),
    agent("spearlet.runtime.max_memory", Kind::Bytes(65_536, 4 * GIB), "128MiB", "Memory of one guest.")
        .variable(&["SPEARLET_RUNTIME_MAX_MEMORY"])
        .live(),
    agent(
        "spearlet.runtime.max_cpu",
        Kind::Seconds(1, 604_800),
        "10",
        "Processor time of one call of a guest; a task may ask for less (cpu_ms).",
    )
    .variable(&["SPEARLET_RUNTIME_MAX_CPU"])
    .live(),
    agent(
        "spearlet.runtime.invocations",
        Kind::Count(1, 100_000),
        "256",
        "Calls of functions at a time on this node, beside executions; more are answered 429.",
    )
    .variable(&["SPEARLET_RUNTIME_INVOCATIONS"]),
    agent("spearlet.runtime.max_stack", Kind::Bytes(65_536, 64 * MIB), "1MiB", "Stack of one guest.")
        .variable(&["SPEARLET_RUNTIME_MAX_STACK"])
        .live(),
    agent(
        "spearlet.runtime.max_stdout",
        Kind::Bytes(1, GIB),
        "1MiB",
        "Standard output of one execution; more ends it as failed.",
    )
    .variable(&["SPEARLET_RUNTIME_MAX_STDOUT"])
    .live(),
    agent(
        "spearlet.runtime.max_stderr",
        Kind::Bytes(1, GIB),
        "1MiB",
        "Standard error of one execution; more is cut and counted.",
    )
    .variable(&["SPEARLET_RUNTIME_MAX_STDERR"])
    .live(),
    agent("spearlet.runtime.max_module", Kind::Bytes(8, 4 * GIB), "64MiB", "The largest module that is compiled.")
        .variable(&["SPEARLET_RUNTIME_MAX_MODULE"])
        .live(),
    agent(
        "spearlet.runtime.compile_memory",
        Kind::Bytes(256 * MIB, 64 * GIB),
        "1500MB",
        "Address space of a compiling child process.",
    )
    .variable(&["SPEARLET_RUNTIME_COMPILE_MEMORY"]),
    agent(
        "spearlet.runtime.compile_concurrency",
        Kind::Count(0, 1024),
        "0",
        "Compiling child processes at a time; 0: one per processor.",
    )
    .variable(&["SPEARLET_RUNTIME_COMPILE_CONCURRENCY"]),
    agent("spearlet.runtime.compile_cache", Kind::Bytes(MIB, 1 << 40), "4GiB", "Compiled modules that are kept.")
        .variable(&["SPEARLET_RUNTIME_COMPILE_CACHE"]),
];

const FUNCTIONS: &[Key] = &[
    agent(
        "spearlet.functions.concurrency",
        Kind::Count(1, 10_000),
        "64",
        "Calls of one function at a time; a task may ask for fewer (concurrency).",
    )
    .variable(&["SPEARLET_FUNCTIONS_CONCURRENCY"])
    .live(),
    agent(
        "spearlet.functions.queue",
        Kind::Count(0, 1_000_000),
        "256",
        "Calls of one function that may wait for a place; more are answered 429.",
    )
    .variable(&["SPEARLET_FUNCTIONS_QUEUE"])
    .live(),
    agent("spearlet.functions.queue_wait", Kind::Seconds(1, 3600), "5", "How long a call may wait for a place.")
        .variable(&["SPEARLET_FUNCTIONS_QUEUE_WAIT"])
        .live(),
    agent(
        "spearlet.functions.warm_min",
        Kind::Count(0, 10_000),
        "0",
        "Instances of a function that are kept ready once it was called.",
    )
    .variable(&["SPEARLET_FUNCTIONS_WARM_MIN"])
    .live(),
    agent("spearlet.functions.warm_max", Kind::Count(0, 10_000), "16", "Idle instances of a function that are kept.")
        .variable(&["SPEARLET_FUNCTIONS_WARM_MAX"])
        .live(),
    agent(
        "spearlet.functions.idle",
        Kind::Seconds(1, 604_800),
        "2m",
        "An instance above warm_min that was idle for so long is given up.",
    )
    .variable(&["SPEARLET_FUNCTIONS_IDLE"])
    .live(),
    agent(
        "spearlet.functions.max_uses",
        Kind::Count(1, 1_000_000_000),
        "1000000",
        "Calls after which an instance is replaced.",
    )
    .variable(&["SPEARLET_FUNCTIONS_MAX_USES"])
    .live(),
];

const POLICY: &[Key] = &[
    agent(
        "spearlet.policy.read",
        Kind::List,
        "",
        "Directories below which functions may be granted directories to read (config.grants of a task).",
    )
    .variable(&["SPEARLET_POLICY_READ"])
    .live(),
    agent("spearlet.policy.write", Kind::List, "", "And below which they may be granted directories to change.")
        .variable(&["SPEARLET_POLICY_WRITE"])
        .live(),
    agent(
        "spearlet.policy.scratch",
        Kind::Bytes(0, 1 << 40),
        "64MiB",
        "The largest scratch directory that a call may have; 0: none.",
    )
    .variable(&["SPEARLET_POLICY_SCRATCH"])
    .live(),
    agent(
        "spearlet.policy.env",
        Kind::List,
        "",
        "Environment variables of the agent that functions may be granted, by name.",
    )
    .variable(&["SPEARLET_POLICY_ENV"])
    .live(),
    agent(
        "spearlet.policy.secrets_dir",
        Kind::Path,
        "",
        "Directory of secrets that functions may be granted: each file is one, by its name. It is read when a function is made ready.",
    )
    .variable(&["SPEARLET_POLICY_SECRETS_DIR"])
    .live(),
    agent(
        "spearlet.policy.outbound",
        Kind::List,
        "",
        "Hosts that functions may be granted to reach: `host`, `host:port`, or `*`.",
    )
    .variable(&["SPEARLET_POLICY_OUTBOUND"])
    .live(),
];

const ARTIFACTS: &[Key] = &[
    agent("spearlet.artifacts.allow_http", Kind::Switch, "false", "Fetch artifacts over http:// too.")
        .variable(&["SPEARLET_ARTIFACTS_ALLOW_HTTP"]),
    agent(
        "spearlet.artifacts.allow_hosts",
        Kind::List,
        "",
        "Hosts with private addresses that artifacts may come from: `host` or `host:port`.",
    )
    .variable(&["SPEARLET_ARTIFACTS_ALLOW_HOSTS"]),
    agent("spearlet.artifacts.max_bytes", Kind::Bytes(1, 1 << 40), "256MiB", "The largest artifact that is fetched.")
        .variable(&["SPEARLET_ARTIFACTS_MAX_BYTES"]),
    agent("spearlet.artifacts.idle_timeout", Kind::Seconds(1, 3600), "30", "The longest silence of a source.")
        .variable(&["SPEARLET_ARTIFACTS_IDLE_TIMEOUT"]),
    agent(
        "spearlet.artifacts.total_timeout",
        Kind::Seconds(1, 86_400),
        "10m",
        "The longest fetch, its turn waited for.",
    )
    .variable(&["SPEARLET_ARTIFACTS_TOTAL_TIMEOUT"]),
    agent("spearlet.s3.endpoint", Kind::Url, "", "Where s3:// is; not set: Amazon's own for the region.").variable(&[
        "SPEARLET_S3_ENDPOINT",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
    ]),
    agent("spearlet.s3.region", Kind::Text, "us-east-1", "Region of s3://.").variable(&[
        "SPEARLET_S3_REGION",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ]),
    agent("spearlet.s3.access_key", Kind::Text, "", "Key id for s3://; not set: requests are not signed.")
        .variable(&["SPEARLET_S3_ACCESS_KEY", "AWS_ACCESS_KEY_ID"]),
    agent("spearlet.s3.secret_key", Kind::Secret, "", "Its secret.")
        .variable(&["SPEARLET_S3_SECRET_KEY", "AWS_SECRET_ACCESS_KEY"]),
    agent("spearlet.s3.session_token", Kind::Secret, "", "Token of temporary credentials.")
        .variable(&["SPEARLET_S3_SESSION_TOKEN", "AWS_SESSION_TOKEN"]),
    agent("spearlet.s3.virtual_hosted", Kind::Switch, "false", "The bucket stands before the host, not in the path.")
        .variable(&["SPEARLET_S3_VIRTUAL_HOSTED"]),
    agent("spearlet.s3.allow_http", Kind::Switch, "false", "The endpoint may be http://.")
        .variable(&["SPEARLET_S3_ALLOW_HTTP"]),
    agent("spearlet.minio.endpoint", Kind::Url, "", "Where minio:// is; not set: minio:// is refused.")
        .variable(&["SPEARLET_MINIO_ENDPOINT", "MINIO_ENDPOINT"]),
    agent("spearlet.minio.region", Kind::Text, "us-east-1", "Region of minio://.").variable(&["SPEARLET_MINIO_REGION"]),
    agent("spearlet.minio.access_key", Kind::Text, "", "Key id for minio://; not set: requests are not signed.")
        .variable(&["SPEARLET_MINIO_ACCESS_KEY", "MINIO_ACCESS_KEY"]),
    agent("spearlet.minio.secret_key", Kind::Secret, "", "Its secret.")
        .variable(&["SPEARLET_MINIO_SECRET_KEY", "MINIO_SECRET_KEY"]),
    agent("spearlet.minio.session_token", Kind::Secret, "", "Token of temporary credentials.")
        .variable(&["SPEARLET_MINIO_SESSION_TOKEN"]),
    agent(
        "spearlet.minio.virtual_hosted",
        Kind::Switch,
        "false",
        "The bucket stands before the host, not in the path.",
    )
    .variable(&["SPEARLET_MINIO_VIRTUAL_HOSTED"]),
    agent("spearlet.minio.allow_http", Kind::Switch, "false", "The endpoint may be http://.")
        .variable(&["SPEARLET_MINIO_ALLOW_HTTP"]),
];

pub(super) const KEYS: &[&[Key]] = &[IDENTITY, LISTENERS, STORAGE, RUNTIME, FUNCTIONS, POLICY, ARTIFACTS];
