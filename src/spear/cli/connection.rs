//! Which server a command talks to, and how it is let in.
//!
//! Each of address, token and certificates is taken from the first of these that has it: flag, environment, context,
//! default. What a context holds belongs to its own address: another one, given by flag or environment, gets nothing
//! of it unless the context is named on the command line too.

use clap::Args;
use net::{Rest, Token};
use std::{
    fs,
    path::{Path, PathBuf},
};
use types::{ErrorKind, Fault};

use super::{
    Environment,
    contexts::{Context, Contexts},
};
use crate::stopped::Stopped;

/// Where a registry listens that was started without settings.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";

/// Flags of every command that asks a server.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// REST address of the registry [env: SPEAR_ADDR] [default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "HOST:PORT|URL")]
    pub(super) addr: Option<String>,
    /// File with the bearer token; SPEAR_TOKEN may hold the token itself [env: SPEAR_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// PEM file with certificates to trust beside the usual ones [env: SPEAR_CACERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// Cluster by name, see `spear context` [env: SPEAR_CONTEXT] [default: the one in use]
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub(super) context: Option<String>,
}

/// A server as the flags, the environment and the contexts lead to it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// `host:port` or a URL.
    pub(super) address: String,
    /// Who said so, for errors.
    address_from: String,
    /// `a registry` or `an agent`, for errors.
    what: &'static str,
    token: Option<Token>,
    /// Who named the token, for errors.
    token_from: Option<String>,
    ca: Option<Vec<u8>>,
}

impl Connection {
    /// The server and what is needed to be let in.
    ///
    /// # Errors
    /// A file that cannot be read, a token that is none, an unknown context: all usage.
    pub(super) fn target(&self, environment: &Environment) -> Result<Target, Stopped> {
        let named = match &self.context {
            Some(name) => Some((name.clone(), "--context")),
            None => text(environment, "SPEAR_CONTEXT")?.map(|name| (name, "SPEAR_CONTEXT")),
        };
        let explicit = self.addr.clone().map(|address| (address, "--addr".to_owned()));
        let explicit = match explicit {
            None => text(environment, "SPEAR_ADDR")?.map(|address| (address, "SPEAR_ADDR".to_owned())),
            given => given,
        };
        let context = match (&explicit, &named) {
            (Some(_), Some((_, "--context"))) | (None, _) => context(environment, named)?,
            (Some(_), _) => None,
        };
        let of_context = context.as_ref().map(|(name, context)| (context.addr.clone(), format!("context {name}")));
        let (address, address_from) =
            explicit.or(of_context).unwrap_or_else(|| (DEFAULT_ADDRESS.to_owned(), "default".to_owned()));
        let context = context.map(|(name, context)| (format!("context {name}"), context));
        self.with(environment, (address, address_from, "a registry"), context)
    }

    /// An agent at an address that somebody named; no context knows any.
    ///
    /// # Errors
    /// As [`Connection::target`].
    pub(super) fn agent(&self, environment: &Environment, address: String, from: &str) -> Result<Target, Stopped> {
        self.with(environment, (address, from.to_owned(), "an agent"), None)
    }

    fn with(
        &self,
        environment: &Environment,
        (address, address_from, what): (String, String, &'static str),
        context: Option<(String, Context)>,
    ) -> Result<Target, Stopped> {
        let (token, token_from) = self.token(environment, context.as_ref())?.unzip();
        let ca = match (&self.ca_file, environment.get("SPEAR_CACERT").filter(|path| !path.is_empty())) {
            (Some(path), _) => Some(path.clone()),
            (None, Some(path)) => Some(PathBuf::from(path)),
            (None, None) => context.and_then(|(_, context)| context.ca_file),
        };
        let ca = ca.map(|path| fs::read(&path).map_err(|error| unreadable(&path, &error))).transpose()?;
        Ok(Target { address, address_from, what, token, token_from, ca })
    }

    /// A client of that server.
    ///
    /// # Errors
    /// As [`Connection::target`]; or the address is not one.
    pub(super) fn open(&self, environment: &Environment) -> Result<Rest, Stopped> {
        self.target(environment)?.open()
    }

    fn token(
        &self,
        environment: &Environment,
        context: Option<&(String, Context)>,
    ) -> Result<Option<(Token, String)>, Stopped> {
        let from_file = |path: &Path| {
            let told = Token::from_file(path).map_err(|error| {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                Stopped::usage(format!("{error}{cause}"))
            });
            Ok::<_, Stopped>(Some((told?, path.display().to_string())))
        };
        if let Some(path) = &self.token_file {
            return from_file(path);
        }
        let file = environment.get("SPEAR_TOKEN_FILE").filter(|path| !path.is_empty());
        match (text(environment, "SPEAR_TOKEN")?, file) {
            (Some(_), Some(_)) => {
                Err(Stopped::usage("both SPEAR_TOKEN and SPEAR_TOKEN_FILE are set: unset one of them"))
            }
            (Some(text), None) => {
                let token = Token::from_text(&text).map_err(|error| Stopped::usage(format!("SPEAR_TOKEN: {error}")))?;
                Ok(Some((token, "SPEAR_TOKEN".to_owned())))
            }
            (None, Some(path)) => from_file(Path::new(path)),
            (None, None) => match context {
                Some((_, Context { token_file: Some(path), .. })) => from_file(path),
                Some((name, Context { token: Some(text), .. })) => {
                    let token = Token::from_text(text).map_err(|error| Stopped::usage(format!("{name}: {error}")))?;
                    Ok(Some((token, name.clone())))
                }
                _ => Ok(None),
            },
        }
    }
}

impl Target {
    /// A client of it.
    ///
    /// # Errors
    /// The address is not one, or the certificates are not PEM.
    pub(super) fn open(&self) -> Result<Rest, Stopped> {
        Rest::new(&self.address, self.token.clone(), self.ca.as_deref()).map_err(|fault| {
            let place = if fault.message.starts_with("ca") { "" } else { &self.address_from };
            Stopped::usage(format!("{place}{}{}", if place.is_empty() { "" } else { ": " }, detail(&fault)))
        })
    }

