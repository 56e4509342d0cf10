//! `spear cluster`.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    client::{Client, ClientArgs},
    show::cell,
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear cluster stats
  spear cluster stats -o json | jq .stats.active_nodes";

/// All nodes together
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ClusterCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Count nodes, and sum up what they have
    Stats,
}

impl ClusterCommand {
    pub(super) async fn run(self, client: &Client) -> Result<(), Stopped> {
        match self.verb {
            Verb::Stats => {
                let body: Value = client.get("/api/v1/cluster/stats").await?;
                client.show.text_or(&body, || stats(&body["stats"]))
            }
        }
    }
}

fn stats(stats: &Value) -> String {
    let count = |member: &str| cell::of(stats, member).text;
    let mut lines = vec![
        ("nodes", count("total_nodes")),
        ("online", count("active_nodes")),
        ("offline", count("inactive_nodes")),
        ("unhealthy", count("unhealthy_nodes")),
        ("high load", count("high_load_nodes")),
        ("reporting", count("nodes_with_resources")),
        ("processor", cell::percent(stats, "average_cpu_usage").text + " on average"),
        ("memory", cell::percent(stats, "average_memory_usage").text + " on average"),
        (
            "",
            format!(
                "{} of {} used",
                cell::size(stats, "total_used_memory_bytes").text,
                cell::size(stats, "total_memory_bytes").text
            ),
        ),
    ];
    if stats["expiry_frozen"] == true {
        lines.push(("expiry", "frozen: too many nodes fell silent at once, so none is taken for offline".to_owned()));
    }
    lines.iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect()
}
