//! `spear invoke`: a call of a function, the short way.
//!
//! ```text
//!   standard input ══► agent ─► guest ══► standard output                        as it comes, both ways
//!                                  └─► trailers: exit code, or what stopped it ─► exit code
//! ```

use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt, stream, stream::BoxStream};
use http::{HeaderMap, header};
use net::rest::{Part, Streaming};
use serde_json::Value;
use std::{
    io::{self, IsTerminal},
    time::Duration,
};
use tokio_util::io::ReaderStream;

use super::{
    Environment,
    agent::{self, AgentArgs, AgentConnection},
    client::{Client, segment},
    input::Input,
    output,
    show::{Output, cell},
    task::flags::limit,
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear invoke TASK < photo.png > small.png
  spear invoke TASK -- -w 100
  tail -f log | spear invoke TASK              input and output flow at the same time
  spear invoke TASK add 1 2                    a plain export by its name, with its parameters

The call is made on the agent that is asked, at once; `spear task run` leaves it to the registry. The exit code is that \
of the function; 1 when it trapped or could not be called, 75 when it is busy, 124 when its time ran out. Ctrl-C cancels \
the call.";

/// Call a function of an agent with standard input, and show its answer as it comes
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Invoke {
    /// The task
    #[arg(value_name = "TASK")]
    task: String,
    /// Arguments of the function; after -- if they begin with a dash
    #[arg(value_name = "ARG", trailing_var_arg = true)]
    args: Vec<String>,
    #[command(flatten)]
    input: Input,
    /// Time limit: seconds, or 90s, 5m, 500ms [default: that of the task]
    #[arg(long, value_name = "TIME", value_parser = limit)]
    timeout: Option<Duration>,
    #[command(flatten)]
    agent: AgentConnection,
}

impl Invoke {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Stopped> {
        let args = AgentArgs { connection: self.agent.clone(), output: Output::default() };
        agent::run(&args, environment, async |client| self.perform(client).await)
    }

    async fn perform(self, client: &Client) -> Result<(), Stopped> {
        let args = self.args.iter().map(|arg| format!("&arg={}", segment_of_query(arg))).collect::<String>();
        let path = format!("/functions/{}/invoke?stream=true{args}", segment(&self.task));
        let mut headers = vec![(header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned())];
        if let Some(timeout) = self.timeout {
            headers.push(("spear-timeout-ms", timeout.as_millis().max(1).to_string()));
        }
        let input = self.feed().await?;
        let answer = client.rest.stream(&path, &headers, input).await.map_err(|fault| client.refused(&fault))?;
        let execution = text(&answer.headers, "spear-execution").map(str::to_owned);
        let ended = follow(client, answer).await;
        if let Some(execution) = execution {
            complaints(client, &execution).await;
        }
        ended
    }

    /// What is sent, as it comes.
    async fn feed(&self) -> Result<BoxStream<'static, io::Result<Bytes>>, Stopped> {
        if self.input.given() {
            let bytes = self.input.read().await?;
            return Ok(stream::iter([Ok(Bytes::from(bytes))]).boxed());
        }
        Ok(match io::stdin().is_terminal() {
            true => stream::empty().boxed(),
            false => ReaderStream::new(tokio::io::stdin()).boxed(),
        })
    }
}

/// A value of a query.
fn segment_of_query(text: &str) -> String {
    if text.is_empty() { String::new() } else { segment(text) }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Writes the answer until it ends, and ends as it did.
async fn follow(client: &Client, mut answer: Streaming) -> Result<(), Stopped> {
    if !answer.status.is_success() {
        let (headers, fault) = (answer.headers.clone(), answer.fault().await);
        return match text(&headers, "spear-execution") {
            Some(_) => verdict(&headers, &fault.message),
            None => Err(client.refused(&fault)),
        };
    }
    let mut end = answer.headers.clone();
    loop {
        match answer.next().await {
            Ok(Some(Part::Bytes(bytes))) => output::write(&bytes)?,
            Ok(Some(Part::Trailers(trailers))) => end = trailers,
            Ok(None) => break,
            Err(fault) => return Err(Stopped::unavailable(format!("the answer broke off: {}", fault.message))),
        }
    }
    let message = text(&end, "spear-message").unwrap_or_default().to_owned();
    verdict(&end, &message)
}

/// How a call ended, as the end of a command.
fn verdict(end: &HeaderMap, message: &str) -> Result<(), Stopped> {
    let message = cell::plain(message);
    if let Some(code) = text(end, "spear-exit").and_then(|code| code.parse::<i64>().ok()) {
        return match u8::try_from(code) {
            Ok(0) => Ok(()),
            Ok(code) => Err(Stopped::quietly(code)),
            Err(_) => Err(Stopped::failed(format!("failed: the function ended with exit code {code}"))),
        };
    }
    match text(end, "spear-reason") {
        // What it was called with makes no sense to it.
        Some("task") => Err(Stopped::usage(message)),
        Some("deadline") => Err(Stopped::timeout(format!("timeout: {message}"))),
        Some(reason) => Err(Stopped::failed(format!("failed ({}): {message}", cell::plain(reason)))),
        None => Err(Stopped::failed("the agent does not tell how it ended: is something between that drops trailers?")),
    }
}

/// What the function wrote to standard error, as far as the agent keeps it.
async fn complaints(client: &Client, execution: &str) {
    let path = format!("/functions/executions/{}?include_logs=true", segment(execution));
    // What is asked by the way may fail by the way.
    let Ok(seen) = client.rest.get::<Value>(&path).await else { return };
    for line in seen["logs"].as_array().into_iter().flatten().filter(|line| line["stream"] == "stderr") {
        output::hint(&format!("{}\n", cell::of(line, "message").text));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_end_of_a_call_becomes_an_exit_code_and_says_why() {
        let end = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            verdict(&headers, "why").map_or_else(|stopped| (stopped.code, stopped.message), |()| (0, String::new()))
        };
        let said = |code: u8, text: &str| (code, text.to_owned());
        assert_eq!(end(&[("spear-exit", "0")]), said(0, ""));
        assert_eq!(end(&[("spear-exit", "75"), ("spear-reason", "exit")]), said(75, ""));
        assert_eq!(end(&[("spear-exit", "-1")]), said(1, "failed: the function ended with exit code -1"));
        assert_eq!(end(&[("spear-reason", "deadline")]), said(124, "timeout: why"));
        assert_eq!(end(&[("spear-reason", "trap")]), said(1, "failed (trap): why"));
        assert_eq!(end(&[("spear-reason", "task")]), said(2, "why"));
        assert_eq!(end(&[]).0, 1);
    }
}
