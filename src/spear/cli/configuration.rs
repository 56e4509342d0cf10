//! `spear config`.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
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
        /// Say where each value comes from, and whether a change of it needs no restart
        #[arg(long)]
        sources: bool,
        /// In which form
        #[arg(short, long, value_enum, value_name = "FORM", default_value = "text")]
        output: Form,
        #[command(flatten)]
        serve: Serve,
    },
    /// Show all settings with their defaults, as a file to begin with
    Example,
    /// Show a JSON Schema of the file, for editors
    Schema,
}

/// The form of `spear config print`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// One line for each setting
    Text,
    /// An array of objects with name, value, source and live
    Json,
}

impl Config {
    pub(super) fn run(self, environment: BTreeMap<String, OsString>) -> Result<(), Stopped> {
        match self {
            Self::Example => output::say(&config::example()),
            Self::Schema => pretty(&config::schema()),
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
            Self::Print { output: Form::Json, serve, .. } => {
                let resolved = serve.configuration(environment).map_err(Stopped::usage)?;
                let one = |setting: &config::Effective| {
                    json!({
                        "name": setting.name, "value": setting.value, "source": setting.origin.to_string(),
                        "live": is_live(setting),
                    })
                };
                pretty(&resolved.effective.iter().map(one).collect())
            }
            Self::Print { sources, serve, .. } => {
                let resolved = serve.configuration(environment).map_err(Stopped::usage)?;
                let line = |setting: &config::Effective| {
                    let value = setting.value.as_deref().unwrap_or("(not set)");
                    let live = if is_live(setting) { "; live" } else { "" };
                    match sources {
                        true => format!("{} = {value}    # {}{live}\n", setting.name, setting.origin),
                        false => format!("{} = {value}\n", setting.name),
                    }
                };
                output::say(&resolved.effective.iter().map(line).collect::<String>())
            }
        }
    }
}

fn is_live(setting: &config::Effective) -> bool {
    config::keys::find(setting.name).is_some_and(|key| key.live)
}

fn pretty(value: &Value) -> Result<(), Stopped> {
    let text = serde_json::to_string_pretty(value).map_err(Stopped::failed)?;
    output::say(&format!("{text}\n"))
}
