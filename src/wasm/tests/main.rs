//! The whole runtime, with its compiling child as a process of its own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, clippy::print_stdout, reason = "tests")]

mod bench;
mod bulk;
mod compile;
mod files;
mod generate;
mod generated;
mod hostile;
mod isolation;
mod kill;
mod limits;
mod programs;
mod run;
mod samples;
