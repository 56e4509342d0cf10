//! What every command has that asks a server: a client of its REST interface, and how to show what comes back.
//!
//! ```text
//!   flags, environment, contexts ─► Client ─► the command's own run, on a runtime of one thread ─► exit code
//!                                                   │
//!                        Fault ─► Stopped: exit code and next step ◄┘
//! ```
//! Ctrl-C ends a command with 130, wherever it is; nothing has to be cleaned up, since all state is the server's. A
//! command that wants Ctrl-C for itself runs by [`run_catching`].

use clap::Args;
use http::Method;
use net::Rest;
use serde::{Serialize, de::DeserializeOwned};
use types::Fault;

use super::{
    Environment,
    connection::{Connection, Target},
    show::{Output, Show},
};
use crate::stopped::Stopped;

/// Flags of every command that asks a server.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ClientArgs {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(flatten)]
    pub(super) output: Output,
}

/// A server, and how to show its answers.
pub(super) struct Client {
    /// Its REST interface; [`Client::refused`] turns its faults into the end of a command.
    pub(super) rest: Rest,
    /// How to show.
    pub(super) show: Show,
    target: Target,
}

impl Client {
    fn new(args: &ClientArgs, environment: &Environment) -> Result<Self, Stopped> {
        Self::of(args.connection.target(environment)?, &args.output, environment)
    }

    /// For a server that is known already.
    pub(super) fn of(target: Target, output: &Output, environment: &Environment) -> Result<Self, Stopped> {
        Ok(Self { rest: target.open()?, show: Show::new(output, environment)?, target })
    }

    /// `GET path`, a body of JSON.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Stopped> {
        self.rest.get(path).await.map_err(|fault| self.refused(&fault))
    }

    /// Sends a body, reads one.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Stopped> {
        self.rest.json(method, path, body).await.map_err(|fault| self.refused(&fault))
    }

    /// The same with headers.
    pub(super) async fn send_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<&impl Serialize>,
    ) -> Result<T, Stopped> {
        self.rest.json_with(method, path, headers, body).await.map_err(|fault| self.refused(&fault))
    }

    /// The end of a command that the server refused, with exit code and next step.
    pub(super) fn refused(&self, fault: &Fault) -> Stopped {
        self.target.refused(fault)
    }
}

/// Runs a command; Ctrl-C ends it.
pub(super) fn run(
    args: &ClientArgs,
    environment: &Environment,
    command: impl AsyncFnOnce(&Client) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    run_catching(args, environment, async |client| interruptible(Box::pin(command(client))).await)
}

/// Runs a command that sees to Ctrl-C itself.
pub(super) fn run_catching(
    args: &ClientArgs,
    environment: &Environment,
    command: impl AsyncFnOnce(&Client) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let client = Client::new(args, environment)?;
    block_on(command(&client))
}

/// Drives something that is done by asking.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Stopped>>) -> Result<T, Stopped> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Stopped::failed(format!("no sockets, no timers: {error}")))?;
    let ended = runtime.block_on(work);
    // A read of standard input that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    ended
}

/// Lets Ctrl-C end something.
pub(super) async fn interruptible<T>(work: impl Future<Output = Result<T, Stopped>>) -> Result<T, Stopped> {
    tokio::select! {
        ended = work => ended,
        caught = tokio::signal::ctrl_c() => match caught {
            Ok(()) => Err(Stopped::interrupted()),
            Err(error) => Err(Stopped::failed(format!("Ctrl-C cannot be caught: {error}"))),
        },
    }
}

/// A segment of a path: what was typed cannot lead to another route.
pub(super) fn segment(text: &str) -> String {
    // These have a meaning in a path however they are written; with a space behind they are an id that nothing has.
    let text = if matches!(text, "" | "." | "..") { format!("{text} ") } else { text.to_owned() };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~.".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_stays_one_segment_of_a_path() {
        for (typed, sent) in [
            ("00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000000"),
            ("../files", "..%2Ffiles"),
            ("a?b#c%", "a%3Fb%23c%25"),
            ("..", "..%20"),
            ("", "%20"),
            ("ä", "%C3%A4"),
        ] {
            assert_eq!(segment(typed), sent);
        }
    }
}
