//! The command line: `spear serve`, `spear sample`, `spear config`,
//! `spear backup`, `spear restore`, `spear store`; and links named after a role.
//!
//! Standard output has what was asked for and nothing else. An error is one line on standard error that begins
//! with `spear: ` and says what to do next. Exit codes: 0 done, or stopped as asked; 1 a task failed; 2 usage or
//! configuration; 74 the disk failed; 75 in use, or try again.

mod backup;
mod banner;
mod configuration;
mod link;
mod output;
mod restore;
mod sample;
mod serve;
mod settings;
mod store;
mod transfer;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use std::{collections::BTreeMap, ffi::OsString, process::ExitCode};

use crate::stopped::Stopped;

pub use banner::{Extras, banner};

const LONG_ABOUT: &str = "\
Spear runs functions on your own machines: a registry (SMS) that keeps nodes, tasks and files, and agents
(spearlets) that fetch WebAssembly and run it.

The first five minutes:
  spear serve --role all          registry and agent in one process, on this machine only
  spear sample write hello        a first program, hello.wasm
  curl --data-binary @hello.wasm -H 'x-file-name: hello.wasm' http://127.0.0.1:8080/api/v1/files";

/// The program.
#[derive(Parser)]
#[command(name = "spear", version, about = "A self-hosted platform for functions", long_about = LONG_ABOUT)]
#[command(subcommand_required = true, arg_required_else_help = true, max_term_width = 110)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the registry, an agent, or both
    Serve(serve::Serve),
    /// Programs to try things with, built into this one
    #[command(subcommand)]
    Sample(sample::Sample),
    /// Look at the configuration
    #[command(subcommand)]
    Config(configuration::Config),
    Backup(backup::Backup),
    Restore(restore::Restore),
    /// Look after the store of a data directory that no process uses
    #[command(subcommand)]
    Store(store::Store),
}

/// Runs the program; `arguments` begin with its own name.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: BTreeMap<String, OsString>) -> ExitCode {
    let ended = match parse(arguments) {
        Ok(Command::Serve(serve)) => serve.run(environment),
        Ok(Command::Sample(sample)) => sample.run(),
        Ok(Command::Config(config)) => config.run(environment),
        Ok(Command::Backup(backup)) => backup.run(&environment),
        Ok(Command::Restore(restore)) => restore.run(),
        Ok(Command::Store(store)) => store.run(),
        Err(error) => explain(&error),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(stopped) => {
            for line in stopped.message.lines() {
                output::complain(line);
            }
            ExitCode::from(stopped.code)
        }
    }
}

/// The command that is wanted, by the program's name and its arguments.
fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match arguments.first().and_then(|program| link::role(program)) {
        Some(role) => link::parse(role, arguments).map(Command::Serve),
        None => Program::try_parse_from(arguments).map(|program| program.command),
    }
}

/// Help and version are what was asked for; anything else is one line.
fn explain(error: &clap::Error) -> Result<(), Stopped> {
    let text = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => output::say(&text.to_string()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::hint(&text.to_string());
            Err(Stopped::usage("a command is missing: see above"))
        }
        _ => {
            let text = text.to_string();
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let told =
                lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
            let told: Vec<&str> = told.map(|line| line.strip_prefix("error: ").unwrap_or(line)).collect();
            Err(Stopped::usage(format!("{}; see `{}`", told.join("; ").replace(":; ", ": "), help_for(&text))))
        }
    }
}

/// The help page for a usage error.
fn help_for(text: &str) -> String {
    let program = Program::command();
    let usage = text.lines().find_map(|line| line.trim().strip_prefix("Usage: ")).unwrap_or("spear");
    let known = |word: &&str| !word.starts_with(['-', '<', '[']);
    let words: Vec<&str> = usage.split_whitespace().take_while(known).collect();
    let words = if words.is_empty() { vec![program.get_name()] } else { words };
    format!("{} --help", words.join(" "))
}

#[cfg(test)]
mod tests;
