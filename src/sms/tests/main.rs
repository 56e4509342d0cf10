//! The registry's contract over real sockets: REST, its document, gRPC, and what a restart keeps.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::panic, reason = "tests")]

mod callbacks;
mod documents;
mod files;
mod grpc;
mod harness;
mod nodes;
mod restart;
