//! `spear completion`, and what the shell asks when somebody presses the tab key.
//!
//! ```text
//!   source <(spear completion bash) ─► a script that asks   COMPLETE=bash spear -- spear node drain <tab>
//!                                                              │
//!   words of the commands ◄── the tree ──┤ ids and names ◄── the registry, or the contexts
//! ```
//! An argument is completed by what its value is called: `NODE`, `TASK`, `EXECUTION`, `FILE_ID`, `CONTEXT`. A registry
//! that does not answer at once answers nothing: a tab key must not block, and must not write over what was typed.

use clap::{Args, Command, Parser, ValueEnum};
use clap_complete::{
    Shell,
    engine::{ArgValueCompleter, CompletionCandidate},
    env::Shells,
};
use serde_json::Value;
use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::{Environment, client, connection::Connection, contexts::Contexts, output, show::cell};
use crate::stopped::Stopped;

/// The variable by which a shell asks.
const VARIABLE: &str = "COMPLETE";
const PATIENCE: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  source <(spear completion bash)                  in ~/.bashrc, or with zsh in ~/.zshrc
  spear completion fish > ~/.config/fish/completions/spear.fish

The script asks `spear` itself, so it knows the ids of nodes, tasks, executions and files. With --static it asks \
nobody, and knows words and flags only.";

/// Write a script that completes commands in a shell
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
    /// A script that does not ask `spear`
    #[arg(long = "static")]
    fixed: bool,
}

impl Completion {
    pub(super) fn run(self, tree: Command) -> Result<(), Stopped> {
        let mut script = Vec::new();
        if self.fixed {
            let (mut tree, name) = (tree, "spear");
            clap_complete::generate(self.shell, &mut tree, name, &mut script);
            return output::write(&script);
        }
        let name = self.shell.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let shells = Shells::builtins();
        let shell = shells.completer(&name).ok_or_else(|| Stopped::usage(format!("no script is known for {name}")))?;
        let written = shell.write_registration(VARIABLE, "spear", "spear", "spear", &mut script);
        written.map_err(Stopped::failed)?;
        output::write(&script)
    }
}

/// Does a shell ask? Then what it asks with is answered, and nothing is run.
pub(super) fn asked(environment: &Environment) -> Option<&OsStr> {
    environment.get(VARIABLE).map(|shell| &**shell).filter(|shell| !shell.is_empty() && *shell != "0")
}

/// Answers a shell: `arguments` are the program, `--`, and the words that are there so far.
pub(super) fn answer(
    shell: &OsStr,
    tree: Command,
    arguments: Vec<OsString>,
    environment: Environment,
) -> Result<(), Stopped> {
    let name = PathBuf::from(shell).file_stem().unwrap_or(shell).to_string_lossy().into_owned();
    let shells = Shells::builtins();
    let names: Vec<&str> = shells.names().collect();
    let unknown = || Stopped::usage(format!("{VARIABLE} is {name:?}: no such shell, use {}", names.join(", ")));
    let shell = shells.completer(&name).ok_or_else(unknown)?;
    let words: Vec<OsString> = arguments.into_iter().skip_while(|word| word != "--").skip(1).collect();
    let mut answer = Vec::new();
    let done = if words.is_empty() {
        shell.write_registration(VARIABLE, "spear", "spear", "spear", &mut answer)
    } else {
        let source = Arc::new(Source { connection: connection(&words), environment });
        let mut tree = completing(tree, &source);
        tree.build();
        shell.write_complete(&mut tree, words, std::env::current_dir().ok().as_deref(), &mut answer)
    };
    // Whatever is said now would be written over the line that is being typed.
    done.map_err(|_| Stopped::quietly(1))?;
    output::write(&answer)
}

/// Where ids come from.
struct Source {
    connection: Connection,
    environment: Environment,
}

