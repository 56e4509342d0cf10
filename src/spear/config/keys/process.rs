//! Settings of the process.

use super::{Key, Kind, Side, key};

const fn process(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    key(Side::Process, name, kind, default, doc)
}

pub(super) const KEYS: &[Key] = &[
    process("auth.token", Kind::Secret, "", "The token that every listener wants; better kept in a file.")
        .variable(&["SPEAR_TOKEN"])
        .live(),
    process(
        "auth.token_file",
        Kind::Path,
        "",
        "File with the token that every listener wants. Without one, loopback needs none, and anything else gets a \
         token made at the first start and kept in the data directory.",
    )
    .variable(&["SPEAR_TOKEN_FILE"])
    .flag("token-file")
    .live(),
    process(
        "auth.insecure_no_auth",
        Kind::Switch,
        "false",
        "Let everybody in who can reach a listener, without a token.",
    )
    .variable(&["SPEAR_INSECURE_NO_AUTH"])
    .flag("insecure-no-auth")
    .live(),
    process(
        "auth.allowed_hosts",
        Kind::List,
        "",
        "Names under which the listeners are reached besides their own, for a reverse proxy: `host` or `host:port`.",
    )
    .variable(&["SPEAR_ALLOWED_HOSTS"])
    .live(),
    process(
        "shutdown.timeout",
        Kind::Seconds(1, 3600),
        "20",
        "Time for stopping: running work ends, results are delivered, then the process goes.",
    )
    .variable(&["SPEAR_SHUTDOWN_TIMEOUT"])
    .flag("shutdown-timeout"),
    process(
        "metrics.enabled",
        Kind::Switch,
        "true",
        "Serve /metrics on the HTTP listeners, to whoever may come in there.",
    )
    .variable(&["SPEAR_METRICS_ENABLED"]),
    process(
        "otel.endpoint",
        Kind::Url,
        "",
        "OpenTelemetry collector that gets traces and figures, by OTLP over gRPC: \"http://127.0.0.1:4317\". Without \
         one, none are sent.",
    )
    .variable(&["OTEL_EXPORTER_OTLP_ENDPOINT"]),
    process("otel.headers", Kind::Secret, "", "Sent to the collector with every call: name=value,name=value.")
        .variable(&["OTEL_EXPORTER_OTLP_HEADERS"]),
    process(
        "otel.certificate",
        Kind::Path,
        "",
        "For an https endpoint: file with the certificate authority to trust, in PEM.",
    )
    .variable(&["OTEL_EXPORTER_OTLP_CERTIFICATE"]),
    process("otel.timeout", Kind::Millis(100, 600_000), "10000", "Longest call to the collector; in milliseconds.")
        .variable(&["OTEL_EXPORTER_OTLP_TIMEOUT"]),
    process(
        "otel.metrics_interval",
        Kind::Millis(100, 86_400_000),
        "60000",
        "Time between two tellings of the figures to the collector; in milliseconds.",
    )
    .variable(&["OTEL_METRIC_EXPORT_INTERVAL"]),
    process("otel.service_name", Kind::Text, "spear", "Name under which the collector knows this process.")
        .variable(&["OTEL_SERVICE_NAME"]),
];
