//! Flags that say what a task runs and how: shared by `spear task create` and `spear run`.

use clap::Args;
use std::{collections::BTreeMap, time::Duration};

use super::super::list::time;
use crate::config;

/// How it runs.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Running")]
pub(in crate::cli) struct Running {
    /// Variable in the environment of the guest; may be given again
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(in crate::cli) env: Vec<(String, String)>,
    /// Time limit: seconds, or 90s, 5m, 500ms [default: that of the node]
    #[arg(long, value_name = "TIME", value_parser = limit)]
    pub(in crate::cli) timeout: Option<Duration>,
    /// Memory that the guest may use: bytes, or 64MiB, 1GiB [default: that of the node]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(in crate::cli) memory: Option<u64>,
    /// Run on this node only [default: the least loaded one that fits]
    #[arg(long, value_name = "NODE")]
    pub(in crate::cli) node: Option<String>,
}

impl Running {
    /// The variables; of one given twice the last counts.
    pub(in crate::cli) fn variables(&self) -> BTreeMap<String, String> {
        self.env.iter().cloned().collect()
    }

    /// The limits, as the settings of a task have them.
    pub(in crate::cli) fn settings(&self) -> BTreeMap<String, String> {
        let timeout = self.timeout.map(|timeout| ("timeout_ms".to_owned(), timeout.as_millis().to_string()));
        let memory = self.memory.map(|bytes| ("memory_bytes".to_owned(), bytes.to_string()));
        timeout.into_iter().chain(memory).collect()
    }
}

/// `NAME=VALUE`.
pub(in crate::cli) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} has no name and value: write NAME=VALUE")),
    }
}

/// A time limit, which cannot be nothing.
pub(in crate::cli) fn limit(text: &str) -> Result<Duration, String> {
    match time(text)? {
        nothing if nothing.is_zero() => Err("a time limit of nothing lets nothing run".to_owned()),
        limit => Ok(limit),
    }
}

/// A size, which cannot be nothing.
pub(in crate::cli) fn size(text: &str) -> Result<u64, String> {
    let size = config::size(text).filter(|bytes| *bytes > 0);
    size.ok_or_else(|| format!("{text:?} is no size: write bytes, or something like 64MiB, 1GiB"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn limits_become_settings_of_the_task() {
        let timeout = Some(limit("1m").unwrap());
        let running = Running { timeout, memory: Some(size("64MiB").unwrap()), ..Running::default() };
        let settings: Vec<_> = running.settings().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(settings, ["memory_bytes=67108864", "timeout_ms=60000"]);
        assert!(Running::default().settings().is_empty());
        assert!(limit("0").is_err() && size("0").is_err() && size("much").is_err());
    }

    #[test]
    fn a_variable_has_a_name_and_any_value() {
        assert_eq!(pair("A=b=c").unwrap(), ("A".into(), "b=c".into()));
        assert_eq!(pair("A=").unwrap(), ("A".into(), String::new()));
        assert!(pair("A").is_err() && pair("=b").is_err());
    }
}
