//! `spear context`: several clusters by name, in `$XDG_CONFIG_HOME/spear/contexts.toml` or
//! `~/.config/spear/contexts.toml`.
//!
//! ```toml
//! current = "lab"
//!
//! [context.lab]
//! addr = "https://spear.lab.example.org"
//! token_file = "/home/me/lab.token"      # or token = "…"
//! ca_file = "/home/me/lab.pem"
//! ```
//! The file is replaced as a whole, by a rename, and only its owner may read it. Changes take turns on a lock beside it.

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{
    Environment, output,
    show::{Column, Noun, Output, Show, cell},
};
use crate::stopped::Stopped;

const EXAMPLES: &str = "\
Examples:
  spear context set lab --addr https://spear.lab.example.org --token-file ~/lab.token
  spear context use lab
  spear --help                    every command asks that registry from now on
  spear node ls --context home    one command asks another

Flags and environment variables go before the context in use. A context's token is sent to the context's own address \
only, unless the context is named with --context.";

/// Name clusters, and choose the one that commands ask
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ContextCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// List contexts; the one in use has a star
    #[command(visible_alias = "list")]
    Ls,
    /// Show one, or the one in use
    #[command(visible_alias = "get")]
    Show {
        /// Its name [default: the one in use]
        #[arg(value_name = "CONTEXT")]
        name: Option<String>,
    },
    /// Add one, or change what is given of one; the first one is in use at once
    Set {
        /// Its name
        #[arg(value_name = "CONTEXT")]
        name: String,
        /// REST address of its registry
        #[arg(long, value_name = "HOST:PORT|URL")]
        addr: Option<String>,
        /// File with its bearer token
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Keep the token that is read from standard input
        #[arg(long, conflicts_with = "token_file")]
        token_stdin: bool,
        /// PEM file with certificates to trust beside the usual ones
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
    },
    /// Choose the one that commands ask from now on
    Use {
        /// Its name
        #[arg(value_name = "CONTEXT")]
        name: String,
    },
    /// Remove one
    #[command(visible_alias = "delete")]
    Rm {
        /// Its name
        #[arg(value_name = "CONTEXT")]
        name: String,
    },
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contexts {
    /// The one in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<String>,
    /// By name.
    #[serde(default, rename = "context")]
    pub(super) all: BTreeMap<String, Context>,
}

/// One cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Context {
    /// REST address of its registry.
    pub(super) addr: String,
    /// Where its token is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token_file: Option<PathBuf>,
    /// Its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    /// Certificates to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("addr", &self.addr)
            .field("token_file", &self.token_file)
            .finish_non_exhaustive()
    }
}

const CONTEXT: Noun = Noun {
    kind: "context",
    list: "contexts",
    id: "name",
    columns: &[
        Column::new("CURRENT", |row, _| cell::text(if row["current"] == true { "*" } else { "" })),
        Column::new("NAME", |row, _| cell::of(row, "name")),
        Column::new("ADDRESS", |row, _| cell::of(row, "addr")),
        Column::new("TOKEN", |row, _| cell::of(row, "token")),
        Column::new("CA", |row, _| cell::of(row, "ca_file")).wide(),
    ],
};

impl ContextCommand {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Stopped> {
        let show = Show::new(&self.output, environment)?;
        match self.verb {
            Verb::Ls => {
                let contexts = Contexts::read(environment)?;
                let rows: Vec<Value> = contexts.all.keys().map(|name| contexts.view(name)).collect();
                show.list(&CONTEXT, &json!({ "contexts": rows }))
            }
            Verb::Show { name } => {
                let contexts = Contexts::read(environment)?;
                let name = match (name, &contexts.current) {
                    (Some(name), _) => name,
                    (None, Some(name)) => name.clone(),
                    (None, None) => {
                        return Err(Stopped::not_found("no context is in use: `spear context use` chooses one"));
                    }
                };
                contexts.find(&name)?;
                let view = contexts.view(&name);
                show.one(&CONTEXT, &view, &view)
            }
            Verb::Set { name, addr, token_file, token_stdin, ca_file } => {
                let token = token_stdin.then(token_from_stdin).transpose()?;
                check_name(&name)?;
                // What is written is for every directory.
                let (token_file, ca_file) = (absolute(token_file)?, absolute(ca_file)?);
                let view = change(environment, |contexts| contexts.set(&name, addr, (token_file, token), ca_file))?;
                show.done(&CONTEXT, &name, "set", &view)
            }
            Verb::Use { name } => {
                let view = change(environment, |contexts| {
                    contexts.find(&name)?;
                    contexts.current = Some(name.clone());
                    Ok(contexts.view(&name))
                })?;
                show.done(&CONTEXT, &name, "in use", &view)
            }
            Verb::Rm { name } => {
                let view = change(environment, |contexts| {
                    contexts.find(&name)?;
                    let view = contexts.view(&name);
                    contexts.all.remove(&name);
                    contexts.current.take_if(|current| *current == name);
                    Ok(view)
                })?;
                show.done(&CONTEXT, &name, "removed", &view)
            }
        }
    }
}

impl Contexts {
    /// What is written; nothing is, when there is no file.
    ///
    /// # Errors
    /// The file cannot be read or is none of ours: usage, with its path.
    pub(super) fn read(environment: &Environment) -> Result<Self, Stopped> {
        match path(environment) {
            Some(path) => Self::read_from(&path),
            None => Ok(Self::default()),
        }
    }

