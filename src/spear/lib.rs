//! The program: command line, configuration, logging, and the composition of the roles.
//!
//! ```text
//!   main ─► cli: what is wanted ─► config: with which settings ─► logging ─► compose: build the parts and run them
//! ```

pub mod cli;
pub mod compose;
pub mod config;
mod disk;
mod doors;
pub mod instruments;
pub mod logging;
mod ready;
pub mod reload;
pub mod simulate;
pub mod stopped;
