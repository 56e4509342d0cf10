//! Every help page in other forms: manual pages, and one page for `docs/`.

use clap::{Args, Command};
use std::{fmt::Write as _, fs, path::PathBuf};

use super::output;
use crate::stopped::Stopped;

/// Columns of the page in `docs/`, wherever it is made.
const WIDTH: usize = 100;

const OPENING: &str = "\
# The command line

Every help page of `spear`. This file is made from the program, and a test compares it:

    cargo run -q --bin spear -- docs-cli > docs/cli.md
";

/// Write manual pages: all of them into a directory, or the main one to standard output
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  spear man | man -l -\n  spear man /usr/local/share/man/man1")]
pub(super) struct Man {
    /// Directory for a page of every command; made if it is not there
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self, tree: Command) -> Result<(), Stopped> {
        let Some(directory) = self.directory else {
            let mut page = Vec::new();
            clap_mangen::Man::new(tree).render(&mut page).map_err(Stopped::failed)?;
            return output::write(&page);
        };
        let failed =
            |error: std::io::Error| Stopped::failed(format!("cannot write to {}: {error}", directory.display()));
        fs::create_dir_all(&directory).map_err(failed)?;
        clap_mangen::generate_to(tree, &directory).map_err(failed)
    }
}

/// `docs/cli.md`.
pub(super) fn document(tree: &Command) -> String {
    let mut text = OPENING.to_owned();
    for (command, page) in pages(tree) {
        write!(text, "\n## {command}\n\n```text\n{}\n```\n", page.trim_end()).expect("writing to a string cannot fail");
    }
    text
}

/// Every command that is not hidden with what its `--help` says, from the top.
fn pages(tree: &Command) -> Vec<(String, String)> {
    let mut built = tree.clone();
    built.build();
    let mut names = Vec::new();
    collect(&built, &mut names);
    let page = |name: String| {
        let asked = tree.clone().term_width(WIDTH).try_get_matches_from(name.split(' ').chain(["--help"]));
        let page = asked.err().map(|page| page.render().to_string()).unwrap_or_default();
        // A column of help that is empty ends in white space.
        let lines: Vec<&str> = page.lines().map(str::trim_end).collect();
        (name, lines.join("\n"))
    };
    names.into_iter().map(page).collect()
}

fn collect(command: &Command, names: &mut Vec<String>) {
    names.push(command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned());
    let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
    for below in below {
        collect(below, names);
    }
}
