//! Configuration: where every setting comes from, and what is made of it.
//!
//! ```text
//!   keys/  one table of all settings: name, variable, flag, default, what it is for
//!     │
//!     ├─► defaults < environment < ~/.sms, ~/.spear/config.toml < --config FILE < flags     (layers.rs, per key)
//!     │        each value: checked by its kind (value.rs), with its origin (file and line, variable, flag)
//!     │        each unknown key: refused, with the nearest known one
//!     └─► sections.rs: one typed struct per section ─► resolve.rs: what the parts are given
//! ```
//! Nothing here reads the process's environment or clock: [`Inputs`] says everything.

mod example;
mod file;
mod flags;
mod functions;
pub mod keys;
mod layers;
mod origin;
mod resolve;
mod schema;
mod sections;
mod value;
mod watching;

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

pub use example::example;
pub use flags::Given;
pub use layers::Effective;
pub use origin::{Origin, Problem, Problems};
pub use resolve::{Auth, Engine, Listen, Resolved, SmsSettings, SpearletSettings, TokenSource, WasmSettings};
pub use schema::schema;
pub use sections::{Log, LogFormat, LogLevel, LogRotation};
pub use value::{size, time};
pub use watching::{Collector, Watching};

/// Which parts run in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// The registry.
    pub sms: bool,
    /// The agent.
    pub spearlet: bool,
}

impl Roles {
    /// The registry alone.
    pub const SMS: Self = Self { sms: true, spearlet: false };
    /// The agent alone.
    pub const SPEARLET: Self = Self { sms: false, spearlet: true };
    /// Both.
    pub const ALL: Self = Self { sms: true, spearlet: true };

    /// As given to `--role`.
    pub fn name(self) -> &'static str {
        match (self.sms, self.spearlet) {
            (true, false) => "sms",
            (false, true) => "spearlet",
            _ => "all",
        }
    }
}

/// Everything that settings can come from.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// What will run; decides which home files are read and what a flag means.
    pub roles: Roles,
    /// The environment of the process.
    pub environment: BTreeMap<String, OsString>,
    /// `--config FILE`.
    pub file: Option<PathBuf>,
    /// Flags with their values.
    pub flags: Vec<Given>,
}

/// Reads, checks and merges all settings.
///
/// # Errors
/// Everything that is wrong, not only the first.
pub fn load(inputs: &Inputs) -> Result<Resolved, Problems> {
    let merged = layers::merge(inputs)?;
    resolve::resolve(inputs.roles, merged)
}

/// Reads one value of a command line that is not a setting; times as milliseconds, sizes as bytes.
///
/// # Errors
/// What would be right.
pub fn text_of(kind: keys::Kind, text: &str) -> Result<String, String> {
    kind.read(&value::Raw::Bare(text.to_owned())).map(|read| read.text)
}

#[cfg(test)]
mod tests;
