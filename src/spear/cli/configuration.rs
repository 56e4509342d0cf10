//! `spear config`.

use clap::Subcommand;
use std::{collections::BTreeMap, ffi::OsString};

use super::{output, serve::Serve};
use crate::{config, stopped::Stopped};

/// Look at the configuration.
#[derive(Subcommand, Clone, Debug)]
pub(super) enum Config {
    /// Check what `spear serve` with the same flags would start with
    Check(Serve),
    /// Show every setting that `spear serve` with the same flags would start with; secrets are redacted
    Print {
        /// Say where each value comes from
        #[arg(long)]
        sources: bool,
        #[command(flatten)]
        serve: Serve,
    },
    /// Show all settings with their defaults, as a file to begin with
    Example,
}

impl Config {
    pub(super) fn run(self, environment: BTreeMap<String, OsString>) -> Result<(), Stopped> {
        match self {
            Self::Example => output::say(&config::example()),
            Self::Check(serve) => {
                let resolved = serve.configuration(environment).map_err(Stopped::usage)?;
                for warning in &resolved.warnings {
                    output::hint(&format!("warning: {warning}\n"));
                }
                for notice in &resolved.notices {
                    output::hint(&format!("notice: {notice}\n"));
                }
                output::say("the configuration is good\n")
            }
            Self::Print { sources, serve } => {
                let resolved = serve.configuration(environment).map_err(Stopped::usage)?;
                let line = |setting: &config::Effective| {
                    let value = setting.value.as_deref().unwrap_or("(not set)");
                    match sources {
                        true => format!("{} = {value}    # {}\n", setting.name, setting.origin),
                        false => format!("{} = {value}\n", setting.name),
                    }
                };
                output::say(&resolved.effective.iter().map(line).collect::<String>())
            }
        }
    }
}
