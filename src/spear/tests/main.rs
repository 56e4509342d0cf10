//! The product as a whole: the real program, real sockets, real files.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test that fails should say where"
)]

mod access;
mod again;
mod backup;
mod bad_day;
mod boundaries;
mod command_line;
mod corruption;
mod documents;
mod first_five_minutes;
mod functions;
mod golden;
mod hostile;
mod in_process;
mod installed;
mod kill;
mod lifecycle;
mod link;
mod logs;
mod metrics;
mod outage;
mod readme;
mod reload;
mod remote;
mod run;
mod seed;
mod simulated;
mod status;
mod support;
mod traces;
mod wasm_run;
