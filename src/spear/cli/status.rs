//! `spear status`: what runs inside a registry or an agent.

use clap::Args;
use serde_json::Value;
use std::time::Duration;

use super::{
    client::{Client, ClientArgs},
    list::{Found, Watch},
    output,
    show::{Column, Noun, Show, cell},
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear status                              of the registry
  spear status --agent 10.0.0.7:8081        of an agent
  spear status -o json | jq '.scopes[] | select(.restarts > 0)'

SCOPE is a part of the program with an owner of its own; one that restarts says why in LAST ERROR.";

const STATUS: &str = "/api/v1/status";

/// Show every part of a running registry or agent: state, restarts, last error
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Status {
    /// HTTP address of an agent, instead of the registry's
    #[arg(long, value_name = "HOST:PORT|URL", conflicts_with = "addr")]
    agent: Option<String>,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    client: ClientArgs,
}

const SCOPE: Noun = Noun {
    kind: "scope",
    list: "scopes",
    id: "name",
    columns: &[
        Column::new("SCOPE", |row, _| cell::of(row, "name")).whole(),
        Column::new("STATE", |row, _| cell::state(row, "state")),
        Column::new("PHASE", |row, _| cell::of(row, "phase")),
        Column::new("COUNT", |row, _| cell::of(row, "count")),
        Column::new("RESTARTS", |row, _| cell::of(row, "restarts")),
        Column::new("LAST ERROR", |row, _| cell::of(row, "last_error")),
    ],
};

impl Status {
    /// The flags, with the agent's address in the place of the registry's.
    pub(super) fn client(&self) -> ClientArgs {
        let mut client = self.client.clone();
        if self.agent.is_some() {
            client.connection.addr.clone_from(&self.agent);
        }
        client
    }

    pub(super) async fn run(self, client: &Client) -> Result<(), Stopped> {
        let look = async || Ok(Found::list(&SCOPE, client.get(STATUS).await?));
        if self.watch.watch.is_none() && client.show.is_table() {
            let found = look().await?;
            return output::say(&format!("{}\n{}", head(&found.body), scopes(client, &found)?));
        }
        client.watch(&SCOPE, &self.watch, look).await
    }
}

fn scopes(client: &Client, found: &Found) -> Result<String, Stopped> {
    client.show.text(&SCOPE, &found.body, &found.rows, Show::now())
}

/// What is known of the process as a whole.
fn head(body: &Value) -> String {
    let word = |member: &str| cell::of(body, member).text;
    let uptime = body["uptime_seconds"].as_f64().filter(|seconds| *seconds >= 0.0);
    let uptime = uptime.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let uptime = uptime.map(|uptime| format!(", up for {}", cell::duration(uptime))).unwrap_or_default();
    let ready = if body["ready"] == true { "ready" } else { "not ready" };
    let mut text = format!("Spear {} {}, process {}{uptime}: {ready}\n", word("version"), word("role"), word("pid"));
    for reason in body["reasons"].as_array().into_iter().flatten() {
        let word = |member: &str| cell::of(reason, member).text;
        text.push_str(&format!("  {}: {}\n", word("check"), word("reason")));
    }
    for listener in body["listeners"].as_array().into_iter().flatten() {
        let word = |member: &str| cell::of(listener, member).text;
        text.push_str(&format!("  {:<16} {}\n", word("name"), word("address")));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use serde_json::json;

    #[test]
    fn the_head_names_version_role_uptime_reasons_and_listeners() {
        let body = json!({
            "version": "0.1.0", "role": "all", "pid": 7, "uptime_seconds": 192, "ready": false,
            "reasons": [{"check": "spearlet/registry", "reason": "no answer"}],
            "listeners": [{"name": "sms/http", "address": "127.0.0.1:8080"}],
        });
        let text = head(&body);
        assert_eq!(
            text,
            "Spear 0.1.0 all, process 7, up for 3m12s: not ready\n  spearlet/registry: no answer\n  \
             sms/http         127.0.0.1:8080\n"
        );
    }
}