    /// The end of a command that the server refused, with what to do next.
    pub(super) fn refused(&self, fault: &Fault) -> Stopped {
        let next = self.next_step(fault);
        let message = detail(fault);
        // A path that is not there is another server than meant, not a thing that is missing.
        let kind = if fault.code == "NO_SUCH_ROUTE" { ErrorKind::Internal } else { fault.kind };
        Stopped::refused(kind, if next.is_empty() { message } else { format!("{message}; {next}") })
    }

    fn next_step(&self, fault: &Fault) -> String {
        match (&*fault.code, fault.kind) {
            ("UNREACHABLE", _) if self.address_from == "default" => {
                "start a registry with `spear serve`, or name one with --addr or `spear context set`".to_owned()
            }
            ("UNREACHABLE", _) => format!("is `spear serve` running there? The address is from {}", self.address_from),
            (_, ErrorKind::Unauthenticated) => match &self.token_from {
                Some(from) => format!("the token of {from} is not the one this server wants"),
                None if self.is_loopback() => "name the file of the token with --token-file or SPEAR_TOKEN_FILE; one \
                    made at the first start is data/sms/token where the registry was started, or in its data directory"
                    .to_owned(),
                None => {
                    "name the file of the token with --token-file, SPEAR_TOKEN_FILE or `spear context set`".to_owned()
                }
            },
            ("NODE_NOT_FOUND", _) => "`spear node ls` lists those there are".to_owned(),
            ("TASK_NOT_FOUND", _) => "`spear task ls` lists those there are".to_owned(),
            ("FILE_NOT_FOUND", _) => "`spear file ls` lists those there are".to_owned(),
            ("EXECUTION_NOT_FOUND", _) => "`spear execution ls` lists those there are".to_owned(),
            ("INSTANCE_NOT_FOUND", _) => "`spear instance ls` lists those there are".to_owned(),
            ("NO_SUCH_ROUTE" | "REFUSED" | "UNEXPECTED_ANSWER", kind) if kind != ErrorKind::Unavailable => {
                format!("is {} the REST address of {} of this version?", self.address, self.what)
            }
            (_, ErrorKind::TooLarge) => "the settings of the registry say what it takes".to_owned(),
            (_, ErrorKind::StorageFull) => "make room on the disk of the registry, then repeat".to_owned(),
            (_, ErrorKind::Unavailable | ErrorKind::Exhausted) => "try again later".to_owned(),
            (_, ErrorKind::Internal) => "the log of the server has the cause".to_owned(),
            _ => String::new(),
        }
    }

    fn is_loopback(&self) -> bool {
        let host = self.address.rsplit_once("://").map_or(&*self.address, |(_, rest)| rest);
        host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]")
    }
}

/// A variable that has a value.
pub(super) fn text(environment: &Environment, name: &str) -> Result<Option<String>, Stopped> {
    match environment.get(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => match value.to_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(Stopped::usage(format!("the environment variable {name} is not text"))),
        },
    }
}

/// The context that was named, or the one in use.
fn context(
    environment: &Environment,
    named: Option<(String, &'static str)>,
) -> Result<Option<(String, Context)>, Stopped> {
    let contexts = Contexts::read(environment)?;
    match named {
        Some((name, by)) => match contexts.all.get(&name) {
            Some(context) => Ok(Some((name, context.clone()))),
            None => Err(Stopped::usage(format!("{by} names {name:?}, {}", contexts.known()))),
        },
        None => Ok(contexts.in_use().map(|(name, context)| (name.to_owned(), context.clone()))),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Stopped {
    Stopped::usage(format!("cannot read {}: {error}", path.display()))
}

/// The sentence of a fault; with all fields to blame, when there are several.
fn detail(fault: &Fault) -> String {
    match &fault.errors[..] {
        [_, _, ..] => {
            let all: Vec<String> =
                fault.errors.iter().map(|error| format!("{}: {}", error.field, error.detail)).collect();
            all.join("; ")
        }
        _ => fault.message.clone(),
    }
}

#[cfg(test)]
mod tests;
