//! `spear simulate`: agents that only pretend, to load a registry. Hidden: a tool for measuring, not for operating.

use clap::{Args, ValueEnum};
use std::{io::IsTerminal, path::PathBuf, time::Duration};

use super::{output, serve::raise_file_limit};
use crate::{
    config::{keys::Kind, text_of},
    simulate::{self, Plan, Summary},
    stopped::Stopped,
};

/// A day is long enough.
const LONGEST: u64 = 24 * 3600;

/// Load a registry with agents that only pretend: they register, beat, tell their load, follow their work lists and
/// report executions that they never run.
#[derive(Args, Clone, Debug)]
#[command(after_help = "It ends after --duration or at Ctrl-C, with a summary; the nodes then fall silent together.")]
pub(super) struct Simulate {
    /// Nodes
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    nodes: usize,
    /// The registry's gRPC interface
    #[arg(long, visible_alias = "sms-addr", value_name = "ADDR", default_value = "127.0.0.1:50051")]
    sms_grpc_addr: String,
    /// The registry's REST interface, from which --fetch reads
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    sms_http_addr: String,
    /// The token for the registry is in this file
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// Connections that the nodes share [default: one for ten nodes]
    #[arg(long, value_name = "NUMBER")]
    connections: Option<usize>,
    /// Nodes that follow their work list and offer a runtime [default: all]
    #[arg(long, value_name = "NUMBER")]
    workers: Option<usize>,
    /// Longest pause between two heartbeats of a node
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = seconds)]
    interval: Duration,
    /// The nodes appear one after the other within this time [default: the interval]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    ramp: Option<Duration>,
    /// Time until the end [default: until Ctrl-C]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    duration: Option<Duration>,
    /// How long an execution takes
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = millis)]
    run_time: Duration,
    /// Fetch the executable of every execution
    #[arg(long)]
    fetch: bool,
    /// Form of the summary
    #[arg(short, long, value_enum, default_value = "text")]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Text,
    /// For programs
    Json,
}

fn seconds(text: &str) -> Result<Duration, String> {
    time(Kind::Seconds(0, LONGEST), text)
}

fn millis(text: &str) -> Result<Duration, String> {
    time(Kind::Millis(0, LONGEST * 1000), text)
}

fn time(kind: Kind, text: &str) -> Result<Duration, String> {
    let read = text_of(kind, text)?;
    read.parse().map(Duration::from_millis).map_err(|_| format!("is {text:?}; expected {}", kind.expected()))
}

impl Simulate {
    fn plan(&self) -> Result<Plan, Stopped> {
        let token = self.token_file.as_deref().map(net::Token::from_file).transpose().map_err(Stopped::usage)?;
        Ok(Plan {
            grpc: self.sms_grpc_addr.clone(),
            http: self.sms_http_addr.clone(),
            token,
            nodes: self.nodes,
            connections: self.connections.unwrap_or_else(|| self.nodes.div_ceil(10)),
            workers: self.workers.unwrap_or(self.nodes),
            interval: self.interval,
            ramp: self.ramp.unwrap_or(self.interval),
            duration: self.duration,
            run_time: self.run_time,
            fetch: self.fetch,
        })
    }

    pub(super) fn run(self) -> Result<(), Stopped> {
        let plan = self.plan()?;
        let registry = plan.grpc.clone();
        raise_file_limit();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Stopped::failed(format!("no threads: {error}")))?;
        let told = |summary: &Summary| {
            if std::io::stderr().is_terminal() {
                output::hint(&format!("{summary}\n"));
            }
        };
        let ended = runtime.block_on(async {
            let signals = supervise::stop_signals().map_err(Stopped::failed)?;
            simulate::run(plan, supervise::stop_signal(signals), told).await.map_err(Stopped::usage)
        });
        runtime.shutdown_background();
        let summary = ended?;
        let json = || serde_json::to_string(&summary).map_err(Stopped::failed);
        output::say(&match self.output {
            Form::Text => summary.to_string(),
            Form::Json => format!("{}\n", json()?),
        })?;
        match (summary.registrations.done, &summary.last_fault) {
            (0, Some(fault)) => Err(Stopped::failed(format!("no node was registered at {registry}: {fault}"))),
            _ => Ok(()),
        }
    }
}