    fn read_from(path: &Path) -> Result<Self, Stopped> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Stopped::usage(format!("cannot read {}: {error}", path.display()))),
        };
        let contexts: Self = toml::from_str(&text)
            .map_err(|error| Stopped::usage(format!("{}: {}", path.display(), error.to_string().trim())))?;
        let secret = contexts.all.values().any(|context| context.token.is_some());
        let mode = fs::metadata(path).map_or(0, |data| data.permissions().mode());
        if secret && mode & 0o077 != 0 {
            let path = path.display();
            output::hint(&format!("spear: warning: others can read the tokens in {path}: run `chmod 600 {path}`\n"));
        }
        Ok(contexts)
    }

    /// The one in use.
    pub(super) fn in_use(&self) -> Option<(&str, &Context)> {
        let name = self.current.as_deref()?;
        Some((name, self.all.get(name)?))
    }

    /// Which ones there are, as the end of a sentence.
    pub(super) fn known(&self) -> String {
        let names: Vec<&str> = self.all.keys().map(String::as_str).collect();
        match names[..] {
            [] => "and there is no context: `spear context set` adds one".to_owned(),
            _ => format!("and there are {}", names.join(", ")),
        }
    }

    fn find(&self, name: &str) -> Result<&Context, Stopped> {
        let missing = || Stopped::not_found(format!("no context is called {name:?}, {}", self.known()));
        self.all.get(name).ok_or_else(missing)
    }

    fn set(
        &mut self,
        name: &str,
        addr: Option<String>,
        (token_file, token): (Option<PathBuf>, Option<String>),
        ca_file: Option<PathBuf>,
    ) -> Result<Value, Stopped> {
        let before = self.all.remove(name);
        let Some(addr) = addr.or_else(|| before.as_ref().map(|context| context.addr.clone())) else {
            return Err(Stopped::usage(format!(
                "a new context needs an address: spear context set {name} --addr HOST:PORT"
            )));
        };
        net::Rest::new(&addr, None, None).map_err(|fault| Stopped::usage(fault.message))?;
        let mut context =
            before.unwrap_or_else(|| Context { addr: addr.clone(), token_file: None, token: None, ca_file: None });
        context.addr = addr;
        if token_file.is_some() || token.is_some() {
            (context.token_file, context.token) = (token_file, token);
        }
        context.ca_file = ca_file.or(context.ca_file);
        self.all.insert(name.to_owned(), context);
        self.current.get_or_insert_with(|| name.to_owned());
        Ok(self.view(name))
    }

    /// One as it is shown: never with the token itself.
    fn view(&self, name: &str) -> Value {
        let Some(context) = self.all.get(name) else { return Value::Null };
        let token = match (&context.token_file, &context.token) {
            (Some(path), _) => Some(path.display().to_string()),
            (None, Some(_)) => Some("stored".to_owned()),
            (None, None) => None,
        };
        json!({
            "name": name,
            "current": self.current.as_deref() == Some(name),
            "addr": context.addr,
            "token": token,
            "ca_file": context.ca_file,
        })
    }
}

/// Where the contexts are; nowhere without a home.
fn path(environment: &Environment) -> Option<PathBuf> {
    let directory = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = directory("XDG_CONFIG_HOME").or_else(|| Some(directory("HOME")?.join(".config")))?;
    Some(config.join("spear/contexts.toml"))
}

/// Reads, changes and writes; nobody else does so meanwhile.
fn change(
    environment: &Environment,
    change: impl FnOnce(&mut Contexts) -> Result<Value, Stopped>,
) -> Result<Value, Stopped> {
    let path = path(environment)
        .ok_or_else(|| Stopped::usage("there is no place for contexts: set HOME or XDG_CONFIG_HOME to a full path"))?;
    let failed = |error: io::Error| Stopped::failed(format!("cannot write {}: {error}", path.display()));
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let lock =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.with_extension("lock"));
    let lock = lock.map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut contexts = Contexts::read_from(&path)?;
    let told = change(&mut contexts)?;
    let text = toml::to_string(&contexts).map_err(Stopped::failed)?;
    write(&path, directory, &text).map_err(failed)?;
    Ok(told)
}

fn write(path: &Path, directory: &Path, text: &str) -> io::Result<()> {
    // Under the lock, so the name is ours; what a killed process left is replaced.
    let unfinished = path.with_extension("unfinished");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(directory)?.sync_all()
}

fn token_from_stdin() -> Result<String, Stopped> {
    const MOST: u64 = 8192;
    let mut text = String::new();
    let read = io::stdin().lock().take(MOST).read_to_string(&mut text);
    read.map_err(|error| Stopped::usage(format!("no token on standard input: {error}")))?;
    net::Token::from_text(&text).map_err(|error| Stopped::usage(format!("standard input: {error}")))?;
    Ok(text.trim().to_owned())
}

/// Names stand in tables and shells.
fn check_name(name: &str) -> Result<(), Stopped> {
    const LONGEST: usize = 64;
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match !name.is_empty() && name.len() <= LONGEST && name.chars().all(good) {
        true => Ok(()),
        false => Err(Stopped::usage(format!("{name:?} is no name: use up to {LONGEST} of a-z, A-Z, 0-9, - _ ."))),
    }
}

fn absolute(path: Option<PathBuf>) -> Result<Option<PathBuf>, Stopped> {
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).map_err(|error| Stopped::usage(format!("{}: {error}", path.display())))
    };
    path.map(absolute).transpose()
}

#[cfg(test)]
mod tests;
