//! How a command shows what it got: as a table, as JSON or YAML like the REST body, or by names and ids alone.
//!
//! ```text
//!   REST body ─► json, yaml: the body, keys in alphabetical order
//!             └► rows ─► table, wide: the columns of the noun      name: kind/id      --quiet: id
//! ```
//! A table is for people: ages are durations, and only words that tell a state are coloured, on a terminal or when
//! asked to. What came over the wire cannot move the cursor or colour anything: control characters are shown as such.

pub(super) mod cell;
mod surroundings;
mod table;

pub(super) use cell::{Cell, Tone};
pub(super) use surroundings::Surroundings;
pub(super) use table::Table;

use clap::{Args, ValueEnum};
use serde_json::Value;
use types::{Clock, SystemClock, Timestamp};

use super::{Environment, output};
use crate::stopped::Stopped;

/// Flags of every command that shows something.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub(super) struct Output {
    /// How to show it; json and yaml are the body of the REST answer
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
    /// Show ids only
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Leave out the line with the titles
    #[arg(long, global = true)]
    no_header: bool,
    /// When to colour; NO_COLOR and CLICOLOR_FORCE count too
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: When,
}

// The words below have no documentation of their own, so that help keeps a line for a flag.

/// A word of `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

/// A word of `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    #[default]
    Auto,
    Always,
    Never,
}

/// A kind of thing, and how a list of it looks.
#[derive(Debug)]
pub(super) struct Noun {
    /// `node`, as in `node/<id>`.
    pub(super) kind: &'static str,
    /// Member of a list's body that has the things.
    pub(super) list: &'static str,
    /// Member of a thing that is its id.
    pub(super) id: &'static str,
    /// From left to right.
    pub(super) columns: &'static [Column],
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    wide: bool,
    whole: bool,
    cell: fn(&Value, Timestamp) -> Cell,
}

impl Column {
    /// A title in capitals, and how its cell is made of a thing and the time now.
    pub(super) const fn new(title: &'static str, cell: fn(&Value, Timestamp) -> Cell) -> Self {
        Self { title, wide: false, whole: false, cell }
    }

    /// Only in wide tables.
    pub(super) const fn wide(mut self) -> Self {
        self.wide = true;
        self
    }

    /// Never cut, however narrow the terminal: an id that is cut is of no use.
    pub(super) const fn whole(mut self) -> Self {
        self.whole = true;
        self
    }
}

impl Noun {
    /// The id of a thing.
    pub(super) fn id_of(&self, row: &Value) -> String {
        cell::of(row, self.id).text
    }
}

/// How to show, as the flags and the surroundings lead to it.
#[derive(Clone, Debug)]
pub(super) struct Show {
    /// The form.
    pub(super) form: Form,
    /// Ids only, and no progress.
    pub(super) quiet: bool,
    header: bool,
    /// The terminal, if there is one.
    pub(super) surroundings: Surroundings,
}

impl Show {
    /// # Errors
    /// A variable that is not text.
    pub(super) fn new(output: &Output, environment: &Environment) -> Result<Self, Stopped> {
        let surroundings = Surroundings::of(output.color, environment)?;
        Ok(Self { form: output.output, quiet: output.quiet, header: !output.no_header, surroundings })
    }

    /// A list: the body of the REST answer.
    pub(super) fn list(&self, noun: &Noun, body: &Value) -> Result<(), Stopped> {
        let none = Vec::new();
        self.rows(noun, body, body[noun.list].as_array().unwrap_or(&none))
    }

    /// A list whose table is made of other rows than the body has.
    pub(super) fn rows(&self, noun: &Noun, body: &Value, rows: &[Value]) -> Result<(), Stopped> {
        output::say(&self.text(noun, body, rows, Self::now())?)
    }

    /// One thing: its row, and the body of the REST answer.
    pub(super) fn one(&self, noun: &Noun, row: &Value, body: &Value) -> Result<(), Stopped> {
        self.rows(noun, body, std::slice::from_ref(row))
    }

    /// Something was done to a thing: `node/<id> removed`.
    pub(super) fn done(&self, noun: &Noun, id: &str, done: &str, body: &Value) -> Result<(), Stopped> {
        match self.form {
            _ if self.quiet => output::say(&format!("{}\n", cell::plain(id))),
            Form::Name => output::say(&format!("{}/{}\n", noun.kind, cell::plain(id))),
            Form::Table | Form::Wide => output::say(&format!("{}/{} {done}\n", noun.kind, cell::plain(id))),
            Form::Json | Form::Yaml => output::say(&self.document(body)?),
        }
    }

    /// Something that is neither a thing nor a list: as JSON and YAML its body, else the text.
    pub(super) fn text_or(&self, body: &Value, text: impl FnOnce() -> String) -> Result<(), Stopped> {
        match self.form {
            Form::Json | Form::Yaml => output::say(&self.document(body)?),
            Form::Table | Form::Wide => output::say(&text()),
            Form::Name => Err(Stopped::usage("nothing here has a name: use -o table, json or yaml")),
        }
    }

    /// Is it a table?
    pub(super) fn is_table(&self) -> bool {
        !self.quiet && matches!(self.form, Form::Table | Form::Wide)
    }

    /// A table of a noun in this form.
    pub(super) fn table(&self, noun: &Noun) -> Table {
        Table::new(noun, self.form == Form::Wide, self.header, self.surroundings)
    }

    /// A table of a noun with all columns.
    pub(super) fn whole_table(&self, noun: &Noun) -> Table {
        Table::new(noun, true, self.header, self.surroundings)
    }

    /// One of many things that come one after another: a line of JSON, or a document of YAML.
    pub(super) fn line(&self, row: &Value) -> Result<String, Stopped> {
        match self.form {
            Form::Yaml => Ok(format!("---\n{}", self.document(row)?)),
            _ => Ok(format!("{row}\n")),
        }
    }

    /// What a list is shown as.
    pub(super) fn text(&self, noun: &Noun, body: &Value, rows: &[Value], now: Timestamp) -> Result<String, Stopped> {
        let lines = |line: &dyn Fn(&Value) -> String| rows.iter().map(|row| line(row) + "\n").collect();
        Ok(match self.form {
            _ if self.quiet => lines(&|row| noun.id_of(row)),
            Form::Name => lines(&|row| format!("{}/{}", noun.kind, noun.id_of(row))),
            Form::Json | Form::Yaml => self.document(body)?,
            Form::Table | Form::Wide => self.table(noun).text(rows, now),
        })
    }

    /// JSON or YAML, with a line feed at the end.
    pub(super) fn document(&self, body: &Value) -> Result<String, Stopped> {
        match self.form {
            Form::Yaml => serde_saphyr::to_string(body)
                .map(|text| if text.ends_with('\n') { text } else { text + "\n" })
                .map_err(|error| Stopped::failed(format!("the answer is not to be written as YAML: {error}"))),
            _ => serde_json::to_string_pretty(body)
                .map(|text| text + "\n")
                .map_err(|error| Stopped::failed(format!("the answer is not to be written as JSON: {error}"))),
        }
    }

    /// The time that ages are counted from.
    pub(super) fn now() -> Timestamp {
        SystemClock::new().wall()
    }
}

#[cfg(test)]
mod tests;