/// What an argument's value is called, the list to ask, its member, and the members that are the id and a hint.
const LISTS: [(&str, &str, &str, &str, &str); 4] = [
    ("NODE", "/api/v1/nodes?limit=1000", "nodes", "uuid", "status"),
    ("TASK", "/api/v1/tasks?limit=1000", "tasks", "task_id", "name"),
    ("EXECUTION", "/api/v1/executions?limit=1000", "executions", "execution_id", "status"),
    ("FILE_ID", "/api/v1/files?limit=1000", "files", "id", "name"),
];

/// The tree, with every argument that takes an id asking for those there are.
fn completing(tree: Command, source: &Arc<Source>) -> Command {
    let tree = tree.mut_args(|arg| {
        let called = arg.get_value_names().and_then(|names| names.first()).map(|name| name.to_string());
        let source = source.clone();
        match called {
            Some(name) if name == "CONTEXT" => {
                arg.add(ArgValueCompleter::new(move |begun: &OsStr| source.contexts(begun)))
            }
            Some(name) if LISTS.iter().any(|list| list.0 == name) => {
                arg.add(ArgValueCompleter::new(move |begun: &OsStr| source.ids(&name, begun)))
            }
            _ => arg,
        }
    });
    tree.mut_subcommands(|command| completing(command, source))
}

impl Source {
    fn contexts(&self, begun: &OsStr) -> Vec<CompletionCandidate> {
        let contexts = Contexts::read(&self.environment).unwrap_or_default();
        let named = contexts.all.into_iter().map(|(name, context)| (name, context.addr));
        candidates(begun, named)
    }

    fn ids(&self, called: &str, begun: &OsStr) -> Vec<CompletionCandidate> {
        let Some((_, path, list, id, hint)) = LISTS.iter().find(|list| list.0 == called) else { return Vec::new() };
        let Ok(rest) = self.connection.open(&self.environment) else { return Vec::new() };
        let asked = async {
            let answer = tokio::time::timeout(PATIENCE, rest.get::<Value>(path)).await;
            Ok(answer.ok().and_then(Result::ok).unwrap_or_default())
        };
        let body = client::block_on(asked).unwrap_or_default();
        let rows = body[*list].as_array().cloned().unwrap_or_default();
        candidates(begun, rows.iter().map(|row| (cell::of(row, id).text, cell::of(row, hint).text)))
    }
}

fn candidates(begun: &OsStr, all: impl Iterator<Item = (String, String)>) -> Vec<CompletionCandidate> {
    let begun = begun.to_string_lossy();
    let fitting = all.filter(|(word, _)| word.starts_with(&*begun));
    fitting.map(|(word, hint)| CompletionCandidate::new(word).help(Some(hint.into()))).collect()
}

/// The flags of the connection among words that need not be a whole command yet.
fn connection(words: &[OsString]) -> Connection {
    #[derive(Parser)]
    #[command(no_binary_name = true, ignore_errors = true, disable_help_flag = true)]
    struct Flags {
        #[command(flatten)]
        connection: Connection,
    }
    const FLAGS: [&str; 4] = ["--addr", "--token-file", "--ca-file", "--context"];
    let mut found = Vec::new();
    let mut words = words.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let flag = word.split('=').next().unwrap_or_default();
        if FLAGS.contains(&flag) {
            let value = if word.contains('=') { None } else { words.next() };
            found.push(word.into_owned());
            found.extend(value.map(|value| value.into_owned()));
        }
    }
    Flags::try_parse_from(found).map(|flags| flags.connection).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_flags_of_the_connection_are_found_among_unfinished_words() {
        let words = ["spear", "node", "--addr", "h:1", "drain", "--context=lab", "x", "--token-file"];
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let found = connection(&words);
        assert_eq!((found.addr.as_deref(), found.context.as_deref()), (Some("h:1"), Some("lab")));
    }

    #[test]
    fn only_what_begins_as_typed_is_offered() {
        let all = [("abc", "x"), ("abd", "y"), ("b", "z")].map(|(word, hint)| (word.to_owned(), hint.to_owned()));
        let offered = candidates(OsStr::new("ab"), all.into_iter());
        let words: Vec<String> = offered.iter().map(|one| one.get_value().to_string_lossy().into_owned()).collect();
        assert_eq!(words, ["abc", "abd"]);
    }
}
