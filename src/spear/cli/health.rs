//! `spear health`: is what runs here ready? Made for a container's HEALTHCHECK: quick, and without a token.
//!
//! Without an address it asks where the registry and the agent of this machine usually listen, or where the variables
//! say that they do. There, silence means that nothing was started, unless it is silent everywhere.

use clap::Args;
use futures_util::future::join_all;
use net::Rest;
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{
    Environment, client,
    connection::text,
    list::time,
    show::{Output, Show, cell},
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear health                              the registry and the agent on this machine
  spear health 10.0.0.7:8080 && echo ready
  HEALTHCHECK CMD [\"spear\", \"health\"]       in a Dockerfile

Exit codes: 0 everything that answers is ready, 1 something is not, 69 nothing answers";

/// Ask whether a registry or an agent is ready, and why not
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Health {
    /// HTTP addresses [default: SMS_HTTP_ADDR and SPEARLET_HTTP_ADDR, or ports 8080, 8081, 8082 of this machine]
    #[arg(value_name = "HOST:PORT|URL")]
    addresses: Vec<String>,
    /// How long an answer may take
    #[arg(long, value_name = "SECONDS", default_value = "3s", value_parser = time)]
    timeout: Duration,
    #[command(flatten)]
    output: Output,
}

/// What one address says.
enum Said {
    /// It answers as a part of Spear does: is it ready, and what fails or is limited.
    Answer(bool, Vec<String>),
    /// Somebody else listens there.
    Foreign(String),
    /// It takes too long.
    Slow,
    /// Nobody listens.
    Nothing(String),
}

impl Health {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Stopped> {
        let show = Show::new(&self.output, environment)?;
        let guessed = self.addresses.is_empty();
        let addresses = if guessed { usual(environment)? } else { self.addresses };
        let rests = addresses.iter().map(|address| {
            let rest = Rest::new(address, None, None).map_err(|fault| Stopped::usage(fault.message))?;
            Ok((address.clone(), rest))
        });
        let rests = rests.collect::<Result<Vec<_>, Stopped>>()?;
        let asked = rests.iter().map(|(_, rest)| ask(rest, self.timeout));
        let said = client::block_on(client::interruptible(async { Ok(join_all(asked).await) }))?;
        let all: Vec<(String, Said)> = rests.into_iter().map(|(address, _)| address).zip(said).collect();
        report(&show, guessed, &all)
    }
}

fn report(show: &Show, guessed: bool, all: &[(String, Said)]) -> Result<(), Stopped> {
    // What listens where one of us usually does need not be one of us.
    let counts = |said: &Said| !guessed || matches!(said, Said::Answer(..) | Said::Slow);
    let counted: Vec<&(String, Said)> = all.iter().filter(|(_, said)| counts(said)).collect();
    if counted.is_empty() || counted.iter().all(|(_, said)| matches!(said, Said::Nothing(_))) {
        let names: Vec<&str> = all.iter().map(|(address, _)| &**address).collect();
        let next = "is `spear serve` running? `spear health HOST:PORT` asks elsewhere";
        return Err(Stopped::unavailable(format!("no Spear answers at {}; {next}", names.join(", "))));
    }
    let ready = counted.iter().all(|(_, said)| matches!(said, Said::Answer(true, _)));
    let entries: Vec<Value> = counted.iter().map(|(address, said)| said.view(address)).collect();
    let body = json!({ "ready": ready, "addresses": entries });
    if !show.quiet {
        show.text_or(&body, || entries.iter().map(lines).collect())?;
    }
    if ready { Ok(()) } else { Err(Stopped::quietly(1)) }
}

impl Said {
    fn view(&self, address: &str) -> Value {
        let (ready, reasons) = match self {
            Self::Answer(ready, reasons) => (*ready, reasons.clone()),
            Self::Foreign(what) => (false, vec![what.clone()]),
            Self::Slow => (false, vec!["does not answer in time".to_owned()]),
            Self::Nothing(why) => (false, vec![why.clone()]),
        };
        json!({ "address": address, "ready": ready, "reasons": reasons })
    }
}

fn lines(entry: &Value) -> String {
    let word = if entry["ready"] == true { "ready" } else { "not ready" };
    let mut text = format!("{} {word}\n", cell::of(entry, "address").text);
    for reason in entry["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        text.push_str(&format!("  {}\n", cell::plain(reason)));
    }
    text
}

async fn ask(rest: &Rest, patience: Duration) -> Said {
    let (status, body) = match tokio::time::timeout(patience, rest.text("/readyz?verbose")).await {
        Err(_) => return Said::Slow,
        Ok(Err(fault)) if fault.code == "TIMEOUT" => return Said::Slow,
        Ok(Err(fault)) => return Said::Nothing(fault.message),
        Ok(Ok(answer)) => answer,
    };
    let checks = |body: &str| body.lines().filter_map(reason).map(str::to_owned).collect();
    match body.lines().last() {
        Some("ready" | "ok") if status.is_success() => Said::Answer(true, checks(&body)),
        Some("not ready") if status == http::StatusCode::SERVICE_UNAVAILABLE => Said::Answer(false, checks(&body)),
        _ => Said::Foreign(format!("answers {status} to /readyz: it is no HTTP address of a registry or an agent")),
    }
}

/// What keeps it from being ready, or limits it.
fn reason(line: &str) -> Option<&str> {
    line.strip_prefix("[-] ").or_else(|| line.strip_prefix("[!] "))
}

/// Where the registry and the agent of this machine listen.
fn usual(environment: &Environment) -> Result<Vec<String>, Stopped> {
    let registry = set(environment, "SMS_HTTP_ADDR")?;
    let mut all = vec![registry.unwrap_or_else(|| "127.0.0.1:8080".to_owned())];
    all.extend(usual_agents(environment)?);
    all.dedup();
    Ok(all)
}

/// Where the agent of this machine listens.
pub(super) fn usual_agents(environment: &Environment) -> Result<Vec<String>, Stopped> {
    Ok(match set(environment, "SPEARLET_HTTP_ADDR")? {
        Some(agent) => vec![agent],
        None => vec!["127.0.0.1:8081".to_owned(), "127.0.0.1:8082".to_owned()],
    })
}

/// An address that a variable has.
fn set(environment: &Environment, name: &str) -> Result<Option<String>, Stopped> {
    let Some(value) = text(environment, name)? else { return Ok(None) };
    let address: SocketAddr = value
        .replacen("localhost:", "127.0.0.1:", 1)
        .parse()
        .map_err(|_| Stopped::usage(format!("the environment variable {name} is {value:?}: no IP:PORT")))?;
    Ok(Some(here(address).to_string()))
}

/// What listens everywhere listens here, too.
fn here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests;
