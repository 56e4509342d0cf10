//! Settings of the registry. Names, variables and flags are the seed's where it has them.

use super::{Key, Kind, Side, key};

const fn registry(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    key(Side::Registry, name, kind, default, doc)
}

/// Accepted because the original has it.
const fn idle(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Key {
    registry(name, kind, default, "Accepted for files of the original.").nothing(why)
}

const fn tls(name: &'static str) -> Key {
    registry(name, Kind::Switch, "false", "TLS on this listener: not supported yet.").refused(NO_TLS)
}

pub(super) const NO_TLS: &str = "TLS is not supported yet: set it to false and let a proxy in front speak TLS";
const NO_FILES: &str = "a certificate is used only with TLS, which is not supported yet";
const NO_ADMIN: &str = "this version has no web admin yet";
const IN_DATA: &str = "files and logs lie in the data directory (database.path)";

pub(super) const KEYS: &[Key] = &[
    registry("enable_swagger", Kind::Switch, "true", "Serve Swagger UI at /swagger-ui/ and its document.")
        .aliases(&["http.enable_swagger"])
        .variable(&["SMS_ENABLE_SWAGGER"])
        .switch("enable-swagger", "disable-swagger"),
    registry("enable_web_admin", Kind::Switch, "false", "Serve the web admin: comes with a later version.")
        .variable(&["SMS_ENABLE_WEB_ADMIN"])
        .switch("enable-web-admin", "disable-web-admin")
        .nothing(NO_ADMIN),
    idle("enable_console", Kind::Switch, "false", "there is no console")
        .variable(&["SMS_ENABLE_CONSOLE"])
        .switch("enable-console", "disable-console"),
    registry("heartbeat_timeout", Kind::Seconds(1, 86_400), "90", "Silence after which a node is offline.")
        .variable(&["SMS_HEARTBEAT_TIMEOUT"])
        .flag("heartbeat-timeout")
        .live(),
    registry(
        "heartbeat_interval",
        Kind::Seconds(1, 86_400),
        "10",
        "Pace of heartbeats that agents are told; at most a third of the timeout.",
    )
    .variable(&["SMS_HEARTBEAT_INTERVAL"])
    .live(),
    registry("cleanup_interval", Kind::Seconds(1, 86_400), "30", "Period of the sweep that looks for silent nodes.")
        .variable(&["SMS_CLEANUP_INTERVAL"])
        .flag("cleanup-interval")
        .live(),
    registry("remove_after", Kind::Seconds(1, 31_536_000), "24h", "Time offline after which a node is removed.")
        .variable(&["SMS_REMOVE_AFTER"])
        .live(),
    registry(
        "lost_after",
        Kind::Seconds(1, 31_536_000),
        "5m",
        "Time offline after which a node's running executions are lost and its waiting ones go elsewhere.",
    )
    .variable(&["SMS_LOST_AFTER"])
    .live(),
    registry("max_upload_bytes", Kind::Bytes(1, 1 << 40), "64MiB", "The largest file that can be uploaded.")
        .variable(&["SMS_MAX_UPLOAD_BYTES"])
        .flag("max-upload-bytes")
        .live(),
    registry(
        "execution_log_max_bytes",
        Kind::Bytes(1024, 1 << 40),
        "10MiB",
        "Log kept of one execution; the rest is cut and counted.",
    )
    .variable(&["SMS_EXECUTION_LOG_MAX_BYTES"])
    .live(),
    registry(
        "executions_kept_per_task",
        Kind::Count(1, 1_000_000),
        "1000",
        "Finished executions kept of one task; older ones are removed.",
    )
    .variable(&["SMS_EXECUTIONS_KEPT_PER_TASK"])
    .live(),
    registry("sync_wait", Kind::Seconds(1, 3600), "60", "The longest that a run with `mode: sync` is waited for.")
        .variable(&["SMS_SYNC_WAIT"])
        .live(),
    registry(
        "executions.idempotency_keep",
        Kind::Seconds(1, 31_536_000),
        "24h",
        "How long an idempotency key is kept; it goes with its execution if that is removed before.",
    )
    .variable(&["SMS_EXECUTIONS_IDEMPOTENCY_KEEP"])
    .live(),
    registry(
        "executions.callback_hosts",
        Kind::List,
        "",
        "Hosts that may be told of the end of executions (callback_url): `host`, `host:port`, `*.example.com`, an \
         address, or a network such as `10.0.0.0/8`. A name must lead to public addresses, or to such as are listed \
         themselves. Without one every callback is refused.",
    )
    .variable(&["SMS_EXECUTIONS_CALLBACK_HOSTS"])
    .live(),
    registry(
        "executions.callback_retry_first",
        Kind::Millis(1, 3_600_000),
        "1000",
        "Pause after the first try of a callback that failed, in milliseconds; each one after it is twice as long.",
    )
    .variable(&["SMS_EXECUTIONS_CALLBACK_RETRY_FIRST"])
    .live(),
    registry(
        "executions.callback_retry_most",
        Kind::Seconds(1, 86_400),
        "5m",
        "Longest pause between two tries of a callback.",
    )
    .variable(&["SMS_EXECUTIONS_CALLBACK_RETRY_MOST"])
    .live(),
    registry(
        "executions.callback_give_up_after",
        Kind::Seconds(1, 31_536_000),
        "24h",
        "How long a callback is tried until it is given up; the time in which the registry does not run is not counted.",
    )
    .variable(&["SMS_EXECUTIONS_CALLBACK_GIVE_UP_AFTER"])
    .live(),
    registry(
        "executions.callback_tries",
        Kind::Count(1, 100_000),
        "300",
        "How often a callback is tried until it is given up.",
    )
    .variable(&["SMS_EXECUTIONS_CALLBACK_TRIES"])
    .live(),
    idle("files_dir", Kind::Path, "", IN_DATA).variable(&["SMS_FILES_DIR"]).flag("files-dir"),
    idle("execution_logs_dir", Kind::Path, "", IN_DATA)
        .variable(&["SMS_EXECUTION_LOGS_DIR"])
        .flag("execution-logs-dir"),
    registry("grpc.addr", Kind::Address, "127.0.0.1:50051", "Where the registry's gRPC listens.")
        .variable(&["SMS_GRPC_ADDR"])
        .flag("grpc-addr"),
    tls("grpc.enable_tls"),
    idle("grpc.cert_path", Kind::Path, "", NO_FILES),
    idle("grpc.key_path", Kind::Path, "", NO_FILES),
    registry("http.addr", Kind::Address, "127.0.0.1:8080", "Where the registry's REST interface listens.")
        .variable(&["SMS_HTTP_ADDR"])
        .flag("http-addr"),
    tls("http.enable_tls"),
    idle("http.cert_path", Kind::Path, "", NO_FILES),
    idle("http.key_path", Kind::Path, "", NO_FILES),
    registry(
        "web_admin.addr",
        Kind::Address,
        "127.0.0.1:8081",
        "Where the web admin listens: comes with a later version.",
    )
    .variable(&["SMS_WEB_ADMIN_ADDR"])
    .flag("web-admin-addr")
    .nothing(NO_ADMIN),
    idle("web_admin.token", Kind::Secret, "", NO_ADMIN).variable(&["SMS_WEB_ADMIN_TOKEN"]),
    tls("web_admin.enable_tls"),
    idle("web_admin.cert_path", Kind::Path, "", NO_FILES),
    idle("web_admin.key_path", Kind::Path, "", NO_FILES),
    registry(
        "database.db_type",
        Kind::Choice(&["redb", "memory", "sled", "rocksdb"]),
        "redb",
        "Store of the registry: redb on disk, or memory, which forgets everything at the end. sled and rocksdb, the \
         original's, mean redb.",
    )
    .variable(&["SMS_DB_TYPE", "KV_STORE_BACKEND", "SPEAR_KV_BACKEND"])
    .flag("db-type"),
    registry("database.path", Kind::Path, "./data/sms", "Data directory of the registry: store, files, logs, token.")
        .variable(&["SMS_DB_PATH", "KV_STORE_PATH"])
        .flag("db-path"),
    idle("database.pool_size", Kind::Count(0, 1_000_000), "10", "the store needs no pool of connections")
        .variable(&["SMS_DB_POOL_SIZE"])
        .flag("db-pool-size"),
    registry(
        "log.level",
        super::log::LEVEL,
        "info",
        "How much is logged. RUST_LOG, where set, says it in more detail and wins.",
    )
    .aliases(&["logging.level"])
    .variable(&["SMS_LOG_LEVEL"])
    .flag("log-level")
    .live(),
    registry("log.format", super::log::FORMAT, "auto", super::log::FORMAT_DOC)
        .aliases(&["logging.format"])
        .variable(&["SMS_LOG_FORMAT"])
        .flag("log-format"),
    registry("log.file", Kind::Path, "", super::log::FILE_DOC)
        .aliases(&["logging.file"])
        .variable(&["SMS_LOG_FILE"])
        .flag("log-file"),
    registry("log.rotation", super::log::ROTATION, "never", super::log::ROTATION_DOC)
        .aliases(&["logging.rotation"])
        .variable(&["SMS_LOG_ROTATION"])
        .flag("log-rotation"),
    registry("log.keep", Kind::Count(1, 100_000), "7", super::log::KEEP_DOC)
        .aliases(&["logging.keep"])
        .variable(&["SMS_LOG_KEEP"])
        .flag("log-keep"),
    idle("event_kv.backend", Kind::Text, "", "events are part of the store").variable(&["SMS_EVENTS_KV_BACKEND"]),
    idle("event_kv.path", Kind::Path, "", "events are part of the store").variable(&["SMS_EVENTS_KV_PATH"]),
    idle("event_kv.params", Kind::Subtree, "", "events are part of the store"),
    idle("mcp.dir", Kind::Path, "", "there is no MCP registry").variable(&["SMS_MCP_DIR"]).flag("mcp-dir"),
];
