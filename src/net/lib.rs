//! Everything between a socket and a handler, and between a client of ours and a socket.
//!
//! ```text
//!   Sockets::bind ─► Listener ─► serve ─► connection (time limits, caps) ─► front ─► axum::Router
//!                                                                           │
//!              request id, access (host, origin, token), panics, problems ──┘
//!
//!   Fetcher  ─► checked addresses only ─► bytes with limits       (HTTP to the outside)
//!   Poster   ─► listed hosts only ─► their status                 (telling others of what happened)
//!   channel  ─► lazy gRPC channel with the bearer token           (gRPC between our own parts)
//! ```
//! One table ([`problem`]) turns a [`types::Fault`] into an HTTP status and a gRPC code, and one gate
//! ([`Access`]) stands before every route of a listener, REST, gRPC and event stream alike: a handler cannot
//! forget to ask.
//!
//! Invariants: nothing that comes in is unbounded (connections, headers, bodies, time); no answer carries a
//! CORS header; a token never stands in a log, a URL or a `Debug`.

pub mod access;
pub mod address;
pub mod authority;
pub mod channel;
pub mod client;
pub mod credential;
pub mod crypto;
pub mod extract;
pub mod file;
pub mod grpc;
pub mod idempotency;
pub mod listener;
pub mod metrics;
pub mod openapi;
pub mod outbound;
pub mod problem;
pub mod range;
pub mod readiness;
pub mod rest;
pub mod serve;
pub mod sse;
pub mod status;
pub mod token;
pub mod trailing;
pub mod usage;

mod attempts;
mod connection;
mod figures;
mod front;
mod kept;
mod pace;
mod stream;

pub use access::Access;
pub use client::{Download, FetchRules, Fetcher};
pub use credential::Credential;
pub use crypto::install_crypto;
pub use file::FileBody;
pub use front::RequestId;
pub use listener::{BindError, Listener, Sockets};
pub use problem::Problem;
pub use range::RangeRequest;
pub use readiness::{Check, Readiness};
pub use rest::Rest;
pub use serve::{ServeOptions, serve};
pub use status::Process;
pub use token::{Token, TokenError};

#[cfg(test)]
mod tests;
