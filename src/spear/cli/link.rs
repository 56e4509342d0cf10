//! Called by the name of a role: a link named `sms` or `spearlet` runs that role, as the original's programs did.
//!
//! `sms FLAGS` is `spear serve --role sms FLAGS`, and `spearlet FLAGS` the same for the agent. There are no commands:
//! those are under the program's own name.

use clap::{
    Arg, Command,
    error::{ContextKind, ContextValue, ErrorKind},
    value_parser,
};
use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use super::{
    serve::{ORDER, Serve},
    settings::Settings,
};
use crate::config::Roles;

const ELSEWHERE: &str = "This is the program `spear`, called by the name of the role that it runs; it has no commands here. \
                         Its other commands are listed by `spear --help`.";

/// The role that the program was called by.
pub(super) fn role(program: &OsStr) -> Option<Roles> {
    match Path::new(program).file_name()?.to_str()? {
        "sms" => Some(Roles::SMS),
        "spearlet" => Some(Roles::SPEARLET),
        _ => None,
    }
}

/// The command line of a role's program.
pub(super) fn command(role: Roles) -> Command {
    let about = match role.sms {
        true => "The registry: keeps nodes, tasks, files and executions",
        false => "The agent of a node: fetches and runs what the registry gives it",
    };
    let config = Arg::new("config").short('c').long("config").value_name("FILE");
    let command = Command::new(role.name())
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .long_about(format!("{about}.\n\n{ELSEWHERE}"))
        .after_help(ORDER)
        .max_term_width(110)
        .arg(
            config
                .value_parser(value_parser!(PathBuf))
                .help("A configuration file; goes before the one in the home directory"),
        );
    Settings::augment_of(role, command)
}

/// What to run.
///
/// # Errors
/// Help and version were asked for, or the command line is wrong.
pub(super) fn parse(role: Roles, arguments: impl IntoIterator<Item = OsString>) -> Result<Serve, clap::Error> {
    let matches = command(role).try_get_matches_from(arguments).map_err(|error| without_commands(role, error))?;
    let config = matches.get_one::<PathBuf>("config").cloned();
    Ok(Serve::one(role, config, Settings::given_of(role, &matches)))
}

/// A word where only flags are: probably a command of `spear`.
fn without_commands(role: Roles, error: clap::Error) -> clap::Error {
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(word))) if !word.starts_with('-') => {
            let name = role.name();
            let text =
                format!("{word:?} is not a flag: called as {name} the program has no commands, use `spear {word}`");
            command(role).error(ErrorKind::UnknownArgument, text)
        }
        _ => error,
    }
}
