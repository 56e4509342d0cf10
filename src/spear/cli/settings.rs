//! The flags of all settings, made from the table of settings.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{
    Given, Roles,
    keys::{self, Effect, Flag, Key, Kind, Side},
};

const REGISTRY: &str = "Registry (roles sms and all)";
const AGENT: &str = "Agent (roles spearlet and all)";
const SETTINGS: &str = "Settings";
const PROCESS: &str = "Process";

/// Flags that were given for settings.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(pub(super) Vec<Given>);

/// One flag.
struct Entry {
    name: &'static str,
    key: &'static Key,
    /// Does it turn its switch off?
    off: bool,
}

impl Settings {
    /// Every flag of `spear serve`.
    fn flags() -> impl Iterator<Item = Entry> {
        flagged().flat_map(|(key, flag)| {
            let on = Entry { name: flag.name, key, off: false };
            [Some(on), flag.off.map(|name| Entry { name, key, off: true })].into_iter().flatten()
        })
    }

    /// Those of a program that runs one role only: of that part, by its own short names.
    fn flags_of(roles: Roles) -> impl Iterator<Item = Entry> {
        let runs = move |key: &Key| match key.side {
            Side::Registry => roles.sms,
            Side::Agent => roles.spearlet,
            Side::Process => true,
        };
        flagged().filter(move |(key, _)| runs(key)).flat_map(move |(key, flag)| {
            let (name, off) = match flag.alone.filter(|_| !roles.sms) {
                // The agent shares the registry's word, and so the word for its opposite.
                Some(alone) => {
                    (alone, flagged().find(|(_, other)| other.name == alone).and_then(|(_, other)| other.off))
                }
                None => (flag.name, flag.off),
            };
            let on = Entry { name, key, off: false };
            [Some(on), off.map(|name| Entry { name, key, off: true })].into_iter().flatten()
        })
    }

    /// Adds the flags of a program that runs one role only.
    pub(super) fn augment_of(roles: Roles, command: Command) -> Command {
        Self::flags_of(roles).fold(command, |command, entry| command.arg(argument(&entry, false)))
    }

    /// What was given to such a program.
    pub(super) fn given_of(roles: Roles, matches: &ArgMatches) -> Self {
        Self(Self::flags_of(roles).filter_map(|entry| entry.given(matches)).collect())
    }
}

fn flagged() -> impl Iterator<Item = (&'static Key, Flag)> {
    keys::all().iter().filter_map(|key| Some((key, key.flag?)))
}

impl Entry {
    fn given(&self, matches: &ArgMatches) -> Option<Given> {
        let value = match self.off {
            true => matches.get_flag(self.name).then(|| "true".to_owned()),
            false => matches.get_one::<String>(self.name).cloned(),
        };
        value.map(|value| Given { name: self.name, value })
    }
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        Self::flags().fold(command, |command, entry| command.arg(argument(&entry, true)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(Self::flags().filter_map(|entry| entry.given(matches)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A flag of `spear serve`, where roles share some words, or of a program that runs one role.
fn argument(entry: &Entry, any_role: bool) -> Arg {
    let Entry { name, key, off } = *entry;
    let heading = match key.side {
        Side::Registry if any_role => REGISTRY,
        Side::Agent if any_role => AGENT,
        Side::Registry | Side::Agent => SETTINGS,
        Side::Process => PROCESS,
    };
    // What changes nothing is accepted, and nothing to advertise.
    let hidden = matches!(key.effect, Effect::Nothing(_));
    let arg = Arg::new(name).long(name).help_heading(heading).hide(hidden);
    if off {
        let on = flagged().find(|(_, flag)| flag.off == Some(name)).map_or(name, |(_, flag)| flag.name);
        return arg.action(ArgAction::SetTrue).help(format!("The opposite of --{on}"));
    }
    let mut arg = arg.value_name(key.kind.placeholder()).help(help(entry, any_role));
    if let Some(alias) = key.flag.and_then(|flag| flag.alias) {
        arg = arg.visible_alias(alias);
    }
    match key.kind {
        Kind::Switch => arg.num_args(0..=1).default_missing_value("true"),
        _ => arg.num_args(1),
    }
}

fn help(entry: &Entry, any_role: bool) -> String {
    let Entry { name, key, .. } = *entry;
    let mut text = key.doc.to_owned();
    if let Effect::Nothing(why) = key.effect {
        text = format!("{text} Changes nothing: {why}.");
    }
    if any_role && flagged().any(|(_, flag)| flag.alone == Some(name)) {
        text.push_str(" With --role spearlet: the agent's.");
    }
    if let Kind::Choice(words) = key.kind {
        text = format!("{text} [one of: {}]", words.join(", "));
    }
    if let Some(default) = key.default.filter(|_| key.effect == Effect::Works) {
        text = format!("{text} [default: {default}]");
    }
    match key.variables.first() {
        Some(variable) => format!("{text} [env: {variable}]"),
        None => text,
    }
}
