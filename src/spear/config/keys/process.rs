//! Settings of the process.

use super::{Key, Kind, Side, key};

const fn process(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    key(Side::Process, name, kind, default, doc)
}

pub(super) const KEYS: &[Key] = &[
    process("auth.token", Kind::Secret, "", "The token that every listener wants; better kept in a file.")
        .variable(&["SPEAR_TOKEN"]),
    process(
        "auth.token_file",
        Kind::Path,
        "",
        "File with the token that every listener wants. Without one, loopback needs none, and anything else gets a \
         token made at the first start and kept in the data directory.",
    )
    .variable(&["SPEAR_TOKEN_FILE"])
    .flag("token-file"),
    process(
        "auth.insecure_no_auth",
        Kind::Switch,
        "false",
        "Let everybody in who can reach a listener, without a token.",
    )
    .variable(&["SPEAR_INSECURE_NO_AUTH"])
    .flag("insecure-no-auth"),
    process(
        "auth.allowed_hosts",
        Kind::List,
        "",
        "Names under which the listeners are reached besides their own, for a reverse proxy: `host` or `host:port`.",
    )
    .variable(&["SPEAR_ALLOWED_HOSTS"]),
    process(
        "shutdown.timeout",
        Kind::Seconds(1, 3600),
        "20",
        "Time for stopping: running work ends, results are delivered, then the process goes.",
    )
    .variable(&["SPEAR_SHUTDOWN_TIMEOUT"])
    .flag("shutdown-timeout"),
];
