//! The command line.
//!
//! `serve`, `sample`, `config`, `restore`, `store`, `wasm` work on this machine; the nouns (`node`, `file`, …) are a client of the
//! public REST interface and of nothing else. One noun is one file: its words, its columns, what its verbs ask.
//!
//! Standard output has what was asked for and nothing else. An error is one line on standard error that begins
//! with `spear: ` and says what to do next. Exit codes: see [`Stopped::code`].

mod agent;
mod backup;
mod banner;
mod client;
mod cluster;
mod completion;
mod configuration;
mod connection;
mod contexts;
mod events;
mod execution;
mod file;
mod follow;
mod health;
mod input;
mod instance;
mod invoke;
mod link;
mod list;
mod manual;
mod node;
mod output;
mod progress;
mod restore;
mod run;
mod sample;
mod serve;
mod settings;
mod show;
mod simulate;
mod status;
mod store;
mod stream;
mod task;
mod top;
mod version;
mod wasm;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    process::ExitCode,
};

use crate::stopped::Stopped;

pub use banner::{Extras, banner};

const LONG_ABOUT: &str = "\
Spear runs functions on your own machines: a registry (SMS) that keeps nodes, tasks and files, and agents \
(spearlets) that fetch WebAssembly and run it.

The first five minutes:
  spear serve                     registry and agent in one process, on this machine only
  spear sample write hello        a first program, hello.wasm
  spear run hello.wasm            runs it there, and shows what it writes";

const AFTER_HELP: &str = "\
Examples:
  spear run hello.wasm                        a program, from a file to its result
  spear node ls                               which machines there are
  spear file upload hello.wasm -o json        every answer as JSON, as the REST interface gives it
  spear context set lab --addr lab:8080       another registry than the one on this machine

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 not found, 4 not allowed in, 5 in another state than it \
must be, 69 nobody answers, 74 the disk failed, 75 in use or try again, 124 time ran out, 130 Ctrl-C";

/// The environment, by name.
pub(crate) type Environment = BTreeMap<String, OsString>;

/// The program.
#[derive(Parser)]
#[command(name = "spear", version, about = "A self-hosted platform for functions", long_about = LONG_ABOUT, after_help = AFTER_HELP)]
#[command(subcommand_required = true, arg_required_else_help = true, max_term_width = 110)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Invoke(Box<invoke::Invoke>),
    Serve(serve::Serve),
    Task(task::TaskCommand),
    Execution(execution::ExecutionCommand),
    Events(events::Events),
    Node(node::NodeCommand),
    File(file::FileCommand),
    Cluster(cluster::ClusterCommand),
    Instance(instance::InstanceCommand),
    Top(top::Top),
    Status(status::Status),
    Health(health::Health),
    Context(contexts::ContextCommand),
    /// Programs to try things with, built into this one
    #[command(subcommand, after_help = "Examples:\n  spear sample ls\n  spear sample write echo - | spear run -")]
    Sample(sample::Sample),
    /// Look at the configuration
    #[command(
        subcommand,
        after_help = "Examples:\n  spear config example > spear.toml\n  spear config check --config spear.toml"
    )]
    Config(configuration::Config),
    Backup(backup::Backup),
    Restore(restore::Restore),
    /// Look after the store of a data directory that no process uses
    #[command(subcommand, after_help = "Examples:\n  spear store check ./data/sms")]
    Store(store::Store),
    Wasm(wasm::WasmCommand),
    Completion(completion::Completion),
    Man(manual::Man),
    Version(version::Version),
    /// Write every help page as one Markdown page
    #[command(hide = true)]
    DocsCli,
    #[command(hide = true)]
    Simulate(simulate::Simulate),
}

/// Runs the program; `arguments` begin with its own name.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let ended = match completion::asked(&environment).map(OsStr::to_owned) {
        Some(shell) => completion::answer(&shell, Program::command(), arguments, environment),
        None => match parse(arguments) {
            Ok(command) => command.run(environment),
            Err(error) => explain(&error),
        },
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

impl Command {
    fn run(self, environment: Environment) -> Result<(), Stopped> {
        match self {
            Self::Run(run) => run.run(&environment),
            Self::Invoke(invoke) => invoke.run(&environment),
            Self::Serve(serve) => serve.run(environment),
            Self::Task(task) => client::run(&task.client.clone(), &environment, async |client| task.run(client).await),
            Self::Execution(all) => {
                client::run(&all.client.clone(), &environment, async |client| all.run(client).await)
            }
            Self::Events(events) => {
                client::run(&events.client.clone(), &environment, async |client| events.run(client).await)
            }
            Self::Node(node) => client::run(&node.client.clone(), &environment, async |client| node.run(client).await),
            Self::File(file) => client::run(&file.client.clone(), &environment, async |client| file.run(client).await),
            Self::Cluster(all) => client::run(&all.client.clone(), &environment, async |client| all.run(client).await),
            Self::Instance(all) => agent::run(&all.agent.clone(), &environment, async |client| all.run(client).await),
            Self::Top(top) => agent::run(&top.agent.clone(), &environment, async |client| top.run(client).await),
            Self::Status(status) => {
                client::run(&status.client(), &environment, async |client| status.run(client).await)
            }
            Self::Health(health) => health.run(&environment),
            Self::Context(context) => context.run(&environment),
            Self::Sample(sample) => sample.run(),
            Self::Config(config) => config.run(environment),
            Self::Backup(backup) => backup.run(&environment),
            Self::Restore(restore) => restore.run(),
            Self::Store(store) => store.run(),
            Self::Wasm(wasm) => wasm.run(),
            Self::Completion(completion) => completion.run(Program::command()),
            Self::Man(man) => man.run(Program::command()),
            Self::Version(version) => version.run(&environment),
            Self::DocsCli => output::say(&manual::document(&Program::command())),
            Self::Simulate(simulate) => simulate.run(),
        }
    }
}

/// The command that is wanted, by the program's name and its arguments.
fn parse(arguments: Vec<OsString>) -> Result<Command, clap::Error> {
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
            let (told, page) = (told.join("; ").replace(":; ", ": "), help_for(&text));
            let misplaced = error.kind() == ErrorKind::UnknownArgument && page == "spear --help";
            let hint = if misplaced { "flags stand behind the command, as in `spear node ls -o json`; " } else { "" };
            Err(Stopped::usage(format!("{told}; {hint}see `{page}`")))
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
