//! Commands that ask the agent of a node, not the registry.
//!
//! Without an address it is the agent of this machine: where SPEARLET_HTTP_ADDR says, or at one of the two ports that an
//! agent usually has, which one is asked.

use clap::Args;
use net::Rest;
use serde_json::Value;
use std::{path::PathBuf, time::Duration};

use super::{
    Environment,
    client::{self, Client},
    connection::{Connection, Target},
    health::usual_agents,
    show::Output,
};
use crate::stopped::Stopped;

/// How long one that is looked for may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(3);

/// Flags of every command that asks an agent.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub(super) struct AgentConnection {
    /// HTTP address of the agent [env: SPEARLET_HTTP_ADDR] [default: that on this machine, at port 8081 or 8082]
    #[arg(long, global = true, value_name = "HOST:PORT|URL")]
    agent: Option<String>,
    /// File with the bearer token; SPEAR_TOKEN may hold the token itself [env: SPEAR_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file with certificates to trust beside the usual ones [env: SPEAR_CACERT]
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// The same, with how to show what comes back.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    pub(super) connection: AgentConnection,
    #[command(flatten)]
    pub(super) output: Output,
}

impl AgentConnection {
    fn target(&self, environment: &Environment, address: String, from: &str) -> Result<Target, Stopped> {
        let (token_file, ca_file) = (self.token_file.clone(), self.ca_file.clone());
        Connection { token_file, ca_file, ..Connection::default() }.agent(environment, address, from)
    }

    /// The agent that is meant.
    async fn found(&self, environment: &Environment) -> Result<Target, Stopped> {
        if let Some(address) = &self.agent {
            return self.target(environment, address.clone(), "--agent");
        }
        let mut candidates = usual_agents(environment)?;
        if candidates.len() == 1 {
            return self.target(environment, candidates.swap_remove(0), "SPEARLET_HTTP_ADDR");
        }
        for address in &candidates {
            let target = self.target(environment, address.clone(), "default")?;
            if is_agent(&target.open()?).await {
                return Ok(target);
            }
        }
        let next = "start one with `spear serve`, or name one with --agent HOST:PORT";
        Err(Stopped::unavailable(format!("no agent answers at {}; {next}", candidates.join(" or "))))
    }
}

async fn is_agent(rest: &Rest) -> bool {
    let asked = tokio::time::timeout(PATIENCE, rest.get::<Value>("/health")).await;
    matches!(asked, Ok(Ok(health)) if health["service"] == "spearlet")
}

/// Runs a command; Ctrl-C ends it.
pub(super) fn run(
    args: &AgentArgs,
    environment: &Environment,
    command: impl AsyncFnOnce(&Client) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    client::block_on(client::interruptible(Box::pin(async {
        let target = args.connection.found(environment).await?;
        command(&Client::of(target, &args.output, environment)?).await
    })))
}
