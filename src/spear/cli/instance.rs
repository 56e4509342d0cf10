//! `spear instance`.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::{
    agent::AgentArgs,
    client::{Client, segment},
    list::{Found, Watch},
    show::{Cell, Column, Noun, Tone, cell},
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear instance ls                          those of the agent on this machine
  spear instance ls --agent 10.0.0.7:8081 --watch
  spear instance kill 17                     with the call that it works on";

const INSTANCES: &str = "/api/v1/instances";

/// Guests that an agent has loaded: what they do, and what they hold
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct InstanceCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// List instances in the order in which they were made
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        watch: Watch,
    },
    /// End instances, with the calls that they work on
    Kill {
        /// Their ids
        #[arg(value_name = "INSTANCE", required = true)]
        instances: Vec<String>,
    },
}

const INSTANCE: Noun = Noun {
    kind: "instance",
    list: "instances",
    id: "instance_id",
    columns: &[
        Column::new("INSTANCE", |row, _| cell::of(row, "instance_id")).whole(),
        Column::new("FUNCTION", |row, _| cell::of(row, "function_name")),
        Column::new("STATUS", |row, _| status(row)).whole(),
        Column::new("FOR", |row, _| cell::millis(row, "since_ms")),
        Column::new("CALLS", |row, _| cell::of(row, "uses")),
        Column::new("MEMORY", |row, _| cell::size(row, "memory_bytes")),
        Column::new("AGE", |row, _| cell::millis(row, "age_ms")),
        Column::new("EXECUTION", |row, _| cell::of(row, "execution_id")).wide().whole(),
        Column::new("TASK", |row, _| cell::of(row, "task_id")).wide().whole(),
    ],
};

fn status(row: &Value) -> Cell {
    let word = cell::of(row, "status");
    let tone = if word.text == "busy" { Tone::Good } else { Tone::Plain };
    word.tone(tone)
}

impl InstanceCommand {
    pub(super) async fn run(self, client: &Client) -> Result<(), Stopped> {
        match self.verb {
            Verb::Ls { watch } => {
                let look = async || Ok(Found::list(&INSTANCE, client.get(INSTANCES).await?));
                client.watch(&INSTANCE, &watch, look).await
            }
            Verb::Kill { instances } => {
                for instance in instances {
                    let path = format!("{INSTANCES}/{}", segment(&instance));
                    let body: Value = client.send(Method::DELETE, &path, None::<&()>).await?;
                    let done = cell::of(&body, "message").text;
                    client.show.done(&INSTANCE, &instance, &done, &body)?;
                }
                Ok(())
            }
        }
    }
}
